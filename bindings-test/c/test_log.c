/* test_log.c - promise D6 from C: the logs of sandboxes, read with msb_log_*. */
#include "support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

/* A struct of a later version, with more fields at its end. */
#define LATER(type)                                                                               \
    struct {                                                                                      \
        type known;                                                                               \
        uint8_t tail[64];                                                                         \
    }

/* The records read from a log. */
struct seen {
    size_t count, kinds[MSB_LOG_INCOMPLETE + 1];
    struct buffer out, err;
    int64_t first_ns, last_ns, pid, errno_;
    uint32_t last, flags;
    msb_exec_exit exit;
    uint32_t failure;
    char session[MSB_SESSION_ID_LEN], argv[1024], stage[64], missing[256];
};

static void add(struct buffer *buffer, const uint8_t *data, size_t len)
{
    buffer->data = realloc(buffer->data, buffer->len + len + 1);
    if (!buffer->data)
        abort();
    if (len > 0)
        memcpy(buffer->data + buffer->len, data, len);
    buffer->len += len;
    buffer->data[buffer->len] = 0;
}

static void drop(struct seen *seen)
{
    free(seen->out.data);
    free(seen->err.data);
    memset(seen, 0, sizeof *seen);
}

static void note_argv(struct seen *seen, const msb_log_record *record)
{
    size_t used = 0;

    CHECK(record->argv_len > 0 && record->argv);
    for (size_t i = 0; i < record->argv_len; i++)
        used += (size_t)snprintf(seen->argv + used, sizeof seen->argv - used, "%s%s",
                                 i > 0 ? " " : "", record->argv[i]);
}

/* Counts a record, and checks that its fields are consistent. */
static void note_record(struct seen *seen, const msb_log_record *record)
{
    bool output = record->kind == MSB_LOG_STDOUT || record->kind == MSB_LOG_STDERR;
    bool incomplete = record->kind == MSB_LOG_INCOMPLETE;

    CHECK_INT(record->struct_size, sizeof *record);
    CHECK_INT(record->reserved, 0);
    CHECK(record->owner && record->kind > 0 && record->kind <= MSB_LOG_INCOMPLETE);
    CHECK((record->len > 0) == (output || incomplete) && (record->len > 0) == !!record->data);
    CHECK((record->exit != NULL) == (record->kind == MSB_LOG_EXITED));
    CHECK((record->failure != NULL) == (record->kind == MSB_LOG_FAILED));
    CHECK((record->session == NULL) == incomplete);
    CHECK_INT(seen->kinds[MSB_LOG_INCOMPLETE], 0); /* nothing after it */
    seen->count++;
    seen->kinds[record->kind]++;
    seen->last = record->kind;
    if (incomplete) {
        CHECK(record->time_ns == 0 && !memchr(record->data, '\n', record->len));
        snprintf(seen->missing, sizeof seen->missing, "%.*s", (int)record->len,
                 (const char *)record->data);
        return;
    }
    CHECK_INT(strlen(record->session), MSB_SESSION_ID_LEN - 1);
    snprintf(seen->session, sizeof seen->session, "%s", record->session);
    CHECK(record->time_ns >= seen->last_ns);
    seen->last_ns = record->time_ns;
    if (seen->count == 1)
        seen->first_ns = record->time_ns;
    if (output)
        add(record->kind == MSB_LOG_STDOUT ? &seen->out : &seen->err, record->data, record->len);
    if (record->kind == MSB_LOG_STARTED) {
        seen->pid = record->value;
        seen->flags = record->flags;
    } else
        CHECK_INT(record->flags, 0);
    if (record->kind == MSB_LOG_STARTED || record->kind == MSB_LOG_FAILED)
        note_argv(seen, record);
    else
        CHECK(!record->argv && record->argv_len == 0);
    if (record->exit) {
        seen->exit = *record->exit;
        CHECK_INT(seen->exit.struct_size, sizeof seen->exit);
        CHECK_INT(record->value, seen->exit.code);
        CHECK(!seen->exit.user_ns && !seen->exit.system_ns && !seen->exit.wall_ns &&
              !seen->exit.max_rss);
    }
    if (record->failure) {
        seen->failure = record->failure->kind;
        seen->errno_ = record->value;
        CHECK_INT(record->value, record->failure->os_error);
        CHECK_TEXT(record->failure->path, "");
        CHECK(record->failure->kind_name[0] && record->failure->message[0]);
        snprintf(seen->stage, sizeof seen->stage, "%s", record->failure->stage);
    }
}

