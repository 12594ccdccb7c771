/* test_lifetime.c - promises I: closing, releasing and forking at unexpected moments. */
#include "support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A call that waits in a thread of its own, and its result. */
struct waiting {
    void *handle;
    msb_status rc;
    int64_t woken;
    atomic_bool begun;
};

static void *waits_in_recv(void *argument)
{
    struct waiting *waiting = argument;
    msb_event event = MSB_EVENT_INIT;

    atomic_store(&waiting->begun, true);
    while (harness_arm(), (waiting->rc = msb_exec_recv(waiting->handle, -1, &event, &err)) == MSB_OK)
        msb_event_release(&event);
    waiting->woken = now_ms();
    return NULL;
}

static void *waits_in_write(void *argument)
{
    static uint8_t piece[1 << 16];
    struct waiting *waiting = argument;
    size_t written;

    atomic_store(&waiting->begun, true);
    while ((waiting->rc = msb_sink_write(waiting->handle, piece, sizeof piece, -1, &written,
                                         &err)) == MSB_OK)
        ;
    waiting->woken = now_ms();
    return NULL;
}

static void *waits_until_ready(void *argument)
{
    struct waiting *waiting = argument;

    atomic_store(&waiting->begun, true);
    waiting->rc = msb_sandbox_wait_ready(waiting->handle, -1, &err);
    waiting->woken = now_ms();
    return NULL;
}

static void *waits_in_stop(void *argument)
{
    struct waiting *waiting = argument;

    atomic_store(&waiting->begun, true);
    waiting->rc = msb_sandbox_stop(waiting->handle, 3000, &err);
    waiting->woken = now_ms();
    return NULL;
}

static int64_t closed_while(void *(*waits)(void *), void *handle, int64_t after_ms)
{
    struct waiting waiting = {handle, 77, 0, false};
    helper thread = helper_start(waits, &waiting);
    int64_t closed;

    while (!atomic_load(&waiting.begun))
        sleep_ms(1);
    sleep_ms(after_ms);
    closed = now_ms();
    CHECK_INT(msb_handle_close(handle), MSB_OK);
    helper_join(thread);
    CHECK_INT(waiting.rc, MSB_E_CLOSED);
    return waiting.woken - closed;
}

TEST(test_i_closing_wakes_waiters)
{
    msb_exec_options options = script("sleep 600");
    msb_sandbox_options sandbox_options = sandbox_named("woken");
    msb_sandbox *sandbox = NULL;
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    msb_exec *killed = exec;
    int64_t ms[3];

    ms[0] = closed_while(waits_in_write, sink, 200);
    CHECK_OK(msb_exec_signal(killed, SIGKILL, MSB_SIGNAL_TREE, &err));
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    options.timeout_ns = 5000000000;
    exec = start(shared(), &options, NULL);
    ms[1] = closed_while(waits_in_recv, exec, 200);
    CHECK_OK(msb_sandbox_create(&sandbox_options, &sandbox, &err));
    ms[2] = closed_while(waits_until_ready, sandbox, 5);
    harness_note("woken after %" PRId64 ", %" PRId64 " and %" PRId64 " ms (write, recv, ready)",
                 ms[0], ms[1], ms[2]);
    for (int i = 0; i < 3; i++)
        CHECK_SAY(ms[i] < 1000, "%" PRId64 " ms", ms[i]);
    /* Valgrind stops every thread while one waits for a file lock, as a creation that replaces a
     * sandbox does. */
    if (harness_scale() > 1)
        sleep_ms(3000);
    /* The sandbox was created nevertheless. */
    sandbox_end(sandbox_of_own("woken"), "woken");
}

TEST(test_i_closing_a_sandbox_wakes_its_stop)
{
    msb_sandbox *sandbox = sandbox_of_own("slow");
    msb_exec_options options = script("trap '' TERM; echo up; while :; do sleep 1; done");
    msb_exec *exec = start(sandbox, &options, NULL);
    struct outcome outcome = {0};
    struct waiting waiting = {sandbox, 77, 0, false};
    helper thread;
    int64_t closed;

    while (outcome.out.len < 3 && take(exec, &outcome, 10000))
        ;
    thread = helper_start(waits_in_stop, &waiting);
    sleep_ms(300);
    closed = now_ms();
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    helper_join(thread);
    finish(exec, &outcome);
    CHECK(outcome.ending == MSB_EVENT_LOST || outcome.exit.signal == SIGKILL);
    forget(&outcome);
    sandbox_end(sandbox_of_own("slow"), "slow");
    CHECK_INT(waiting.rc, MSB_E_CLOSED);
    CHECK_SAY(waiting.woken - closed < 1000, "%" PRId64 " ms", waiting.woken - closed);
}

