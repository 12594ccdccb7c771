/* microsandbox.h - run commands in disposable sandboxes.
 *
 * MODEL     A sandbox is a virtual machine or, if asked for by name, a container. An exec is a
 *           command inside it. An exec is watched by receiving events; its input is written to a
 *           sink. The library never calls back, except for the trace (msb_trace_set).
 *           One run of a command is a session. It has an id, belongs to its sandbox and not to
 *           this process, and may be followed by several exec handles, also of other processes.
 *
 * EXAMPLE
 *     #include <microsandbox.h>
 *     #include <stdio.h>
 *
 *     int main(int argc, char **argv)
 *     {
 *         const char *args[] = {"hello"};
 *         msb_sandbox_options box = MSB_SANDBOX_OPTIONS_INIT;
 *         msb_exec_options command = MSB_EXEC_OPTIONS_INIT;
 *         msb_output output = MSB_OUTPUT_INIT;
 *         msb_error err = MSB_ERROR_INIT;
 *         msb_sandbox *sandbox = NULL;
 *         msb_exec *exec = NULL;
 *
 *         box.name = "example";
 *         box.image = argc > 1 ? argv[1] : "alpine";
 *         command.cmd = "echo";
 *         command.args = args;
 *         command.args_len = 1;
 *         if (msb_sandbox_create(&box, &sandbox, &err) < 0 ||
 *             msb_sandbox_wait_ready(sandbox, -1, &err) < 0 ||
 *             msb_exec_stream(sandbox, &command, &exec, NULL, &err) < 0 ||
 *             msb_exec_collect(exec, -1, &output, &err) < 0) {
 *             fprintf(stderr, "%s\n", err.message);
 *             return 1;
 *         }
 *         fwrite(output.stdout_data, 1, output.stdout_len, stdout);
 *         msb_output_release(&output);
 *         msb_handle_close(exec);
 *         msb_handle_close(sandbox);
 *         return msb_sandbox_remove("example", MSB_REMOVE_FORCE, &err) < 0;
 *     }
 *
 * FLOW      Output waits for its reader: a command blocks while about a mebibyte of its output is
 *           not received, or not released. Nothing is dropped. A closed handle blocks nothing.
 * HANDLES   Opaque and typed. Never dereferenced: a stale handle is MSB_E_HANDLE, never
 *           undefined behaviour. Close each once, in any order, on any thread.
 * OWNERSHIP "owned": yours, close or release it.  "borrowed": valid until the moment
 *           named, do not free.  "copied": the library kept its own; yours is free when
 *           the call returns.  "lent": the library reads yours during the call.
 *           "static": never freed.
 * ERRORS    Every fallible call returns msb_status and takes a last `err`, which may be
 *           NULL and is written on failure only. `rc < 0` is a failure; a comment names those
 *           to expect, and any call may also return MSB_E_HANDLE, MSB_E_INVALID, MSB_E_IO or
 *           MSB_E_LIMIT.
 *           Outputs, `out_*`, are written when a comment says so and left alone otherwise.
 * TIMES     A call that waits takes `timeout_ms`, an int64_t: 0 only looks, -1 waits forever, any
 *           other negative number is MSB_E_INVALID. Other durations are unsigned, in the unit that
 *           ends their name (_ms, _ns); in options, 0 means the default that the field names.
 *           Points in time are int64_t, since 1970 UTC in that unit, by the clock of the host.
 * BOOLEANS  What is on or off is a bit of a `flags`; an unknown bit is MSB_E_INVALID. The two
 *           numbers that mean yes or no, of msb_has and in `usable`, are 1 and 0.
 * THREADS   Every function may be called from any thread at any time, unless its own
 *           comment says "one thread at a time". No call holds a lock while it waits. The
 *           library's own threads are named msb-* and block every signal.
 * STRUCTS   Start each that has one from its MSB_*_INIT. Fields are only ever added at the end. A
 *           call overwrites the struct that it fills: release what it held before. A pointer with
 *           a length of 0 is NULL. Ignore kinds, states, reasons and flags that you do not know.
 * TEXT      In: NUL-terminated. A command, its arguments, variables and directory are bytes,
 *           and so is `image`; everything else is UTF-8, also a sandbox's own variables and
 *           directory. Out: as it went in.
 * FORK      After fork(), the child may only exec or _exit; a call returns
 *           MSB_E_UNSUPPORTED there.
 * FILES     Sandboxes are kept in $MSB_HOME, else $XDG_STATE_HOME/microsandbox, else
 *           ~/.local/state/microsandbox, where every process finds them by name. The programs
 *           msb-runner and msb-agent are looked for beside this program, beside this library
 *           (also in ../libexec/microsandbox) and in $PATH; $MSB_RUNNER and $MSB_AGENT name
 *           others.
 * PLATFORM  64-bit Linux. Numbers of signals, errno and limits are Linux's.
 */

#ifndef MICROSANDBOX_H
#define MICROSANDBOX_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__) || defined(__clang__)
#define MSB_MUST_USE __attribute__((warn_unused_result))
#else
#define MSB_MUST_USE
#endif

/* Makes the MSB_*_INIT of each struct: a value in C++, an initializer in C. */
#ifdef __cplusplus
#define MSB_INIT(type, ...) (type{__VA_ARGS__})
#else
#define MSB_INIT(type, ...) {__VA_ARGS__}
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- version ---- */

/// Version of the ABI that this header describes; the number in the library's soname.
#define MSB_ABI_VERSION 0

/// Returns the ABI version of the loaded library. Compare it with `MSB_ABI_VERSION`.
uint32_t msb_abi_version(void);

/// Returns the version of the library: `"0.1.0"`. Static.
const char *msb_version_string(void);

/// Returns 1 if this library has the ability with this name, which is lent, else 0; 0 for NULL.
/// Names: `"attach"`, `"fs"`, `"images"`, `"log"`, `"reattach"`, `"recv_many"`, `"session_log"`
/// and `"trace"`. `msb_doctor` lists the drivers.
int32_t msb_has(const char *ability);

/* ---- status ---- */

/// Success.
#define MSB_OK 0

/// Nothing yet: the timeout of the call expired. Call again later.
#define MSB_AGAIN 1

/// The end: nothing follows.
#define MSB_EOF 2

/// An argument is invalid: NULL where it is not allowed, an unknown flag.
#define MSB_E_INVALID (-1)

/// Not an open handle of this kind: stale, foreign, closed, or of another kind.
#define MSB_E_HANDLE (-2)

/// The handle was closed while the call waited on it.
#define MSB_E_CLOSED (-3)

/// Another thread already waits on this handle.
#define MSB_E_BUSY (-4)

/// Not supported here, by this version, or after a fork.
#define MSB_E_UNSUPPORTED (-5)

/// A limit is reached.
#define MSB_E_LIMIT (-6)

/// A system call failed; `os_error` has its errno.
#define MSB_E_IO (-7)

/// A defect of the library: a broken invariant or a panic.
#define MSB_E_INTERNAL (-8)

/// The peer violated the protocol.
#define MSB_E_PROTOCOL (-9)

/// A reply did not arrive in time.
#define MSB_E_TIMED_OUT (-10)

/// The configuration is invalid, for example a sandbox's name.
#define MSB_E_CONFIG (-20)

/// No sandbox has this name.
#define MSB_E_NOT_FOUND (-21)

/// A sandbox with this name exists.
#define MSB_E_EXISTS (-22)

/// The sandbox is not running.
#define MSB_E_NOT_RUNNING (-23)

/// The sandbox is running; the call needs a stopped one.
#define MSB_E_RUNNING (-24)

/// No driver is usable.
#define MSB_E_NO_DRIVER (-25)

/// The sandbox failed to boot.
#define MSB_E_BOOT (-26)

/// The sandbox crashed: it ended unexpectedly.
#define MSB_E_CRASHED (-27)

/// The command failed to start.
#define MSB_E_EXEC_FAILED (-40)

/// The command timed out.
#define MSB_E_EXEC_TIMEOUT (-41)

/// The connection to the sandbox was lost before the command's exit status was known.
#define MSB_E_LOST (-42)

/// The command no longer reads its input.
#define MSB_E_PIPE (-43)

/// The process has ended.
#define MSB_E_NO_PROCESS (-44)

/// The session does not exist.
#define MSB_E_NO_SESSION (-45)

/// The session has no terminal.
#define MSB_E_NOT_A_TERMINAL (-46)

/// The image is in neither the store nor the registry.
#define MSB_E_NO_IMAGE (-60)

/// The registry denied access: the credentials are missing or wrong, or the image does not exist.
#define MSB_E_IMAGE_DENIED (-61)

/// The registry cannot be reached.
#define MSB_E_REGISTRY (-62)

/// The image is corrupt, malicious, or of an unsupported kind.
#define MSB_E_BAD_IMAGE (-63)

/// A sandbox uses the image.
#define MSB_E_IMAGE_IN_USE (-64)

/// The process that pulls and unpacks images died.
#define MSB_E_IMAGE_FAILED (-65)

/// The disk is full.
#define MSB_E_NO_SPACE (-66)

/// The image has no default command.
#define MSB_E_NO_COMMAND (-67)

/// No volume has this name.
#define MSB_E_NO_VOLUME (-100)

/// A volume with this name exists.
#define MSB_E_VOLUME_EXISTS (-101)

/// A sandbox uses the volume.
#define MSB_E_VOLUME_IN_USE (-102)

/// A path does not exist.
#define MSB_E_NO_PATH (-80)

/// The user may not do this with a file.
#define MSB_E_PERMISSION (-81)

/// A file system reports an error; `os_error` has its errno.
#define MSB_E_FILESYSTEM (-82)

/// The caller: the call itself was invalid.
#define MSB_ORIGIN_CALLER 1

/// The host: this library or the system that it runs on.
#define MSB_ORIGIN_HOST 2

/// The driver, which starts and supervises the sandbox.
#define MSB_ORIGIN_DRIVER 3

/// The connection to the sandbox.
#define MSB_ORIGIN_TRANSPORT 4

/// The agent in the sandbox.
#define MSB_ORIGIN_AGENT 5

/// What a call returns: zero for success, negative for failure, positive for an outcome that is
/// neither (`MSB_AGAIN`, `MSB_EOF`).
typedef int32_t msb_status;

/// Returns the name of a status: `"MSB_E_HANDLE"`. Static; `"MSB_E_UNKNOWN"` for an unknown number.
const char *msb_status_name(msb_status status);

/* ---- error ---- */

/// Length of the text in an `msb_error`, its NUL included.
#define MSB_ERROR_MESSAGE_LEN 496

/// Why a call failed. The caller provides the storage; the library writes it only on failure. It
/// owns nothing: there is nothing to free, and reuse is safe.
typedef struct msb_error {
    /// `sizeof(msb_error)`.
    uint32_t struct_size;
    /// The status that the call returned.
    msb_status status;
    /// The `errno` of the failed system call, of the host or guest according to `origin`, else 0.
    int32_t os_error;
    /// Which part failed: one of `MSB_ORIGIN_*`.
    uint32_t origin;
    /// One line of UTF-8, cut at a character if too long.
    char message[MSB_ERROR_MESSAGE_LEN];
} msb_error;
#define MSB_ERROR_INIT \
    MSB_INIT(msb_error, sizeof(msb_error), 0, 0, 0, {0})

/* ---- handle ---- */

/// A sandbox and everything in it.
typedef struct msb_sandbox msb_sandbox;

/// A command in a sandbox, from start to exit.
typedef struct msb_exec msb_exec;

/// The write end of a command's standard input.
typedef struct msb_sink msb_sink;

