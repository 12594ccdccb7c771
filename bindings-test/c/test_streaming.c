/* test_streaming.c - promises B: the events of a command, their order and their end. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TEST(test_b1_events_come_in_order_with_one_ending)
{
    msb_exec_options options = script("echo out; echo err >&2; sleep 0.05; echo more; exit 3");
    struct outcome outcome = run_command(&options); /* which checks the order */

    CHECK_INT(outcome.started, 1);
    CHECK_TEXT(outcome.out.data, "out\nmore\n");
    CHECK_TEXT(outcome.err.data, "err\n");
    CHECK_INT(outcome.exit.code, 3);
    CHECK_INT(outcome.out_at_exit, outcome.out.len);
    CHECK_INT(outcome.end_flags, 0);
    forget(&outcome);
}

TEST(test_b1_end_of_stream_repeats)
{
    msb_exec_options options = script("exit 0");
    msb_exec *exec = start(shared(), &options, NULL);
    struct outcome outcome = {0};
    msb_event event = MSB_EVENT_INIT;

    while (take(exec, &outcome, -1))
        ;
    for (int i = 0; i < 1000; i++)
        CHECK_STATUS(msb_exec_recv(exec, i % 3 - 1, &event, &err), MSB_EOF);
    CHECK_INT(event.kind, 0);
    CHECK(!event.data && !event.exit && !event.failure && event.len == 0);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    forget(&outcome);
}

TEST(test_b2_output_arrives_while_the_program_runs)
{
    msb_exec_options options = script("echo now; sleep 600");
    msb_exec *exec = start(shared(), &options, NULL);
    struct outcome outcome = {0};

    while (outcome.out.len == 0 && take(exec, &outcome, 5000))
        ;
    CHECK_TEXT(outcome.out.data, "now\n");
    CHECK_INT(outcome.ending, 0);
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    finish(exec, &outcome);
    forget(&outcome);
}

TEST(test_b4_background_writer_delays_neither_exit_nor_end)
{
    msb_exec_options options = script("sleep 600 & echo $! >/tmp/b4; echo hi");
    struct outcome outcome = run_command(&options);

    CHECK_TEXT(outcome.out.data, "hi\n");
    CHECK_INT(outcome.out_at_exit, 3);
    CHECK_INT(outcome.exit.code, 0);
    CHECK_INT(outcome.end_flags, MSB_EVENT_WRITER_LEFT);
    harness_note("exited after %" PRId64 " ms, end of the stream after %" PRId64 " ms",
                 outcome.exit_ms, outcome.end_ms);
    CHECK(outcome.end_ms >= 200);
    if (harness_scale() == 1) {
        CHECK_SAY(outcome.exit_ms < 150, "%" PRId64, outcome.exit_ms);
        CHECK_SAY(outcome.end_ms < 1000, "%" PRId64, outcome.end_ms);
    }
    forget(&outcome);
    sh("kill -0 $(cat /tmp/b4) && kill $(cat /tmp/b4)");
}

TEST(test_b4_left_writer_is_neither_blocked_nor_killed)
{
    msb_exec_options options = script("(sleep 0.4; head -c 1000000 /dev/zero; echo done >/tmp/b4b;"
                                      " sleep 600) & echo $! >/tmp/b4pid; echo hi");
    struct outcome outcome;

    options.drain_ns = 50 * 1000000;
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "hi\n");
    CHECK_INT(outcome.end_flags, MSB_EVENT_WRITER_LEFT);
    forget(&outcome);
    wait_until("[ -s /tmp/b4b ]");
    sh("kill $(cat /tmp/b4pid)");
}

TEST(test_b4_every_writer_is_waited_for_on_request)
{
    msb_exec_options options = script("(sleep 0.5; echo late) & echo early");
    struct outcome outcome;

    options.flags |= MSB_EXEC_WAIT_FOR_EOF;
    outcome = run_command(&options);
    CHECK_TEXT(outcome.out.data, "early\nlate\n");
    CHECK_INT(outcome.out_at_exit, 6);
    CHECK_INT(outcome.end_flags, 0);
    forget(&outcome);
}