static msb_status next(msb_log *logs, struct seen *seen, int64_t timeout_ms)
{
    msb_log_record record = MSB_LOG_RECORD_INIT;
    msb_status rc;

    harness_arm();
    rc = msb_log_recv(logs, timeout_ms, &record, &err);
    harness_status(__FILE__, __LINE__, "msb_log_recv", rc, rc < 0 ? MSB_OK : rc);
    if (rc == MSB_OK)
        note_record(seen, &record);
    else
        CHECK(record.kind == 0 && !record.owner);
    msb_log_record_release(&record);
    CHECK(!record.session && !record.data && !record.argv && !record.owner && !record.len);
    return rc;
}

static msb_log *open_logs(msb_sandbox *sandbox, const char *session, int64_t since, uint32_t flags)
{
    msb_log_options options = MSB_LOG_OPTIONS_INIT;
    msb_log *logs = NULL;

    options.session = session;
    options.since_ns = since;
    options.flags = flags;
    CHECK_OK(msb_log_open(sandbox, &options, &logs, &err));
    return logs;
}

/* Reads a log to its end, which repeats. */
static struct seen all_of(msb_sandbox *sandbox, const char *session, int64_t since)
{
    msb_log *logs = open_logs(sandbox, session, since, 0);
    struct seen seen = {0};

    while (next(logs, &seen, -1) == MSB_OK)
        ;
    for (int64_t timeout = -1; timeout <= 1; timeout++)
        CHECK_INT(next(logs, &seen, timeout), MSB_EOF);
    CHECK_INT(msb_handle_close(logs), MSB_OK);
    return seen;
}

/* Reads a log up to the end of a session that has no reader. */
static struct seen until_end_of(msb_sandbox *sandbox, const char *session)
{
    msb_log *logs = open_logs(sandbox, session, 0, MSB_LOG_FOLLOW);
    struct seen seen = {0};

    while (!seen.kinds[MSB_LOG_EXITED] && !seen.kinds[MSB_LOG_FAILED])
        CHECK_INT(next(logs, &seen, -1), MSB_OK);
    CHECK_INT(msb_handle_close(logs), MSB_OK);
    return seen;
}

static msb_sandbox *logged(const char *name, uint64_t max_bytes, uint32_t files)
{
    msb_sandbox_options options = sandbox_named(name);
    msb_sandbox *sandbox = NULL;

    options.flags |= MSB_SANDBOX_LOG | MSB_SANDBOX_REPLACE;
    options.log_max_bytes = max_bytes;
    options.log_files = files;
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    CHECK_OK(msb_sandbox_wait_ready(sandbox, -1, &err));
    return sandbox;
}

/* Runs a command to completion; stores its session id. */
static struct outcome run_in(msb_sandbox *sandbox, msb_exec_options options, char *id)
{
    struct outcome outcome = {0};
    msb_exec *exec = start(sandbox, &options, NULL);

    CHECK_OK(msb_exec_id(exec, id, &err));
    finish(exec, &outcome);
    return outcome;
}

TEST(test_d6_c_reads_both_outputs_of_a_session_byte_for_byte)
{
    static const char text[] =
        "i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %03o $i)\"; i=$((i+1)); done; "
        "head -c 700003 /dev/urandom; head -c 400009 /dev/urandom >&2; printf 'g\\303'; "
        "printf '\\274n\\000\\n' | tee /dev/stderr; exit 3";
    msb_sandbox *sandbox = logged("log-bytes", 0, 0);
    char id[MSB_SESSION_ID_LEN];
    struct outcome outcome = run_in(sandbox, script(text), id);
    struct seen seen = until_end_of(sandbox, id);

    CHECK_INT(outcome.exit.code, 3);
    CHECK(outcome.out.len > 700000 && outcome.err.len > 400000);
    CHECK_INT(seen.out.len, outcome.out.len);
    CHECK_INT(seen.err.len, outcome.err.len);
    CHECK(memcmp(seen.out.data, outcome.out.data, seen.out.len) == 0);
    CHECK(memcmp(seen.err.data, outcome.err.data, seen.err.len) == 0);
    for (int byte = 0; byte < 256; byte++)
        CHECK_INT((uint8_t)seen.out.data[byte], byte);
    CHECK_TEXT(seen.session, id);
    CHECK_INT(seen.kinds[MSB_LOG_STARTED], 1);
    CHECK_INT(seen.pid, outcome.pid);
    CHECK_INT(seen.flags, 0);
    CHECK(strstr(seen.argv, text) != NULL);
    CHECK_INT(seen.exit.code, 3);
    CHECK_INT(seen.exit.signal, 0);
    drop(&seen);
    forget(&outcome);
    sandbox_end(sandbox, "log-bytes");
}