/// A reader of a sandbox's log.
typedef struct msb_log msb_log;

/// An in-progress image pull or import.
typedef struct msb_image msb_image;

/// An operation on the files of a sandbox.
typedef struct msb_fs msb_fs;

/// Returns a descriptor that polls readable when a call on `handle` would not return `MSB_AGAIN`:
/// an exec has an event or its end, a sink has room or is broken, a log has a record or its end, a
/// pull is complete or failed, an operation on files has content, has room for it, or is complete or
/// failed, a sandbox is ready or failed (`msb_sandbox_wait_ready`) or, once
/// `msb_sandbox_wait` was called on it, has ended. An image and a sandbox also poll readable for
/// new progress, once `msb_image_progress` or `msb_sandbox_progress` was called.
/// Borrowed until the handle is closed: remove it from your event loop before that. Only poll it,
/// never read it; `dup` it if your loop closes what it polls. Call until `MSB_AGAIN` before polling
/// again. Spurious wake-ups are possible. Every call on the same handle returns the same
/// descriptor.
///
/// `MSB_OK`: `*out_fd` is the descriptor. `MSB_E_HANDLE`. `MSB_E_IO`: the descriptor cannot be
/// made.
MSB_MUST_USE
msb_status msb_handle_fd(const void *handle,
                         int32_t *out_fd,
                         struct msb_error *err);

/// Closes any handle, in any order, from any thread. Calls that wait on it return `MSB_E_CLOSED` at
/// once. NULL is a no-op.
///
/// Closing a sandbox or an exec stops nothing in the sandbox: commands continue to run. Closing a
/// sink ends the command's input. Closing a log stops its reader. Closing an operation on files gives
/// it up. Closing an image, or a sandbox
/// whose image is still being pulled, cancels the pull; downloaded layers are kept for the next
/// one.
///
/// `MSB_OK`. `MSB_E_HANDLE`: not an open handle, also if it is closed twice.
msb_status msb_handle_close(void *handle);

/* ---- trace ---- */

/// A failure that no call reports.
#define MSB_TRACE_ERROR 1

/// A degraded condition; the library continues.
#define MSB_TRACE_WARN 2

/// Life cycle of sandboxes only.
#define MSB_TRACE_INFO 3

/// Steps of the protocol.
#define MSB_TRACE_DEBUG 4

/// All messages.
#define MSB_TRACE_TRACE 5

/// Receives a message of the library. `level` is one of `MSB_TRACE_*`; `target`, a part of the
/// library, and `message`, one line of UTF-8, are lent.
typedef void (*msb_trace_fn)(void *user_data,
                             uint32_t level,
                             const char *target,
                             const char *message);

/// Called when `user_data` is no longer used.
typedef void (*msb_drop_fn)(void *user_data);

/// Sends messages of the library, up to `level`, to `trace`, on a library thread and one at a time;
/// NULL, the default, discards them. `trace` must not call any `msb_*` function. It may block:
/// messages that exceed the queue are counted and dropped. Input, output, arguments and environment
/// of commands never appear; `msb_log_open` reads the recorded output of a sandbox. `user_data` is
/// lent until `drop` is called.
/// When this returns, the previous function has received every message from before this call, is
/// not running and will not be called again, and its `drop`, which may be NULL, was called. If this
/// fails, `user_data` stays the caller's.
///
/// `MSB_OK`. `MSB_E_INVALID`: no such level. `MSB_E_BUSY`: another thread is in this call.
/// `MSB_E_UNSUPPORTED`: called by `trace` itself; or the host is a Rust program with its own
/// subscriber of the `tracing` crate.
MSB_MUST_USE
msb_status msb_trace_set(uint32_t level,
                         msb_trace_fn trace,
                         void *user_data,
                         msb_drop_fn drop,
                         struct msb_error *err);

/* ---- progress ---- */

/// Resolves the name.
#define MSB_PHASE_RESOLVING 1

/// Downloads the layers.
#define MSB_PHASE_DOWNLOADING 2

/// Unpacks the layers.
#define MSB_PHASE_UNPACKING 3

/// The image is complete, and the sandbox starts.
#define MSB_PHASE_STARTING 4

/// Progress of an image pull or import.
typedef struct msb_progress {
    /// `sizeof(msb_progress)`.
    uint32_t struct_size;
    /// One of `MSB_PHASE_*`. Ignore unknown phases.
    uint32_t phase;
    /// Number of layers; 0 while unknown.
    uint32_t layers;
    /// Number of layers completed in this phase.
    uint32_t layers_done;
    /// Number of bytes completed in this phase.
    uint64_t bytes;
    /// Number of bytes in this phase; 0 while unknown.
    uint64_t bytes_total;
} msb_progress;
#define MSB_PROGRESS_INIT \
    MSB_INIT(msb_progress, sizeof(msb_progress), 0, 0, 0, 0, 0)

/* ---- sandbox ---- */

/// A directory or a file of the host.
#define MSB_MOUNT_BIND 1

/// A named volume.
#define MSB_MOUNT_VOLUME 2

/// An empty filesystem in memory.
#define MSB_MOUNT_TMPFS 3

/// The filesystem in a file: of the caller, or of the sandbox.
#define MSB_MOUNT_DISK 4

/// It cannot be written.
#define MSB_MOUNT_READONLY 1

/// Its programs cannot be run.
#define MSB_MOUNT_NOEXEC 2

/// Set-user-ID bits are ignored, with the flag or without.
#define MSB_MOUNT_NOSUID 4

/// Device files are ignored, with the flag or without.
#define MSB_MOUNT_NODEV 8

/// What belongs to the caller belongs to `uid` and `gid` inside, instead of root.
#define MSB_MOUNT_OWNER 16

/// The volume is created, and must not exist.
#define MSB_MOUNT_CREATE 32

/// The volume is created if it does not exist.
#define MSB_MOUNT_ENSURE_EXISTS 64

/// The sandbox outlives the process that creates it.
#define MSB_SANDBOX_DETACHED 1

/// An existing sandbox with this name is killed and removed first.
#define MSB_SANDBOX_REPLACE 2

/// The sandbox has network access. A driver that cannot provide it fails with `MSB_E_CONFIG`.
#define MSB_SANDBOX_NETWORK 4

/// The output of its sessions is recorded in a log, which `msb_log_open` and `msb logs` read.
#define MSB_SANDBOX_LOG 8

/// The start fails if a wall of the jail is missing. `MSB_REQUIRE_JAIL=1` in the environment does
/// so for every sandbox.
#define MSB_SANDBOX_REQUIRE_JAIL 16

/// Reap orphans and forward signals, as docker's `--init` does. Every sandbox does so, with the flag
/// or without.
#define MSB_SANDBOX_INIT 32

/// Commands in a virtual machine have all privileges of root, in their own kernel.
#define MSB_SECURITY_DEFAULT 0

/// Commands in a virtual machine have only the privileges of a container.
#define MSB_SECURITY_RESTRICTED 1

/// Pull if the image is not in the store.
#define MSB_PULL_MISSING 0

/// Pull each time; unchanged layers are not downloaded again.
#define MSB_PULL_ALWAYS 1

/// Never pull: the image must be in the store.
#define MSB_PULL_NEVER 2

/// Never started.
#define MSB_STATE_CREATED 1

/// Running.
#define MSB_STATE_RUNNING 2

/// Stopped or killed on request, or by its options.
#define MSB_STATE_STOPPED 3

/// Ended unexpectedly.
#define MSB_STATE_CRASHED 4

/// Every process of the sandbox on the host, except its supervisor, is in a jail with all walls.
#define MSB_JAILED_YES 1

/// At least one wall is missing.
#define MSB_JAILED_NO 2

/// Stopped on request.
#define MSB_REASON_STOPPED 1

/// Killed on request.
#define MSB_REASON_KILLED 2

/// The sandbox was not detached, and the process that created it ended.
#define MSB_REASON_CREATOR_GONE 3

/// It reached its maximum duration.
#define MSB_REASON_MAX_DURATION 4

/// It reached its idle timeout.
#define MSB_REASON_IDLE 5

/// It crashed.
#define MSB_REASON_CRASHED 6

/// It failed to boot.
#define MSB_REASON_BOOT_FAILED 7

/// Start the sandbox with its existing files.
#define MSB_OPEN_START 1

/// Kill a running sandbox first.
#define MSB_REMOVE_FORCE 1

/// A mount of a new sandbox. All pointers are lent.
typedef struct msb_mount {
    /// `sizeof(msb_mount)`; the same for all of an array.
    uint32_t struct_size;
    /// One of `MSB_MOUNT_BIND` to `MSB_MOUNT_DISK`.
    uint32_t kind;
    /// `MSB_MOUNT_READONLY` and the like.
    uint32_t flags;
    /// Zero.
    uint32_t reserved;
    /// Lent. The absolute path in the sandbox, bytes.
    const char *target;
    /// Lent. The path on the host, bytes; the name of a volume; NULL for a tmpfs, and for a disk of
    /// the sandbox's own.
    const char *source;
    /// The size in bytes of a tmpfs (0: half of the memory), or of a disk of the sandbox's own.
    uint64_t size;
    /// With `MSB_MOUNT_OWNER`: a user of the sandbox.
    uint32_t uid;
    /// With `MSB_MOUNT_OWNER`: a group of the sandbox.
    uint32_t gid;
} msb_mount;
#define MSB_MOUNT_INIT \
    MSB_INIT(msb_mount, sizeof(msb_mount), 0, 0, 0, NULL, NULL, 0, 0, 0)