TEST(test_b5_timed_out_wait_loses_nothing)
{
    msb_exec_options options = script("for i in 1 2 3 4 5 6 7 8 9 10; do"
                                      " seq $((i*2000-1999)) $((i*2000)); usleep 15000; done");
    msb_exec *exec = start(shared(), &options, NULL);
    struct outcome outcome = {0};
    msb_event event = MSB_EVENT_INIT;
    unsigned again = 0;
    msb_status rc;
    char *at, *next;

    while ((rc = msb_exec_recv(exec, again % 3, &event, &err)) != MSB_EOF) {
        if (rc == MSB_AGAIN) {
            again++;
            continue;
        }
        CHECK_INT(rc, MSB_OK);
        note(&outcome, &event, 0);
        msb_event_release(&event);
    }
    CHECK(again > 10);
    harness_note("%u waits were over before something came", again);
    finish(exec, &outcome);
    at = outcome.out.data;
    for (long line = 1; line <= 20000; line++) {
        CHECK_INT(strtol(at, &next, 10), line);
        at = next;
    }
    CHECK_TEXT(at, "\n");
    forget(&outcome);
}

TEST(test_b5_wait_lasts_its_timeout)
{
    msb_exec_options options = script("sleep 600");
    msb_exec *exec = start(shared(), &options, NULL);
    struct outcome outcome = {0};
    msb_event event = MSB_EVENT_INIT;
    int64_t begin;

    take(exec, &outcome, -1);
    begin = now_ms();
    CHECK_STATUS(msb_exec_recv(exec, 0, &event, &err), MSB_AGAIN);
    if (harness_scale() == 1)
        CHECK_SAY(now_ms() - begin < 50, "%" PRId64, now_ms() - begin);
    begin = now_ms();
    CHECK_STATUS(msb_exec_recv(exec, 10, &event, &err), MSB_AGAIN);
    CHECK_SAY(now_ms() - begin >= 9, "%" PRId64, now_ms() - begin);
    if (harness_scale() == 1)
        CHECK_SAY(now_ms() - begin < 200, "%" PRId64, now_ms() - begin);
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    finish(exec, &outcome);
    CHECK_INT(outcome.exit.signal, SIGKILL);
    forget(&outcome);
}

static void *waits_for_an_event(void *exec)
{
    msb_event event = MSB_EVENT_INIT;
    msb_status rc;

    /* A thread that checks for the waiter may hold the turn at this moment. */
    do
        rc = msb_exec_recv(exec, -1, &event, &err);
    while (rc == MSB_E_BUSY);
    CHECK_INT(rc, MSB_OK);
    CHECK_INT(event.kind, MSB_EVENT_EXITED);
    msb_event_release(&event);
    return NULL;
}

TEST(test_b9_second_reader_is_busy)
{
    msb_exec_options options = script("sleep 600");
    msb_exec *exec = start(shared(), &options, NULL);
    struct outcome outcome = {0};
    msb_event event = MSB_EVENT_INIT;
    char id[MSB_SESSION_ID_LEN];
    helper reader;
    msb_status rc;

    take(exec, &outcome, -1);
    reader = helper_start(waits_for_an_event, exec);
    while ((rc = msb_exec_recv(exec, 0, &event, NULL)) == MSB_AGAIN)
        sleep_ms(1);
    CHECK_INT(rc, MSB_E_BUSY);
    CHECK_STATUS(msb_exec_recv(exec, 0, &event, &err), MSB_E_BUSY);
    CHECK_STATUS(msb_exec_recv(exec, 10, &event, &err), MSB_E_BUSY);
    CHECK_STATUS(msb_exec_recv(exec, -1, &event, &err), MSB_E_BUSY);
    /* Calls that do not read never wait for the reader. */
    CHECK_OK(msb_exec_id(exec, id, &err));
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    helper_join(reader);
    CHECK_STATUS(msb_exec_recv(exec, -1, &event, &err), MSB_EOF);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    forget(&outcome);
}

TEST(test_d5_session_ids_are_hexadecimal_and_unique)
{
    char ids[20][MSB_SESSION_ID_LEN];

    for (int i = 0; i < 20; i++) {
        msb_exec_options options = command("true");
        msb_exec *exec = start(shared(), &options, NULL);
        struct outcome outcome = {0};

        memset(ids[i], 'x', sizeof ids[i]);
        CHECK_OK(msb_exec_id(exec, ids[i], &err));
        CHECK_INT(strspn(ids[i], "0123456789abcdef"), MSB_SESSION_ID_LEN - 1);
        CHECK_INT(ids[i][MSB_SESSION_ID_LEN - 1], 0);
        for (int k = 0; k < i; k++)
            CHECK(strcmp(ids[i], ids[k]) != 0);
        finish(exec, &outcome);
        forget(&outcome);
    }
}
