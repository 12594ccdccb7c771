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

/// Version of the ABI that the loaded library has. Compare it with `MSB_ABI_VERSION`.
uint32_t msb_abi_version(void);

/// Version of the library: `"0.1.0"`. Static.
const char *msb_version_string(void);

/// Whether this library has an ability, which is lent by its name: 1 or 0, and 0 for NULL and for
/// what it has never heard of. Names: `"attach"`, `"images"`, `"log"`, `"reattach"`,
/// `"recv_many"`, `"session_log"` and `"trace"`. Which drivers there are, `msb_doctor` says.
int32_t msb_has(const char *ability);

/* ---- status ---- */

/// Success.
#define MSB_OK 0

/// Nothing yet: the time given to the call is over. Call again later.
#define MSB_AGAIN 1

/// Nothing more, ever.
#define MSB_EOF 2

/// An argument makes no sense: NULL where it is not allowed, an unknown flag.
#define MSB_E_INVALID (-1)

/// Not a handle of this kind that is open: stale, foreign, closed, or of another kind.
#define MSB_E_HANDLE (-2)

/// The handle was closed while the call waited on it.
#define MSB_E_CLOSED (-3)

/// Another thread waits on this handle already.
#define MSB_E_BUSY (-4)

/// Not possible here, with this version, or after a fork.
#define MSB_E_UNSUPPORTED (-5)

/// A bound is reached.
#define MSB_E_LIMIT (-6)

/// The system refused something; `os_error` says what.
#define MSB_E_IO (-7)

/// A broken promise of the library to itself.
#define MSB_E_INTERNAL (-8)

/// The other side broke the protocol.
#define MSB_E_PROTOCOL (-9)

/// An answer did not come in time.
#define MSB_E_TIMED_OUT (-10)

/// The sandbox cannot be what it was asked to be, by its name for example.
#define MSB_E_CONFIG (-20)

/// No sandbox has this name.
#define MSB_E_NOT_FOUND (-21)

/// A sandbox has this name already.
#define MSB_E_EXISTS (-22)

/// The sandbox is not running.
#define MSB_E_NOT_RUNNING (-23)

/// The sandbox is running, and the call needs one that is not.
#define MSB_E_RUNNING (-24)

/// No driver is usable.
#define MSB_E_NO_DRIVER (-25)

/// The sandbox did not come up.
#define MSB_E_BOOT (-26)

/// The sandbox ended by itself.
#define MSB_E_CRASHED (-27)

/// The command never started.
#define MSB_E_EXEC_FAILED (-40)

/// The command's time ran out.
#define MSB_E_EXEC_TIMEOUT (-41)

/// The connection to the sandbox was lost before the end was known.
#define MSB_E_LOST (-42)

/// The command no longer reads its input.
#define MSB_E_PIPE (-43)

/// The process is gone.
#define MSB_E_NO_PROCESS (-44)

/// No such session is known.
#define MSB_E_NO_SESSION (-45)

/// The session has no terminal.
#define MSB_E_NOT_A_TERMINAL (-46)

/// No such image, in the store or in the registry.
#define MSB_E_NO_IMAGE (-60)

/// The registry wants other credentials, or none would do.
#define MSB_E_IMAGE_DENIED (-61)

/// The registry cannot be reached.
#define MSB_E_REGISTRY (-62)

/// The image is broken, hostile, or of a kind that cannot be used.
#define MSB_E_BAD_IMAGE (-63)

/// A sandbox uses the image.
#define MSB_E_IMAGE_IN_USE (-64)

/// The process that works on images died.
#define MSB_E_IMAGE_FAILED (-65)

/// The disk is too full.
#define MSB_E_NO_SPACE (-66)

/// The image names no command of its own.
#define MSB_E_NO_COMMAND (-67)

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

/// What a call reports: zero for success, negative for failure, positive for an outcome that is
/// neither (`MSB_AGAIN`, `MSB_EOF`).
typedef int32_t msb_status;

/// Name of a status: `"MSB_E_HANDLE"`. Static; `"MSB_E_UNKNOWN"` for a number that is none.
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
    /// `errno` where it went wrong (host or guest), else 0.
    int32_t os_error;
    /// Who noticed: one of `MSB_ORIGIN_*`.
    uint32_t origin;
    /// One line of UTF-8, cut at a character if too long.
    char message[MSB_ERROR_MESSAGE_LEN];
} msb_error;
#define MSB_ERROR_INIT \
    MSB_INIT(msb_error, sizeof(msb_error), 0, 0, 0, {0})

/* ---- handle ---- */

/// A sandbox and everything in it.
typedef struct msb_sandbox msb_sandbox;

/// One command in it, from start to exit.
typedef struct msb_exec msb_exec;

/// The writing end of a command's input.
typedef struct msb_sink msb_sink;

/// The log of a sandbox, while it is read.
typedef struct msb_log msb_log;

/// An image, while it is being got.
typedef struct msb_image msb_image;

/// Descriptor that polls readable when a call on `handle` would not say `MSB_AGAIN`: an exec that
/// has an event or its end, a sink that has room or is broken, a log that has a record or its end,
/// an image that is there or failed, a sandbox that is ready or failed (`msb_sandbox_wait_ready`)
/// or, once `msb_sandbox_wait` was called on it, has ended. Of the last two also news, once
/// `msb_image_progress` or `msb_sandbox_progress` was called.
///
/// Borrowed until the handle is closed: take it out of your loop before that, since the library may
/// need it for a moment longer. Only poll it, never read it; `dup` it if your loop closes what it
/// polls. Call until `MSB_AGAIN` before polling again. It may poll readable for nothing, and is
/// the same one each time.
///
/// `MSB_OK`: `*out_fd` is the descriptor. `MSB_E_HANDLE`; `MSB_E_IO`: none could be made.
MSB_MUST_USE msb_status msb_handle_fd(const void *handle, int32_t *out_fd, struct msb_error *err);

/// Close any handle. Calls that wait on it return `MSB_E_CLOSED` at once. In any order, from any
/// thread; NULL is fine and does nothing.
///
/// Closing a sandbox or an exec ends nothing inside: the command runs on. Closing a sink ends the
/// command's input. Closing a log ends the reading. Closing an image, or a sandbox that is created
/// and whose image is got, ends the getting of it; what was downloaded is kept for the next time.
///
/// `MSB_OK`. `MSB_E_HANDLE`: not open; closing twice is this, never undefined behaviour.
msb_status msb_handle_close(void *handle);

/* ---- trace ---- */

