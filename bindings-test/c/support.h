/* support.h - helpers of tests: a sandbox, commands, their events, and values from /proc. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "harness.h"

#include <sys/types.h>

/* Creates a state directory; the shared sandbox is created on first use and removed at the end. */
void support_begin(void);
void support_end(void);
msb_sandbox *shared(void);

/* Runs one test in another process with the same state directory; it finds `task` in
 * MSB_TEST_OTHER. Returns 0 if it passed. */
int run_again(const char *test, const char *task);

/* Options of a sandbox on the test's root filesystem. */
msb_sandbox_options sandbox_named(const char *name);
/* Creates a sandbox for one test, and waits until it is ready. */
msb_sandbox *sandbox_of_own(const char *name);
/* Stops, closes and removes it. */
void sandbox_end(msb_sandbox *sandbox, const char *name);

/* Options of a command; of a script. */
msb_exec_options command(const char *cmd);
msb_exec_options script(const char *text);
#define SET_ARRAY(options, field, array)                                                          \
    ((options).field = (array), (options).field##_len = sizeof(array) / sizeof((array)[0]))

msb_exec *start(msb_sandbox *sandbox, const msb_exec_options *options, msb_sink **sink);

struct buffer {
    char *data; /* followed by a NUL */
    size_t len;
};

/* The events of a command. */
struct outcome {
    struct buffer out, err;
    int started, stdin_errors;
    int64_t pid, stdin_errno;
    uint32_t ending; /* MSB_EVENT_EXITED, _FAILED or _LOST */
    uint32_t end_flags;
    msb_exec_exit exit;
    msb_exec_failure failure; /* numbers only; the texts are below */
    char kind_name[64], stage[64], os_error_name[64], message[512], path[512], lost[512];
    size_t out_at_exit;
    int64_t exit_ms, end_ms; /* since the first read */
};

/* Receives an event and records it; false at the end of the stream. Checks that it is valid at its
 * position. */
bool take(msb_exec *exec, struct outcome *outcome, int64_t timeout_ms);
/* Records an event, with the same checks. */
void note(struct outcome *outcome, const msb_event *event, int64_t since);
/* Receives all remaining events, checks that the end repeats, and closes the handle. */
void finish(msb_exec *exec, struct outcome *outcome);
void forget(struct outcome *outcome);

/* Runs a command in the shared sandbox to completion. */
struct outcome run_command(const msb_exec_options *options);
/* Runs a script that must exit with 0; its output is valid until the next call. */
const char *sh(const char *text);
const char *sh_in(msb_sandbox *sandbox, const char *text);
/* Runs a shell condition in the sandbox until it holds. */
void wait_until(const char *condition);

/* Writes all bytes. */
void write_all(msb_sink *sink, const void *data, size_t len);

void sleep_ms(int64_t ms);

/* Returns a number of /proc/PID/status in KiB, such as "VmHWM:"; -1 if unavailable. PID 0: this
 * process. */
long status_kib(pid_t pid, const char *field);
/* Resets VmHWM. */
void reset_peak(pid_t pid);
/* Returns the agent of a sandbox; 0 if the host cannot see it, as in a virtual machine. */
pid_t agent_of(msb_sandbox *sandbox);
int open_descriptors(pid_t pid);
/* Returns whether a descriptor polls readable within this time. */
bool readable(int fd, int timeout_ms);

#endif
