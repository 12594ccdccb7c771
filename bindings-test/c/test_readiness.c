/* test_readiness.c - msb_handle_fd: a descriptor for each handle, in poll and in epoll. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static int fd_of(void *handle)
{
    int32_t fd = -1, same = -1;

    CHECK_OK(msb_handle_fd(handle, &fd, &err));
    CHECK_OK(msb_handle_fd(handle, &same, &err));
    CHECK(fd >= 0 && fd == same);
    return fd;
}

/* Receives the available events without waiting: MSB_AGAIN or MSB_EOF. */
static msb_status drain(msb_exec *exec, struct outcome *outcome)
{
    msb_event event = MSB_EVENT_INIT;
    msb_status rc;

    while (harness_arm(), (rc = msb_exec_recv(exec, 0, &event, &err)) == MSB_OK) {
        note(outcome, &event, 0);
        msb_event_release(&event);
    }
    if (rc != MSB_EOF)
        harness_status(__FILE__, __LINE__, "msb_exec_recv", rc, MSB_AGAIN);
    return rc;
}

TEST(test_fd_of_an_exec_polls_readable_while_an_event_waits)
{
    msb_exec_options options = command("cat");
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    int fd = fd_of(exec);

    CHECK(readable(fd, 5000));
    while (outcome.started == 0) {
        CHECK(readable(fd, 5000));
        CHECK_INT(drain(exec, &outcome), MSB_AGAIN);
    }
    for (int i = 0; i < 100; i++) {
        CHECK(!readable(fd, 0));
        write_all(sink, "x", 1);
        while (outcome.out.len < (size_t)i + 1) {
            CHECK(readable(fd, 5000));
            CHECK(readable(fd, 0)); /* until it was received */
            CHECK_INT(drain(exec, &outcome), MSB_AGAIN);
        }
    }
    CHECK(!readable(fd, 50));
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    while (drain(exec, &outcome) == MSB_AGAIN)
        CHECK(readable(fd, 5000));
    /* The end repeats. */
    for (int i = 0; i < 10; i++)
        CHECK(readable(fd, 0) && drain(exec, &outcome) == MSB_EOF);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    forget(&outcome);
}

TEST(test_fd_of_a_sink_polls_readable_while_there_is_room)
{
    msb_exec_options options = script("until [ -e /tmp/fd-go ]; do usleep 10000; done; cat >/dev/null");
    struct outcome outcome = {0};
    static uint8_t piece[1 << 16];
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    int fd = fd_of(sink);
    size_t total = 0, written;
    msb_status rc;

    CHECK(readable(fd, 0));
    do {
        while ((rc = msb_sink_write(sink, piece, sizeof piece, 0, &written, &err)) == MSB_OK)
            total += written;
        CHECK_INT(rc, MSB_AGAIN);
    } while (readable(fd, 200)); /* the bytes that moved on into the pipe made room */
    harness_note("not writable after %zu bytes", total);
    CHECK(!readable(fd, 0));
    sh("touch /tmp/fd-go");
    CHECK(readable(fd, 5000));
    CHECK_OK(msb_sink_write(sink, piece, 1, 0, &written, &err));
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    finish(exec, &outcome);
    sh("rm /tmp/fd-go");
    forget(&outcome);
}

TEST(test_fd_of_a_sink_polls_readable_when_the_pipe_is_broken)
{
    msb_exec_options options = script("sleep 600");
    struct outcome outcome = {0};
    static uint8_t piece[1 << 16];
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    int fd = fd_of(sink);
    size_t written;
    msb_status rc;

    do {
        while (msb_sink_write(sink, piece, sizeof piece, 0, &written, &err) == MSB_OK)
            ;
    } while (readable(fd, 200));
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    /* Room may become available before the end does. */
    do {
        CHECK(readable(fd, 5000));
        harness_arm();
        rc = msb_sink_write(sink, piece, sizeof piece, 0, &written, &err);
    } while (rc == MSB_OK || rc == MSB_AGAIN);
    CHECK_INT(rc, MSB_E_PIPE);
    CHECK(readable(fd, 0));
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    finish(exec, &outcome);
    forget(&outcome);
}