TEST(test_d6_c_log_separates_sessions_after_the_sandbox_ended)
{
    msb_sandbox *sandbox = logged("log-sessions", 0, 0);
    char ids[4][MSB_SESSION_ID_LEN];
    msb_exec_options missing = command("nosuch"), tty = script("echo tty");
    msb_exec_options slow = script("exec sleep 600");
    const char *args[] = {"x"};
    struct outcome outcome;
    struct seen seen, one;
    msb_log *logs = NULL;

    SET_ARRAY(missing, args, args);
    tty.flags |= MSB_EXEC_TTY;
    slow.timeout_ns = 100000000;
    outcome = run_in(sandbox, script("echo one; exit 3"), ids[0]), forget(&outcome);
    outcome = run_in(sandbox, missing, ids[1]), forget(&outcome);
    outcome = run_in(sandbox, tty, ids[2]), forget(&outcome);
    outcome = run_in(sandbox, slow, ids[3]), forget(&outcome);
    seen = until_end_of(sandbox, ids[3]), drop(&seen);
    CHECK_OK(msb_sandbox_stop(sandbox, 0, &err));
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_OK(msb_sandbox_open("log-sessions", 0, &sandbox, &err));
    CHECK_OK(msb_sandbox_wait_ready(sandbox, -1, &err));

    one = all_of(sandbox, ids[0], 0);
    CHECK_INT(one.count, 3);
    CHECK_TEXT(one.out.data, "one\n");
    CHECK(one.exit.code == 3 && one.last == MSB_LOG_EXITED);
    seen = all_of(sandbox, ids[1], 0);
    CHECK_INT(seen.count, 1);
    CHECK_INT(seen.failure, MSB_FAILURE_NOT_FOUND);
    CHECK_INT(seen.errno_, 2);
    CHECK_TEXT(seen.stage, "execve");
    CHECK_TEXT(seen.argv, "nosuch x");
    drop(&seen);
    seen = all_of(sandbox, ids[2], 0);
    CHECK_INT(seen.flags, MSB_SESSION_TTY);
    CHECK_TEXT(seen.out.data, "tty\r\n");
    drop(&seen);
    seen = all_of(sandbox, ids[3], 0);
    CHECK(seen.exit.code == -1 && seen.exit.signal == 9 && seen.exit.flags == MSB_EXIT_TIMED_OUT);
    drop(&seen);
    seen = all_of(sandbox, "00000000000000000000000000000000", 0);
    CHECK_INT(seen.count, 0);

    /* From a time on: includes the record of that time, not the one before. */
    seen = all_of(sandbox, NULL, one.last_ns);
    CHECK_INT(seen.first_ns, one.last_ns);
    CHECK_INT(seen.kinds[MSB_LOG_EXITED], 3);
    CHECK(seen.kinds[MSB_LOG_FAILED] == 1 && seen.kinds[MSB_LOG_STARTED] == 2);
    drop(&seen);
    seen = all_of(sandbox, ids[0], one.last_ns + 1);
    CHECK_INT(seen.count, 0);
    CHECK(llabs(one.last_ns / 1000000 - (int64_t)time(NULL) * 1000) < 600000);
    drop(&one);

    /* Also when following, and without options; the log is removed with its sandbox. */
    logs = open_logs(sandbox, ids[0], 0, MSB_LOG_FOLLOW);
    while (next(logs, &seen, -1) == MSB_OK)
        ;
    CHECK_INT(seen.count, 3);
    drop(&seen);
    CHECK_INT(msb_handle_close(logs), MSB_OK);
    CHECK_OK(msb_log_open(sandbox, NULL, &logs, &err));
    CHECK_INT(next(logs, &seen, -1), MSB_OK);
    CHECK_INT(seen.last, MSB_LOG_STARTED);
    CHECK_INT(msb_handle_close(logs), MSB_OK);
    drop(&seen);
    CHECK_OK(msb_sandbox_remove("log-sessions", 0, &err));
    CHECK_STATUS(msb_log_open(sandbox, NULL, &logs, &err), MSB_E_NOT_FOUND);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
}