/// Options of a new sandbox. Zero means default, except for `name` and `image`.
///
/// All pointers are lent. Texts are NUL-terminated.
typedef struct msb_sandbox_options {
    /// `sizeof(msb_sandbox_options)`.
    uint32_t struct_size;
    /// `MSB_SANDBOX_*`.
    uint32_t flags;
    /// Lent. 1 to 128 letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
    const char *name;
    /// Lent. A text that begins with `/`, `./` or `../`, or that contains a slash and names an
    /// existing file, is a path: of a directory, which is the root filesystem and is never
    /// modified, or of an archive. Any other text is the name of an image in the store or in a
    /// registry, as in docker: `"python:3.12"`.
    const char *image;
    /// Lent. `"container"`, for example; NULL: `MSB_DRIVER`, else the first usable driver with
    /// strong isolation (by hardware or by gVisor).
    const char *driver;
    /// Lent. Default working directory of commands; NULL: the image's, else `/`.
    const char *workdir;
    /// Lent. Shell for scripts; NULL: the image's, else `/bin/sh`.
    const char *shell;
    /// Lent. Default user of commands: `name`, `uid`, `name:group` or `uid:gid`; NULL: the image's,
    /// else root.
    const char *user;
    /// Lent. Host name; NULL: the sandbox's name.
    const char *hostname;
    /// Lent. `env_len` texts `NAME=value`, for every command; they override the image's.
    const char *const *env;
    /// Number of elements.
    size_t env_len;
    /// Lent. `labels_len` texts `KEY=value`, which the library only stores. Of two with the same
    /// key the last one counts.
    const char *const *labels;
    /// Number of elements.
    size_t labels_len;
    /// Number of processors, whole or a fraction such as 0.5, at most 4096; 0: the driver's
    /// default.
    double cpus;
    /// Memory in MiB, 16 to 16,777,216; 0: 2,048 or half of the host's, whichever is less.
    uint32_t memory_mib;
    /// Maximum number of concurrent processes and threads, at least 8; 0: 4,096.
    uint32_t pids_limit;
    /// Kill the sandbox after this many milliseconds; 0: never.
    uint64_t max_duration_ms;
    /// Stop the sandbox when no command has run in it for this many milliseconds; 0: never.
    uint64_t idle_timeout_ms;
    /// Timeout of the start, in milliseconds; 0: 30,000.
    uint64_t boot_timeout_ms;
    /// With `MSB_SANDBOX_LOG`: maximum size of one file of the log in bytes, at least 524,288. 0,
    /// and no `log_files`: 4 files of 16 MiB.
    uint64_t log_max_bytes;
    /// With `MSB_SANDBOX_LOG`: maximum number of files, 2 to 10,000; the oldest is deleted for a
    /// new one.
    uint32_t log_files;
    /// Zero.
    uint32_t reserved;
    /// When to pull the image: one of `MSB_PULL_*`.
    uint32_t pull_policy;
    /// Privileges of commands in a virtual machine: one of `MSB_SECURITY_*`.
    uint32_t security;
    /// Size of the upper layer in MiB, 16 to 16,777,216; 0: 32,768.
    uint64_t disk_mib;
    /// Lent. `entrypoint_len` texts, a program and its arguments, instead of the image's entrypoint
    /// and default command; one empty text: no entrypoint.
    const char *const *entrypoint;
    /// How many; 0: the image's.
    size_t entrypoint_len;
    /// Lent. Signal that asks the process of each session to end when the sandbox is stopped:
    /// `"SIGINT"`, `"INT"`, `"2"` or `"RTMIN+3"`; NULL: the image's, else SIGTERM for every process.
    const char *stop_signal;
    /// Size of `/dev/shm` in bytes, at least 65,536 and at most the memory, of which it is a part; 0:
    /// 64 MiB.
    uint64_t shm_size;
    /// Lent. Platform of the image, such as `"linux/arm64"` or `"linux/arm/v7"`; NULL: that of this
    /// host. An image whose programs this host cannot run is refused: `MSB_E_BAD_IMAGE`.
    const char *platform;
    /// Lent. `mounts_len` mounts, in any order.
    const struct msb_mount *mounts;
    /// Number of elements.
    size_t mounts_len;
} msb_sandbox_options;
#define MSB_SANDBOX_OPTIONS_INIT \
    MSB_INIT(msb_sandbox_options, sizeof(msb_sandbox_options), 0, NULL, NULL, NULL, NULL, NULL, \
             NULL, NULL, NULL, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, NULL, 0, \
             NULL, NULL, 0)

/// Resource limits of a sandbox; 0 for unlimited.
typedef struct msb_bounds {
    /// `sizeof(msb_bounds)` of the library.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Maximum number of concurrent processes and threads.
    uint64_t pids;
    /// Memory in bytes.
    uint64_t memory_bytes;
    /// Size of the upper layer in bytes.
    uint64_t disk_bytes;
    /// Number of processors; may be fractional.
    double cpus;
} msb_bounds;

/// A sandbox. All pointers are borrowed until the list is released.
typedef struct msb_sandbox_entry {
    /// `sizeof(msb_sandbox_entry)` of the library.
    uint32_t struct_size;
    /// One of `MSB_STATE_*`.
    uint32_t state;
    /// One of `MSB_ISOLATION_*`; 0 if it was never started.
    uint32_t isolation;
    /// Why it ended: one of `MSB_REASON_*`; 0 if it has not.
    uint32_t reason;
    /// `MSB_SANDBOX_DETACHED` or 0.
    uint32_t flags;
    /// One of `MSB_JAILED_*`; 0 if it never booted.
    uint32_t jailed;
    /// Requested memory in MiB; 0: not set.
    uint32_t memory_mib;
    /// Zero.
    uint32_t reserved;
    /// Requested number of processors; 0: not set.
    double cpus;
    /// When it was created, in milliseconds since 1970.
    int64_t created_ms;
    /// When it was last started, in milliseconds since 1970; 0: never.
    int64_t started_ms;
    /// Borrowed. Its name.
    const char *name;
    /// Borrowed. Its image, a name or a path: bytes.
    const char *image;
    /// Borrowed. The driver that runs it, or ran it last; NULL if it was never started.
    const char *driver;
    /// Borrowed. Details of its end, one line; NULL if there are none.
    const char *detail;
    /// Borrowed. `labels_len` texts `KEY=value`.
    const char *const *labels;
    /// Number of elements.
    size_t labels_len;
    /// Borrowed. `command_len` texts: the image's default command, its entrypoint followed by its
    /// command. Commands started by a caller do not use it.
    const char *const *command;
    /// Number of elements; 0 if the image has none.
    size_t command_len;
    /// Borrowed. `missing_walls_len` texts: the missing walls of the jail, each with the reason.
    const char *const *missing_walls;
    /// Number of elements.
    size_t missing_walls_len;
    /// Borrowed. The limits in force; NULL if it never booted.
    const struct msb_bounds *bounds;
} msb_sandbox_entry;

/// A list of sandboxes.
typedef struct msb_sandbox_entries {
    /// `sizeof(msb_sandbox_entries)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Borrowed until `msb_sandbox_entries_release`. `len` pointers.
    const struct msb_sandbox_entry *const *entries;
    /// Number of elements.
    size_t len;
    /// The library's. Do not touch.
    void *owner;
} msb_sandbox_entries;
#define MSB_SANDBOX_ENTRIES_INIT \
    MSB_INIT(msb_sandbox_entries, sizeof(msb_sandbox_entries), 0, NULL, 0, NULL)

/// Releases a list of sandboxes. NULL and a released list are no-ops; afterwards the list is empty.
/// Any thread.
void msb_sandbox_entries_release(struct msb_sandbox_entries *list);

/// Creates and starts a sandbox. Returns at once; `msb_sandbox_wait_ready` reports the result.
///
/// `options` is lent. Without `MSB_SANDBOX_DETACHED` the sandbox ends, within two seconds, when
/// this process does. Closing the handle while the image is pulled cancels creation; after the pull
/// it has no effect.
///
/// `MSB_OK`: `*out_sandbox` is owned. `MSB_E_INVALID`: an invalid option. `MSB_E_IO`: a thread or
/// descriptor cannot be made. `msb_sandbox_wait_ready` reports later failures, such as an existing
/// name (`MSB_E_EXISTS`) or an invalid one (`MSB_E_CONFIG`).
MSB_MUST_USE
msb_status msb_sandbox_create(const struct msb_sandbox_options *options,
                              struct msb_sandbox **out_sandbox,
                              struct msb_error *err);

/// Opens a sandbox of any process by its name, which is lent, running or not. Returns at once;
/// `msb_sandbox_wait_ready` reports the result.
///
/// `MSB_OK`: `*out_sandbox` is owned. `MSB_E_INVALID`: `name` is NULL, or an unknown flag.
/// `msb_sandbox_wait_ready` reports that no such sandbox exists (`MSB_E_NOT_FOUND`), that the name
/// is invalid (`MSB_E_CONFIG`) or, with `MSB_OPEN_START`, that it already runs (`MSB_E_RUNNING`).
MSB_MUST_USE
msb_status msb_sandbox_open(const char *name,
                            uint32_t flags,
                            struct msb_sandbox **out_sandbox,
                            struct msb_error *err);

/// Waits until a sandbox is created, started or found, up to `timeout_ms`.
///
/// `MSB_OK`: a created or started sandbox runs commands; one that was only opened may be running or
/// not, see `msb_sandbox_info`. `MSB_AGAIN`: not yet. Any failure is final; expect `MSB_E_EXISTS`,
/// `MSB_E_NO_DRIVER` and `MSB_E_BOOT`. Later calls return the same, and so does every other call on
/// the handle.
MSB_MUST_USE
msb_status msb_sandbox_wait_ready(struct msb_sandbox *sandbox,
                                  int64_t timeout_ms,
                                  struct msb_error *err);

/// Returns the progress of the image pull of a sandbox that is being created, if it changed since
/// the last call. Waits up to `timeout_ms`. A slow reader misses intermediate steps, but not the
/// end. From the first call on, and until the sandbox is ready, the descriptor of the handle also
/// polls readable for new progress.
///
/// `MSB_OK`: `*out_progress` is filled. `MSB_AGAIN`: no change. `MSB_EOF`: no further progress;
/// `msb_sandbox_wait_ready` returns the result without waiting. An image that is a directory, and a
/// sandbox that was opened, have no progress.
MSB_MUST_USE
msb_status msb_sandbox_progress(struct msb_sandbox *sandbox,
                                int64_t timeout_ms,
                                struct msb_progress *out_progress,
                                struct msb_error *err);

/// Stops the sandbox: signals its commands to exit, kills them after `grace_ms`, and ends the
/// sandbox. Waits until that is done, without a time limit. The handle stays open; closing it
/// meanwhile ends the wait, not the stop.
///
/// `MSB_OK`: it ended by this call. `MSB_E_NOT_RUNNING`: it had already ended, or is not ready yet.
/// `MSB_E_CRASHED`: it crashed first.
MSB_MUST_USE
msb_status msb_sandbox_stop(struct msb_sandbox *sandbox,
                            uint32_t grace_ms,
                            struct msb_error *err);

/// Kills the sandbox and everything that runs in it. The handle stays open; closing it meanwhile
/// ends the wait, not the kill. A pending creation is undone: an image pull is cancelled, otherwise
/// this waits for the sandbox and kills it.
///
/// `MSB_OK`: it ended by this call. `MSB_E_NOT_RUNNING`: it had already ended. `MSB_E_CRASHED`: it
/// crashed first. After a failed creation, the status of `msb_sandbox_wait_ready`; `MSB_E_CLOSED`
/// if this call cancelled it.
MSB_MUST_USE msb_status msb_sandbox_kill(struct msb_sandbox *sandbox, struct msb_error *err);

/// Waits until the sandbox has ended, up to `timeout_ms`. From the first call on, the descriptor of
/// the handle polls readable when the sandbox has ended, and no longer when it is ready.
///
/// `MSB_OK`: it was stopped or killed, or reached a time limit of its options; `msb_sandbox_info`
/// has the reason. `MSB_AGAIN`: not yet. `MSB_E_CRASHED`: it crashed. `MSB_E_NOT_RUNNING`: it was
/// never started, or is not ready yet. `MSB_E_CLOSED`: the handle was closed meanwhile. Once this
/// has returned the end, it always returns the same, also after the sandbox was started again.
MSB_MUST_USE
msb_status msb_sandbox_wait(struct msb_sandbox *sandbox,
                            int64_t timeout_ms,
                            struct msb_error *err);

/// Returns the current state of the sandbox, as a list of one entry.
///
/// `MSB_OK`: `*out_list` is filled; release it with `msb_sandbox_entries_release`.
/// `MSB_E_NOT_FOUND`: it was removed. `MSB_E_NOT_RUNNING`: it is not ready yet.
MSB_MUST_USE
msb_status msb_sandbox_info(struct msb_sandbox *sandbox,
                            struct msb_sandbox_entries *out_list,
                            struct msb_error *err);

/// Lists all sandboxes, sorted by name, running or not.
///
/// `MSB_OK`: `*out_list` is filled; release it with `msb_sandbox_entries_release`. `MSB_E_IO`: they
/// cannot be read.
MSB_MUST_USE
msb_status msb_sandbox_list(struct msb_sandbox_entries *out_list,
                            struct msb_error *err);

/// Removes a stopped sandbox and its files. `name` is lent. Handles on it stay open;
/// `msb_sandbox_info` then returns `MSB_E_NOT_FOUND`.
///
/// `MSB_OK`. `MSB_E_NOT_FOUND`. `MSB_E_RUNNING`: stop it first, or pass `MSB_REMOVE_FORCE`.
MSB_MUST_USE msb_status msb_sandbox_remove(const char *name, uint32_t flags, struct msb_error *err);