/// Something failed that nobody else is told of.
#define MSB_TRACE_ERROR 1

/// Something is not as it should be, and it goes on.
#define MSB_TRACE_WARN 2

/// What happens, in few lines.
#define MSB_TRACE_INFO 3

/// What happens, in many.
#define MSB_TRACE_DEBUG 4

/// Everything.
#define MSB_TRACE_TRACE 5

/// Takes a message of the library. `level` is one of `MSB_LOG_*`; `target`, a part of the library,
/// and `message`, one line of UTF-8, are lent.
typedef void (*msb_trace_fn)(void *user_data,
                             uint32_t level,
                             const char *target,
                             const char *message);

/// Told that `user_data` is not used any more.
typedef void (*msb_drop_fn)(void *user_data);

/// Have messages of the library, up to `level`, told to `log`, on a thread of its own and one at a
/// time; or to nobody when `log` is NULL, as at the start. `log` must not call any `msb_*`
/// function, and may run as long as it likes: messages that come too fast for it are counted and
/// dropped. What commands read and write, their arguments and variables are never told: for the
/// log of a sandbox, which has that, see `msb_log_open`.
/// `user_data` is lent until `drop` is called.
///
/// When this returns, the function that was set before has told all that came before this call, is
/// not running and will not be called again, and its `drop`, which may be NULL, was called. A call
/// that fails leaves `user_data` to the caller.
///
/// `MSB_OK`. `MSB_E_INVALID`: no such level. `MSB_E_BUSY`: another thread is in this call.
/// `MSB_E_UNSUPPORTED`: called by `log`; or the host is a Rust program that takes the messages
/// itself (a subscriber of the `tracing` crate).
MSB_MUST_USE
msb_status msb_trace_set(uint32_t level,
                         msb_trace_fn trace,
                         void *user_data,
                         msb_drop_fn drop,
                         struct msb_error *err);

/* ---- progress ---- */

/// Finding out what the name means.
#define MSB_PHASE_RESOLVING 1

/// Getting the layers.
#define MSB_PHASE_DOWNLOADING 2

/// Unpacking them.
#define MSB_PHASE_UNPACKING 3

/// The image is there, and the sandbox starts.
#define MSB_PHASE_STARTING 4

/// How far getting an image is.
typedef struct msb_progress {
    /// `sizeof(msb_progress)`.
    uint32_t struct_size;
    /// One of `MSB_PHASE_*`. Ignore what you do not know.
    uint32_t phase;
    /// How many layers there are; 0 while that is not known.
    uint32_t layers;
    /// How many of them are finished in this phase.
    uint32_t layers_done;
    /// How many bytes are finished in this phase.
    uint64_t bytes;
    /// How many there are; 0 while that is not known.
    uint64_t bytes_total;
} msb_progress;
#define MSB_PROGRESS_INIT \
    MSB_INIT(msb_progress, sizeof(msb_progress), 0, 0, 0, 0, 0)

/* ---- sandbox ---- */

/// The sandbox outlives the process that creates it.
#define MSB_SANDBOX_DETACHED 1

/// A sandbox that has the name already is ended and removed first.
#define MSB_SANDBOX_REPLACE 2

/// It may reach the network. A driver that cannot give it that refuses: `MSB_E_CONFIG`.
#define MSB_SANDBOX_NETWORK 4

/// The output of its sessions is kept in a log, which `msb_log_open` and `msb logs` read.
#define MSB_SANDBOX_LOG 8

/// It is refused to start where a wall of the jail cannot be had. `MSB_REQUIRE_JAIL=1` in the
/// environment says so for every sandbox.
#define MSB_SANDBOX_REQUIRE_JAIL 16

/// Commands in a virtual machine may do all that root may, in a kernel of its own.
#define MSB_SECURITY_DEFAULT 0

/// Commands in a virtual machine may do what a container's may.
#define MSB_SECURITY_RESTRICTED 1

/// When the image is not in the store.
#define MSB_PULL_MISSING 0

/// Each time; what has not changed is not fetched again.
#define MSB_PULL_ALWAYS 1

/// Not at all: the image has to be in the store.
#define MSB_PULL_NEVER 2

/// Never started.
#define MSB_STATE_CREATED 1

/// Running.
#define MSB_STATE_RUNNING 2

/// It ended as it was told, or as its options said.
#define MSB_STATE_STOPPED 3

/// It ended by itself.
#define MSB_STATE_CRASHED 4

/// Every process of a sandbox on the host, but its supervisor, is in a jail with all of its walls.
#define MSB_JAILED_YES 1

/// A wall is missing.
#define MSB_JAILED_NO 2

/// It was asked to stop.
#define MSB_REASON_STOPPED 1

/// It was killed on request.
#define MSB_REASON_KILLED 2

/// It was not detached, and the process that created it ended.
#define MSB_REASON_CREATOR_GONE 3

/// Its time was over.
#define MSB_REASON_MAX_DURATION 4

/// Nothing ran in it for too long.
#define MSB_REASON_IDLE 5

/// It ended by itself.
#define MSB_REASON_CRASHED 6

/// It did not come up.
#define MSB_REASON_BOOT_FAILED 7

/// Start it, with the files it was left with.
#define MSB_OPEN_START 1