TEST(test_d6_c_log_is_followed_to_the_end_of_the_sandbox)
{
    msb_sandbox *sandbox = logged("log-follow", 0, 0);
    msb_exec_options options = script("echo ready; read line; echo got $line; exec sleep 600");
    msb_log *logs = open_logs(sandbox, NULL, 0, MSB_LOG_FOLLOW);
    struct seen seen = {0};
    msb_sink *sink = NULL;
    msb_exec *exec;

    CHECK_INT(next(logs, &seen, 0), MSB_AGAIN);
    CHECK_INT(next(logs, &seen, 20), MSB_AGAIN);
    exec = start(sandbox, &options, &sink);
    while (!strstr(seen.out.data ? seen.out.data : "", "ready\n"))
        CHECK_INT(next(logs, &seen, -1), MSB_OK);
    CHECK_INT(seen.kinds[MSB_LOG_STARTED], 1);
    write_all(sink, "it\n", 3);
    while (!strstr(seen.out.data, "got it\n"))
        CHECK_INT(next(logs, &seen, -1), MSB_OK);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    CHECK_INT(next(logs, &seen, 0), MSB_AGAIN);
    CHECK_OK(msb_sandbox_kill(sandbox, &err));
    CHECK_INT(msb_handle_close(sandbox), MSB_OK); /* the log does not need it */
    while (next(logs, &seen, -1) == MSB_OK)
        ;
    CHECK_INT(seen.kinds[MSB_LOG_LOST] + seen.kinds[MSB_LOG_EXITED], 1);
    CHECK_INT(msb_handle_close(logs), MSB_OK);
    drop(&seen);
    CHECK_OK(msb_sandbox_remove("log-follow", 0, &err));
}

TEST(test_d6_c_log_ends_with_a_report_of_deleted_files)
{
    enum { WRITTEN = 12000000 };
    msb_sandbox *sandbox = logged("log-full", 524288, 2);
    msb_log *logs = open_logs(sandbox, NULL, 0, MSB_LOG_FOLLOW);
    msb_exec_options options = script("head -c 12000000 /dev/urandom");
    struct seen seen = {0};
    msb_exec *exec = start(sandbox, &options, NULL);
    msb_event event = MSB_EVENT_INIT;

    /* The log has been opened, and then is not read; the command is not blocked. */
    CHECK_INT(next(logs, &seen, -1), MSB_OK);
    CHECK_INT(seen.last, MSB_LOG_STARTED);
    CHECK_OK(msb_exec_wait(exec, -1, &event, &err));
    CHECK_INT(event.kind, MSB_EVENT_EXITED);
    msb_event_release(&event);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    CHECK_OK(msb_sandbox_stop(sandbox, 0, &err));
    while (next(logs, &seen, -1) == MSB_OK)
        ;
    CHECK_INT(next(logs, &seen, -1), MSB_EOF);
    CHECK_INT(seen.last, MSB_LOG_INCOMPLETE);
    CHECK_SAY(strstr(seen.missing, "files of the log"), "%s", seen.missing);
    CHECK(seen.out.len > 0 && seen.out.len < WRITTEN);
    harness_note("%zu of %d bytes read: %s", seen.out.len, WRITTEN, seen.missing);
    CHECK_INT(msb_handle_close(logs), MSB_OK);
    drop(&seen);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_OK(msb_sandbox_remove("log-full", 0, &err));
}

