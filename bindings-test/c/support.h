/* support.h - what tests need: a sandbox, commands, their events, and a look into /proc. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "harness.h"

#include <sys/types.h>

/* A home of our own; the sandbox that tests share, made on first use and ended with the program. */
void support_begin(void);
void support_end(void);
msb_sandbox *shared(void);

/* Runs one test in another process, in this one's home; that one finds `task` in MSB_TEST_OTHER. 0
 * if it passed. */
int run_again(const char *test, const char *task);

/* Options of a sandbox on the test's root filesystem. */
msb_sandbox_options sandbox_named(const char *name);
/* A sandbox of the test's own, ready. */
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
    char *data; /* with a NUL behind */
    size_t len;
};

/* What became of a command. */
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
    int64_t exit_ms, end_ms; /* when they came, since the reading began */
};

/* Takes one event that has to come, and keeps what it says; false at the end of the stream. Checks
 * that it may come at all where it comes. */
bool take(msb_exec *exec, struct outcome *outcome, int64_t timeout_ms);
/* Keeps what an event says, with the same checks. */
void note(struct outcome *outcome, const msb_event *event, int64_t since);
/* Takes all that is left, checks that the end is one for ever, and closes the handle. */
void finish(msb_exec *exec, struct outcome *outcome);
void forget(struct outcome *outcome);

/* Runs a command in the shared sandbox to its end. */
struct outcome run_command(const msb_exec_options *options);
/* Runs a script that has to exit with 0; its output is good until the next call. */
const char *sh(const char *text);
const char *sh_in(msb_sandbox *sandbox, const char *text);
/* Runs a shell condition inside until it holds. */
void wait_until(const char *condition);

/* Writes all of it. */
void write_all(msb_sink *sink, const void *data, size_t len);

void sleep_ms(int64_t ms);

/* A number of /proc/PID/status in KiB, such as "VmHWM:"; -1 if it cannot be had. PID 0: ours. */
long status_kib(pid_t pid, const char *field);
/* Starts VmHWM anew. */
void reset_peak(pid_t pid);
/* The agent of a sandbox as the host sees it; 0 if it cannot be seen, as in a virtual machine. */
pid_t agent_of(msb_sandbox *sandbox);
int open_descriptors(pid_t pid);
/* Whether a descriptor polls readable within so many milliseconds. */
bool readable(int fd, int timeout_ms);

#endif