static void *closes(void *argument)
{
    /* The first thread closes it; the others get MSB_E_HANDLE. */
    return (void *)(intptr_t)msb_handle_close(argument);
}

TEST(test_i_a_handle_is_closed_once)
{
    for (int round = 0; round < 50; round++) {
        msb_exec_options options = command("cat");
        msb_sink *sink = NULL;
        msb_exec *exec = start(shared(), &options, &sink);
        void *handles[] = {exec, exec, sink, sink}, *results[4];
        pthread_t threads[4];

        for (int i = 0; i < 4; i++)
            CHECK_INT(pthread_create(&threads[i], NULL, closes, handles[i]), 0);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], &results[i]);
        for (int i = 0; i < 4; i += 2)
            CHECK_INT((intptr_t)results[i] + (intptr_t)results[i + 1], MSB_OK + MSB_E_HANDLE);
    }
}

TEST(test_i_repeated_release_of_an_event_is_harmless)
{
    msb_exec_options options = script("echo text; sleep 600");
    msb_exec *exec = start(shared(), &options, NULL);
    struct outcome outcome = {0};
    msb_event event = MSB_EVENT_INIT, copy;

    take(exec, &outcome, -1);
    CHECK_OK(msb_exec_recv(exec, -1, &event, &err));
    CHECK_INT(event.kind, MSB_EVENT_STDOUT);
    copy = event;
    msb_event_release(&event);
    CHECK(!event.data && event.len == 0 && !event.exit && !event.failure && !event.owner);
    CHECK_INT(event.kind, MSB_EVENT_STDOUT);
    msb_event_release(&event);
    msb_event_release(&copy);
    CHECK(!copy.data && copy.len == 0);
    msb_event_release(&copy);
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    finish(exec, &outcome);
    forget(&outcome);
}

TEST(test_i_an_event_outlives_its_exec_and_its_sandbox)
{
    msb_sandbox *sandbox = sandbox_of_own("outlived");
    msb_exec_options options = script("echo text"), missing = command("nonexistent");
    msb_exec *execs[2] = {start(sandbox, &options, NULL), start(sandbox, &missing, NULL)};
    msb_event events[4];
    size_t count = 0;

    for (int i = 0; i < 2; i++) {
        msb_status rc = MSB_OK;
        while (rc == MSB_OK && count < 4) {
            msb_event fresh = MSB_EVENT_INIT;
            events[count] = fresh;
            rc = msb_exec_recv(execs[i], -1, &events[count], &err);
            count += rc == MSB_OK;
            if (rc == MSB_OK && events[count - 1].kind >= MSB_EVENT_EXITED)
                break;
        }
        CHECK_INT(msb_handle_close(execs[i]), MSB_OK);
    }
    sandbox_end(sandbox, "outlived");
    CHECK_INT(count, 4);
    CHECK_INT(events[1].kind, MSB_EVENT_STDOUT);
    CHECK_INT(memcmp(events[1].data, "text\n", 5), 0);
    CHECK_INT(events[2].exit->code, 0);
    CHECK_TEXT(events[3].failure->kind_name, "not_found");
    CHECK_TEXT(events[3].failure->path, "nonexistent");
    for (size_t i = count; i > 0; i--)
        msb_event_release(&events[i - 1]);
}

/* Calls every function in a forked child. Returns the number of the first one that does not fail,
 * else 0. */
static int calls_in_child(msb_sandbox *sandbox, msb_exec *exec, msb_sink *sink, msb_event *event)
{
    msb_exec_options options = command("true");
    msb_sandbox_options sandbox_options = sandbox_named("child");
    msb_event fresh = MSB_EVENT_INIT;
    msb_sandbox *new_sandbox = NULL;
    msb_exec *new_exec = NULL;
    char id[MSB_SESSION_ID_LEN];
    size_t written;
    int32_t fd;
    msb_status statuses[] = {
        msb_exec_recv(exec, -1, &fresh, &err),
        msb_sink_write(sink, (const uint8_t *)"x", 1, -1, &written, &err),
        msb_exec_signal(exec, SIGTERM, 0, &err),
        msb_exec_id(exec, id, &err),
        msb_exec_stream(sandbox, &options, &new_exec, NULL, &err),
        msb_sandbox_wait_ready(sandbox, -1, &err),
        msb_sandbox_stop(sandbox, 0, &err),
        msb_sandbox_create(&sandbox_options, &new_sandbox, &err),
        msb_sandbox_remove("child", 0, &err),
        msb_handle_fd(exec, &fd, &err),
        msb_handle_close(exec),
        msb_handle_close(sink),
        msb_handle_close(sandbox),
    };

    msb_event_release(event); /* returns nothing, and must not hang */
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i] != MSB_E_UNSUPPORTED)
            return (int)i + 1;
    return err.status == MSB_E_UNSUPPORTED ? 0 : 100;
}