TEST(test_d6_c_log_is_read_by_edge_triggered_poll)
{
    msb_sandbox *sandbox = logged("log-fd", 0, 0);
    msb_log *logs = open_logs(sandbox, NULL, 0, MSB_LOG_FOLLOW);
    msb_exec_options options = script("seq 1 300; usleep 20000; seq 301 600; read line; "
                                      "seq 601 90000");
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    int32_t fd = -1, same = -1;
    struct outcome outcome = {0};
    struct seen seen = {0};
    msb_sink *sink = NULL;
    msb_status rc = MSB_AGAIN;
    msb_exec *exec;
    unsigned wakes = 0;
    int copy;

    CHECK_OK(msb_handle_fd(logs, &fd, &err));
    CHECK_OK(msb_handle_fd(logs, &same, &err));
    CHECK(fd >= 0 && fd == same && !readable(fd, 0));
    CHECK_INT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
    exec = start(sandbox, &options, &sink);
    write_all(sink, "\n", 1);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    finish(exec, &outcome);
    while (rc == MSB_AGAIN && !seen.kinds[MSB_LOG_EXITED]) {
        CHECK_SAY(epoll_wait(epoll, &event, 1, 30000) == 1, "nothing after %u wakes", wakes);
        wakes++;
        while ((rc = next(logs, &seen, 0)) == MSB_OK)
            ;
    }
    CHECK_INT(rc, MSB_AGAIN);
    CHECK(!readable(fd, 0));
    CHECK_INT(seen.out.len, outcome.out.len);
    CHECK(memcmp(seen.out.data, outcome.out.data, seen.out.len) == 0);
    CHECK_OK(msb_sandbox_stop(sandbox, 0, &err));
    CHECK_INT(epoll_wait(epoll, &event, 1, 30000), 1);
    for (int i = 0; i < 10; i++) /* the end repeats */
        CHECK(readable(fd, 0) && next(logs, &seen, 0) == MSB_EOF);
    harness_note("%zu records, %u wake-ups", seen.count, wakes);
    copy = dup(fd);
    CHECK_INT(msb_handle_close(logs), MSB_OK);
    CHECK(readable(copy, 0));
    close(copy);
    close(epoll);
    drop(&seen);
    forget(&outcome);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_OK(msb_sandbox_remove("log-fd", 0, &err));
}

static void *waits_for_record(void *argument)
{
    msb_log_record record = MSB_LOG_RECORD_INIT;
    msb_status rc;

    /* A thread that checks for the waiter may hold the turn at this moment. */
    do
        rc = msb_log_recv(argument, -1, &record, NULL);
    while (rc == MSB_E_BUSY);
    return (void *)(intptr_t)rc;
}

TEST(test_d6_c_log_close_wakes_reader_and_second_reader_is_busy)
{
    msb_sandbox *sandbox = logged("log-busy", 0, 0);
    int before = open_descriptors(0), waited = 0;
    msb_log_record record = MSB_LOG_RECORD_INIT;
    msb_log *others[50], *logs = open_logs(sandbox, NULL, 0, MSB_LOG_FOLLOW);
    pthread_t thread;
    void *rc = NULL;

    CHECK_INT(pthread_create(&thread, NULL, waits_for_record, logs), 0);
    while (harness_arm(), msb_log_recv(logs, 0, &record, &err) == MSB_AGAIN && waited++ < 10000)
        sleep_ms(1);
    CHECK_STATUS(msb_log_recv(logs, -1, &record, &err), MSB_E_BUSY);
    CHECK_INT(msb_handle_close(logs), MSB_OK);
    pthread_join(thread, &rc);
    CHECK_INT((intptr_t)rc, MSB_E_CLOSED);
    CHECK_STATUS(msb_log_recv(logs, 0, &record, &err), MSB_E_HANDLE);
    CHECK_INT(msb_handle_close(logs), MSB_E_HANDLE);
    for (int i = 0; i < 50; i++)
        others[i] = open_logs(sandbox, NULL, 0, i % 2 ? MSB_LOG_FOLLOW : 0);
    CHECK(open_descriptors(0) > before);
    for (int i = 0; i < 50; i++)
        CHECK_INT(msb_handle_close(others[i]), MSB_OK);
    /* Their threads end by themselves, and nothing leaks. */
    for (waited = 0; open_descriptors(0) > before && waited < 1000 * (int)harness_scale(); waited++)
        sleep_ms(10);
    CHECK_INT(open_descriptors(0), before);
    sandbox_end(sandbox, "log-busy");
}