/* ---- doctor ---- */

/// A virtual machine that the processor isolates.
#define MSB_ISOLATION_HARDWARE 1

/// A virtual machine in software.
#define MSB_ISOLATION_EMULATED 2

/// A container: the kernel is shared.
#define MSB_ISOLATION_CONTAINER 3

/// A virtual machine on a host that skips the check for hardware isolation.
#define MSB_ISOLATION_UNCHECKED 4

/// gVisor: a kernel in user space, which needs no hardware virtualization.
#define MSB_ISOLATION_GVISOR 5

/// A driver, as probed on this host. All pointers are borrowed until the list is released.
typedef struct msb_driver_entry {
    /// `sizeof(msb_driver_entry)` of the library.
    uint32_t struct_size;
    /// One of `MSB_ISOLATION_*`.
    uint32_t isolation;
    /// 1 if it is usable, else 0.
    uint32_t usable;
    /// Zero.
    uint32_t reserved;
    /// Borrowed. Its name.
    const char *name;
    /// Borrowed. Backend details if usable, else the reason; one line.
    const char *why;
    /// Borrowed. A remedy; NULL if none is known.
    const char *hint;
    /// Borrowed. `unbounded_len` texts: the resources that it cannot limit, each with the reason.
    const char *const *unbounded;
    /// Number of elements.
    size_t unbounded_len;
} msb_driver_entry;

/// A list of drivers.
typedef struct msb_driver_entries {
    /// `sizeof(msb_driver_entries)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Borrowed until `msb_driver_entries_release`. `len` pointers.
    const struct msb_driver_entry *const *entries;
    /// Number of elements.
    size_t len;
    /// The library's. Do not touch.
    void *owner;
} msb_driver_entries;
#define MSB_DRIVER_ENTRIES_INIT \
    MSB_INIT(msb_driver_entries, sizeof(msb_driver_entries), 0, NULL, 0, NULL)

/// A wall of the jail. All pointers are borrowed until the list is released.
typedef struct msb_wall_entry {
    /// `sizeof(msb_wall_entry)` of the library.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Borrowed. Its name, such as `"seccomp"`.
    const char *name;
    /// Borrowed. Why it is unavailable on this host, one line; NULL if it is available.
    const char *missing;
    /// Borrowed. A remedy; NULL if none is known.
    const char *hint;
} msb_wall_entry;

/// A list of walls of the jail.
typedef struct msb_wall_entries {
    /// `sizeof(msb_wall_entries)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Borrowed until `msb_wall_entries_release`. `len` pointers.
    const struct msb_wall_entry *const *entries;
    /// Number of elements.
    size_t len;
    /// The library's. Do not touch.
    void *owner;
} msb_wall_entries;
#define MSB_WALL_ENTRIES_INIT \
    MSB_INIT(msb_wall_entries, sizeof(msb_wall_entries), 0, NULL, 0, NULL)

/// Probes this host: lists the drivers in order of preference, and the walls of the jail.
///
/// `MSB_OK`: `*out_drivers` is filled; release it with `msb_driver_entries_release`. So is
/// `*out_walls` unless `out_walls` is NULL; release it with `msb_wall_entries_release`.
MSB_MUST_USE
msb_status msb_doctor(struct msb_driver_entries *out_drivers,
                      struct msb_wall_entries *out_walls,
                      struct msb_error *err);

/// Releases a list of drivers. NULL and a released list are no-ops; afterwards the list is empty.
/// Any thread.
void msb_driver_entries_release(struct msb_driver_entries *list);

/// Releases a list of walls. NULL and a released list are no-ops; afterwards the list is empty. Any
/// thread.
void msb_wall_entries_release(struct msb_wall_entries *list);

/* ---- image ---- */

/// Also remove images that have a name.
#define MSB_PRUNE_ALL 1

/// An image in the store. All pointers are borrowed until the list is released.
typedef struct msb_image_entry {
    /// `sizeof(msb_image_entry)` of the library.
    uint32_t struct_size;
    /// Number of layers.
    uint32_t layers;
    /// Size of its files in bytes.
    uint64_t size;
    /// Size of its layers in bytes, as downloaded.
    uint64_t download_size;
    /// When it was added to the store, in milliseconds since 1970.
    int64_t added_ms;
    /// Borrowed. Its id: `sha256:` and 64 digits.
    const char *id;
    /// Borrowed. Its processor architecture, such as `amd64`.
    const char *architecture;
    /// Borrowed. Its root filesystem, a directory that must not be modified: bytes.
    const char *rootfs;
    /// Borrowed. Its working directory; NULL for none.
    const char *workdir;
    /// Borrowed. Its user; NULL for root.
    const char *user;
    /// Borrowed. `names_len` names, in their shortest form.
    const char *const *names;
    /// Number of elements.
    size_t names_len;
    /// Borrowed. `digests_len` digests that registries use for it.
    const char *const *digests;
    /// Number of elements.
    size_t digests_len;
    /// Borrowed. `env_len` texts `NAME=value`.
    const char *const *env;
    /// Number of elements.
    size_t env_len;
    /// Borrowed. `entrypoint_len` texts: its entrypoint.
    const char *const *entrypoint;
    /// Number of elements.
    size_t entrypoint_len;
    /// Borrowed. `cmd_len` texts: its default command, or arguments of the entrypoint.
    const char *const *cmd;
    /// Number of elements.
    size_t cmd_len;
    /// Borrowed. `used_by_len` names of the sandboxes that use it, running or stopped.
    const char *const *used_by;
    /// Number of elements.
    size_t used_by_len;
} msb_image_entry;

/// A list of images.
typedef struct msb_image_entries {
    /// `sizeof(msb_image_entries)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Borrowed until `msb_image_entries_release`. `len` pointers.
    const struct msb_image_entry *const *entries;
    /// Number of elements.
    size_t len;
    /// The library's. Do not touch.
    void *owner;
} msb_image_entries;
#define MSB_IMAGE_ENTRIES_INIT \
    MSB_INIT(msb_image_entries, sizeof(msb_image_entries), 0, NULL, 0, NULL)

/// Releases a list of images. NULL and a released list are no-ops; afterwards the list is empty.
/// Any thread.
void msb_image_entries_release(struct msb_image_entries *list);

/// Pulls an image from its registry, also if it is in the store; unchanged layers are not
/// downloaded again. `name` is lent, such as `"python:3.12"`. Returns at once; `msb_image_wait`
/// returns the result, `msb_image_progress` the progress. Closing the handle cancels the pull.
///
/// `MSB_OK`: `*out_image` is owned. `MSB_E_INVALID`: `name` is NULL. `MSB_E_CONFIG`: it is not a
/// valid image name, or the configuration of registries is invalid.
MSB_MUST_USE
msb_status msb_image_pull(const char *name,
                          struct msb_image **out_image,
                          struct msb_error *err);

/// Imports an image from a file or directory: an archive of a root filesystem, the output of
/// `docker save`, or an OCI layout; uncompressed, or compressed with gzip or zstd. `path` is lent,
/// bytes. `name` is lent; NULL: the name in the archive, if it has one. Otherwise like
/// `msb_image_pull`.
///
/// `MSB_OK`: `*out_image` is owned. `MSB_E_INVALID`: `path` is NULL. `MSB_E_CONFIG`: nothing exists
/// at `path`, or `name` is not a valid image name.
MSB_MUST_USE
msb_status msb_image_import(const char *path,
                            const char *name,
                            struct msb_image **out_image,
                            struct msb_error *err);

/// Pulls or imports an image for a platform, such as `"linux/arm64"` or `"linux/arm/v7"`, which is
/// lent. With `path`, as `msb_image_import`; with `path` NULL, as `msb_image_pull`.
///
/// `MSB_OK`: `*out_image` is owned. `MSB_E_INVALID`: `platform` is NULL, or `path` and `name` are.
/// `MSB_E_CONFIG`: it is not a platform, or as those functions.
MSB_MUST_USE
msb_status msb_image_load_platform(const char *path,
                                   const char *name,
                                   const char *platform,
                                   struct msb_image **out_image,
                                   struct msb_error *err);

/// Returns the progress, if it changed since the last call. Waits up to `timeout_ms`. A slow reader
/// misses steps, and never the end. From the first call on, the descriptor of the handle also polls
/// readable for new progress.
///
/// `MSB_OK`: `*out_progress` is filled. `MSB_AGAIN`: no change. `MSB_EOF`: no further progress;
/// `msb_image_wait` returns the result without waiting.
MSB_MUST_USE
msb_status msb_image_progress(struct msb_image *image,
                              int64_t timeout_ms,
                              struct msb_progress *out_progress,
                              struct msb_error *err);

/// Waits until a pull or import is complete, up to `timeout_ms`.
///
/// `MSB_OK`: `*out_list` describes the image; release it with `msb_image_entries_release`.
/// `MSB_AGAIN`: not yet. Any failure is final; expect `MSB_E_NO_IMAGE`, `MSB_E_IMAGE_DENIED` and
/// `MSB_E_REGISTRY`. Later calls return the same.
MSB_MUST_USE
msb_status msb_image_wait(struct msb_image *image,
                          int64_t timeout_ms,
                          struct msb_image_entries *out_list,
                          struct msb_error *err);

/// Lists all images in the store, newest first.
///
/// `MSB_OK`: `*out_list` is filled; release it with `msb_image_entries_release`. `MSB_E_IO`: the
/// store cannot be read.
MSB_MUST_USE msb_status msb_image_list(struct msb_image_entries *out_list, struct msb_error *err);

/// Removes a name of an image, and the image with its last name. `name` is lent; an id stands for
/// all names. With `MSB_REMOVE_FORCE`, an image in use loses its names, too; the image itself is
/// kept as long as a sandbox uses it.
///
/// `MSB_OK`. `MSB_E_NO_IMAGE`. `MSB_E_IMAGE_IN_USE`: a sandbox uses it.
MSB_MUST_USE msb_status msb_image_remove(const char *name, uint32_t flags, struct msb_error *err);

/// Removes every unused image without a name, and partial downloads. Waits for pulls and imports in
/// progress.
///
/// `MSB_OK`: `*out_freed`, which may be NULL, is the approximate number of bytes freed. `MSB_E_IO`:
/// something cannot be removed.
MSB_MUST_USE msb_status msb_image_prune(uint32_t flags, uint64_t *out_freed, struct msb_error *err);

/* ---- volume ---- */

/// A directory, which sandboxes can share.
#define MSB_VOLUME_DIRECTORY 0

/// A filesystem in a file of a fixed size, for one running sandbox at a time.
#define MSB_VOLUME_DISK 1

/// Options of a new volume. All pointers are lent.
typedef struct msb_volume_options {
    /// `sizeof(msb_volume_options)`.
    uint32_t struct_size;
    /// One of `MSB_VOLUME_*`.
    uint32_t kind;
    /// Lent. 1 to 128 letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
    const char *name;
    /// How much a directory should hold, in MiB; it is reported and not enforced. 0: unset.
    uint64_t quota_mib;
    /// Size of a disk in MiB, 16 to 16,777,216.
    uint64_t size_mib;
    /// Lent. `labels_len` texts `KEY=value`.
    const char *const *labels;
    /// Number of elements.
    size_t labels_len;
} msb_volume_options;
#define MSB_VOLUME_OPTIONS_INIT \
    MSB_INIT(msb_volume_options, sizeof(msb_volume_options), 0, NULL, 0, 0, NULL, 0)