/// A sandbox that is running is killed first.
#define MSB_REMOVE_FORCE 1

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
    /// Lent. What begins with `/`, `./` or `../`, or has a slash and is there, is the path of a
    /// directory, which is the root filesystem and is never written to, or of an archive;
    /// everything else is the name of an image in the store or in a registry, as in docker:
    /// `"python:3.12"`.
    const char *image;
    /// Lent. `"container"` and such; NULL: `MSB_DRIVER`, else the first usable with hardware
    /// isolation.
    const char *driver;
    /// Lent. Working directory of commands that name none; NULL: the image's, else `/`.
    const char *workdir;
    /// Lent. Shell for scripts; NULL: the image's, else `/bin/sh`.
    const char *shell;
    /// Lent. User of commands that name none: `name`, `uid`, `name:group` or `uid:gid`; NULL: the
    /// image's, else root.
    const char *user;
    /// Lent. Host name; NULL: the sandbox's name.
    const char *hostname;
    /// Lent. `env_len` texts `NAME=value`, for every command, over those of the image.
    const char *const *env;
    /// How many.
    size_t env_len;
    /// Lent. `labels_len` texts `KEY=value`: notes of the caller's own. Of two with the same key
    /// the last one counts.
    const char *const *labels;
    /// How many.
    size_t labels_len;
    /// Processors, whole or a fraction such as 0.5, at most 4096; 0: the driver's default.
    double cpus;
    /// Memory in MiB, 16 to 16,777,216; 0: 2,048 or half of the host's, whichever is less.
    uint32_t memory_mib;
    /// Processes and threads at once, at least 8; 0: 4,096.
    uint32_t pids_limit;
    /// Ended after this many milliseconds; 0: never.
    uint64_t max_duration_ms;
    /// Ended when nothing ran in it for this many milliseconds; 0: never.
    uint64_t idle_timeout_ms;
    /// How long the start may take, in milliseconds; 0: 30,000.
    uint64_t boot_timeout_ms;
    /// With `MSB_SANDBOX_LOG`: most bytes of one file of the log, at least 524,288. 0, and no
    /// `log_files`: 4 files of 16 MiB.
    uint64_t log_max_bytes;
    /// With `MSB_SANDBOX_LOG`: most files, 2 to 10,000, of which the oldest goes for a new one.
    uint32_t log_files;
    /// Zero.
    uint32_t reserved;
    /// When the registry is asked for the image: one of `MSB_PULL_*`.
    uint32_t pull_policy;
    /// What commands in a virtual machine may do: one of `MSB_SECURITY_*`.
    uint32_t security;
    /// Size of the upper layer in MiB, 16 to 16,777,216; 0: 32,768.
    uint64_t disk_mib;
} msb_sandbox_options;
#define MSB_SANDBOX_OPTIONS_INIT \
    MSB_INIT(msb_sandbox_options, sizeof(msb_sandbox_options), 0, NULL, NULL, NULL, NULL, NULL, \
             NULL, NULL, NULL, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)

/// What a sandbox can take at most; 0 where nothing bounds it.
typedef struct msb_bounds {
    /// `sizeof(msb_bounds)` of the library.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Processes and threads at once.
    uint64_t pids;
    /// Bytes of memory.
    uint64_t memory_bytes;
    /// Bytes of its upper layer.
    uint64_t disk_bytes;
    /// Processors, also a fraction.
    double cpus;
} msb_bounds;

/// What is known about a sandbox. All pointers are borrowed until the list is released.
typedef struct msb_sandbox_entry {
    /// `sizeof(msb_sandbox_entry)` of the library.
    uint32_t struct_size;
    /// One of `MSB_STATE_*`.
    uint32_t state;
    /// One of `MSB_ISOLATION_*`; 0 when it was never started.
    uint32_t isolation;
    /// Why it ended: one of `MSB_REASON_*`; 0 when it did not.
    uint32_t reason;
    /// `MSB_SANDBOX_DETACHED` or 0.
    uint32_t flags;
    /// One of `MSB_JAILED_*`; 0 when it never came up.
    uint32_t jailed;
    /// Memory that was asked for, in MiB; 0: none was.
    uint32_t memory_mib;
    /// Zero.
    uint32_t reserved;
    /// Processors that were asked for; 0: none were.
    double cpus;
    /// When it was created, in milliseconds since 1970.
    int64_t created_ms;
    /// When it was last started, in milliseconds since 1970; 0: never.
    int64_t started_ms;
    /// Borrowed. Its name.
    const char *name;
    /// Borrowed. What it was made from, the name of an image or a path: bytes.
    const char *image;
    /// Borrowed. The driver that runs it, or ran it last; NULL when it was never started.
    const char *driver;
    /// Borrowed. More about its end, one line for people; NULL when there is nothing to say.
    const char *detail;
    /// Borrowed. `labels_len` texts `KEY=value`.
    const char *const *labels;
    /// How many.
    size_t labels_len;
    /// Borrowed. `command_len` texts: what its image runs when nobody names a command, its
    /// entrypoint and behind it its command. Commands that are run by name know nothing of it.
    const char *const *command;
    /// How many; 0 when the image names none.
    size_t command_len;
    /// Borrowed. `missing_walls_len` texts: the walls of the jail that are missing, with the reason.
    const char *const *missing_walls;
    /// How many.
    size_t missing_walls_len;
    /// Borrowed. The bounds in force; NULL when it never came up.
    const struct msb_bounds *bounds;
} msb_sandbox_entry;

/// Sandboxes.
typedef struct msb_sandbox_entries {
    /// `sizeof(msb_sandbox_entries)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Borrowed until `msb_sandbox_entries_release`. `len` pointers.
    const struct msb_sandbox_entry *const *entries;
    /// How many.
    size_t len;
    /// The library's. Do not touch.
    void *owner;
} msb_sandbox_entries;
#define MSB_SANDBOX_ENTRIES_INIT \
    MSB_INIT(msb_sandbox_entries, sizeof(msb_sandbox_entries), 0, NULL, 0, NULL)

/// Give back a list of sandboxes. NULL and one that was released before are fine; afterwards it is
/// empty. Any thread.
void msb_sandbox_entries_release(struct msb_sandbox_entries *list);

/// Create a sandbox and start it. Returns at once; `msb_sandbox_wait_ready` tells how it goes.
///
/// `options` is lent. Without `MSB_SANDBOX_DETACHED` the sandbox ends, within two seconds, when
/// this process does. Closing the handle while the image is got ends that, and no sandbox comes of
/// it; later it ends nothing, and the sandbox comes up.
///
/// `MSB_OK`: `*out_sandbox` is owned. `MSB_E_INVALID`: an option that makes no sense.
/// `MSB_E_IO`: a thread or descriptor could not be made. What goes wrong later, such as a name
/// that exists (`MSB_E_EXISTS`) or cannot be (`MSB_E_CONFIG`), `msb_sandbox_wait_ready` reports.
MSB_MUST_USE
msb_status msb_sandbox_create(const struct msb_sandbox_options *options,
                              struct msb_sandbox **out_sandbox,
                              struct msb_error *err);

/// Find a sandbox by its name, which is lent, running or not, whoever created it. Returns at once;
/// `msb_sandbox_wait_ready` tells how it goes.
///
/// `MSB_OK`: `*out_sandbox` is owned. `MSB_E_INVALID`: `name` is NULL, or an unknown flag. That
/// there is none (`MSB_E_NOT_FOUND`), that it cannot be a name (`MSB_E_CONFIG`) or, with
/// `MSB_OPEN_START`, that it runs already (`MSB_E_RUNNING`), `msb_sandbox_wait_ready` reports.
MSB_MUST_USE
msb_status msb_sandbox_open(const char *name,
                            uint32_t flags,
                            struct msb_sandbox **out_sandbox,
                            struct msb_error *err);