TEST(test_i_forked_child_gets_errors_and_the_parent_continues)
{
    msb_exec_options options = command("cat");
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    msb_event event = MSB_EVENT_INIT;
    int status = 0, waited = 0, answer[2];
    unsigned char unexpected = 0xff;
    pid_t child;

    write_all(sink, "before ", 7);
    take(exec, &outcome, -1);
    CHECK_OK(msb_exec_recv(exec, -1, &event, &err));
    CHECK_INT(pipe(answer), 0);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        /* Not as its exit code: valgrind changes it if the other threads left leaks. */
        unexpected = (unsigned char)calls_in_child(shared(), exec, sink, &event);
        _exit(write(answer[1], &unexpected, 1) != 1);
    }
    CHECK(child > 0);
    while (waitpid(child, &status, WNOHANG) == 0 && waited < 1000 * (int)harness_scale()) {
        sleep_ms(10);
        waited++;
    }
    if (waited == 1000 * (int)harness_scale()) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        CHECK_SAY(false, "the child hung");
    }
    CHECK_SAY(WIFEXITED(status), "status %#x", (unsigned)status);
    CHECK_INT(read(answer[0], &unexpected, 1), 1);
    CHECK_INT(unexpected, 0);
    close(answer[0]);
    close(answer[1]);
    CHECK_INT(memcmp(event.data, "before ", 7), 0);
    msb_event_release(&event);
    write_all(sink, "after", 5);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    finish(exec, &outcome);
    CHECK_TEXT(outcome.out.data, "after");
    forget(&outcome);
}

static void *recovers_from_anything(void *argument)
{
    _Atomic(msb_exec *) *place = argument;
    msb_exec *exec;

    /* Other threads close these handles at any moment: each of these results is correct. */
    while ((exec = atomic_load(place)) != NULL) {
        msb_event event = MSB_EVENT_INIT;
        char id[MSB_SESSION_ID_LEN];
        int32_t fd;
        msb_status rc = msb_exec_recv(exec, 1, &event, &err);

        CHECK_SAY(rc == MSB_OK || rc == MSB_AGAIN || rc == MSB_EOF || rc == MSB_E_BUSY ||
                  rc == MSB_E_HANDLE || rc == MSB_E_CLOSED, "%s", msb_status_name(rc));
        msb_event_release(&event);
        rc = msb_exec_id(exec, id, &err);
        CHECK_SAY(rc == MSB_OK || rc == MSB_E_HANDLE, "%s", msb_status_name(rc));
        rc = msb_handle_fd(exec, &fd, &err);
        CHECK_SAY(rc == MSB_OK || rc == MSB_E_HANDLE, "%s", msb_status_name(rc));
        rc = msb_exec_signal(exec, SIGCONT, 0, &err);
        CHECK_SAY(rc == MSB_OK || rc == MSB_E_HANDLE || rc == MSB_E_NO_PROCESS ||
                  rc == MSB_E_CLOSED, "%s", msb_status_name(rc));
    }
    return NULL;
}

TEST(test_i_calls_and_closing_race_without_harm)
{
    msb_exec_options options = script("echo a; echo b >&2");
    _Atomic(msb_exec *) place = start(shared(), &options, NULL);
    helper threads[3];

    for (int i = 0; i < 3; i++)
        threads[i] = helper_start(recovers_from_anything, &place);
    for (int i = 0; i < 100; i++) {
        msb_exec *next = start(shared(), &options, NULL);
        msb_exec *last = atomic_exchange(&place, next);
        CHECK_INT(msb_handle_close(last), MSB_OK);
    }
    CHECK_INT(msb_handle_close(atomic_exchange(&place, NULL)), MSB_OK);
    for (int i = 0; i < 3; i++)
        helper_join(threads[i]);
}