TEST(test_d6_c_invalid_log_calls_are_refused)
{
    msb_sandbox *sandbox = logged("log-misuse", 0, 0);
    LATER(msb_log_options) later;
    msb_log_options plain = MSB_LOG_OPTIONS_INIT, *options = &later.known;
    uint32_t wrong[] = {0, 4, 8, sizeof *options - 1, 4097, UINT32_MAX};
    msb_log *logs = NULL;

    memset(&later, 0, sizeof later);
    *options = plain;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options->struct_size = wrong[i];
        CHECK_STATUS(msb_log_open(sandbox, options, &logs, &err), MSB_E_INVALID);
    }
    options->struct_size = sizeof later;
    later.tail[63] = 1;
    CHECK_STATUS(msb_log_open(sandbox, options, &logs, &err), MSB_E_UNSUPPORTED);
    later.tail[63] = 0;
    for (int bit = 1; bit < 32; bit++) {
        options->flags = 1u << bit;
        CHECK_STATUS(msb_log_open(sandbox, options, &logs, &err), MSB_E_INVALID);
    }
    options->flags = 0;
    options->since_ns = -1;
    CHECK_STATUS(msb_log_open(sandbox, options, &logs, &err), MSB_E_INVALID);
    options->since_ns = INT64_MAX;
    options->session = "\xff";
    CHECK_STATUS(msb_log_open(sandbox, options, &logs, &err), MSB_E_INVALID);
    options->session = NULL;
    CHECK_STATUS(msb_log_open(sandbox, options, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_log_open(NULL, options, &logs, &err), MSB_E_HANDLE);
    CHECK_STATUS(msb_log_open(shared(), NULL, &logs, &err), MSB_E_CONFIG); /* it has no log */
    CHECK(!logs);
    CHECK_OK(msb_log_open(sandbox, options, &logs, &err));
    CHECK_STATUS(msb_log_recv(logs, -1, NULL, &err), MSB_E_INVALID);
    CHECK_INT(msb_handle_close(logs), MSB_OK);
    sandbox_end(sandbox, "log-misuse");
}

TEST(test_d6_c_record_of_wrong_size_is_refused_and_loses_nothing)
{
    msb_sandbox *sandbox = logged("log-sizes", 0, 0);
    char id[MSB_SESSION_ID_LEN];
    struct outcome outcome = run_in(sandbox, script("echo one; exit 4"), id);
    LATER(msb_log_record) later;
    uint32_t wrong[] = {0, 4, 8, sizeof(msb_log_record) - 1, 4097, UINT32_MAX};
    msb_log_record none = MSB_LOG_RECORD_INIT, copy;
    msb_log *logs = open_logs(sandbox, id, 0, MSB_LOG_FOLLOW);
    struct seen seen = {0};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memset(&later, 0x55, sizeof later);
        later.known.struct_size = wrong[i];
        CHECK_STATUS(msb_log_recv(logs, -1, &later.known, &err), MSB_E_INVALID);
        msb_log_record_release(&later.known);
        for (size_t k = 4; k < sizeof later; k++)
            CHECK_INT(((uint8_t *)&later)[k], 0x55);
    }
    CHECK_STATUS(msb_log_recv(logs, -2, &none, &err), MSB_E_INVALID);
    memset(&later, 0x55, sizeof later);
    later.known = none;
    later.known.struct_size = sizeof later;
    CHECK_OK(msb_log_recv(logs, -1, &later.known, &err));
    CHECK_INT(later.known.struct_size, sizeof later);
    CHECK_INT(later.tail[0], 0x55);
    CHECK_INT(later.known.kind, MSB_LOG_STARTED);
    /* What it points to is valid until the release, also after the handle is closed. */
    copy = later.known;
    copy.struct_size = sizeof copy;
    while (!seen.kinds[MSB_LOG_EXITED])
        CHECK_INT(next(logs, &seen, -1), MSB_OK);
    CHECK_INT(msb_handle_close(logs), MSB_OK);
    CHECK_TEXT(copy.session, id);
    CHECK_TEXT(copy.argv[copy.argv_len - 1], "echo one; exit 4");
    msb_log_record_release(&later.known);
    CHECK(!later.known.session && !later.known.argv && !later.known.owner);
    msb_log_record_release(&later.known);
    msb_log_record_release(&copy); /* a copy of a released one */
    CHECK(!copy.session);
    msb_log_record_release(&none);
    msb_log_record_release(NULL);
    CHECK_TEXT(seen.out.data, "one\n");
    CHECK_INT(seen.exit.code, 4);
    drop(&seen);
    forget(&outcome);
    sandbox_end(sandbox, "log-sizes");
}