/// Wait until a sandbox is created, started or found. Waits up to `timeout_ms`: 0 only looks, -1
/// waits for ever.
///
/// `MSB_OK`: created or started, it runs commands; only found, it may be running or not, which
/// `msb_sandbox_info` tells. `MSB_AGAIN`: not yet. Anything else: it never will be, and why;
/// `MSB_E_EXISTS`, `MSB_E_NO_DRIVER` and `MSB_E_BOOT` are to be expected. Asked again, it says the
/// same, and so does every other call on the handle.
MSB_MUST_USE
msb_status msb_sandbox_wait_ready(struct msb_sandbox *sandbox,
                                  int64_t timeout_ms,
                                  struct msb_error *err);

/// How far the image of a sandbox that is being created is, when that is news since the last call.
/// Waits up to `timeout_ms`: 0 only looks, -1 waits for ever. Calls may be left out: a reader that
/// is slow misses steps, and never the end. From the first call on, and until the sandbox is ready,
/// the descriptor of the handle polls readable also when there is news.
///
/// `MSB_OK`: `*out_progress` is filled. `MSB_AGAIN`: nothing new yet. `MSB_EOF`: there will be
/// nothing more: `msb_sandbox_wait_ready` says, without waiting, what came of it. A sandbox whose
/// image is a directory has no progress, and one that was opened has none.
MSB_MUST_USE
msb_status msb_sandbox_progress(struct msb_sandbox *sandbox,
                                int64_t timeout_ms,
                                struct msb_progress *out_progress,
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

/// End the sandbox at once, with everything that runs in it. The handle stays open; closing it
/// meanwhile ends the wait, not the kill. A creation is undone so far: the image is no longer got,
/// or else the sandbox is waited for and then ended.
///
/// `MSB_OK`: it has ended, now. `MSB_E_NOT_RUNNING`: it had ended before. `MSB_E_CRASHED`: it ended
/// by itself first. Of a creation that came to nothing, what `msb_sandbox_wait_ready` says;
/// `MSB_E_CLOSED` when it was this call that gave it up.
MSB_MUST_USE msb_status msb_sandbox_kill(struct msb_sandbox *sandbox, struct msb_error *err);

/// Wait until the sandbox has ended. Waits up to `timeout_ms`: 0 only looks, -1 waits for ever.
/// From the first call on, the descriptor of the handle polls readable when it has, and no longer
/// because it is ready.
///
/// `MSB_OK`: it was stopped or killed, or its options ended it: `msb_sandbox_info` says which.
/// `MSB_AGAIN`: not yet. `MSB_E_CRASHED`: it ended by itself. `MSB_E_NOT_RUNNING`: it was never
/// started, or is not ready yet. `MSB_E_CLOSED`: the handle was closed meanwhile. Once it has
/// told the end, it says the same for ever, also when the sandbox was started again.
MSB_MUST_USE
msb_status msb_sandbox_wait(struct msb_sandbox *sandbox,
                            int64_t timeout_ms,
                            struct msb_error *err);

/// What is known about the sandbox now: a list of one.
///
/// `MSB_OK`: `*out_list` is filled; give it back with `msb_sandbox_entries_release`.
/// `MSB_E_NOT_FOUND`: it was removed. `MSB_E_NOT_RUNNING`: it is not ready yet.
MSB_MUST_USE
msb_status msb_sandbox_info(struct msb_sandbox *sandbox,
                            struct msb_sandbox_entries *out_list,
                            struct msb_error *err);

/// All sandboxes, by name, running or not.
///
/// `MSB_OK`: `*out_list` is filled; give it back with `msb_sandbox_entries_release`. `MSB_E_IO`:
/// they cannot be read.
MSB_MUST_USE
msb_status msb_sandbox_list(struct msb_sandbox_entries *out_list,
                            struct msb_error *err);

/// Remove a sandbox that is not running, and its files. `name` is lent. Handles on it stay open,
/// and say that it is not there any more.
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

/// A virtual machine on a host that was told to skip the check for hardware isolation.
#define MSB_ISOLATION_UNCHECKED 4

/// What is known about a driver on this host. All pointers are borrowed until the list is released.
typedef struct msb_driver_entry {
    /// `sizeof(msb_driver_entry)` of the library.
    uint32_t struct_size;
    /// One of `MSB_ISOLATION_*`.
    uint32_t isolation;
    /// 1 when it can be used, else 0.
    uint32_t usable;
    /// Zero.
    uint32_t reserved;
    /// Borrowed. Its name.
    const char *name;
    /// Borrowed. On what it stands when it can be used, else why it cannot; one line.
    const char *why;
    /// Borrowed. What would make it usable; NULL when that is not known.
    const char *hint;
    /// Borrowed. `unbounded_len` texts: what it cannot bound, with the reason.
    const char *const *unbounded;
    /// How many.
    size_t unbounded_len;
} msb_driver_entry;

/// Drivers.
typedef struct msb_driver_entries {
    /// `sizeof(msb_driver_entries)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Borrowed until `msb_driver_entries_release`. `len` pointers.
    const struct msb_driver_entry *const *entries;
    /// How many.
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
    /// Borrowed. What it is called, such as `"seccomp"`.
    const char *name;
    /// Borrowed. Why this host does not have it, one line; NULL when it does.
    const char *missing;
    /// Borrowed. What would help; NULL when that is not known.
    const char *hint;
} msb_wall_entry;

/// Walls of the jail.
typedef struct msb_wall_entries {
    /// `sizeof(msb_wall_entries)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Borrowed until `msb_wall_entries_release`. `len` pointers.
    const struct msb_wall_entry *const *entries;
    /// How many.
    size_t len;
    /// The library's. Do not touch.
    void *owner;
} msb_wall_entries;
#define MSB_WALL_ENTRIES_INIT \
    MSB_INIT(msb_wall_entries, sizeof(msb_wall_entries), 0, NULL, 0, NULL)

/// Which drivers can be used on this host, in the order in which they are chosen, and which walls of
/// the jail can be had. Tries each.
///
/// `MSB_OK`: `*out_drivers` is filled; give it back with `msb_driver_entries_release`. So is
/// `*out_walls` unless it is NULL; give it back with `msb_wall_entries_release`.
MSB_MUST_USE
msb_status msb_doctor(struct msb_driver_entries *out_drivers,
                      struct msb_wall_entries *out_walls,
                      struct msb_error *err);

/// Give back a list of drivers. NULL and one that was released before are fine; afterwards it is
/// empty. Any thread.
void msb_driver_entries_release(struct msb_driver_entries *list);

/// Give back a list of walls. NULL and one that was released before are fine; afterwards it is
/// empty. Any thread.
void msb_wall_entries_release(struct msb_wall_entries *list);

/* ---- image ---- */

/// Also images that have a name.
#define MSB_PRUNE_ALL 1

/// What is known about an image in the store. All pointers are borrowed until the list is released.
typedef struct msb_image_entry {
    /// `sizeof(msb_image_entry)` of the library.
    uint32_t struct_size;
    /// How many layers it has.
    uint32_t layers;
    /// How many bytes its files have.
    uint64_t size;
    /// How many bytes its layers have as they came.
    uint64_t download_size;
    /// When it came into the store, in milliseconds since 1970.
    int64_t added_ms;
    /// Borrowed. Its id: `sha256:` and 64 digits.
    const char *id;
    /// Borrowed. The processor's architecture that it is for, as in `amd64`.
    const char *architecture;
    /// Borrowed. Its root filesystem, a directory that must not be written: bytes.
    const char *rootfs;
    /// Borrowed. Its working directory; NULL for none.
    const char *workdir;
    /// Borrowed. Its user; NULL for root.
    const char *user;
    /// Borrowed. `names_len` names, as short as they can be written.
    const char *const *names;
    /// How many.
    size_t names_len;
    /// Borrowed. `digests_len` digests by which registries know it.
    const char *const *digests;
    /// How many.
    size_t digests_len;
    /// Borrowed. `env_len` texts `NAME=value`.
    const char *const *env;
    /// How many.
    size_t env_len;
    /// Borrowed. `entrypoint_len` texts: what runs in front of a command of its own.
    const char *const *entrypoint;
    /// How many.
    size_t entrypoint_len;
    /// Borrowed. `cmd_len` texts: its own command.
    const char *const *cmd;
    /// How many.
    size_t cmd_len;
    /// Borrowed. `used_by_len` names of the sandboxes that use it, running or not.
    const char *const *used_by;
    /// How many.
    size_t used_by_len;
} msb_image_entry;

/// Images.
typedef struct msb_image_entries {
    /// `sizeof(msb_image_entries)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Borrowed until `msb_image_entries_release`. `len` pointers.
    const struct msb_image_entry *const *entries;
    /// How many.
    size_t len;
    /// The library's. Do not touch.
    void *owner;
} msb_image_entries;
#define MSB_IMAGE_ENTRIES_INIT \
    MSB_INIT(msb_image_entries, sizeof(msb_image_entries), 0, NULL, 0, NULL)

/// Give back a list of images. NULL and one that was released before are fine; afterwards it is
/// empty. Any thread.
void msb_image_entries_release(struct msb_image_entries *list);

/// Get an image from its registry, also when it is in the store already; what has not changed is
/// not fetched again. `name` is lent: `"python:3.12"`. Returns at once; `msb_image_wait` tells what
/// came of it, `msb_image_progress` how far it is. Closing the handle ends it.
///
/// `MSB_OK`: `*out_image` is owned. `MSB_E_INVALID`: `name` is NULL. `MSB_E_CONFIG`: it is no name
/// that an image can have, or the configuration of registries makes no sense.
MSB_MUST_USE
msb_status msb_image_pull(const char *name,
                          struct msb_image **out_image,
                          struct msb_error *err);

/// Take an image from a file or directory: an archive of a root filesystem, what `docker save`
/// writes, OCI's layout; plain, or compressed with gzip or zstd. `path` is lent, bytes. `name` is
/// lent; NULL: it is called as it says itself, if it does. Otherwise as `msb_image_pull`.
///
/// `MSB_OK`: `*out_image` is owned. `MSB_E_INVALID`: `path` is NULL. `MSB_E_CONFIG`: there is
/// nothing at `path`, or `name` is none that an image can have.
MSB_MUST_USE
msb_status msb_image_import(const char *path,
                            const char *name,
                            struct msb_image **out_image,
                            struct msb_error *err);

/// How far it is, when that is news since the last call. Waits up to `timeout_ms`: 0 only looks, -1
/// waits for ever. Calls may be left out: a reader that is slow misses steps, and never the end.
/// From the first call on, the descriptor of the handle polls readable also when there is news.
///
/// `MSB_OK`: `*out_progress` is filled. `MSB_AGAIN`: nothing new yet. `MSB_EOF`: there will be
/// nothing more; `msb_image_wait` tells, without waiting, what came of it.
MSB_MUST_USE
msb_status msb_image_progress(struct msb_image *image,
                              int64_t timeout_ms,
                              struct msb_progress *out_progress,
                              struct msb_error *err);

/// Wait until an image is there. Waits up to `timeout_ms`: 0 only looks, -1 waits for ever.
///
/// `MSB_OK`: `*out_list` holds what is known about it; give it back with
/// `msb_image_entries_release`. `MSB_AGAIN`: not yet. Anything else: it never will be, and why;
/// `MSB_E_NO_IMAGE`, `MSB_E_IMAGE_DENIED` and `MSB_E_REGISTRY` are to be expected. Asked again, it
/// says the same.
MSB_MUST_USE
msb_status msb_image_wait(struct msb_image *image,
                          int64_t timeout_ms,
                          struct msb_image_entries *out_list,
                          struct msb_error *err);

/// All images in the store, the newest first.
///
/// `MSB_OK`: `*out_list` is filled; give it back with `msb_image_entries_release`. `MSB_E_IO`: they
/// cannot be read.
MSB_MUST_USE msb_status msb_image_list(struct msb_image_entries *out_list, struct msb_error *err);

/// Take a name, which is lent, from an image, and remove the image when that was its last. Called
/// by its id it loses all its names. With `MSB_REMOVE_FORCE` also an image that a sandbox uses
/// loses its names; the image itself stays as long as the sandbox does.
///
/// `MSB_OK`. `MSB_E_NO_IMAGE`. `MSB_E_IMAGE_IN_USE`: a sandbox uses it.
MSB_MUST_USE msb_status msb_image_remove(const char *name, uint32_t flags, struct msb_error *err);

/// Remove every image that has no name and that no sandbox uses, and what downloads have left.
/// Waits for images that are being got.
///
/// `MSB_OK`: `*out_freed`, which may be NULL, is about how many bytes are free again. `MSB_E_IO`:
/// something cannot be removed.
MSB_MUST_USE msb_status msb_image_prune(uint32_t flags, uint64_t *out_freed, struct msb_error *err);

/* ---- exec ---- */

/// The command gets a terminal; its standard error then comes as standard output.
#define MSB_EXEC_TTY 1

/// Forward output until every process that holds it has closed it, however long that takes.
#define MSB_EXEC_WAIT_FOR_EOF 2

/// `cmd` is a script for the sandbox's shell, as with `sh -c`: the first of `args` is its `$0`, the
/// next one its `$1`.
#define MSB_EXEC_SHELL 4

/// Session id and its NUL: 32 hexadecimal digits.
#define MSB_SESSION_ID_LEN 33

/// Only the command's process group. The default, 0.
#define MSB_SIGNAL_GROUP 0

/// Everything that the command started, also what left its group.
#define MSB_SIGNAL_TREE 1

/// Only what is still to come: a position for `msb_exec_reattach`.
#define MSB_FROM_NOW (-1)

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
    /// Lent. `env_len` texts `NAME=value`, on top of the sandbox's; the last of a name counts.
    const char *const *env;
    /// How many.
    size_t env_len;
    /// Lent. Working directory; NULL: the sandbox's.
    const char *cwd;
    /// Lent. `name`, `uid`, `name:group` or `uid:gid`; NULL: the sandbox's.
    const char *user;
    /// Copied. Fixed standard input of `stdin_len` bytes, and then its end; not together with a
    /// sink.
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
    /// `msb_exec_collect` keeps at most so many bytes of each output, and counts on; 0: all.
    uint64_t max_output;
} msb_exec_options;
#define MSB_EXEC_OPTIONS_INIT \
    MSB_INIT(msb_exec_options, sizeof(msb_exec_options), 0, NULL, NULL, 0, NULL, 0, NULL, NULL, \
             NULL, 0, NULL, 0, 0, 0, 0, 0, 0, 0)

