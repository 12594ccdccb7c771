/* microsandbox.h - run commands in disposable sandboxes.
 *
 * MODEL     A sandbox is a virtual machine or, if asked for by name, a container. An exec
 *           is a command inside it. An exec is watched by pulling events; its input is fed
 *           through a sink. The library never calls you back.
 * HANDLES   Opaque and typed. Never dereferenced: a stale handle is MSB_E_HANDLE, never
 *           undefined behaviour. Close each once, in any order, on any thread.
 * OWNERSHIP "owned": yours, close or release it.  "borrowed": valid until the moment
 *           named, do not free.  "copied": the library kept its own; yours is free when
 *           the call returns.  "lent": the library reads yours during the call.
 *           "static": never freed.
 * ERRORS    Every fallible call returns msb_status and takes a last `err`, which may be
 *           NULL. Outputs are written on success and left alone otherwise.
 * TIMES     int64_t milliseconds: 0 only looks, -1 waits for ever.
 * THREADS   Every function may be called from any thread at any time, unless its own
 *           comment says "one thread at a time". No call holds a lock while it waits. The
 *           library's own threads are named msb-* and block every signal.
 * STRUCTS   Start each from its MSB_*_INIT. Fields are only ever added at the end.
 * TEXT      In: NUL-terminated. Commands, arguments, variables and directories are bytes;
 *           names are UTF-8.
 * FORK      After fork(), the child may only exec or _exit; a call says
 *           MSB_E_UNSUPPORTED there.
 * PLATFORM  64-bit Linux.
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


/// Version of the ABI that this header describes; the number in the library's soname.
#define MSB_ABI_VERSION 0

/// Success.
#define MSB_OK 0

/// Nothing yet: the time given to the call is over. Call again later.
#define MSB_AGAIN 1

/// Nothing more, ever.
#define MSB_EOF 2

/// An argument makes no sense: NULL where it is not allowed, an unknown flag.
#define MSB_E_INVALID -1

/// Not a handle of this kind that is open: stale, foreign, closed, or of another kind.
#define MSB_E_HANDLE -2

/// The handle was closed while the call waited on it.
#define MSB_E_CLOSED -3

/// Another thread waits on this handle already.
#define MSB_E_BUSY -4

/// Not possible here, with this version, or after a fork.
#define MSB_E_UNSUPPORTED -5

/// A bound is reached.
#define MSB_E_LIMIT -6

/// The system refused something; `os_error` says what.
#define MSB_E_IO -7

/// A broken promise of the library to itself.
#define MSB_E_INTERNAL -8

/// The other side broke the protocol.
#define MSB_E_PROTOCOL -9

/// An answer did not come in time.
#define MSB_E_TIMED_OUT -10

/// The sandbox cannot be what it was asked to be, by its name for example.
#define MSB_E_CONFIG -20

/// No sandbox has this name.
#define MSB_E_NOT_FOUND -21

/// A sandbox has this name already.
#define MSB_E_EXISTS -22

/// The sandbox is not running.
#define MSB_E_NOT_RUNNING -23

/// The sandbox is running, and the call needs one that is not.
#define MSB_E_RUNNING -24

/// No driver is usable.
#define MSB_E_NO_DRIVER -25

/// The sandbox did not come up.
#define MSB_E_BOOT -26

/// The sandbox ended by itself.
#define MSB_E_CRASHED -27

/// The command never started.
#define MSB_E_EXEC_FAILED -40

/// The command's time ran out.
#define MSB_E_EXEC_TIMEOUT -41

/// The connection to the sandbox was lost before the end was known.
#define MSB_E_LOST -42

/// The command no longer reads its input.
#define MSB_E_PIPE -43

/// The process is gone.
#define MSB_E_NO_PROCESS -44

/// No such session is known.
#define MSB_E_NO_SESSION -45

/// The session has no terminal.
#define MSB_E_NOT_A_TERMINAL -46

/// The call itself was wrong.
#define MSB_ORIGIN_CALLER 1

/// This library or its host noticed.
#define MSB_ORIGIN_HOST 2

/// What starts and watches the sandbox noticed.
#define MSB_ORIGIN_DRIVER 3

/// The connection noticed.
#define MSB_ORIGIN_TRANSPORT 4

/// The agent in the sandbox noticed.
#define MSB_ORIGIN_AGENT 5

/// Length of the text in an `msb_error`, its NUL included.
#define MSB_ERROR_MESSAGE_LEN 496

/// The sandbox outlives the process that creates it.
#define MSB_SANDBOX_DETACHED 1

/// A sandbox that has the name already is ended and removed first.
#define MSB_SANDBOX_REPLACE 2

/// The command gets a terminal; its standard error then comes as standard output.
#define MSB_EXEC_TTY 1

/// Forward output until every process that holds it has closed it, however long that takes.
#define MSB_EXEC_WAIT_FOR_EOF 2

/// `cmd` is a script for the sandbox's shell; `args` come behind it.
#define MSB_EXEC_SHELL 4

/// Session id and its NUL: 32 hexadecimal digits.
#define MSB_SESSION_ID_LEN 33

/// Only the command's process group. The default, 0.
#define MSB_SIGNAL_GROUP 0

/// Everything that the command started, also what left its group.
#define MSB_SIGNAL_TREE 1

/// Running; `value` is its process id in the guest.
#define MSB_EVENT_STARTED 1

/// `data` holds bytes it wrote to standard output; with a terminal, everything.
#define MSB_EVENT_STDOUT 2

/// `data` holds bytes it wrote to standard error.
#define MSB_EVENT_STDERR 3

/// It no longer reads its input; `value` is the guest's `errno`. It may run on.
#define MSB_EVENT_STDIN_ERROR 4

/// It ended; `value` is its exit code, -1 for a death by signal; `exit` tells more. Only output
/// of other processes that still hold its output may come behind it.
#define MSB_EVENT_EXITED 5

/// It never ran; `value` is the guest's `errno`; `failure` tells more. Last.
#define MSB_EVENT_FAILED 6

/// The sandbox went first: how it ended is not known. `data` holds the reason, one line. Last.
#define MSB_EVENT_LOST 7

/// Of the end of the stream: some other process still had the output open.
#define MSB_EVENT_WRITER_LEFT 1

/// Of the end of the stream: the connection was lost after the exit.
#define MSB_EVENT_CUT 2

/// Of an exit: it left a core dump.
#define MSB_EXIT_CORE_DUMPED 1

/// Of an exit: its time had run out, and it was killed for it.
#define MSB_EXIT_TIMED_OUT 2

/// There is no such program.
#define MSB_FAILURE_NOT_FOUND 1

/// The program may not be executed by this user.
#define MSB_FAILURE_PERMISSION_DENIED 2

/// Not something that the kernel can run, or its interpreter is missing.
#define MSB_FAILURE_NOT_EXECUTABLE 3

/// The working directory cannot be entered.
#define MSB_FAILURE_BAD_CWD 4

/// Arguments or environment are too long, or the path cannot be resolved.
#define MSB_FAILURE_BAD_ARGS 5

/// A limit on processes or descriptors, or a refused `setrlimit`.
#define MSB_FAILURE_RESOURCE_LIMIT 6

/// The user or group is unknown, or may not be taken on.
#define MSB_FAILURE_USER_SETUP_FAILED 7

/// Not enough memory.
#define MSB_FAILURE_OUT_OF_MEMORY 8

/// No pseudo-terminal could be had.
#define MSB_FAILURE_PTY_SETUP_FAILED 9

/// Anything else.
#define MSB_FAILURE_OTHER 10

/// One command in it, from start to exit.
typedef struct msb_exec msb_exec;

/// A sandbox and everything in it.
typedef struct msb_sandbox msb_sandbox;

/// The writing end of a command's input.
typedef struct msb_sink msb_sink;

/// What a call reports: zero for success, negative for failure, positive for an outcome that is
/// neither (`MSB_AGAIN`, `MSB_EOF`).
typedef int32_t msb_status;

/// Why a call failed. The caller provides the storage; the library writes it only on failure. It
/// owns nothing: there is nothing to free, and reuse is safe.
typedef struct msb_error {
    /// `sizeof(msb_error)`.
    uint32_t struct_size;
    /// The status that the call returned.
    msb_status status;
    /// `errno` where it went wrong (host or guest), else 0.
    int32_t os_error;
    /// Who noticed: one of `MSB_ORIGIN_*`.
    uint32_t origin;
    /// One line of UTF-8, cut at a character if too long.
    char message[MSB_ERROR_MESSAGE_LEN];
} msb_error;

/// What a new sandbox is to be. Zero means default, except for `name` and `image`.
///
/// All pointers are lent. Texts are NUL-terminated.
typedef struct msb_sandbox_options {
    /// `sizeof(msb_sandbox_options)`.
    uint32_t struct_size;
    /// `MSB_SANDBOX_*`.
    uint32_t flags;
    /// Lent. 1 to 128 letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
    const char *name;
    /// Lent. The root filesystem: the path of a directory, which is never written to.
    const char *image;
    /// Lent. `"container"` and such; NULL: `MSB_DRIVER`, else the first usable with hardware
    /// isolation.
    const char *driver;
    /// Lent. Working directory of commands that name none; NULL: `/`.
    const char *workdir;
    /// Lent. Shell for scripts; NULL: `/bin/sh`.
    const char *shell;
    /// Lent. User of commands that name none: `name`, `uid`, `name:group` or `uid:gid`; NULL: root.
    const char *user;
    /// Lent. Host name; NULL: the sandbox's name.
    const char *hostname;
    /// Lent. `env_len` texts `NAME=value`, for every command.
    const char *const *env;
    /// How many.
    size_t env_len;
    /// Lent. `labels_len` texts `KEY=value`: notes of the caller's own.
    const char *const *labels;
    /// How many.
    size_t labels_len;
    /// Processors; 0: no limit of our own.
    uint32_t cpus;
    /// Memory in MiB; 0: no limit of our own.
    uint32_t memory_mib;
    /// Ended after this many milliseconds; 0: never.
    uint64_t max_duration_ms;
    /// Ended when nothing ran in it for this many milliseconds; 0: never.
    uint64_t idle_timeout_ms;
    /// How long the start may take, in milliseconds; 0: 30,000.
    uint64_t boot_timeout_ms;
} msb_sandbox_options;

/// A limit on a resource. `UINT64_MAX` is no limit.
typedef struct msb_rlimit {
    /// Linux's `RLIMIT_*` number, 0 to 15.
    uint32_t resource;
    /// Zero.
    uint32_t reserved;
    /// The limit in force.
    uint64_t soft;
    /// What the command may raise it to.
    uint64_t hard;
} msb_rlimit;

/// What to run. Zero means default, except for `cmd`. All pointers are lent.
typedef struct msb_exec_options {
    /// `sizeof(msb_exec_options)`.
    uint32_t struct_size;
    /// `MSB_EXEC_*`.
    uint32_t flags;
    /// Lent. The program: a path, or a name to look up in the command's own `PATH`.
    const char *cmd;
    /// Lent. `args_len` arguments, without the program.
    const char *const *args;
    /// How many.
    size_t args_len;
    /// Lent. `env_len` texts `NAME=value`, on top of the sandbox's.
    const char *const *env;
    /// How many.
    size_t env_len;
    /// Lent. Working directory; NULL: the sandbox's.
    const char *cwd;
    /// Lent. `name`, `uid`, `name:group` or `uid:gid`; NULL: the sandbox's.
    const char *user;
    /// Lent. Fixed standard input of `stdin_len` bytes, and then its end. Copied.
    const uint8_t *stdin_data;
    /// How many.
    size_t stdin_len;
    /// Lent. `rlimits_len` resource limits.
    const struct msb_rlimit *rlimits;
    /// How many.
    size_t rlimits_len;
    /// Kill it, and all that it started, after this many nanoseconds; 0: never.
    uint64_t timeout_ns;
    /// How long others' output is still forwarded after the exit, in nanoseconds; 0: 250 ms.
    uint64_t drain_ns;
    /// Rows of the terminal; 0: 24.
    uint16_t rows;
    /// Columns of the terminal; 0: 80.
    uint16_t cols;
    /// Zero.
    uint32_t reserved;
} msb_exec_options;

/// How a command ended, and what it used; the children that it waited for included.
typedef struct msb_exec_exit {
    /// `sizeof(msb_exec_exit)` of the library.
    uint32_t struct_size;
    /// Exit code; -1 for a death by signal.
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
    /// Largest resident size, in bytes.
    uint64_t max_rss;
} msb_exec_exit;

/// Why a command never ran. All pointers are borrowed until `msb_event_release`, and never NULL.
typedef struct msb_exec_failure {
    /// `sizeof(msb_exec_failure)` of the library.
    uint32_t struct_size;
    /// One of `MSB_FAILURE_*`.
    uint32_t kind;
    /// The guest's `errno`; 0 when no system call failed.
    int32_t os_error;
    /// Zero.
    uint32_t reserved;
    /// Borrowed. Name of the kind: `"not_found"`.
    const char *kind_name;
    /// Borrowed. The step that failed: `"execve"`, `"chdir"`, ...
    const char *stage;
    /// Borrowed. Name of the errno: `"ENOENT"`; empty when it is 0.
    const char *os_error_name;
    /// Borrowed. One line for people.
    const char *message;
    /// Borrowed. The program, directory or name that the step was about: bytes.
    const char *path;
} msb_exec_failure;

/// One event of a command.
typedef struct msb_event {
    /// `sizeof(msb_event)`.
    uint32_t struct_size;
    /// One of `MSB_EVENT_*`, 0 at the end of the stream. Ignore what you do not know.
    uint32_t kind;
    /// A number whose meaning `kind` gives.
    int64_t value;
    /// Bytes, borrowed until `msb_event_release`.
    const uint8_t *data;
    /// How many bytes.
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

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/// Version of the ABI that the loaded library has. Compare it with `MSB_ABI_VERSION`.
uint32_t msb_abi_version(void);

/// Version of the library: `"0.1.0"`. Static.
const char *msb_version_string(void);

/// Name of a status: `"MSB_E_HANDLE"`. Static; `"MSB_E_UNKNOWN"` for a number that is none.
const char *msb_status_name(msb_status status);

/// Descriptor that polls readable when a call on `handle` would not say `MSB_AGAIN`: an exec that
/// has an event or its end, a sink that has room or is broken, a sandbox that is ready or failed.
///
/// Borrowed: it closes with the handle. Only poll it, never read it; `dup` it if your loop closes
/// what it polls. Call until `MSB_AGAIN` before polling again.
///
/// `MSB_OK`: `*out_fd` is the descriptor. `MSB_E_HANDLE`; `MSB_E_IO`: none could be made.
MSB_MUST_USE msb_status msb_handle_fd(const void *handle, int32_t *out_fd, struct msb_error *err);

/// Close any handle. Calls that wait on it return `MSB_E_CLOSED` at once. In any order, from any
/// thread; NULL is fine and does nothing.
///
/// Closing a sandbox or an exec ends nothing inside: the command runs on. Closing a sink ends the
/// command's input.
///
/// `MSB_OK`. `MSB_E_HANDLE`: not open; closing twice is this, never undefined behaviour.
msb_status msb_handle_close(void *handle);

/// Create a sandbox and start it. Returns at once; `msb_sandbox_wait_ready` tells how it goes.
///
/// Without `MSB_SANDBOX_DETACHED` it ends, within two seconds, when this process does.
///
/// `MSB_OK`: `*out_sandbox` is owned. `MSB_E_INVALID`: an option that makes no sense.
/// `MSB_E_IO`: a thread or descriptor could not be made. What goes wrong later, such as a name
/// that exists (`MSB_E_EXISTS`), `msb_sandbox_wait_ready` reports.
MSB_MUST_USE
msb_status msb_sandbox_create(const struct msb_sandbox_options *options,
                              struct msb_sandbox **out_sandbox,
                              struct msb_error *err);

/// Wait until the sandbox runs commands. Waits up to `timeout_ms`: 0 only looks, -1 waits for ever.
///
/// `MSB_OK`: it does. `MSB_AGAIN`: not yet. Anything else: it never will, and why; `MSB_E_EXISTS`,
/// `MSB_E_NO_DRIVER` and `MSB_E_BOOT` are to be expected. Asked again, it says the same.
MSB_MUST_USE
msb_status msb_sandbox_wait_ready(struct msb_sandbox *sandbox,
                                  int64_t timeout_ms,
                                  struct msb_error *err);

/// Stop the sandbox: its commands are asked to end, killed after `grace_ms`, and then it is gone
/// with everything that ran in it. Waits for that, however long it takes. The handle stays open;
/// closing it meanwhile ends the wait, not the stop.
///
/// `MSB_OK`: it has ended, now. `MSB_E_NOT_RUNNING`: it had ended before, or is not ready yet.
/// `MSB_E_CRASHED`: it ended by itself first.
MSB_MUST_USE
msb_status msb_sandbox_stop(struct msb_sandbox *sandbox,
                            uint32_t grace_ms,
                            struct msb_error *err);

/// Remove a sandbox that is not running, and its files.
///
/// `MSB_OK`. `MSB_E_NOT_FOUND`. `MSB_E_RUNNING`: stop it first.
MSB_MUST_USE msb_status msb_sandbox_remove(const char *name, struct msb_error *err);

/// Start a command and return at once; `msb_exec_recv` tells how it goes, also that it could not
/// be started.
///
/// With `out_stdin` its input is written by `msb_sink_write`; with `out_stdin` NULL it is
/// `stdin_data` if given, else `/dev/null`.
///
/// `MSB_OK`: `*out_exec` and, if asked for, `*out_stdin` are owned. `MSB_E_INVALID`: an option
/// makes no sense. `MSB_E_NOT_RUNNING`: the sandbox has ended, or is not ready yet.
MSB_MUST_USE
msb_status msb_exec_stream(struct msb_sandbox *sandbox,
                           const struct msb_exec_options *options,
                           struct msb_exec **out_exec,
                           struct msb_sink **out_stdin,
                           struct msb_error *err);

/// Session id of a command: 32 hexadecimal digits and a NUL, never used again. It is the same in
/// every language, in logs and in `msb`.
///
/// `MSB_OK`: `out_id` holds `MSB_SESSION_ID_LEN` bytes. `MSB_E_HANDLE`.
MSB_MUST_USE
msb_status msb_exec_id(const struct msb_exec *exec,
                       char *out_id,
                       struct msb_error *err);

/// Send a signal to a command, and wait until the sandbox has done so. Killing all that a command
/// started is `SIGKILL` with `MSB_SIGNAL_TREE`. Never waits for a reader.
///
/// `MSB_OK`: sent. `MSB_E_INVALID`: no such signal. `MSB_E_NO_PROCESS`: it has ended.
/// `MSB_E_LOST`: the sandbox is gone. `MSB_E_CLOSED`: the handle was closed meanwhile.
MSB_MUST_USE
msb_status msb_exec_signal(const struct msb_exec *exec,
                           int32_t signal,
                           uint32_t flags,
                           struct msb_error *err);

/// Take the next event. Waits up to `timeout_ms`: 0 only looks, -1 waits for ever.
///
/// The events of a command are STARTED, any number of STDOUT, STDERR and STDIN_ERROR, and one of
/// EXITED, FAILED and LOST; FAILED comes without STARTED. An event is delivered whole or not at
/// all, and no failure loses one. One thread at a time.
///
/// `MSB_OK`: `*out_event` is filled; give it back with `msb_event_release`. `MSB_AGAIN`: nothing
/// yet. `MSB_EOF`: nothing more, ever; `out_event->flags` tells about the end. `MSB_E_BUSY`:
/// another thread waits. `MSB_E_CLOSED`: the handle was closed meanwhile.
MSB_MUST_USE
msb_status msb_exec_recv(struct msb_exec *exec,
                         int64_t timeout_ms,
                         struct msb_event *out_event,
                         struct msb_error *err);

/// Give back an event's bytes, and with them the command's leave to send more. Any thread, any
/// order, also after the exec was closed. NULL and an event that was released before are fine.
///
/// Afterwards the event's pointers are NULL.
void msb_event_release(struct msb_event *event);

/// Write to a command's standard input. Waits for room up to `timeout_ms`: 0 only looks, -1 waits
/// for ever. `data` is copied. No bytes are a success that does nothing.
///
/// `MSB_OK`: `*out_written` bytes were taken, at least 1 unless `len` is 0, perhaps fewer than
/// `len`: call again with the rest. `MSB_AGAIN`: none were. `MSB_E_PIPE`: the command no longer
/// reads. `MSB_E_CLOSED`: the sink was closed meanwhile. `MSB_E_LOST`.
MSB_MUST_USE
msb_status msb_sink_write(struct msb_sink *sink,
                          const uint8_t *data,
                          size_t len,
                          int64_t timeout_ms,
                          size_t *out_written,
                          struct msb_error *err);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MICROSANDBOX_H */

/* Each struct starts from its own of these. */
#ifdef __cplusplus
#define MSB_ERROR_INIT (msb_error{sizeof(msb_error), 0, 0, 0, {0}})
#else
#define MSB_ERROR_INIT {sizeof(msb_error), 0, 0, 0, {0}}
#endif
#define MSB_EVENT_INIT {sizeof(msb_event), 0, 0, NULL, 0, NULL, NULL, 0, 0, NULL}
#define MSB_SANDBOX_OPTIONS_INIT \
    {sizeof(msb_sandbox_options), 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, 0, \
     0, 0, 0, 0, 0}
#define MSB_EXEC_OPTIONS_INIT \
    {sizeof(msb_exec_options), 0, NULL, NULL, 0, NULL, 0, NULL, NULL, NULL, 0, NULL, 0, 0, 0, 0, \
     0, 0}
