/* support.c - see support.h. */
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static char home[] = "/tmp/msb-test-c-XXXXXX";
static bool home_is_ours = true;
static msb_sandbox *shared_sandbox;

void support_begin(void)
{
    if (!getenv("MSB_TEST_ROOTFS")) {
        fprintf(stderr, "MSB_TEST_ROOTFS has to name a root filesystem: run make test-c\n");
        exit(2);
    }
    setenv("MSB_DRIVER", "container", 0);
    if (getenv("MSB_TEST_OTHER")) { /* a test runs this program again, in its home */
        home_is_ours = false;
        return;
    }
    if (!mkdtemp(home)) {
        perror(home);
        exit(2);
    }
    setenv("MSB_HOME", home, 1);
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
    (void)stat, (void)type, (void)ftw;
    return remove(path);
}

void support_end(void)
{
    if (shared_sandbox)
        sandbox_end(shared_sandbox, "shared");
    if (home_is_ours)
        nftw(home, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int run_again(const char *test, const char *task)
{
    char command_line[1024], self[256] = "";

    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return -1;
    snprintf(command_line, sizeof command_line, "MSB_TEST_OTHER='%s' '%s' %s >/dev/null", task,
             self, test);
    return system(command_line);
}

msb_sandbox_options sandbox_named(const char *name)
{
    msb_sandbox_options options = MSB_SANDBOX_OPTIONS_INIT;

    options.name = name;
    options.image = getenv("MSB_TEST_ROOTFS");
    if (getenv("MSB_TEST_DETACHED")) {
        options.flags = MSB_SANDBOX_DETACHED;
        options.max_duration_ms = 600000; /* in case this program dies without removing it */
    }
    return options;
}

msb_sandbox *sandbox_of_own(const char *name)
{
    msb_sandbox_options options = sandbox_named(name);
    msb_sandbox *sandbox = NULL;

    options.flags |= MSB_SANDBOX_REPLACE;
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    CHECK_OK(msb_sandbox_wait_ready(sandbox, -1, &err));
    return sandbox;
}

void sandbox_end(msb_sandbox *sandbox, const char *name)
{
    CHECK_OK(msb_sandbox_stop(sandbox, 0, &err));
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_OK(msb_sandbox_remove(name, 0, &err));
}

msb_sandbox *shared(void)
{
    if (!shared_sandbox)
        shared_sandbox = sandbox_of_own("shared");
    return shared_sandbox;
}

msb_exec_options command(const char *cmd)
{
    msb_exec_options options = MSB_EXEC_OPTIONS_INIT;

    options.cmd = cmd;
    return options;
}

msb_exec_options script(const char *text)
{
    msb_exec_options options = command(text);

    options.flags = MSB_EXEC_SHELL;
    return options;
}

msb_exec *start(msb_sandbox *sandbox, const msb_exec_options *options, msb_sink **sink)
{
    msb_exec *exec = NULL;

    CHECK_OK(msb_exec_stream(sandbox, options, &exec, sink, &err));
    return exec;
}

static void append(struct buffer *buffer, const uint8_t *data, size_t len)
{
    char *grown = realloc(buffer->data, buffer->len + len + 1);

    if (!grown)
        abort();
    buffer->data = grown;
    if (len > 0)
        memcpy(grown + buffer->len, data, len);
    buffer->len += len;
    grown[buffer->len] = 0;
}

static void keep_failure(struct outcome *outcome, const msb_exec_failure *failure)
{
    CHECK(failure->kind_name && failure->stage && failure->os_error_name && failure->message &&
          failure->path);
    CHECK_INT(failure->struct_size, sizeof *failure);
    outcome->failure = *failure;
    snprintf(outcome->kind_name, sizeof outcome->kind_name, "%s", failure->kind_name);
    snprintf(outcome->stage, sizeof outcome->stage, "%s", failure->stage);
    snprintf(outcome->os_error_name, sizeof outcome->os_error_name, "%s", failure->os_error_name);
    snprintf(outcome->message, sizeof outcome->message, "%s", failure->message);
    snprintf(outcome->path, sizeof outcome->path, "%s", failure->path);
    CHECK(strlen(failure->message) > 0 && !strpbrk(failure->message, "\r\n"));
}

void note(struct outcome *outcome, const msb_event *event, int64_t since)
{
    bool output = event->kind == MSB_EVENT_STDOUT || event->kind == MSB_EVENT_STDERR;

    CHECK_INT(event->struct_size, sizeof *event);
    CHECK((event->exit != NULL) == (event->kind == MSB_EVENT_EXITED));
    CHECK((event->failure != NULL) == (event->kind == MSB_EVENT_FAILED));
    CHECK(outcome->ending == 0 || (outcome->ending == MSB_EVENT_EXITED && output));
    if (event->kind == MSB_EVENT_STARTED || event->kind == MSB_EVENT_FAILED)
        CHECK_INT(outcome->started, 0);
    else if (event->kind != MSB_EVENT_LOST)
        CHECK_INT(outcome->started, 1);
    switch (event->kind) {
    case MSB_EVENT_STARTED:
        outcome->started++;
        outcome->pid = event->value;
        CHECK(event->value > 0);
        break;
    case MSB_EVENT_STDOUT:
    case MSB_EVENT_STDERR:
        CHECK(event->len > 0);
        append(event->kind == MSB_EVENT_STDOUT ? &outcome->out : &outcome->err, event->data,
               event->len);
        break;
    case MSB_EVENT_STDIN_ERROR:
        outcome->stdin_errors++;
        outcome->stdin_errno = event->value;
        break;
    case MSB_EVENT_EXITED:
        outcome->exit = *event->exit;
        outcome->out_at_exit = outcome->out.len;
        outcome->exit_ms = now_ms() - since;
        CHECK_INT(event->exit->struct_size, sizeof *event->exit);
        CHECK_INT(event->value, event->exit->code);
        CHECK(event->exit->signal == 0 || event->exit->code == -1);
        break;
    case MSB_EVENT_FAILED:
        keep_failure(outcome, event->failure);
        CHECK_INT(event->value, event->failure->os_error);
        break;
    case MSB_EVENT_LOST:
        CHECK(event->len > 0 && !memchr(event->data, '\n', event->len));
        snprintf(outcome->lost, sizeof outcome->lost, "%.*s", (int)event->len,
                 (const char *)event->data);
        break;
    default:
        CHECK_SAY(false, "kind %" PRIu32, event->kind);
    }
    if (event->kind >= MSB_EVENT_EXITED)
        outcome->ending = event->kind;
}

bool take(msb_exec *exec, struct outcome *outcome, int64_t timeout_ms)
{
    msb_event event = MSB_EVENT_INIT;
    msb_status rc;

    harness_arm();
    rc = msb_exec_recv(exec, timeout_ms, &event, &err);
    if (rc == MSB_EOF) {
        outcome->end_flags = event.flags;
        return false;
    }
    harness_status(__FILE__, __LINE__, "msb_exec_recv", rc, MSB_OK);
    note(outcome, &event, 0);
    msb_event_release(&event);
    return true;
}

void finish(msb_exec *exec, struct outcome *outcome)
{
    msb_event event = MSB_EVENT_INIT;
    int64_t since = now_ms();
    msb_status rc;

    while (harness_arm(), (rc = msb_exec_recv(exec, -1, &event, &err)) == MSB_OK) {
        note(outcome, &event, since);
        msb_event_release(&event);
    }
    harness_status(__FILE__, __LINE__, "msb_exec_recv", rc, MSB_EOF);
    outcome->end_flags = event.flags;
    outcome->end_ms = now_ms() - since;
    CHECK(outcome->ending != 0);
    for (int64_t timeout = -1; timeout <= 1; timeout++) {
        msb_event again = MSB_EVENT_INIT;
        CHECK_STATUS(msb_exec_recv(exec, timeout, &again, &err), MSB_EOF);
        CHECK_INT(again.kind, 0);
        CHECK_INT(again.flags, outcome->end_flags);
    }
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    append(&outcome->out, NULL, 0);
    append(&outcome->err, NULL, 0);
}

void forget(struct outcome *outcome)
{
    free(outcome->out.data);
    free(outcome->err.data);
    memset(outcome, 0, sizeof *outcome);
}

struct outcome run_command(const msb_exec_options *options)
{
    struct outcome outcome = {0};

    finish(start(shared(), options, NULL), &outcome);
    return outcome;
}

const char *sh_in(msb_sandbox *sandbox, const char *text)
{
    static struct outcome outcome;
    msb_exec_options options = script(text);

    forget(&outcome);
    finish(start(sandbox, &options, NULL), &outcome);
    CHECK_SAY(outcome.ending == MSB_EVENT_EXITED && outcome.exit.code == 0, "%s: %s%s", text,
              outcome.err.data, outcome.lost);
    return outcome.out.data;
}

const char *sh(const char *text)
{
    return sh_in(shared(), text);
}

void wait_until(const char *condition)
{
    char text[1024];

    snprintf(text, sizeof text, "until %s; do usleep 10000; done", condition);
    sh(text);
}

void write_all(msb_sink *sink, const void *data, size_t len)
{
    const uint8_t *rest = data;

    while (len > 0) {
        size_t written = 0;
        CHECK_OK(msb_sink_write(sink, rest, len, -1, &written, &err));
        CHECK_SAY(written > 0 && written <= len, "%zu of %zu", written, len);
        if (written == 0 || written > len)
            return;
        rest += written;
        len -= written;
    }
}

void sleep_ms(int64_t ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};

    while (nanosleep(&time, &time) != 0 && errno == EINTR)
        ;
}

static const char *proc_path(pid_t pid, const char *file)
{
    static _Thread_local char path[64];

    if (pid == 0)
        snprintf(path, sizeof path, "/proc/self/%s", file);
    else
        snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    return path;
}

long status_kib(pid_t pid, const char *field)
{
    FILE *file = fopen(proc_path(pid, "status"), "r");
    char line[256];
    long kib = -1;

    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, field, strlen(field)) == 0)
            kib = atol(line + strlen(field));
    if (file)
        fclose(file);
    return kib;
}