/// Start a command and return at once; `msb_exec_recv` tells how it goes, also that it could not
/// be started.
///
/// `options` is lent. With `out_stdin` its input is written by `msb_sink_write`; with `out_stdin`
/// NULL it is `stdin_data` if given, else `/dev/null`.
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

/// Change the size of a command's terminal, and wait until the sandbox has done so. The command
/// gets SIGWINCH.
///
/// `MSB_OK`. `MSB_E_NOT_A_TERMINAL`: it has none. `MSB_E_NO_PROCESS`: it has ended.
MSB_MUST_USE
msb_status msb_exec_resize(const struct msb_exec *exec,
                           uint16_t rows,
                           uint16_t cols,
                           struct msb_error *err);

/// Where in the output this handle is: behind the last byte that it has handed out, collected or
/// thrown away, counting both outputs together. `msb_exec_reattach` goes on there. `*out_missed`
/// is how many bytes `msb_exec_reattach` was asked for that are no longer kept; those that came
/// are behind them. `out_missed` may be NULL.
///
/// `MSB_OK`. `MSB_E_HANDLE`.
MSB_MUST_USE
msb_status msb_exec_position(const struct msb_exec *exec,
                             uint64_t *out_position,
                             uint64_t *out_missed,
                             struct msb_error *err);