TEST(test_fd_of_a_sandbox_polls_readable_when_ready_or_failed)
{
    msb_sandbox_options options = sandbox_named("fd");
    msb_sandbox *sandbox = NULL;
    int fd;

    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    fd = fd_of(sandbox);
    harness_arm();
    while (msb_sandbox_wait_ready(sandbox, 0, &err) == MSB_AGAIN)
        CHECK(readable(fd, 30000));
    CHECK_OK(msb_sandbox_wait_ready(sandbox, 0, &err));
    CHECK(readable(fd, 0));
    sandbox_end(sandbox, "fd");
    options.image = "/nonexistent";
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    fd = fd_of(sandbox);
    CHECK(readable(fd, 30000));
    CHECK_STATUS(msb_sandbox_wait_ready(sandbox, 0, &err), MSB_E_CONFIG);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
}

TEST(test_fd_of_a_closed_exec_wakes_through_a_copy)
{
    msb_exec_options options = script("sleep 1");
    struct outcome outcome = {0};
    msb_exec *exec = start(shared(), &options, NULL);
    int copy;

    take(exec, &outcome, -1);
    copy = dup(fd_of(exec));
    CHECK(!readable(copy, 0));
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    CHECK(readable(copy, 1000));
    close(copy);
    forget(&outcome);
}

enum { LOOP_EXECS = 50 };

static struct {
    msb_exec *exec;
    struct outcome outcome;
} looped[LOOP_EXECS];

TEST(test_fd_fifty_commands_in_one_epoll)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC), left = LOOP_EXECS, before;
    int64_t begin = now_ms();
    unsigned wakes = 0;

    sh("true");
    before = open_descriptors(0);
    for (int i = 0; i < LOOP_EXECS; i++) {
        char text[128];
        struct epoll_event event = {.events = EPOLLIN | (i % 2 ? EPOLLET : 0)};
        msb_exec_options options;

        snprintf(text, sizeof text, "seq %d %d; usleep 20000; seq %d %d >&2; exit %d", i, i + 5000,
                 i, i + 100, i);
        options = script(text);
        looped[i].exec = start(shared(), &options, NULL);
        event.data.u32 = (uint32_t)i;
        CHECK_INT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd_of(looped[i].exec), &event), 0);
    }
    while (left > 0) {
        struct epoll_event events[16];
        int count = epoll_wait(epoll, events, 16, 30000);

        CHECK_SAY(count > 0, "%d commands never ended", left);
        for (int k = 0; k < count; k++) {
            uint32_t i = events[k].data.u32;
            wakes++;
            if (looped[i].exec && drain(looped[i].exec, &looped[i].outcome) == MSB_EOF) {
                /* Closing also removes its descriptor from the epoll set. */
                CHECK_INT(msb_handle_close(looped[i].exec), MSB_OK);
                looped[i].exec = NULL;
                left--;
            }
        }
    }
    for (int i = 0; i < LOOP_EXECS; i++) {
        struct outcome *outcome = &looped[i].outcome;
        char *at = outcome->out.data;

        CHECK_INT(outcome->exit.code, i);
        for (long number = i; number <= i + 5000; number++)
            CHECK_INT(strtol(at, &at, 10), number);
        at = outcome->err.data;
        for (long number = i; number <= i + 100; number++)
            CHECK_INT(strtol(at, &at, 10), number);
        forget(outcome);
    }
    CHECK_INT(open_descriptors(0), before);
    close(epoll);
    harness_note("%d commands, %u wake-ups, %" PRId64 " ms", LOOP_EXECS, wakes, now_ms() - begin);
}

TEST(test_fd_edge_triggered_poll_reaches_the_end_of_much_output)
{
    for (int collect = 0; collect <= 1; collect++) {
        msb_exec_options options = script("head -c 8000000 /dev/zero");
        msb_exec *exec = start(shared(), &options, NULL);
        int epoll = epoll_create1(EPOLL_CLOEXEC), polls = 0;
        struct epoll_event event = {.events = EPOLLIN | EPOLLET};
        msb_event ending = MSB_EVENT_INIT;
        msb_output output = MSB_OUTPUT_INIT;
        msb_status rc;

        CHECK(epoll >= 0);
        CHECK_INT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd_of(exec), &event), 0);
        while ((rc = collect ? msb_exec_collect(exec, 0, &output, &err)
                             : msb_exec_wait(exec, 0, &ending, &err)) == MSB_AGAIN) {
            polls++;
            CHECK_SAY(epoll_wait(epoll, &event, 1, 30000) == 1, "nothing after %d polls", polls);
        }
        CHECK_INT(rc, MSB_OK);
        if (collect) {
            CHECK_INT(output.stdout_len, 8000000);
            msb_output_release(&output);
        } else {
            CHECK_INT(ending.kind, MSB_EVENT_EXITED);
            msb_event_release(&ending);
        }
        CHECK_INT(msb_handle_close(exec), MSB_OK);
        close(epoll);
    }
}
