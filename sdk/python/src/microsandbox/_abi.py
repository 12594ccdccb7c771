"""microsandbox.h written out for ctypes. Made by `make abi` from src.

Names are the header's, so that both can be read side by side.
"""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
    c_char,
    c_char_p,
    c_double,
    c_int32,
    c_int64,
    c_size_t,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any

MSB_ABI_VERSION = 0
MSB_OK = 0
MSB_AGAIN = 1
MSB_EOF = 2
MSB_E_INVALID = -1
MSB_E_HANDLE = -2
MSB_E_CLOSED = -3
MSB_E_BUSY = -4
MSB_E_UNSUPPORTED = -5
MSB_E_LIMIT = -6
MSB_E_IO = -7
MSB_E_INTERNAL = -8
MSB_E_PROTOCOL = -9
MSB_E_TIMED_OUT = -10
MSB_E_CONFIG = -20
MSB_E_NOT_FOUND = -21
MSB_E_EXISTS = -22
MSB_E_NOT_RUNNING = -23
MSB_E_RUNNING = -24
MSB_E_NO_DRIVER = -25
MSB_E_BOOT = -26
MSB_E_CRASHED = -27
MSB_E_EXEC_FAILED = -40
MSB_E_EXEC_TIMEOUT = -41
MSB_E_LOST = -42
MSB_E_PIPE = -43
MSB_E_NO_PROCESS = -44
MSB_E_NO_SESSION = -45
MSB_E_NOT_A_TERMINAL = -46
MSB_E_NO_IMAGE = -60
MSB_E_IMAGE_DENIED = -61
MSB_E_REGISTRY = -62
MSB_E_BAD_IMAGE = -63
MSB_E_IMAGE_IN_USE = -64
MSB_E_IMAGE_FAILED = -65
MSB_E_NO_SPACE = -66
MSB_E_NO_COMMAND = -67
MSB_E_NO_VOLUME = -100
MSB_E_VOLUME_EXISTS = -101
MSB_E_VOLUME_IN_USE = -102
MSB_E_NO_PATH = -80
MSB_E_PERMISSION = -81
MSB_E_FILESYSTEM = -82
MSB_ORIGIN_CALLER = 1
MSB_ORIGIN_HOST = 2
MSB_ORIGIN_DRIVER = 3
MSB_ORIGIN_TRANSPORT = 4
MSB_ORIGIN_AGENT = 5
MSB_ERROR_MESSAGE_LEN = 496
MSB_TRACE_ERROR = 1
MSB_TRACE_WARN = 2
MSB_TRACE_INFO = 3
MSB_TRACE_DEBUG = 4
MSB_TRACE_TRACE = 5
MSB_PHASE_RESOLVING = 1
MSB_PHASE_DOWNLOADING = 2
MSB_PHASE_UNPACKING = 3
MSB_PHASE_STARTING = 4
MSB_MOUNT_BIND = 1
MSB_MOUNT_VOLUME = 2
MSB_MOUNT_TMPFS = 3
MSB_MOUNT_DISK = 4
MSB_MOUNT_READONLY = 1
MSB_MOUNT_NOEXEC = 2
MSB_MOUNT_NOSUID = 4
MSB_MOUNT_NODEV = 8
MSB_MOUNT_OWNER = 16
MSB_MOUNT_CREATE = 32
MSB_MOUNT_ENSURE_EXISTS = 64
MSB_SANDBOX_DETACHED = 1
MSB_SANDBOX_REPLACE = 2
MSB_SANDBOX_NETWORK = 4
MSB_SANDBOX_LOG = 8
MSB_SANDBOX_REQUIRE_JAIL = 16
MSB_SANDBOX_INIT = 32
MSB_SECURITY_DEFAULT = 0
MSB_SECURITY_RESTRICTED = 1
MSB_PULL_MISSING = 0
MSB_PULL_ALWAYS = 1
MSB_PULL_NEVER = 2
MSB_STATE_CREATED = 1
MSB_STATE_RUNNING = 2
MSB_STATE_STOPPED = 3
MSB_STATE_CRASHED = 4
MSB_JAILED_YES = 1
MSB_JAILED_NO = 2
MSB_REASON_STOPPED = 1
MSB_REASON_KILLED = 2
MSB_REASON_CREATOR_GONE = 3
MSB_REASON_MAX_DURATION = 4
MSB_REASON_IDLE = 5
MSB_REASON_CRASHED = 6
MSB_REASON_BOOT_FAILED = 7
MSB_OPEN_START = 1
MSB_REMOVE_FORCE = 1
MSB_ISOLATION_HARDWARE = 1
MSB_ISOLATION_EMULATED = 2
MSB_ISOLATION_CONTAINER = 3
MSB_ISOLATION_UNCHECKED = 4
MSB_ISOLATION_GVISOR = 5
MSB_PRUNE_ALL = 1
MSB_VOLUME_DIRECTORY = 0
MSB_VOLUME_DISK = 1
MSB_EXEC_TTY = 1
MSB_EXEC_WAIT_FOR_EOF = 2
MSB_EXEC_SHELL = 4
MSB_SESSION_ID_LEN = 33
MSB_SIGNAL_GROUP = 0
MSB_SIGNAL_TREE = 1
MSB_FROM_NOW = -1
MSB_EVENT_STARTED = 1
MSB_EVENT_STDOUT = 2
MSB_EVENT_STDERR = 3
MSB_EVENT_STDIN_ERROR = 4
MSB_EVENT_EXITED = 5
MSB_EVENT_FAILED = 6
MSB_EVENT_LOST = 7
MSB_EVENT_WRITER_LEFT = 1
MSB_EVENT_CUT = 2
MSB_EXIT_CORE_DUMPED = 1
MSB_EXIT_TIMED_OUT = 2
MSB_FAILURE_NOT_FOUND = 1
MSB_FAILURE_PERMISSION_DENIED = 2
MSB_FAILURE_NOT_EXECUTABLE = 3
MSB_FAILURE_BAD_CWD = 4
MSB_FAILURE_BAD_ARGS = 5
MSB_FAILURE_RESOURCE_LIMIT = 6
MSB_FAILURE_USER_SETUP_FAILED = 7
MSB_FAILURE_OUT_OF_MEMORY = 8
MSB_FAILURE_PTY_SETUP_FAILED = 9
MSB_FAILURE_OTHER = 10
MSB_RECV_MAX = 256
MSB_OUTPUT_TRUNCATED = 4
MSB_SESSION_TTY = 1
MSB_LOG_FOLLOW = 1
MSB_LOG_STDOUT = 1
MSB_LOG_STDERR = 2
MSB_LOG_STARTED = 3
MSB_LOG_EXITED = 4
MSB_LOG_FAILED = 5
MSB_LOG_LOST = 6
MSB_LOG_OTHER = 7
MSB_LOG_INCOMPLETE = 8
MSB_FS_OP_STAT = 1
MSB_FS_OP_SET_STAT = 2
MSB_FS_OP_EXISTS = 3
MSB_FS_OP_LIST = 4
MSB_FS_OP_MKDIR = 5
MSB_FS_OP_REMOVE = 6
MSB_FS_OP_REMOVE_DIR = 7
MSB_FS_OP_RENAME = 8
MSB_FS_OP_COPY = 9
MSB_FS_OP_SYMLINK = 10
MSB_FS_OP_READ_LINK = 11
MSB_FS_OP_REAL_PATH = 12
MSB_FS_OP_READ = 13
MSB_FS_OP_WRITE = 14
MSB_FS_OP_OPEN_DIR = 15
MSB_FS_OP_READ_DIR = 16
MSB_FS_OP_CLOSE_DIR = 17
MSB_FS_OP_COPY_FROM_HOST = 18
MSB_FS_OP_COPY_TO_HOST = 19
MSB_FS_NO_FOLLOW = 1
MSB_FS_RECURSIVE = 2
MSB_FS_PARENTS = 4
MSB_FS_NO_REPLACE = 8
MSB_FS_EXISTING = 16
MSB_FS_APPEND = 32
MSB_FS_IN_PLACE = 64
MSB_FS_SYNC = 128
MSB_FS_SET_MODE = 1
MSB_FS_SET_UID = 2
MSB_FS_SET_GID = 4
MSB_FS_SET_SIZE = 8
MSB_FS_SET_ACCESSED = 16
MSB_FS_SET_MODIFIED = 32
MSB_FS_KIND_FILE = 1
MSB_FS_KIND_DIRECTORY = 2
MSB_FS_KIND_SYMLINK = 3
MSB_FS_KIND_OTHER = 4
MSB_ATTACH_DETACHED = 1