/// Follow a session that runs, or that ended a short while ago: one of this process or another's.
///
/// `id` is lent. `from` is a position as `msb_exec_position` tells it, 0 for the first byte, or
/// `MSB_FROM_NOW`, as is any position that is not reached yet. About the last mebibyte of the
/// output is kept; where it begins later than `from`, `msb_exec_position` tells how much is
/// missing. The events are STARTED, the output from there on, and the ending as everybody is told
/// it. Any number of handles may follow one session; a reader that stops, stops the command for
/// all of them.
///
/// `MSB_OK`: `*out_exec` is owned, and so is `*out_stdin` if `out_stdin` is not NULL; `*out_stdin`
/// is NULL when the session's input is not open. Whoever closes one of its sinks ends the input
/// for all. `MSB_E_NO_SESSION`: not known in this sandbox, which is said after a second since its
/// start may be on its way; or ended too long ago.
/// `MSB_E_INVALID`: not a session id.
MSB_MUST_USE
msb_status msb_exec_reattach(struct msb_sandbox *sandbox,
                             const char *id,
                             int64_t from,
                             struct msb_exec **out_exec,
                             struct msb_sink **out_stdin,
                             struct msb_error *err);

/* ---- event ---- */

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

/// Most events that one call of `msb_exec_recv_many` takes.
#define MSB_RECV_MAX 256

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
    /// Bytes, not text: borrowed until `msb_event_release`. NULL when there are none.
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
#define MSB_EVENT_INIT \
    MSB_INIT(msb_event, sizeof(msb_event), 0, 0, NULL, 0, NULL, NULL, 0, 0, NULL)

/// Take the next event. Waits up to `timeout_ms`: 0 only looks, -1 waits for ever.
///
/// The events of a command are STARTED, any number of STDOUT, STDERR and STDIN_ERROR, and one of
/// EXITED, FAILED and LOST; FAILED comes without STARTED. An event is delivered whole or not at
/// all, and no failure loses one. One thread at a time.
///
/// `MSB_OK`: `*out_event` is filled; give it back with `msb_event_release`. `MSB_AGAIN`: nothing
/// yet. `MSB_EOF`: nothing more, ever; `out_event->flags` tells about the end, and there is nothing
/// to give back. `MSB_E_BUSY`: another thread waits. `MSB_E_CLOSED`: the handle was closed
/// meanwhile.
MSB_MUST_USE
msb_status msb_exec_recv(struct msb_exec *exec,
                         int64_t timeout_ms,
                         struct msb_event *out_event,
                         struct msb_error *err);

/// Take the events that are there, up to `capacity` and `MSB_RECV_MAX`, and wait for the first as
/// `msb_exec_recv` does. `events` is an array of at least one, each element started from
/// `MSB_EVENT_INIT`, so that all have the same size. One thread at a time.
///
/// `MSB_OK`: the first `*out_len` elements are filled, at least one; give each back, or all with
/// `msb_event_release_many`. `MSB_AGAIN`: nothing yet. `MSB_EOF`: nothing more, ever; `*out_len` is
/// 0 and `events[0].flags` tells about the end. `MSB_E_BUSY` and `MSB_E_CLOSED` as `msb_exec_recv`.
MSB_MUST_USE
msb_status msb_exec_recv_many(struct msb_exec *exec,
                              int64_t timeout_ms,
                              struct msb_event *events,
                              size_t capacity,
                              size_t *out_len,
                              struct msb_error *err);