/// A volume. All pointers are borrowed until the list is released.
typedef struct msb_volume_entry {
    /// `sizeof(msb_volume_entry)` of the library.
    uint32_t struct_size;
    /// One of `MSB_VOLUME_*`.
    uint32_t kind;
    /// Bytes that its files take on disk, as far as the caller may read them.
    uint64_t used;
    /// Size of a disk in bytes; 0 for a directory.
    uint64_t size;
    /// How much a directory should hold, in MiB; 0: unset.
    uint64_t quota_mib;
    /// When it was created, in milliseconds since 1970.
    int64_t created_ms;
    /// Borrowed. Its name.
    const char *name;
    /// Borrowed. Its directory, or the file of a disk: bytes.
    const char *path;
    /// Borrowed. `labels_len` texts `KEY=value`.
    const char *const *labels;
    /// Number of elements.
    size_t labels_len;
    /// Borrowed. `used_by_len` names of the sandboxes that use it, running or stopped.
    const char *const *used_by;
    /// Number of elements.
    size_t used_by_len;
} msb_volume_entry;

/// A list of volumes.
typedef struct msb_volume_entries {
    /// `sizeof(msb_volume_entries)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Borrowed until `msb_volume_entries_release`. `len` pointers.
    const struct msb_volume_entry *const *entries;
    /// Number of elements.
    size_t len;
    /// The library's. Do not touch.
    void *owner;
} msb_volume_entries;
#define MSB_VOLUME_ENTRIES_INIT \
    MSB_INIT(msb_volume_entries, sizeof(msb_volume_entries), 0, NULL, 0, NULL)

/// Releases a list of volumes. NULL and a released list are no-ops; afterwards the list is empty.
/// Any thread.
void msb_volume_entries_release(struct msb_volume_entries *list);

/// Creates a volume.
///
/// `MSB_OK`. `MSB_E_VOLUME_EXISTS`. `MSB_E_CONFIG`: the name or an option is not valid.
MSB_MUST_USE
msb_status msb_volume_create(const struct msb_volume_options *options,
                             struct msb_error *err);

/// Finds a volume by its name, which is lent.
///
/// `MSB_OK`: `*out_list` has one entry; release it with `msb_volume_entries_release`.
/// `MSB_E_NO_VOLUME`.
MSB_MUST_USE
msb_status msb_volume_get(const char *name,
                          struct msb_volume_entries *out_list,
                          struct msb_error *err);

/// Lists all volumes, sorted by name.
///
/// `MSB_OK`: `*out_list` is filled; release it with `msb_volume_entries_release`. `MSB_E_IO`: a
/// record cannot be read.
MSB_MUST_USE msb_status msb_volume_list(struct msb_volume_entries *out_list, struct msb_error *err);

/// Removes a volume with its files. `name` is lent.
///
/// `MSB_OK`. `MSB_E_NO_VOLUME`. `MSB_E_VOLUME_IN_USE`: a sandbox uses it, running or stopped.
MSB_MUST_USE msb_status msb_volume_remove(const char *name, struct msb_error *err);

/* ---- exec ---- */

/// The command gets a terminal; standard output then carries its standard error, too.
#define MSB_EXEC_TTY 1

/// Forward output until every writer has closed it, without a time limit.
#define MSB_EXEC_WAIT_FOR_EOF 2

/// `cmd` is a script for the sandbox's shell, as with `sh -c`: the first of `args` is its `$0`, the
/// second its `$1`.
#define MSB_EXEC_SHELL 4

/// Length of a session id with its NUL: 32 hexadecimal digits.
#define MSB_SESSION_ID_LEN 33

/// Only the command's process group. The default.
#define MSB_SIGNAL_GROUP 0

/// All processes that the command started, also those that left its group.
#define MSB_SIGNAL_TREE 1

/// Position for `msb_exec_reattach`: only new output.
#define MSB_FROM_NOW (-1)

/// The limits of a resource. `UINT64_MAX` is unlimited.
typedef struct msb_rlimit {
    /// Linux's `RLIMIT_*` number, 0 to 15.
    uint32_t resource;
    /// Zero.
    uint32_t reserved;
    /// The soft limit, in force.
    uint64_t soft;
    /// The hard limit, up to which the command may raise the soft one.
    uint64_t hard;
} msb_rlimit;

/// Options of a command. Zero means default, except for `cmd`. All pointers are lent.
typedef struct msb_exec_options {
    /// `sizeof(msb_exec_options)`.
    uint32_t struct_size;
    /// `MSB_EXEC_*`.
    uint32_t flags;
    /// Lent. The program: a path, or a name to look up in the command's own `PATH`.
    const char *cmd;
    /// Lent. `args_len` arguments, without the program.
    const char *const *args;
    /// Number of elements.
    size_t args_len;
    /// Lent. `env_len` texts `NAME=value`, which override the sandbox's; of two with the same name
    /// the last one counts.
    const char *const *env;
    /// Number of elements.
    size_t env_len;
    /// Lent. Working directory; NULL: the sandbox's.
    const char *cwd;
    /// Lent. `name`, `uid`, `name:group` or `uid:gid`; NULL: the sandbox's.
    const char *user;
    /// Copied. Standard input: `stdin_len` bytes, then end of file; not together with a sink.
    const uint8_t *stdin_data;
    /// Length in bytes.
    size_t stdin_len;
    /// Lent. `rlimits_len` resource limits.
    const struct msb_rlimit *rlimits;
    /// Number of elements.
    size_t rlimits_len;
    /// Kill the command and everything it started after this many nanoseconds; 0: never.
    uint64_t timeout_ns;
    /// How long to forward the output of background processes after the exit, in nanoseconds; 0:
    /// 250 ms.
    uint64_t drain_ns;
    /// Rows of the terminal; 0: 24.
    uint16_t rows;
    /// Columns of the terminal; 0: 80.
    uint16_t cols;
    /// Zero.
    uint32_t reserved;
    /// `msb_exec_collect` keeps at most this many bytes of each stream and counts the rest; 0: all.
    uint64_t max_output;
} msb_exec_options;
#define MSB_EXEC_OPTIONS_INIT \
    MSB_INIT(msb_exec_options, sizeof(msb_exec_options), 0, NULL, NULL, 0, NULL, 0, NULL, NULL, \
             NULL, 0, NULL, 0, 0, 0, 0, 0, 0, 0)

/// Starts a command. Returns at once; `msb_exec_recv` reports its events, also a failure to start.
///
/// `options` is lent. With `out_stdin`, `msb_sink_write` writes its input; with `out_stdin` NULL it
/// is `stdin_data` if given, else `/dev/null`.
///
/// `MSB_OK`: `*out_exec` and, if requested, `*out_stdin` are owned. `MSB_E_INVALID`: an invalid
/// option. `MSB_E_NOT_RUNNING`: the sandbox has ended, or is not ready yet.
MSB_MUST_USE
msb_status msb_exec_stream(struct msb_sandbox *sandbox,
                           const struct msb_exec_options *options,
                           struct msb_exec **out_exec,
                           struct msb_sink **out_stdin,
                           struct msb_error *err);

/// Returns the session id of a command: 32 hexadecimal digits and a NUL, never reused. It is the
/// same in every language, in logs and in `msb`.
///
/// `MSB_OK`: `out_id` holds `MSB_SESSION_ID_LEN` bytes. `MSB_E_HANDLE`.
MSB_MUST_USE
msb_status msb_exec_id(const struct msb_exec *exec,
                       char *out_id,
                       struct msb_error *err);

/// Sends a signal to a command, and waits until the agent has sent it. `SIGKILL` with
/// `MSB_SIGNAL_TREE` kills everything that the command started. Works while the output is unread.
///
/// `MSB_OK`: sent. `MSB_E_INVALID`: no such signal. `MSB_E_NO_PROCESS`: the command has ended.
/// `MSB_E_LOST`: the connection to the sandbox was lost. `MSB_E_CLOSED`: the handle was closed
/// meanwhile.
MSB_MUST_USE
msb_status msb_exec_signal(const struct msb_exec *exec,
                           int32_t signal,
                           uint32_t flags,
                           struct msb_error *err);

/// Resizes a command's terminal, and waits until the agent has done so. The command gets SIGWINCH.
///
/// `MSB_OK`. `MSB_E_NOT_A_TERMINAL`: it has no terminal. `MSB_E_NO_PROCESS`: the command has ended.
MSB_MUST_USE
msb_status msb_exec_resize(const struct msb_exec *exec,
                           uint16_t rows,
                           uint16_t cols,
                           struct msb_error *err);

/// Returns this handle's position in the session's output: the offset after the last byte that it
/// has received, collected or discarded, counting both streams together. `msb_exec_reattach` can
/// continue there. `*out_missed` is the number of bytes that were requested of `msb_exec_reattach`
/// and are no longer buffered. `out_missed` may be NULL.
///
/// `MSB_OK`. `MSB_E_HANDLE`.
MSB_MUST_USE
msb_status msb_exec_position(const struct msb_exec *exec,
                             uint64_t *out_position,
                             uint64_t *out_missed,
                             struct msb_error *err);

/// Follows a session of this process or another one that runs, or that ended recently.
///
/// `id` is lent. `from` is a position of `msb_exec_position`, 0 for the first byte, or
/// `MSB_FROM_NOW`; a position beyond the output means the same. About the last mebibyte of the
/// output is buffered; if that begins after `from`, `msb_exec_position` returns how many bytes are
/// missing. The events are STARTED, the output from there on, and the same end for every follower.
/// Any number of handles may follow one session; one that is not read blocks the command for all of
/// them.
///
/// `MSB_OK`: `*out_exec` is owned, and so is `*out_stdin` if `out_stdin` is not NULL; `*out_stdin`
/// is NULL if the session's input is closed. Closing any of the session's sinks ends its input.
/// `MSB_E_NO_SESSION`: not known in this sandbox, which is reported after a second because the
/// session may be about to start; or it ended too long ago. `MSB_E_INVALID`: not a session id.
MSB_MUST_USE
msb_status msb_exec_reattach(struct msb_sandbox *sandbox,
                             const char *id,
                             int64_t from,
                             struct msb_exec **out_exec,
                             struct msb_sink **out_stdin,
                             struct msb_error *err);

/* ---- event ---- */

/// The command is running; `value` is its process id in the guest.
#define MSB_EVENT_STARTED 1

/// `data` holds bytes of standard output; with a terminal, of all output.
#define MSB_EVENT_STDOUT 2

/// `data` holds bytes of standard error.
#define MSB_EVENT_STDERR 3

/// The command no longer reads its input; `value` is the guest's `errno`. It may continue to run.
#define MSB_EVENT_STDIN_ERROR 4

/// The command exited; `value` is its exit code, -1 if a signal killed it; `exit` has details. Only
/// output of background processes may follow.
#define MSB_EVENT_EXITED 5

/// The command failed to start; `value` is the guest's `errno`; `failure` has details. Last event.
#define MSB_EVENT_FAILED 6

/// The connection to the sandbox was lost; the exit status is unknown. `data` holds the reason, one
/// line. Last event.
#define MSB_EVENT_LOST 7

/// At the end of the stream: a background process still had the output open.
#define MSB_EVENT_WRITER_LEFT 1

/// At the end of the stream: the connection was lost after the exit.
#define MSB_EVENT_CUT 2

/// Of an exit: the command dumped core.
#define MSB_EXIT_CORE_DUMPED 1

/// Of an exit: the command was killed by its timeout.
#define MSB_EXIT_TIMED_OUT 2