void reset_peak(pid_t pid)
{
    int fd = open(proc_path(pid, "clear_refs"), O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        /* 5 in proc_pid_clear_refs(5); without the permission, the number is only higher. */
        ssize_t ignored = write(fd, "5", 1);
        (void)ignored;
        close(fd);
    }
}

static bool is_agent_of(pid_t pid, const char *namespace)
{
    char link[64] = "", comm[32] = "";
    FILE *file;

    if (readlink(proc_path(pid, "ns/pid"), link, sizeof link - 1) < 0 || strcmp(link, namespace))
        return false;
    file = fopen(proc_path(pid, "comm"), "r");
    if (file) {
        if (!fgets(comm, sizeof comm, file))
            comm[0] = 0;
        fclose(file);
    }
    return strstr(comm, "agent") != NULL;
}

pid_t agent_of(msb_sandbox *sandbox)
{
    const char *inside = sh_in(sandbox, "readlink /proc/self/ns/pid");
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    char namespace[64], own[64] = "";
    pid_t found = 0;

    snprintf(namespace, sizeof namespace, "%.*s", (int)strcspn(inside, "\n"), inside);
    /* The first namespace of a machine has the number of the host's first one. */
    if (readlink("/proc/self/ns/pid", own, sizeof own - 1) < 0 || !strcmp(own, namespace)) {
        if (proc)
            closedir(proc);
        return 0;
    }
    while (proc && !found && (entry = readdir(proc)))
        if (atoi(entry->d_name) > 0 && is_agent_of(atoi(entry->d_name), namespace))
            found = atoi(entry->d_name);
    if (proc)
        closedir(proc);
    return found;
}

int open_descriptors(pid_t pid)
{
    DIR *folder = opendir(proc_path(pid, "fd"));
    int count = 0;

    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count;
}

bool readable(int fd, int timeout_ms)
{
    struct pollfd poll_fd = {fd, POLLIN, 0};

    return poll(&poll_fd, 1, timeout_ms) == 1;
}