# The kind of each status that is a failure.
KIND_OF_STATUS: dict[int, str] = {
    MSB_E_INVALID: "invalid_argument",
    MSB_E_HANDLE: "closed",
    MSB_E_CLOSED: "closed",
    MSB_E_BUSY: "busy",
    MSB_E_UNSUPPORTED: "unsupported",
    MSB_E_LIMIT: "limit_reached",
    MSB_E_IO: "io",
    MSB_E_INTERNAL: "internal",
    MSB_E_PROTOCOL: "protocol",
    MSB_E_TIMED_OUT: "timed_out",
    MSB_E_CONFIG: "invalid_config",
    MSB_E_NOT_FOUND: "sandbox_not_found",
    MSB_E_EXISTS: "sandbox_already_exists",
    MSB_E_NOT_RUNNING: "sandbox_not_running",
    MSB_E_RUNNING: "sandbox_running",
    MSB_E_NO_DRIVER: "no_driver",
    MSB_E_BOOT: "boot_failed",
    MSB_E_CRASHED: "sandbox_crashed",
    MSB_E_EXEC_FAILED: "exec_failed",
    MSB_E_EXEC_TIMEOUT: "exec_timeout",
    MSB_E_LOST: "stream_lost",
    MSB_E_PIPE: "broken_pipe",
    MSB_E_NO_PROCESS: "no_such_process",
    MSB_E_NO_SESSION: "no_such_session",
    MSB_E_NOT_A_TERMINAL: "not_a_terminal",
    MSB_E_NO_IMAGE: "image_not_found",
    MSB_E_IMAGE_DENIED: "image_unauthorized",
    MSB_E_REGISTRY: "registry_unreachable",
    MSB_E_BAD_IMAGE: "image_invalid",
    MSB_E_IMAGE_IN_USE: "image_in_use",
    MSB_E_IMAGE_FAILED: "image_failed",
    MSB_E_NO_SPACE: "no_space",
    MSB_E_NO_COMMAND: "no_command",
    MSB_E_NO_VOLUME: "volume_not_found",
    MSB_E_VOLUME_EXISTS: "volume_already_exists",
    MSB_E_VOLUME_IN_USE: "volume_in_use",
    MSB_E_NO_PATH: "path_not_found",
    MSB_E_PERMISSION: "permission_denied",
    MSB_E_FILESYSTEM: "filesystem",
}