/// The program does not exist.
#define MSB_FAILURE_NOT_FOUND 1

/// This user may not execute the program.
#define MSB_FAILURE_PERMISSION_DENIED 2

/// Not an executable format, or its interpreter is missing.
#define MSB_FAILURE_NOT_EXECUTABLE 3

/// The working directory cannot be entered.
#define MSB_FAILURE_BAD_CWD 4

/// Arguments or environment are too long, or the path cannot be resolved.
#define MSB_FAILURE_BAD_ARGS 5

/// A limit on processes or descriptors, or a failed `setrlimit`.
#define MSB_FAILURE_RESOURCE_LIMIT 6

/// The user or group is unknown, or may not be assumed.
#define MSB_FAILURE_USER_SETUP_FAILED 7

/// Out of memory.
#define MSB_FAILURE_OUT_OF_MEMORY 8

/// A pseudo-terminal cannot be opened.
#define MSB_FAILURE_PTY_SETUP_FAILED 9

/// Any other failure.
#define MSB_FAILURE_OTHER 10

/// Maximum number of events that one call of `msb_exec_recv_many` returns.
#define MSB_RECV_MAX 256

/// Exit status and resource usage of a command, including children that it waited for.
typedef struct msb_exec_exit {
    /// `sizeof(msb_exec_exit)` of the library.
    uint32_t struct_size;
    /// Exit code; -1 if a signal killed it.
    int32_t code;
    /// Number of the signal that killed it; 0 for none.
    int32_t signal;
    /// `MSB_EXIT_*`.
    uint32_t flags;
    /// CPU time in user mode, in nanoseconds.
    uint64_t user_ns;
    /// CPU time in the kernel, in nanoseconds.
    uint64_t system_ns;
    /// Time from start to exit, in nanoseconds.
    uint64_t wall_ns;
    /// Maximum resident set size, in bytes.
    uint64_t max_rss;
} msb_exec_exit;

/// Why a command failed to start. All pointers are borrowed until `msb_event_release`, and never
/// NULL.
typedef struct msb_exec_failure {
    /// `sizeof(msb_exec_failure)` of the library.
    uint32_t struct_size;
    /// One of `MSB_FAILURE_*`.
    uint32_t kind;
    /// The guest's `errno`; 0 if no system call failed.
    int32_t os_error;
    /// Zero.
    uint32_t reserved;
    /// Borrowed. Name of the kind, such as `"not_found"`.
    const char *kind_name;
    /// Borrowed. The step that failed, such as `"execve"` or `"chdir"`.
    const char *stage;
    /// Borrowed. Name of the errno, such as `"ENOENT"`; empty if it is 0.
    const char *os_error_name;
    /// Borrowed. One line of text.
    const char *message;
    /// Borrowed. The program, directory or name that the step concerned: bytes.
    const char *path;
} msb_exec_failure;

/// One event of a command.
typedef struct msb_event {
    /// `sizeof(msb_event)`.
    uint32_t struct_size;
    /// One of `MSB_EVENT_*`, 0 at the end of the stream. Ignore kinds that you do not know.
    uint32_t kind;
    /// A number whose meaning depends on `kind`.
    int64_t value;
    /// Bytes, not text: borrowed until `msb_event_release`. NULL if there are none.
    const uint8_t *data;
    /// Length in bytes.
    size_t len;
    /// With `MSB_EVENT_EXITED`, borrowed until `msb_event_release`; else NULL.
    const struct msb_exec_exit *exit;
    /// With `MSB_EVENT_FAILED`, borrowed until `msb_event_release`; else NULL.
    const struct msb_exec_failure *failure;
    /// At the end of the stream: `MSB_EVENT_WRITER_LEFT`, `MSB_EVENT_CUT`.
    uint32_t flags;
    /// Zero.
    uint32_t reserved;
    /// The library's. Do not touch.
    void *owner;
} msb_event;
#define MSB_EVENT_INIT \
    MSB_INIT(msb_event, sizeof(msb_event), 0, 0, NULL, 0, NULL, NULL, 0, 0, NULL)

/// Receives the next event. Waits up to `timeout_ms`.
///
/// The events of a command are STARTED, any number of STDOUT, STDERR and STDIN_ERROR, and one of
/// EXITED, FAILED and LOST; FAILED comes without STARTED. A failed call loses no event. One thread
/// at a time.
///
/// `MSB_OK`: `*out_event` is filled; release it with `msb_event_release`. `MSB_AGAIN`: nothing yet.
/// `MSB_EOF`: the end of the stream; `out_event->flags` has details, and there is nothing to
/// release. `MSB_E_BUSY`: another thread waits. `MSB_E_CLOSED`: the handle was closed meanwhile.
MSB_MUST_USE
msb_status msb_exec_recv(struct msb_exec *exec,
                         int64_t timeout_ms,
                         struct msb_event *out_event,
                         struct msb_error *err);

/// Receives the available events, up to `capacity` and `MSB_RECV_MAX`; waits for the first like
/// `msb_exec_recv`. `events` is an array of at least one, each element started from
/// `MSB_EVENT_INIT`, so that all have the same size. One thread at a time.
///
/// `MSB_OK`: the first `*out_len` elements are filled, at least one; release each, or all with
/// `msb_event_release_many`. `MSB_AGAIN`: nothing yet. `MSB_EOF`: the end of the stream; `*out_len`
/// is 0 and `events[0].flags` has details. `MSB_E_BUSY` and `MSB_E_CLOSED` as with `msb_exec_recv`.
MSB_MUST_USE
msb_status msb_exec_recv_many(struct msb_exec *exec,
                              int64_t timeout_ms,
                              struct msb_event *events,
                              size_t capacity,
                              size_t *out_len,
                              struct msb_error *err);

/// Waits until the command has exited, up to `timeout_ms`, and discards its output until then. One
/// thread at a time.
///
/// `MSB_OK`: `*out_event` is its EXITED, FAILED or LOST, also when it was received before; release
/// it with `msb_event_release`. `msb_exec_recv` does not return it again, but continues after it
/// with the output of background processes. `MSB_AGAIN`: not yet; the output so far is discarded.
/// `MSB_E_BUSY` and `MSB_E_CLOSED` as with `msb_exec_recv`.
MSB_MUST_USE
msb_status msb_exec_wait(struct msb_exec *exec,
                         int64_t timeout_ms,
                         struct msb_event *out_event,
                         struct msb_error *err);

/// Releases an event's bytes, and with them the credit for the command to write more. Any thread,
/// any order, also after the exec was closed. NULL, an event that was never filled and a released
/// one are no-ops.
///
/// Afterwards the event's pointers are NULL.
void msb_event_release(struct msb_event *event);

/// Releases the first `len` events of an array, each as `msb_event_release` does. All of them have
/// the same size; they need not be filled.
void msb_event_release_many(struct msb_event *events, size_t len);

/* ---- output ---- */

/// Of an output: `max_output` truncated it.
#define MSB_OUTPUT_TRUNCATED 4

/// Exit status and collected output of a command. All pointers are borrowed until
/// `msb_output_release`.
typedef struct msb_output {
    /// `sizeof(msb_output)`.
    uint32_t struct_size;
    /// How it ended: `MSB_EVENT_EXITED`, `MSB_EVENT_FAILED` or `MSB_EVENT_LOST`.
    uint32_t kind;
    /// With `MSB_EVENT_EXITED`; else NULL. `MSB_EXIT_TIMED_OUT` in its flags reports a timeout.
    const struct msb_exec_exit *exit;
    /// With `MSB_EVENT_FAILED`; else NULL.
    const struct msb_exec_failure *failure;
    /// With `MSB_EVENT_LOST`, the reason, one line of `lost_len` bytes; else NULL.
    const uint8_t *lost;
    /// Length in bytes.
    size_t lost_len;
    /// Standard output; with a terminal, all output. NULL if it is empty.
    const uint8_t *stdout_data;
    /// Length in bytes.
    size_t stdout_len;
    /// Bytes written to standard output, including those beyond `max_output`.
    uint64_t stdout_total;
    /// Standard error. NULL if it is empty.
    const uint8_t *stderr_data;
    /// Length in bytes.
    size_t stderr_len;
    /// Bytes written to standard error, including those beyond `max_output`.
    uint64_t stderr_total;
    /// `MSB_OUTPUT_TRUNCATED`, `MSB_EVENT_WRITER_LEFT`, `MSB_EVENT_CUT`.
    uint32_t flags;
    /// Zero.
    uint32_t reserved;
    /// The library's. Do not touch.
    void *owner;
} msb_output;
#define MSB_OUTPUT_INIT \
    MSB_INIT(msb_output, sizeof(msb_output), 0, NULL, NULL, NULL, 0, NULL, 0, 0, NULL, 0, 0, 0, 0, \
             NULL)

/// Waits for the exit of a command and the end of its output, up to `timeout_ms`, and collects the
/// output that was not received before. One thread at a time.
///
/// A command that failed to start, timed out or lost its sandbox is not a failure of this call:
/// `out_output->kind` and `out_output->exit` report it, together with the output so far. The
/// command continues to run if the caller stops waiting; `msb_exec_signal` kills it.
///
/// `MSB_OK`: `*out_output` is filled; release it with `msb_output_release`. Afterwards
/// `msb_exec_recv` returns `MSB_EOF`, and a second output has the same end and no bytes.
/// `MSB_AGAIN`: not yet; the next call continues with what was collected. `MSB_E_BUSY` and
/// `MSB_E_CLOSED` as with `msb_exec_recv`.
MSB_MUST_USE
msb_status msb_exec_collect(struct msb_exec *exec,
                            int64_t timeout_ms,
                            struct msb_output *out_output,
                            struct msb_error *err);

/// Releases an output. NULL and a released one are no-ops; afterwards its pointers are NULL. Any
/// thread, also after the exec was closed.
void msb_output_release(struct msb_output *output);

/* ---- sink ---- */

/// Writes to a command's standard input. Waits for room up to `timeout_ms`. `data` is copied.
/// Writing no bytes is a no-op.
///
/// `MSB_OK`: `*out_written` bytes were accepted, at least 1 unless `len` is 0, perhaps fewer than
/// `len`: call again with the rest. `MSB_AGAIN`: no room. `MSB_E_PIPE`: the command no longer
/// reads. `MSB_E_CLOSED`: the sink was closed meanwhile. `MSB_E_LOST`.
MSB_MUST_USE
msb_status msb_sink_write(struct msb_sink *sink,
                          const uint8_t *data,
                          size_t len,
                          int64_t timeout_ms,
                          size_t *out_written,
                          struct msb_error *err);

/* ---- session ---- */

/// Of a session: it has a terminal.
#define MSB_SESSION_TTY 1

/// A session. All pointers are borrowed until the list is released.
typedef struct msb_exec_entry {
    /// `sizeof(msb_exec_entry)` of the library.
    uint32_t struct_size;
    /// `MSB_SESSION_TTY` or 0.
    uint32_t flags;
    /// Process id in the guest.
    uint32_t pid;
    /// Number of handles that follow it.
    uint32_t followers;
    /// Time since it started, in nanoseconds.
    uint64_t age_ns;
    /// Number of bytes of output.
    uint64_t output_total;
    /// Borrowed. Session id.
    const char *id;
    /// Borrowed. `argv_len` texts: the program and its arguments, truncated if very long.
    const char *const *argv;
    /// Number of elements.
    size_t argv_len;
    /// Borrowed. Its exit status; NULL while it runs.
    const struct msb_exec_exit *exit;
} msb_exec_entry;

