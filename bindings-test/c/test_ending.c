/* test_ending.c - promises B7 and D: ending a command, its handle, and its sandbox. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* True if a process in the sandbox is dead, or a zombie that is not yet reaped. */
#define GONE(pid) "{ ! kill -0 " pid " 2>/dev/null || grep -q ') Z ' /proc/" pid "/stat; }"

TEST(test_d1_closing_an_exec_ends_nothing)
{
    msb_exec_options options =
        script("echo $$ >/tmp/d1-pid; while :; do echo x >>/tmp/d1; usleep 10000; done");
    msb_exec *exec = start(shared(), &options, NULL);

    CHECK_INT(msb_handle_close(exec), MSB_OK);
    wait_until("[ -s /tmp/d1 ]");
    sh("had=$(wc -c </tmp/d1); until [ $(wc -c </tmp/d1) -gt $((had+10)) ]; do usleep 10000; done");
    sh("kill -0 $(cat /tmp/d1-pid) && kill -9 $(cat /tmp/d1-pid)");
}

TEST(test_d1_writing_command_runs_on_after_its_exec_is_closed)
{
    /* More than all buffers hold. */
    msb_exec_options options = script("head -c 20000000 /dev/zero; echo done >/tmp/d1-done");
    msb_exec *exec = start(shared(), &options, NULL);

    CHECK_INT(msb_handle_close(exec), MSB_OK);
    wait_until("[ -s /tmp/d1-done ]");
}

TEST(test_d2_signal_goes_to_the_group_or_the_whole_tree)
{
    msb_exec_options options =
        script("setsid sh -c 'echo $$ >/tmp/d2; exec sleep 600' & sleep 600 & echo $! >/tmp/d2-child;"
               " trap 'echo term' TERM; echo up; while :; do usleep 10000; done");
    msb_exec *exec = start(shared(), &options, NULL);
    struct outcome outcome = {0};

    wait_until("[ -s /tmp/d2 -a -s /tmp/d2-child ]");
    while (outcome.out.len < 3 && take(exec, &outcome, 10000))
        ;
    CHECK_OK(msb_exec_signal(exec, SIGTERM, MSB_SIGNAL_GROUP, &err));
    while (outcome.out.len < 8 && take(exec, &outcome, 10000))
        ;
    CHECK_SAY(outcome.out.len >= 8 && strstr(outcome.out.data, "up\n"), "%s", outcome.out.data);
    CHECK(strstr(outcome.out.data, "term\n"));
    wait_until(GONE("$(cat /tmp/d2-child)"));
    sh("kill -0 $(cat /tmp/d2)");
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    finish(exec, &outcome);
    CHECK_INT(outcome.exit.signal, SIGKILL);
    CHECK_INT(outcome.exit.flags, 0);
    wait_until(GONE("$(cat /tmp/d2)"));
    forget(&outcome);
}