class Sized(ctypes.Structure):
    """A struct whose first field is its size. Arrays of them need it set one by one."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.struct_size = ctypes.sizeof(self)


class msb_error(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("status", c_int32),
        ("os_error", c_int32),
        ("origin", c_uint32),
        ("message", c_char * MSB_ERROR_MESSAGE_LEN),
    ]


class msb_progress(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("phase", c_uint32),
        ("layers", c_uint32),
        ("layers_done", c_uint32),
        ("bytes", c_uint64),
        ("bytes_total", c_uint64),
    ]


class msb_mount(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_uint32),
        ("flags", c_uint32),
        ("reserved", c_uint32),
        ("target", c_char_p),
        ("source", c_char_p),
        ("size", c_uint64),
        ("uid", c_uint32),
        ("gid", c_uint32),
    ]


class msb_sandbox_options(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("name", c_char_p),
        ("image", c_char_p),
        ("driver", c_char_p),
        ("workdir", c_char_p),
        ("shell", c_char_p),
        ("user", c_char_p),
        ("hostname", c_char_p),
        ("env", POINTER(c_char_p)),
        ("env_len", c_size_t),
        ("labels", POINTER(c_char_p)),
        ("labels_len", c_size_t),
        ("cpus", c_double),
        ("memory_mib", c_uint32),
        ("pids_limit", c_uint32),
        ("max_duration_ms", c_uint64),
        ("idle_timeout_ms", c_uint64),
        ("boot_timeout_ms", c_uint64),
        ("log_max_bytes", c_uint64),
        ("log_files", c_uint32),
        ("reserved", c_uint32),
        ("pull_policy", c_uint32),
        ("security", c_uint32),
        ("disk_mib", c_uint64),
        ("entrypoint", POINTER(c_char_p)),
        ("entrypoint_len", c_size_t),
        ("stop_signal", c_char_p),
        ("shm_size", c_uint64),
        ("platform", c_char_p),
        ("mounts", POINTER(msb_mount)),
        ("mounts_len", c_size_t),
    ]


class msb_bounds(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("pids", c_uint64),
        ("memory_bytes", c_uint64),
        ("disk_bytes", c_uint64),
        ("cpus", c_double),
    ]


class msb_sandbox_entry(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("state", c_uint32),
        ("isolation", c_uint32),
        ("reason", c_uint32),
        ("flags", c_uint32),
        ("jailed", c_uint32),
        ("memory_mib", c_uint32),
        ("reserved", c_uint32),
        ("cpus", c_double),
        ("created_ms", c_int64),
        ("started_ms", c_int64),
        ("name", c_char_p),
        ("image", c_char_p),
        ("driver", c_char_p),
        ("detail", c_char_p),
        ("labels", POINTER(c_char_p)),
        ("labels_len", c_size_t),
        ("command", POINTER(c_char_p)),
        ("command_len", c_size_t),
        ("missing_walls", POINTER(c_char_p)),
        ("missing_walls_len", c_size_t),
        ("bounds", POINTER(msb_bounds)),
    ]


class msb_sandbox_entries(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("entries", POINTER(POINTER(msb_sandbox_entry))),
        ("len", c_size_t),
        ("owner", c_void_p),
    ]


class msb_driver_entry(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("isolation", c_uint32),
        ("usable", c_uint32),
        ("reserved", c_uint32),
        ("name", c_char_p),
        ("why", c_char_p),
        ("hint", c_char_p),
        ("unbounded", POINTER(c_char_p)),
        ("unbounded_len", c_size_t),
    ]


class msb_driver_entries(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("entries", POINTER(POINTER(msb_driver_entry))),
        ("len", c_size_t),
        ("owner", c_void_p),
    ]


class msb_wall_entry(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("name", c_char_p),
        ("missing", c_char_p),
        ("hint", c_char_p),
    ]


class msb_wall_entries(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("entries", POINTER(POINTER(msb_wall_entry))),
        ("len", c_size_t),
        ("owner", c_void_p),
    ]


class msb_image_entry(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("layers", c_uint32),
        ("size", c_uint64),
        ("download_size", c_uint64),
        ("added_ms", c_int64),
        ("id", c_char_p),
        ("architecture", c_char_p),
        ("rootfs", c_char_p),
        ("workdir", c_char_p),
        ("user", c_char_p),
        ("names", POINTER(c_char_p)),
        ("names_len", c_size_t),
        ("digests", POINTER(c_char_p)),
        ("digests_len", c_size_t),
        ("env", POINTER(c_char_p)),
        ("env_len", c_size_t),
        ("entrypoint", POINTER(c_char_p)),
        ("entrypoint_len", c_size_t),
        ("cmd", POINTER(c_char_p)),
        ("cmd_len", c_size_t),
        ("used_by", POINTER(c_char_p)),
        ("used_by_len", c_size_t),
    ]


class msb_image_entries(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("entries", POINTER(POINTER(msb_image_entry))),
        ("len", c_size_t),
        ("owner", c_void_p),
    ]


class msb_volume_options(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_uint32),
        ("name", c_char_p),
        ("quota_mib", c_uint64),
        ("size_mib", c_uint64),
        ("labels", POINTER(c_char_p)),
        ("labels_len", c_size_t),
    ]


class msb_volume_entry(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_uint32),
        ("used", c_uint64),
        ("size", c_uint64),
        ("quota_mib", c_uint64),
        ("created_ms", c_int64),
        ("name", c_char_p),
        ("path", c_char_p),
        ("labels", POINTER(c_char_p)),
        ("labels_len", c_size_t),
        ("used_by", POINTER(c_char_p)),
        ("used_by_len", c_size_t),
    ]


class msb_volume_entries(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("entries", POINTER(POINTER(msb_volume_entry))),
        ("len", c_size_t),
        ("owner", c_void_p),
    ]


class msb_rlimit(ctypes.Structure):
    _fields_ = [
        ("resource", c_uint32),
        ("reserved", c_uint32),
        ("soft", c_uint64),
        ("hard", c_uint64),
    ]


class msb_exec_options(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("cmd", c_char_p),
        ("args", POINTER(c_char_p)),
        ("args_len", c_size_t),
        ("env", POINTER(c_char_p)),
        ("env_len", c_size_t),
        ("cwd", c_char_p),
        ("user", c_char_p),
        ("stdin_data", c_char_p),
        ("stdin_len", c_size_t),
        ("rlimits", POINTER(msb_rlimit)),
        ("rlimits_len", c_size_t),
        ("timeout_ns", c_uint64),
        ("drain_ns", c_uint64),
        ("rows", c_uint16),
        ("cols", c_uint16),
        ("reserved", c_uint32),
        ("max_output", c_uint64),
    ]


class msb_exec_exit(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("code", c_int32),
        ("signal", c_int32),
        ("flags", c_uint32),
        ("user_ns", c_uint64),
        ("system_ns", c_uint64),
        ("wall_ns", c_uint64),
        ("max_rss", c_uint64),
    ]


class msb_exec_failure(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_uint32),
        ("os_error", c_int32),
        ("reserved", c_uint32),
        ("kind_name", c_char_p),
        ("stage", c_char_p),
        ("os_error_name", c_char_p),
        ("message", c_char_p),
        ("path", c_char_p),
    ]


class msb_event(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_uint32),
        ("value", c_int64),
        ("data", c_void_p),
        ("len", c_size_t),
        ("exit", POINTER(msb_exec_exit)),
        ("failure", POINTER(msb_exec_failure)),
        ("flags", c_uint32),
        ("reserved", c_uint32),
        ("owner", c_void_p),
    ]


class msb_output(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_uint32),
        ("exit", POINTER(msb_exec_exit)),
        ("failure", POINTER(msb_exec_failure)),
        ("lost", c_void_p),
        ("lost_len", c_size_t),
        ("stdout_data", c_void_p),
        ("stdout_len", c_size_t),
        ("stdout_total", c_uint64),
        ("stderr_data", c_void_p),
        ("stderr_len", c_size_t),
        ("stderr_total", c_uint64),
        ("flags", c_uint32),
        ("reserved", c_uint32),
        ("owner", c_void_p),
    ]


class msb_exec_entry(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("pid", c_uint32),
        ("followers", c_uint32),
        ("age_ns", c_uint64),
        ("output_total", c_uint64),
        ("id", c_char_p),
        ("argv", POINTER(c_char_p)),
        ("argv_len", c_size_t),
        ("exit", POINTER(msb_exec_exit)),
    ]


class msb_exec_entries(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("entries", POINTER(POINTER(msb_exec_entry))),
        ("len", c_size_t),
        ("owner", c_void_p),
    ]


class msb_log_options(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("session", c_char_p),
        ("since_ns", c_int64),
    ]


class msb_log_record(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_uint32),
        ("time_ns", c_int64),
        ("value", c_int64),
        ("session", c_char_p),
        ("data", c_void_p),
        ("len", c_size_t),
        ("argv", POINTER(c_char_p)),
        ("argv_len", c_size_t),
        ("exit", POINTER(msb_exec_exit)),
        ("failure", POINTER(msb_exec_failure)),
        ("flags", c_uint32),
        ("reserved", c_uint32),
        ("owner", c_void_p),
    ]


class msb_fs_request(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("op", c_uint32),
        ("flags", c_uint32),
        ("set", c_uint32),
        ("path", c_char_p),
        ("to", c_char_p),
        ("user", c_char_p),
        ("offset", c_uint64),
        ("length", c_uint64),
        ("size", c_uint64),
        ("dir", c_uint64),
        ("accessed_s", c_int64),
        ("modified_s", c_int64),
        ("accessed_ns", c_uint32),
        ("modified_ns", c_uint32),
        ("mode", c_uint32),
        ("uid", c_uint32),
        ("gid", c_uint32),
        ("limit", c_uint32),
    ]


class msb_fs_entry(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("kind", c_uint32),
        ("name", c_char_p),
        ("size", c_uint64),
        ("allocated", c_uint64),
        ("links", c_uint64),
        ("inode", c_uint64),
        ("device", c_uint64),
        ("accessed_s", c_int64),
        ("modified_s", c_int64),
        ("changed_s", c_int64),
        ("created_s", c_int64),
        ("accessed_ns", c_uint32),
        ("modified_ns", c_uint32),
        ("changed_ns", c_uint32),
        ("created_ns", c_uint32),
        ("mode", c_uint32),
        ("uid", c_uint32),
        ("gid", c_uint32),
        ("type_letter", c_uint32),
    ]


class msb_fs_result(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("exists", c_uint32),
        ("dir", c_uint64),
        ("path", c_char_p),
        ("entries", POINTER(POINTER(msb_fs_entry))),
        ("len", c_size_t),
        ("owner", c_void_p),
    ]


class msb_fs_failure(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("os_error", c_int32),
        ("os_error_name", c_char_p),
        ("operation", c_char_p),
        ("path", c_char_p),
        ("owner", c_void_p),
    ]


class msb_attach_options(Sized):
    _fields_ = [
        ("struct_size", c_uint32),
        ("flags", c_uint32),
        ("exec", POINTER(msb_exec_options)),
        ("session", c_char_p),
        ("detach_keys", c_char_p),
    ]


TRACE_FN = ctypes.CFUNCTYPE(None, c_void_p, c_uint32, c_char_p, c_char_p)
DROP_FN = ctypes.CFUNCTYPE(None, c_void_p)

HANDLE = c_void_p
_OUT_HANDLE = POINTER(c_void_p)
_ERR = POINTER(msb_error)

# What each function returns and takes.
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "msb_abi_version": (c_uint32, []),
    "msb_version_string": (c_char_p, []),
    "msb_has": (c_int32, [c_char_p]),
    "msb_status_name": (c_char_p, [c_int32]),
    "msb_handle_fd": (c_int32, [c_void_p, POINTER(c_int32), _ERR]),
    "msb_handle_close": (c_int32, [c_void_p]),
    "msb_trace_set": (c_int32, [c_uint32, TRACE_FN, c_void_p, DROP_FN, _ERR]),
    "msb_sandbox_entries_release": (None, [POINTER(msb_sandbox_entries)]),
    "msb_sandbox_create": (c_int32, [POINTER(msb_sandbox_options), _OUT_HANDLE, _ERR]),
    "msb_sandbox_open": (c_int32, [c_char_p, c_uint32, _OUT_HANDLE, _ERR]),
    "msb_sandbox_wait_ready": (c_int32, [HANDLE, c_int64, _ERR]),
    "msb_sandbox_progress": (c_int32, [HANDLE, c_int64, POINTER(msb_progress), _ERR]),
    "msb_sandbox_stop": (c_int32, [HANDLE, c_uint32, _ERR]),
    "msb_sandbox_kill": (c_int32, [HANDLE, _ERR]),
    "msb_sandbox_wait": (c_int32, [HANDLE, c_int64, _ERR]),
    "msb_sandbox_info": (c_int32, [HANDLE, POINTER(msb_sandbox_entries), _ERR]),
    "msb_sandbox_list": (c_int32, [POINTER(msb_sandbox_entries), _ERR]),
    "msb_sandbox_remove": (c_int32, [c_char_p, c_uint32, _ERR]),
    "msb_doctor": (c_int32, [POINTER(msb_driver_entries), POINTER(msb_wall_entries), _ERR]),
    "msb_driver_entries_release": (None, [POINTER(msb_driver_entries)]),
    "msb_wall_entries_release": (None, [POINTER(msb_wall_entries)]),
    "msb_image_entries_release": (None, [POINTER(msb_image_entries)]),
    "msb_image_pull": (c_int32, [c_char_p, _OUT_HANDLE, _ERR]),
    "msb_image_import": (c_int32, [c_char_p, c_char_p, _OUT_HANDLE, _ERR]),
    "msb_image_load_platform": (c_int32, [c_char_p, c_char_p, c_char_p, _OUT_HANDLE, _ERR]),
    "msb_image_progress": (c_int32, [HANDLE, c_int64, POINTER(msb_progress), _ERR]),
    "msb_image_wait": (c_int32, [HANDLE, c_int64, POINTER(msb_image_entries), _ERR]),
    "msb_image_list": (c_int32, [POINTER(msb_image_entries), _ERR]),
    "msb_image_remove": (c_int32, [c_char_p, c_uint32, _ERR]),
    "msb_image_prune": (c_int32, [c_uint32, POINTER(c_uint64), _ERR]),
    "msb_volume_entries_release": (None, [POINTER(msb_volume_entries)]),
    "msb_volume_create": (c_int32, [POINTER(msb_volume_options), _ERR]),
    "msb_volume_get": (c_int32, [c_char_p, POINTER(msb_volume_entries), _ERR]),
    "msb_volume_list": (c_int32, [POINTER(msb_volume_entries), _ERR]),
    "msb_volume_remove": (c_int32, [c_char_p, _ERR]),
    "msb_exec_stream": (
        c_int32,
        [HANDLE, POINTER(msb_exec_options), _OUT_HANDLE, _OUT_HANDLE, _ERR],
    ),
    "msb_exec_id": (c_int32, [HANDLE, c_char_p, _ERR]),
    "msb_exec_signal": (c_int32, [HANDLE, c_int32, c_uint32, _ERR]),
    "msb_exec_resize": (c_int32, [HANDLE, c_uint16, c_uint16, _ERR]),
    "msb_exec_position": (c_int32, [HANDLE, POINTER(c_uint64), POINTER(c_uint64), _ERR]),
    "msb_exec_reattach": (c_int32, [HANDLE, c_char_p, c_int64, _OUT_HANDLE, _OUT_HANDLE, _ERR]),
    "msb_exec_recv": (c_int32, [HANDLE, c_int64, POINTER(msb_event), _ERR]),
    "msb_exec_recv_many": (
        c_int32,
        [HANDLE, c_int64, POINTER(msb_event), c_size_t, POINTER(c_size_t), _ERR],
    ),
    "msb_exec_wait": (c_int32, [HANDLE, c_int64, POINTER(msb_event), _ERR]),
    "msb_event_release": (None, [POINTER(msb_event)]),
    "msb_event_release_many": (None, [POINTER(msb_event), c_size_t]),
    "msb_exec_collect": (c_int32, [HANDLE, c_int64, POINTER(msb_output), _ERR]),
    "msb_output_release": (None, [POINTER(msb_output)]),
    "msb_sink_write": (c_int32, [HANDLE, c_void_p, c_size_t, c_int64, POINTER(c_size_t), _ERR]),
    "msb_exec_list": (c_int32, [HANDLE, POINTER(msb_exec_entries), _ERR]),
    "msb_exec_entries_release": (None, [POINTER(msb_exec_entries)]),
    "msb_log_open": (c_int32, [HANDLE, POINTER(msb_log_options), _OUT_HANDLE, _ERR]),
    "msb_log_recv": (c_int32, [HANDLE, c_int64, POINTER(msb_log_record), _ERR]),
    "msb_log_record_release": (None, [POINTER(msb_log_record)]),
    "msb_fs_result_release": (None, [POINTER(msb_fs_result)]),
    "msb_fs_failure_release": (None, [POINTER(msb_fs_failure)]),
    "msb_fs_start": (c_int32, [HANDLE, POINTER(msb_fs_request), _OUT_HANDLE, _ERR]),
    "msb_fs_wait": (c_int32, [HANDLE, c_int64, POINTER(msb_fs_result), _ERR]),
    "msb_fs_recv": (c_int32, [HANDLE, c_int64, c_void_p, c_size_t, POINTER(c_size_t), _ERR]),
    "msb_fs_send": (c_int32, [HANDLE, c_void_p, c_size_t, c_int64, POINTER(c_size_t), _ERR]),
    "msb_fs_finish": (c_int32, [HANDLE, _ERR]),
    "msb_fs_failed": (c_int32, [HANDLE, POINTER(msb_fs_failure), _ERR]),
    "msb_attach": (
        c_int32,
        [HANDLE, POINTER(msb_attach_options), POINTER(c_int32), POINTER(c_uint32), _ERR],
    ),
}