/// A list of sessions.
typedef struct msb_exec_entries {
    /// `sizeof(msb_exec_entries)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Borrowed until `msb_exec_entries_release`. `len` pointers.
    const struct msb_exec_entry *const *entries;
    /// Number of elements.
    size_t len;
    /// The library's. Do not touch.
    void *owner;
} msb_exec_entries;
#define MSB_EXEC_ENTRIES_INIT \
    MSB_INIT(msb_exec_entries, sizeof(msb_exec_entries), 0, NULL, 0, NULL)

/// Lists the commands that run in a sandbox, and those that ended recently.
///
/// `MSB_OK`: `*out_list` is filled; release it with `msb_exec_entries_release`.
/// `MSB_E_NOT_RUNNING`: the sandbox has ended, or is not ready yet. `MSB_E_LOST`.
MSB_MUST_USE
msb_status msb_exec_list(struct msb_sandbox *sandbox,
                         struct msb_exec_entries *out_list,
                         struct msb_error *err);

/// Releases a list of sessions. NULL and a released list are no-ops; afterwards the list is empty.
/// Any thread.
void msb_exec_entries_release(struct msb_exec_entries *list);

/* ---- log ---- */

/// Continue with new records until the sandbox ends.
#define MSB_LOG_FOLLOW 1

/// `data` holds bytes of standard output of the session; with a terminal, of all output.
#define MSB_LOG_STDOUT 1

/// `data` holds bytes of standard error of the session.
#define MSB_LOG_STDERR 2

/// The session started; `value` is its process id in the guest, `argv` its command.
#define MSB_LOG_STARTED 3

/// The session ended; `value` is its exit code, -1 if a signal killed it; `exit` has details,
/// without resource usage, which the log does not record. All output of the command itself precedes
/// this record.
#define MSB_LOG_EXITED 4

/// The session failed to start; `value` is the guest's `errno`; `failure` has details, without
/// `path`, which the log does not record. `argv` is its command.
#define MSB_LOG_FAILED 5

/// The connection to the sandbox was lost; how the session ended is unknown.
#define MSB_LOG_LOST 6

/// A record of a later version of the library.
#define MSB_LOG_OTHER 7

/// The end of an incomplete log, without a session. `data` says what is missing, in one line of
/// text: files that were deleted because the log was full, before this reader reached them; or the
/// end, which could not be written.
#define MSB_LOG_INCOMPLETE 8

/// The part of a log to read. Zero means all of it.
typedef struct msb_log_options {
    /// `sizeof(msb_log_options)`.
    uint32_t struct_size;
    /// `MSB_LOG_FOLLOW` or 0.
    uint32_t flags;
    /// Lent. Only records of the session with this id; NULL: of all sessions.
    const char *session;
    /// Only records from this time on, in nanoseconds since 1970; 0: all.
    int64_t since_ns;
} msb_log_options;
#define MSB_LOG_OPTIONS_INIT \
    MSB_INIT(msb_log_options, sizeof(msb_log_options), 0, NULL, 0)

/// One record of a log.
typedef struct msb_log_record {
    /// `sizeof(msb_log_record)`.
    uint32_t struct_size;
    /// One of `MSB_LOG_STDOUT` to `MSB_LOG_INCOMPLETE`; 0 at the end. Ignore unknown kinds.
    uint32_t kind;
    /// When it was recorded, by the clock of the host, in nanoseconds since 1970. Does not
    /// decrease, unless the clock was set.
    int64_t time_ns;
    /// A number whose meaning depends on `kind`.
    int64_t value;
    /// Borrowed until `msb_log_record_release`, like all pointers below. Session id, as of
    /// `msb_exec_id`; NULL with `MSB_LOG_INCOMPLETE`.
    const char *session;
    /// Borrowed. Bytes, not text. NULL if there are none.
    const uint8_t *data;
    /// Length in bytes.
    size_t len;
    /// Borrowed. `argv_len` texts with `MSB_LOG_STARTED` and `MSB_LOG_FAILED`: the program and its
    /// arguments. Bytes that are not UTF-8 were replaced.
    const char *const *argv;
    /// Number of elements.
    size_t argv_len;
    /// Borrowed. With `MSB_LOG_EXITED`; else NULL.
    const struct msb_exec_exit *exit;
    /// Borrowed. With `MSB_LOG_FAILED`; else NULL.
    const struct msb_exec_failure *failure;
    /// With `MSB_LOG_STARTED`: `MSB_SESSION_TTY` or 0.
    uint32_t flags;
    /// Zero.
    uint32_t reserved;
    /// The library's. Do not touch.
    void *owner;
} msb_log_record;
#define MSB_LOG_RECORD_INIT \
    MSB_INIT(msb_log_record, sizeof(msb_log_record), 0, 0, 0, NULL, NULL, 0, NULL, 0, NULL, NULL, \
             0, 0, NULL)

/// Opens the log of a sandbox: the output of its sessions, byte for byte, and how each ended. It
/// exists only if the sandbox was created with `MSB_SANDBOX_LOG`. It is kept until the sandbox is
/// removed, also after the sandbox has ended; when it is full, its oldest part is deleted. Messages
/// of the library itself are not in it: see `msb_trace_set`.
///
/// `options` is lent and may be NULL. The sandbox's handle may be closed before this one. Any
/// number of handles may read one log, each with a thread and a read-ahead of about a mebibyte;
/// reading blocks neither the sandbox nor its commands. This call waits for the disk.
///
/// `MSB_OK`: `*out_log` is owned. `MSB_E_CONFIG`: the sandbox keeps no log. `MSB_E_NOT_FOUND`: it
/// was removed. `MSB_E_NOT_RUNNING`: its creation is pending, see `msb_sandbox_wait_ready`.
/// `MSB_E_CLOSED`: the sandbox's handle was closed meanwhile.
MSB_MUST_USE
msb_status msb_log_open(struct msb_sandbox *sandbox,
                        const struct msb_log_options *options,
                        struct msb_log **out_log,
                        struct msb_error *err);

/// Receives the next record. Waits up to `timeout_ms`.
///
/// Records are in the order in which they were recorded, across sessions. One thread at a time.
///
/// `MSB_OK`: `*out_record` is filled; release it with `msb_log_record_release`. `MSB_AGAIN`: no
/// record yet; possible also without `MSB_LOG_FOLLOW`, since a thread reads the files. `MSB_EOF`:
/// the end, with nothing to release: the log is read completely and, with `MSB_LOG_FOLLOW`, the
/// sandbox has ended. `MSB_E_BUSY`: another thread waits. `MSB_E_CLOSED`: the handle was closed
/// meanwhile. `MSB_E_IO`: a file cannot be read; `MSB_EOF` follows.
MSB_MUST_USE
msb_status msb_log_recv(struct msb_log *log,
                        int64_t timeout_ms,
                        struct msb_log_record *out_record,
                        struct msb_error *err);

/// Releases the memory that a record points to. Any thread, any order, also after the handle was
/// closed. NULL, a record that was never filled and a released one are no-ops.
///
/// Afterwards the record's pointers are NULL.
void msb_log_record_release(struct msb_log_record *record);

/* ---- fs ---- */

/// Returns the attributes of `path`: one entry, without a name.
#define MSB_FS_OP_STAT 1

/// Changes the attributes of `path` that `set` names.
#define MSB_FS_OP_SET_STAT 2

/// Returns in `exists` whether `path` exists. A dangling link does not.
#define MSB_FS_OP_EXISTS 3

/// Lists the directory `path`: entries sorted by name, without `.` and `..`.
#define MSB_FS_OP_LIST 4

/// Makes the directory `path`, with `mode` if `set` names it, else 0755.
#define MSB_FS_OP_MKDIR 5

/// Removes the file or link `path`; a link is not followed.
#define MSB_FS_OP_REMOVE 6

/// Removes the directory `path`, which is empty unless `MSB_FS_RECURSIVE` is set.
#define MSB_FS_OP_REMOVE_DIR 7

/// Renames `path` to `to`.
#define MSB_FS_OP_RENAME 8

/// Copies the file or tree `path` to `to` inside the sandbox; `to` is the copy itself.
#define MSB_FS_OP_COPY 9

/// Makes the symbolic link `path`, whose target is `to`: any bytes, relative or absolute.
#define MSB_FS_OP_SYMLINK 10

/// Returns in `path` the target of the symbolic link `path`.
#define MSB_FS_OP_READ_LINK 11

/// Returns in `path` the absolute path without links, `.` and `..`.
#define MSB_FS_OP_REAL_PATH 12

/// Reads the file `path`: at most `length` bytes from `offset`. Receive them with `msb_fs_recv`.
#define MSB_FS_OP_READ 13

/// Writes the file `path`. Send its content with `msb_fs_send`, then call `msb_fs_finish`.
#define MSB_FS_OP_WRITE 14

/// Opens the directory `path` to list it by pages; returns `dir`.
#define MSB_FS_OP_OPEN_DIR 15

/// Lists the next entries of `dir`, at most `limit`, in the order of the file system; none at the
/// end.
#define MSB_FS_OP_READ_DIR 16

/// Closes `dir`. It is also closed when the connection to the sandbox ends.
#define MSB_FS_OP_CLOSE_DIR 17

/// Copies the file or tree `path` of the host to `to` in the sandbox; `to` is the copy itself, in an
/// existing directory. An existing file is replaced, an existing directory is merged.
#define MSB_FS_OP_COPY_FROM_HOST 18

/// Copies the file or tree `path` of the sandbox to `to` on the host, likewise. Nothing that the
/// sandbox says makes it write elsewhere.
#define MSB_FS_OP_COPY_TO_HOST 19

/// Of STAT and SET_STAT: the link itself, if `path` is one.
#define MSB_FS_NO_FOLLOW 1

/// Of REMOVE_DIR: with everything in it.
#define MSB_FS_RECURSIVE 2

/// Of MKDIR and WRITE: make missing parent directories, with mode 0755. MKDIR then accepts an
/// existing directory.
#define MSB_FS_PARENTS 4

/// Of RENAME and WRITE: fail if the file exists.
#define MSB_FS_NO_REPLACE 8

/// Of WRITE: fail if the file does not exist.
#define MSB_FS_EXISTING 16

/// Of WRITE: append to the content, in place.
#define MSB_FS_APPEND 32

/// Of WRITE: write in place from `offset`.
#define MSB_FS_IN_PLACE 64

/// Of WRITE: write content and directory to the disk before the operation succeeds.
#define MSB_FS_SYNC 128

/// `mode` is set, of MKDIR, WRITE and SET_STAT.
#define MSB_FS_SET_MODE 1

/// `uid` is set, of WRITE (with `gid`) and SET_STAT.
#define MSB_FS_SET_UID 2

/// `gid` is set, of WRITE (with `uid`) and SET_STAT.
#define MSB_FS_SET_GID 4

/// `size` is set, of SET_STAT: the file is cut, or extended by a hole.
#define MSB_FS_SET_SIZE 8

/// `accessed_s` and `accessed_ns` are set, of SET_STAT.
#define MSB_FS_SET_ACCESSED 16

/// `modified_s` and `modified_ns` are set, of SET_STAT.
#define MSB_FS_SET_MODIFIED 32

/// A regular file.
#define MSB_FS_KIND_FILE 1

/// A directory.
#define MSB_FS_KIND_DIRECTORY 2

/// A symbolic link.
#define MSB_FS_KIND_SYMLINK 3

/// A FIFO, socket or device.
#define MSB_FS_KIND_OTHER 4

