/* test_input.c - promises C: writing to a command's input. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static msb_exec *cat_with(msb_sink **sink)
{
    msb_exec_options options = command("cat");

    return start(shared(), &options, sink);
}

TEST(test_c1_the_exec_may_be_closed_before_the_sink)
{
    msb_exec_options options = script("cat >/tmp/c1; echo end >>/tmp/c1");
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);

    CHECK_INT(msb_handle_close(exec), MSB_OK);
    write_all(sink, "still here\n", 11);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    wait_until("grep -q end /tmp/c1");
    CHECK_TEXT(sh("cat /tmp/c1"), "still here\nend\n");
}

TEST(test_c1_the_sink_may_be_closed_before_the_exec)
{
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec = cat_with(&sink);

    write_all(sink, "text", 4);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    finish(exec, &outcome);
    CHECK_TEXT(outcome.out.data, "text");
    CHECK_INT(outcome.exit.code, 0);
    forget(&outcome);
}

TEST(test_c1_sink_closes_after_command_and_exec)
{
    msb_exec_options options = command("true");
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    size_t written = 77;

    finish(exec, &outcome);
    CHECK_STATUS(msb_sink_write(sink, (const uint8_t *)"x", 1, -1, &written, &err), MSB_E_PIPE);
    CHECK_INT(written, 77);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    CHECK_INT(msb_handle_close(sink), MSB_E_HANDLE);
    forget(&outcome);
}

TEST(test_c2_empty_write_is_a_no_op_and_close_ends_the_input)
{
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec = cat_with(&sink);
    size_t written = 77;

    CHECK_OK(msb_sink_write(sink, NULL, 0, -1, &written, &err));
    CHECK_INT(written, 0);
    written = 77;
    CHECK_OK(msb_sink_write(sink, (const uint8_t *)"x", 0, 0, &written, &err));
    CHECK_INT(written, 0);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    finish(exec, &outcome);
    CHECK_INT(outcome.exit.code, 0);
    CHECK_INT(outcome.out.len, 0);
    CHECK_INT(outcome.stdin_errors, 0);
    forget(&outcome);
}

TEST(test_c2_on_a_terminal_closing_types_the_end_of_file)
{
    msb_exec_options options = script("stty -echo; echo up; cat; echo over");
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec;

    options.flags |= MSB_EXEC_TTY;
    exec = start(shared(), &options, &sink);
    while (outcome.out.len < 4 && take(exec, &outcome, 10000))
        ;
    write_all(sink, "typed\n", 6);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    finish(exec, &outcome);
    CHECK_TEXT(outcome.out.data, "up\r\ntyped\r\nover\r\n");
    CHECK_INT(outcome.exit.code, 0);
    forget(&outcome);
}

TEST(test_c2_writes_without_waiting_lose_nothing)
{
    /* Reads nothing until the file exists. */
    msb_exec_options options = script("until [ -e /tmp/c2-go ]; do usleep 10000; done; cat");
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    size_t total = 0, written = 77, quiet = 0, pieces = 0;
    uint8_t piece[70000];
    msb_status rc;

    while (quiet < 20 && total < (size_t)64 << 20) {
        for (size_t i = 0; i < sizeof piece; i++)
            piece[i] = (uint8_t)((total + i) * 31 >> 3);
        harness_arm();
        rc = msb_sink_write(sink, piece, sizeof piece, 0, &written, &err);
        if (rc == MSB_AGAIN) {
            quiet++;
            sleep_ms(10);
            continue;
        }
        harness_status(__FILE__, __LINE__, "msb_sink_write", rc, MSB_OK);
        CHECK_SAY(written > 0 && written <= sizeof piece, "%zu", written);
        pieces += written < sizeof piece;
        total += written;
        quiet = 0;
    }
    harness_note("%zu bytes went in before it said MSB_AGAIN; %zu writes were partial", total,
                 pieces);
    CHECK(quiet == 20 && total > 0);
    written = 77;
    CHECK_STATUS(msb_sink_write(sink, piece, 1, 20, &written, &err), MSB_AGAIN);
    CHECK_INT(written, 77);
    /* Accepted bytes arrive, also if the sink is closed at once. */
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    sh("touch /tmp/c2-go");
    finish(exec, &outcome);
    sh("rm /tmp/c2-go");
    CHECK_INT(outcome.exit.code, 0);
    CHECK_INT(outcome.out.len, total);
    for (size_t i = 0; i < total; i++)
        if ((uint8_t)outcome.out.data[i] != (uint8_t)(i * 31 >> 3))
            CHECK_SAY(false, "a byte differs at %zu", i);
    forget(&outcome);
}

TEST(test_c2_waiting_write_delays_no_other_command)
{
    msb_exec_options options = script("sleep 600");
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    static uint8_t piece[1 << 16];
    size_t written;
    int64_t begin = now_ms();

    while (msb_sink_write(sink, piece, sizeof piece, 50, &written, &err) == MSB_OK)
        ;
    for (int i = 0; i < 5; i++)
        CHECK_TEXT(sh("echo ok"), "ok\n");
    if (harness_scale() == 1)
        CHECK_SAY(now_ms() - begin < 5000, "%" PRId64, now_ms() - begin);
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    finish(exec, &outcome);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    forget(&outcome);
}

TEST(test_c3_command_that_stops_reading_breaks_pipe_and_runs_on)
{
    msb_exec_options options =
        script("read -r line; echo got $line; exec 0</dev/null; echo closed; sleep 0.5; exit 5");
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    int64_t begin = now_ms();
    size_t written;
    msb_status rc;

    write_all(sink, "one\n", 4);
    while (!(outcome.out.data && strstr(outcome.out.data, "closed")) && take(exec, &outcome, 10000))
        ;
    while ((rc = msb_sink_write(sink, (const uint8_t *)"x", 1, -1, &written, &err)) == MSB_OK &&
           now_ms() - begin < 10000)
        sleep_ms(1);
    CHECK_INT(rc, MSB_E_PIPE);
    CHECK_STATUS(msb_sink_write(sink, (const uint8_t *)"x", 1, -1, &written, &err), MSB_E_PIPE);
    CHECK_STATUS(msb_sink_write(sink, (const uint8_t *)"x", 1, 0, &written, &err), MSB_E_PIPE);
    finish(exec, &outcome);
    CHECK_INT(outcome.stdin_errors, 1);
    CHECK_INT(outcome.stdin_errno, 32 /* EPIPE */);
    CHECK_TEXT(outcome.out.data, "got one\nclosed\n");
    CHECK_INT(outcome.exit.code, 5);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    forget(&outcome);
}