/// Wait until the command has ended, and throw away what it puts out until then. Waits up to
/// `timeout_ms`: 0 only looks, -1 waits for ever. One thread at a time.
///
/// `MSB_OK`: `*out_event` is its EXITED, FAILED or LOST, also when it was received before; give it
/// back with `msb_event_release`. `msb_exec_recv` does not tell it again, but goes on behind it
/// with what other processes still write. `MSB_AGAIN`: not yet; what came so far is gone.
/// `MSB_E_BUSY` and `MSB_E_CLOSED` as `msb_exec_recv`.
MSB_MUST_USE
msb_status msb_exec_wait(struct msb_exec *exec,
                         int64_t timeout_ms,
                         struct msb_event *out_event,
                         struct msb_error *err);

/// Give back an event's bytes, and with them the command's leave to send more. Any thread, any
/// order, also after the exec was closed. NULL, an event that was never filled and one that was
/// released before are fine.
///
/// Afterwards the event's pointers are NULL.
void msb_event_release(struct msb_event *event);

/// Give back the first `len` events of an array, as `msb_event_release` does with each. All of them
/// have the same size; they need not be filled.
void msb_event_release_many(struct msb_event *events, size_t len);

/* ---- output ---- */

/// Of an output: `max_output` cut something off.
#define MSB_OUTPUT_TRUNCATED 4