/// An operation on the files of a sandbox. Zero means default. All pointers are lent. Paths are any
/// bytes; those in the sandbox are absolute.
typedef struct msb_fs_request {
    /// `sizeof(msb_fs_request)`.
    uint32_t struct_size;
    /// One of `MSB_FS_OP_*`.
    uint32_t op;
    /// `MSB_FS_NO_FOLLOW` to `MSB_FS_SYNC`, those of the operation.
    uint32_t flags;
    /// Which attributes are set: `MSB_FS_SET_*`, those of the operation.
    uint32_t set;
    /// Lent. The path; NULL only with `dir`.
    const char *path;
    /// Lent. Of RENAME, SYMLINK and the copies.
    const char *to;
    /// Lent. As whom: `name`, `uid`, `name:group` or `uid:gid`; NULL: the sandbox's user.
    const char *user;
    /// Of READ, and of WRITE with `MSB_FS_IN_PLACE`, in bytes.
    uint64_t offset;
    /// Of READ, in bytes; 0: to the end.
    uint64_t length;
    /// New length in bytes.
    uint64_t size;
    /// Of READ_DIR and CLOSE_DIR: what OPEN_DIR returned.
    uint64_t dir;
    /// Time of the last access, in whole seconds since 1970, rounded down.
    int64_t accessed_s;
    /// Time of the last change of the content, likewise.
    int64_t modified_s;
    /// Nanoseconds after `accessed_s`, below 1,000,000,000.
    uint32_t accessed_ns;
    /// Nanoseconds after `modified_s`, below 1,000,000,000.
    uint32_t modified_ns;
    /// Permissions with set-user-id, set-group-id and sticky bit, at most 07777.
    uint32_t mode;
    /// Owner.
    uint32_t uid;
    /// Group.
    uint32_t gid;
    /// Of READ_DIR: most entries of a page; 0: as many as fit into a message.
    uint32_t limit;
} msb_fs_request;
#define MSB_FS_REQUEST_INIT \
    MSB_INIT(msb_fs_request, sizeof(msb_fs_request), 0, 0, 0, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, \
             0, 0, 0, 0, 0, 0)

/// The attributes of a file. Times are whole seconds since 1970, rounded down, by the clock of the
/// sandbox, and nanoseconds after that.
typedef struct msb_fs_entry {
    /// `sizeof(msb_fs_entry)` of the library.
    uint32_t struct_size;
    /// One of `MSB_FS_KIND_*`; a link in a directory is not followed.
    uint32_t kind;
    /// Borrowed. Its name in the directory: any bytes; NULL of STAT.
    const char *name;
    /// Length in bytes; of a link, of its target.
    uint64_t size;
    /// Bytes on the disk.
    uint64_t allocated;
    /// Number of hard links.
    uint64_t links;
    /// Number of the file in its file system.
    uint64_t inode;
    /// Number of the file system.
    uint64_t device;
    /// Time of the last access.
    int64_t accessed_s;
    /// Time of the last change of the content.
    int64_t modified_s;
    /// Time of the last change of the attributes.
    int64_t changed_s;
    /// Time of creation; with `created_ns`, 0 where the file system does not record it.
    int64_t created_s;
    /// Nanoseconds after `accessed_s`.
    uint32_t accessed_ns;
    /// Nanoseconds after `modified_s`.
    uint32_t modified_ns;
    /// Nanoseconds after `changed_s`.
    uint32_t changed_ns;
    /// Nanoseconds after `created_s`.
    uint32_t created_ns;
    /// Permissions with set-user-id, set-group-id and sticky bit.
    uint32_t mode;
    /// Owner.
    uint32_t uid;
    /// Group.
    uint32_t gid;
    /// The letter with which `ls -l` shows its type: one of `-dlpscb?`.
    uint32_t type_letter;
} msb_fs_entry;

/// The result of an operation on files; which fields are set depends on the operation.
typedef struct msb_fs_result {
    /// `sizeof(msb_fs_result)`.
    uint32_t struct_size;
    /// Of EXISTS: 1 or 0.
    uint32_t exists;
    /// Of OPEN_DIR: for READ_DIR and CLOSE_DIR on handles of the same sandbox object.
    uint64_t dir;
    /// Borrowed until `msb_fs_result_release`. Of READ_LINK and REAL_PATH: bytes.
    const char *path;
    /// Borrowed until `msb_fs_result_release`. Of STAT, LIST and READ_DIR: `len` pointers.
    const struct msb_fs_entry *const *entries;
    /// Number of elements.
    size_t len;
    /// The library's. Do not touch.
    void *owner;
} msb_fs_result;
#define MSB_FS_RESULT_INIT \
    MSB_INIT(msb_fs_result, sizeof(msb_fs_result), 0, 0, NULL, NULL, 0, NULL)

/// Why an operation on files failed: the part that `msb_error` has no room for.
typedef struct msb_fs_failure {
    /// `sizeof(msb_fs_failure)`.
    uint32_t struct_size;
    /// The `errno`; 0 when no system call failed.
    int32_t os_error;
    /// Borrowed until `msb_fs_failure_release`, like all pointers below. The name of `os_error`,
    /// such as `ENOENT`; empty when it is 0.
    const char *os_error_name;
    /// Borrowed. The operation or the step that failed, as a verb: `open`, `rename`, `write`.
    const char *operation;
    /// Borrowed. The path that it failed on; of a tree, the file in it: bytes.
    const char *path;
    /// The library's. Do not touch.
    void *owner;
} msb_fs_failure;
#define MSB_FS_FAILURE_INIT \
    MSB_INIT(msb_fs_failure, sizeof(msb_fs_failure), 0, NULL, NULL, NULL, NULL)

/// Releases a result. NULL and a released result are no-ops; afterwards it is empty. Any thread,
/// also after the handle was closed.
void msb_fs_result_release(struct msb_fs_result *result);

/// Releases the details of a failure. NULL and released ones are no-ops. Any thread, also after the
/// handle was closed.
void msb_fs_failure_release(struct msb_fs_failure *failure);

/// Starts an operation on the files of a sandbox, which needs no program in it. Returns at once;
/// `msb_fs_wait` returns the result. Closing the handle gives the operation up: a file that is being
/// written keeps its old content, or does not come to exist. The sandbox's handle may be closed
/// before this one.
///
/// The content of a written file becomes visible at once when the operation succeeds, unless
/// `MSB_FS_APPEND` or `MSB_FS_IN_PLACE` is set; until then the old content stays.
///
/// `MSB_OK`: `*out_fs` is owned. `MSB_E_INVALID`: an unknown operation; a flag, attribute or NULL
/// that the operation does not allow. `MSB_E_NOT_RUNNING`: the sandbox's creation is pending, see
/// `msb_sandbox_wait_ready`.
MSB_MUST_USE
msb_status msb_fs_start(struct msb_sandbox *sandbox,
                        const struct msb_fs_request *request,
                        struct msb_fs **out_fs,
                        struct msb_error *err);

/// Waits until an operation is complete, up to `timeout_ms`. A read is complete when the sandbox has
/// sent all of the file; a write, when the sandbox has closed the file after `msb_fs_finish`.
///
/// `MSB_OK`: `*out_result` is filled; release it with `msb_fs_result_release`. `MSB_AGAIN`: not yet.
/// Any failure is final; expect `MSB_E_NO_PATH`, `MSB_E_PERMISSION` and `MSB_E_FILESYSTEM`, of which
/// `msb_fs_failed` has details, and `MSB_E_UNSUPPORTED`: the sandbox was started by an older
/// version. Later calls return the same.
MSB_MUST_USE
msb_status msb_fs_wait(struct msb_fs *fs,
                       int64_t timeout_ms,
                       struct msb_fs_result *out_result,
                       struct msb_error *err);

/// Receives content of a file that is read, into the caller's `buffer` of `len` bytes, at least 1.
/// Waits up to `timeout_ms`. The sandbox waits while about a mebibyte is not received.
///
/// `MSB_OK`: `*out_received` bytes, at least 1, were written to `buffer`. `MSB_AGAIN`: none yet.
/// `MSB_EOF`: the end; everything was received. Failures are those of `msb_fs_wait`, after the
/// content before them.
MSB_MUST_USE
msb_status msb_fs_recv(struct msb_fs *fs,
                       int64_t timeout_ms,
                       uint8_t *buffer,
                       size_t len,
                       size_t *out_received,
                       struct msb_error *err);

/// Sends content of a file that is written. Waits for room up to `timeout_ms`. `data` is copied.
/// Sending no bytes is a no-op.
///
/// `MSB_OK`: `*out_sent` bytes were accepted, at least 1 unless `len` is 0, perhaps fewer than
/// `len`: call again with the rest. `MSB_AGAIN`: no room. `MSB_E_INVALID`: also after
/// `msb_fs_finish`. Other failures are those of `msb_fs_wait`.
MSB_MUST_USE
msb_status msb_fs_send(struct msb_fs *fs,
                       const uint8_t *data,
                       size_t len,
                       int64_t timeout_ms,
                       size_t *out_sent,
                       struct msb_error *err);

/// Ends the content of a file that is written. Returns at once; `msb_fs_wait` waits until the file
/// is complete. Calling it twice is fine.
///
/// `MSB_OK`. `MSB_E_INVALID`: the operation writes nothing.
MSB_MUST_USE msb_status msb_fs_finish(struct msb_fs *fs, struct msb_error *err);

/// Returns details of the failure of an operation that has failed on a file.
///
/// `MSB_OK`: `*out_failure` is filled; release it with `msb_fs_failure_release`. `MSB_EOF`: no such
/// failure is known; it runs, has succeeded, or has failed for another reason.
MSB_MUST_USE
msb_status msb_fs_failed(struct msb_fs *fs,
                         struct msb_fs_failure *out_failure,
                         struct msb_error *err);

/* ---- attach ---- */

/// Of an attach: the session continues; the detach keys were typed, or the terminal hung up.
#define MSB_ATTACH_DETACHED 1

/// What to attach the terminal to. Zero means default. All pointers are lent.
typedef struct msb_attach_options {
    /// `sizeof(msb_attach_options)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t flags;
    /// Lent. The command. It gets a terminal of the same size regardless of its flags, and no
    /// `stdin_data`; NULL: the sandbox's shell.
    const struct msb_exec_options *exec;
    /// Lent. The id of a session with a terminal, to reattach to instead of starting a command.
    const char *session;
    /// Lent. The keys that detach: characters and names such as `ctrl-p`, separated by commas;
    /// NULL: `ctrl-]`.
    const char *detach_keys;
} msb_attach_options;
#define MSB_ATTACH_OPTIONS_INIT \
    MSB_INIT(msb_attach_options, sizeof(msb_attach_options), 0, NULL, NULL, NULL)

/// Attaches this process's terminal, its standard input and output, to a command or a session.
/// Waits until it ends or the detach keys are typed. The terminal is in raw mode until then; its
/// settings are always restored. `options` is lent and may be NULL.
///
/// `MSB_OK`: `*out_code` is the exit code, or 128 plus the signal's number, as in a shell; -1 with
/// `MSB_ATTACH_DETACHED` in `*out_flags`, which may be NULL. `MSB_E_NOT_A_TERMINAL`: standard input
/// is not a terminal, or the session has none. `MSB_E_EXEC_FAILED`: the command failed to start.
/// `MSB_E_BUSY`: another attach uses the terminal. `MSB_E_CLOSED`: the handle was closed meanwhile;
/// the command continues to run.
MSB_MUST_USE
msb_status msb_attach(struct msb_sandbox *sandbox,
                      const struct msb_attach_options *options,
                      int32_t *out_code,
                      uint32_t *out_flags,
                      struct msb_error *err);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* MICROSANDBOX_H */