TEST(test_d2_failed_signal_reports_the_reason)
{
    msb_exec_options options = script("sleep 600");
    msb_exec *exec = start(shared(), &options, NULL);
    struct outcome outcome = {0};
    int wrong[] = {999, -1, 65, INT32_MAX, INT32_MIN};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_STATUS(msb_exec_signal(exec, wrong[i], MSB_SIGNAL_GROUP, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_signal(exec, SIGTERM, 2, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_signal(exec, SIGTERM, UINT32_MAX, &err), MSB_E_INVALID);
    CHECK_OK(msb_exec_signal(exec, SIGTERM, MSB_SIGNAL_GROUP, &err));
    while (take(exec, &outcome, -1))
        ;
    CHECK_INT(outcome.exit.signal, SIGTERM);
    CHECK_STATUS(msb_exec_signal(exec, SIGTERM, MSB_SIGNAL_GROUP, &err), MSB_E_NO_PROCESS);
    CHECK_STATUS(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err), MSB_E_NO_PROCESS);
    CHECK_STATUS(msb_exec_signal(exec, 999, MSB_SIGNAL_GROUP, &err), MSB_E_INVALID);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    forget(&outcome);
}

TEST(test_b7_killed_agent_is_a_loss_and_never_an_exit)
{
    msb_sandbox *sandbox = sandbox_of_own("b7");
    pid_t agent = agent_of(sandbox);
    msb_exec_options options = script("echo up; cat; exit 0");
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec, *late = NULL;
    msb_status signalled, stopped, rc;
    size_t written = 0;
    int64_t begin;

    if (!agent) {
        harness_note("skipped: the agent cannot be seen from here");
        sandbox_end(sandbox, "b7");
        return;
    }
    exec = start(sandbox, &options, &sink);
    while (outcome.out.len < 3 && take(exec, &outcome, 10000))
        ;
    begin = now_ms();
    CHECK_INT(kill(agent, SIGKILL), 0);
    while (take(exec, &outcome, 10000))
        ;
    CHECK_INT(outcome.ending, MSB_EVENT_LOST);
    harness_note("lost after %" PRId64 " ms: %s", now_ms() - begin, outcome.lost);
    if (harness_scale() == 1)
        CHECK(now_ms() - begin < 2000);
    CHECK_INT(outcome.end_flags, 0);
    CHECK_STATUS(msb_sink_write(sink, (const uint8_t *)"x", 1, -1, &written, &err), MSB_E_LOST);
    signalled = msb_exec_signal(exec, SIGTERM, MSB_SIGNAL_GROUP, &err);
    /* Whether the end is known at this moment is a race. */
    rc = msb_exec_stream(sandbox, &options, &late, NULL, &err);
    CHECK_SAY(rc == MSB_E_NOT_RUNNING || rc == MSB_E_LOST, "%s", msb_status_name(rc));
    CHECK(late == NULL);
    stopped = msb_sandbox_stop(sandbox, 0, &err);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_OK(msb_sandbox_remove("b7", 0, &err));
    forget(&outcome);
    /* Last, so that a failure leaves nothing behind. */
    CHECK_SAY(stopped == MSB_E_CRASHED || stopped == MSB_E_NOT_RUNNING, "%s",
              msb_status_name(stopped));
    CHECK_INT(signalled, MSB_E_LOST);
}

static void *stops(void *sandbox)
{
    sleep_ms(100);
    CHECK_OK(msb_sandbox_stop(sandbox, 200, &err));
    return NULL;
}

TEST(test_b7_stopped_sandbox_ends_commands_never_with_success)
{
    msb_sandbox *sandbox = sandbox_of_own("stopped");
    msb_exec_options patient = script("trap '' TERM; echo up; sleep 600 & wait; sleep 600");
    msb_exec_options quick = script("echo up; sleep 600");
    struct outcome outcomes[2];
    msb_exec *execs[2] = {start(sandbox, &patient, NULL), start(sandbox, &quick, NULL)};
    helper thread;

    memset(outcomes, 0, sizeof outcomes);
    for (int i = 0; i < 2; i++)
        while (outcomes[i].out.len < 3 && take(execs[i], &outcomes[i], 10000))
            ;
    thread = helper_start(stops, sandbox);
    for (int i = 0; i < 2; i++) {
        finish(execs[i], &outcomes[i]);
        CHECK(outcomes[i].ending == MSB_EVENT_LOST || outcomes[i].ending == MSB_EVENT_EXITED);
        CHECK(outcomes[i].ending == MSB_EVENT_LOST || outcomes[i].exit.code != 0);
        harness_note("%s: signal %" PRId32 " %s",
                     outcomes[i].ending == MSB_EVENT_LOST ? "lost" : "exited",
                     outcomes[i].exit.signal, outcomes[i].lost);
        forget(&outcomes[i]);
    }
    helper_join(thread);
    CHECK_STATUS(msb_sandbox_stop(sandbox, 0, &err), MSB_E_NOT_RUNNING);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_OK(msb_sandbox_remove("stopped", 0, &err));
    CHECK_STATUS(msb_sandbox_remove("stopped", 0, &err), MSB_E_NOT_FOUND);
}

TEST(test_g_closed_sandbox_runs_on_under_its_name)
{
    msb_sandbox *sandbox = sandbox_of_own("closed"), *other = NULL;
    msb_sandbox_options options = sandbox_named("closed");
    msb_exec_options cat = command("cat");
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec = start(sandbox, &cat, &sink);

    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_INT(msb_handle_close(sandbox), MSB_E_HANDLE);
    write_all(sink, "through\n", 8);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    finish(exec, &outcome);
    CHECK_TEXT(outcome.out.data, "through\n");
    CHECK_INT(outcome.exit.code, 0);
    CHECK_STATUS(msb_sandbox_remove("closed", 0, &err), MSB_E_RUNNING);
    CHECK_OK(msb_sandbox_create(&options, &other, &err));
    CHECK_STATUS(msb_sandbox_wait_ready(other, -1, &err), MSB_E_EXISTS);
    CHECK_STATUS(msb_sandbox_wait_ready(other, 0, &err), MSB_E_EXISTS);
    CHECK_INT(msb_handle_close(other), MSB_OK);
    other = sandbox_of_own("closed"); /* replaces it */
    sandbox_end(other, "closed");
    forget(&outcome);
}