/// How a command ended, and what it had put out. All pointers are borrowed until
/// `msb_output_release`.
typedef struct msb_output {
    /// `sizeof(msb_output)`.
    uint32_t struct_size;
    /// How it ended: `MSB_EVENT_EXITED`, `MSB_EVENT_FAILED` or `MSB_EVENT_LOST`.
    uint32_t kind;
    /// With `MSB_EVENT_EXITED`; else NULL. Its `MSB_EXIT_TIMED_OUT` says that the time ran out.
    const struct msb_exec_exit *exit;
    /// With `MSB_EVENT_FAILED`; else NULL.
    const struct msb_exec_failure *failure;
    /// With `MSB_EVENT_LOST`, the reason, one line of `lost_len` bytes; else NULL.
    const uint8_t *lost;
    /// How many bytes.
    size_t lost_len;
    /// What it wrote to standard output; with a terminal, everything. NULL when that is nothing.
    const uint8_t *stdout_data;
    /// How many bytes.
    size_t stdout_len;
    /// How many bytes it wrote there, also beyond `max_output`.
    uint64_t stdout_total;
    /// What it wrote to standard error. NULL when that is nothing.
    const uint8_t *stderr_data;
    /// How many bytes.
    size_t stderr_len;
    /// How many bytes it wrote there, also beyond `max_output`.
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

/// Wait for the end of a command and of its output, and collect what was not received before.
/// Waits up to `timeout_ms`: 0 only looks, -1 waits for ever. One thread at a time.
///
/// A command that failed to start, whose time ran out or whose sandbox went is not a failure of
/// this call: `out_output->kind` and `out_output->exit` say how it went, and the output so far is
/// there. Giving the call up leaves the command running: `msb_exec_signal` ends it.
///
/// `MSB_OK`: `*out_output` is filled; give it back with `msb_output_release`. Afterwards
/// `msb_exec_recv` says `MSB_EOF`, and a second output has the same end and no bytes. `MSB_AGAIN`:
/// not yet; what was collected is kept for the next call of this function. `MSB_E_BUSY` and
/// `MSB_E_CLOSED` as `msb_exec_recv`.
MSB_MUST_USE
msb_status msb_exec_collect(struct msb_exec *exec,
                            int64_t timeout_ms,
                            struct msb_output *out_output,
                            struct msb_error *err);

/// Give back an output. NULL and one that was released before are fine; afterwards its pointers
/// are NULL. Any thread, also after the exec was closed.
void msb_output_release(struct msb_output *output);

/* ---- sink ---- */

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

/* ---- session ---- */

/// Of a session: it has a terminal.
#define MSB_SESSION_TTY 1

/// One run of a command. All pointers are borrowed until the list is released.
typedef struct msb_exec_entry {
    /// `sizeof(msb_exec_entry)` of the library.
    uint32_t struct_size;
    /// `MSB_SESSION_TTY` or 0.
    uint32_t flags;
    /// Process id in the guest.
    uint32_t pid;
    /// How many readers follow it.
    uint32_t followers;
    /// How long ago it started, in nanoseconds.
    uint64_t age_ns;
    /// How many bytes it has put out.
    uint64_t output_total;
    /// Borrowed. Session id.
    const char *id;
    /// Borrowed. `argv_len` texts: the program and its arguments, cut when they are very long.
    const char *const *argv;
    /// How many.
    size_t argv_len;
    /// Borrowed. How it ended; NULL while it runs.
    const struct msb_exec_exit *exit;
} msb_exec_entry;

/// Sessions.
typedef struct msb_exec_entries {
    /// `sizeof(msb_exec_entries)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t reserved;
    /// Borrowed until `msb_exec_entries_release`. `len` pointers.
    const struct msb_exec_entry *const *entries;
    /// How many.
    size_t len;
    /// The library's. Do not touch.
    void *owner;
} msb_exec_entries;
#define MSB_EXEC_ENTRIES_INIT \
    MSB_INIT(msb_exec_entries, sizeof(msb_exec_entries), 0, NULL, 0, NULL)

/// The commands that run in a sandbox, and those that ended a short while ago.
///
/// `MSB_OK`: `*out_list` is filled; give it back with `msb_exec_entries_release`.
/// `MSB_E_NOT_RUNNING`: the sandbox has ended, or is not ready yet. `MSB_E_LOST`.
MSB_MUST_USE
msb_status msb_exec_list(struct msb_sandbox *sandbox,
                         struct msb_exec_entries *out_list,
                         struct msb_error *err);

/// Give back a list of sessions. NULL and one that was released before are fine; afterwards it is
/// empty. Any thread.
void msb_exec_entries_release(struct msb_exec_entries *list);

/* ---- log ---- */

/// Go on with what is still to come, until the sandbox ends.
#define MSB_LOG_FOLLOW 1

/// `data` holds bytes that the session wrote to standard output; with a terminal, everything.
#define MSB_LOG_STDOUT 1

/// `data` holds bytes that the session wrote to standard error.
#define MSB_LOG_STDERR 2

/// The session began; `value` is its process id in the guest, `argv` what it runs.
#define MSB_LOG_STARTED 3

/// The session ended; `value` is its exit code, -1 for a death by signal; `exit` tells more, but
/// not what was used, since the log does not keep that. All that it wrote itself stands before.
#define MSB_LOG_EXITED 4

/// The session never ran; `value` is the guest's `errno`; `failure` tells more, but its `path` is
/// empty, since the log does not keep that. `argv` is what was to be run.
#define MSB_LOG_FAILED 5

/// Nothing more is known of the session: the connection to the sandbox ended first.
#define MSB_LOG_LOST 6

/// Something about the session that a later version of the library wrote.
#define MSB_LOG_OTHER 7

/// Not of a session: `data` holds what is missing from what was read, one line for people. That is
/// files that were removed, since the log was full, after the reading had begun and before it came
/// to them; or the end, which could not be written. Comes once, last.
#define MSB_LOG_INCOMPLETE 8

/// Which part of a log is wanted. Zero means all that there is.
typedef struct msb_log_options {
    /// `sizeof(msb_log_options)`.
    uint32_t struct_size;
    /// `MSB_LOG_FOLLOW` or 0.
    uint32_t flags;
    /// Lent. Only the records of the session with this id; NULL: of all.
    const char *session;
    /// Only records from this time on, in nanoseconds since 1970; 0: from the first.
    int64_t since_ns;
} msb_log_options;
#define MSB_LOG_OPTIONS_INIT \
    MSB_INIT(msb_log_options, sizeof(msb_log_options), 0, NULL, 0)

/// One record of a log.
typedef struct msb_log_record {
    /// `sizeof(msb_log_record)`.
    uint32_t struct_size;
    /// One of `MSB_LOG_STDOUT` and so on; 0 at the end. Ignore what you do not know.
    uint32_t kind;
    /// When it reached the log, by the clock of the host, in nanoseconds since 1970. Never less
    /// than that of the record before, unless the clock was set.
    int64_t time_ns;
    /// A number whose meaning `kind` gives.
    int64_t value;
    /// Borrowed until `msb_log_record_release`, as is all below. Session id, as `msb_exec_id`
    /// tells it; NULL with `MSB_LOG_INCOMPLETE`.
    const char *session;
    /// Borrowed. Bytes, not text. NULL when there are none.
    const uint8_t *data;
    /// How many bytes.
    size_t len;
    /// Borrowed. `argv_len` texts with `MSB_LOG_STARTED` and `MSB_LOG_FAILED`: the program and
    /// its arguments. What is not UTF-8 in them was replaced.
    const char *const *argv;
    /// How many.
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

/// Begin to read the log of a sandbox: what its sessions have put out, byte for byte, and what
/// became of them. There is one only if the sandbox was created with `MSB_SANDBOX_LOG`. It is kept
/// until the sandbox is removed, so that it can also be read when the sandbox has ended, the oldest
/// part only as long as there is room. It is not the library's own log: see `msb_trace_set` for that.
///
/// `options` is lent and may be NULL. The sandbox's handle may be closed before this one. Any
/// number of handles may read one log, each with a thread and about a mebibyte of its own, which is
/// read ahead; reading holds up neither the sandbox nor its commands. This call waits for the disk.
///
/// `MSB_OK`: `*out_log` is owned. `MSB_E_CONFIG`: the sandbox keeps no log. `MSB_E_NOT_FOUND`: it
/// was removed. `MSB_E_NOT_RUNNING`: its creation is not over yet; `msb_sandbox_wait_ready` tells
/// when it is. `MSB_E_CLOSED`: the sandbox's handle was closed meanwhile.
MSB_MUST_USE
msb_status msb_log_open(struct msb_sandbox *sandbox,
                        const struct msb_log_options *options,
                        struct msb_log **out_log,
                        struct msb_error *err);

/// Take the next record. Waits up to `timeout_ms`: 0 only looks, -1 waits for ever.
///
/// The records come in the order in which they reached the log, those of several sessions among
/// each other. One thread at a time.
///
/// `MSB_OK`: `*out_record` is filled; give it back with `msb_log_record_release`. `MSB_AGAIN`:
/// nothing yet, also without `MSB_LOG_FOLLOW`, since the files are read meanwhile. `MSB_EOF`:
/// nothing more, ever, and nothing to give back: the log is read to its end and, with
/// `MSB_LOG_FOLLOW`, the sandbox has ended. `MSB_E_BUSY`: another thread waits. `MSB_E_CLOSED`:
/// the handle was closed meanwhile. `MSB_E_IO`: a file could not be read; after that comes
/// `MSB_EOF`.
MSB_MUST_USE
msb_status msb_log_recv(struct msb_log *log,
                        int64_t timeout_ms,
                        struct msb_log_record *out_record,
                        struct msb_error *err);

/// Give back what a record points to. Any thread, any order, also after the handle was closed.
/// NULL, a record that was never filled and one that was released before are fine.
///
/// Afterwards the record's pointers are NULL.
void msb_log_record_release(struct msb_log_record *record);

/* ---- attach ---- */

/// Of an attach: the session lives on, since the keys were typed or the terminal hung up.
#define MSB_ATTACH_DETACHED 1

/// What to tie the terminal to. Zero means default. All pointers are lent.
typedef struct msb_attach_options {
    /// `sizeof(msb_attach_options)`.
    uint32_t struct_size;
    /// Zero.
    uint32_t flags;
    /// Lent. The command, which gets a terminal of this one's size whatever its flags, and no
    /// `stdin_data`; NULL: the sandbox's shell.
    const struct msb_exec_options *exec;
    /// Lent. Instead of a command: the id of a session with a terminal, to be taken up.
    const char *session;
    /// Lent. What parts them: characters and names such as `ctrl-p`, with commas between them;
    /// NULL: `ctrl-]`.
    const char *detach_keys;
} msb_attach_options;
#define MSB_ATTACH_OPTIONS_INIT \
    MSB_INIT(msb_attach_options, sizeof(msb_attach_options), 0, NULL, NULL, NULL)

/// Tie this process's terminal, its standard input and output, to a command or a session until it
/// ends or the detach keys part them; waits for that. The terminal is in raw mode meanwhile, and
/// has its settings back when this returns, however it returns. `options` is lent and may be NULL.
///
/// `MSB_OK`: `*out_code` is the exit code, or 128 and the signal's number, as a shell would show
/// it; -1 with `MSB_ATTACH_DETACHED` in `*out_flags`, which may be NULL. `MSB_E_NOT_A_TERMINAL`:
/// standard input is none, or the session has none. `MSB_E_EXEC_FAILED`: the command never
/// started. `MSB_E_BUSY`: another attach has the terminal. `MSB_E_CLOSED`: the handle was closed
/// meanwhile; the command runs on.
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
