/* test_collect.c - promises A1, A4, B4, B5, B7, B9, B10, D3: collecting, and waiting for the exit.
 * */
#include "support.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Collects with a long timeout, and checks what holds for every output. */
static msb_output collected(msb_exec *exec)
{
    msb_output output = MSB_OUTPUT_INIT;

    CHECK_OK(msb_exec_collect(exec, 60000, &output, &err));
    CHECK_INT(output.struct_size, sizeof output);
    CHECK_INT(output.reserved, 0);
    CHECK((output.exit != NULL) == (output.kind == MSB_EVENT_EXITED));
    CHECK((output.failure != NULL) == (output.kind == MSB_EVENT_FAILED));
    CHECK((output.lost != NULL) == (output.kind == MSB_EVENT_LOST));
    CHECK((output.lost_len > 0) == (output.kind == MSB_EVENT_LOST));
    CHECK((output.stdout_data != NULL) == (output.stdout_len > 0));
    CHECK((output.stderr_data != NULL) == (output.stderr_len > 0));
    CHECK(output.stdout_len <= output.stdout_total && output.stderr_len <= output.stderr_total);
    CHECK(((output.flags & MSB_OUTPUT_TRUNCATED) != 0) ==
          (output.stdout_len < output.stdout_total || output.stderr_len < output.stderr_total));
    CHECK(output.owner != NULL);
    if (output.exit)
        CHECK_INT(output.exit->struct_size, sizeof *output.exit);
    return output;
}

#define CHECK_BYTES(data, len, text)                                                              \
    CHECK_SAY((len) == strlen(text) && ((len) == 0 || memcmp(data, text, len) == 0), "%.*s",       \
              (int)(len), (const char *)(data))

/* Releases it, and checks that it is empty. */
static void done(msb_output *output)
{
    uint32_t kind = output->kind;

    for (int i = 0; i < 2; i++) {
        msb_output_release(output);
        CHECK(!output->exit && !output->failure && !output->lost && !output->stdout_data);
        CHECK(!output->stderr_data && !output->owner && output->stdout_len == 0);
        CHECK(output->stderr_len == 0 && output->lost_len == 0);
        CHECK_INT(output->kind, kind);
        CHECK_INT(output->struct_size, sizeof *output);
    }
}

TEST(test_a1_collect_gives_both_outputs_and_the_exit)
{
    msb_exec_options options = script("echo out; echo err >&2; printf more; exit 3");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_output output = collected(exec);

    CHECK_INT(output.kind, MSB_EVENT_EXITED);
    CHECK_INT(output.exit->code, 3);
    CHECK_INT(output.exit->signal, 0);
    CHECK(output.exit->wall_ns > 0 && output.exit->max_rss > 0);
    CHECK_BYTES(output.stdout_data, output.stdout_len, "out\nmore");
    CHECK_BYTES(output.stderr_data, output.stderr_len, "err\n");
    CHECK_INT(output.stdout_total, 8);
    CHECK_INT(output.stderr_total, 4);
    CHECK_INT(output.flags, 0);
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_a1_exit_by_signal_is_collected)
{
    msb_exec_options options = script("echo last words; kill -KILL $$");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_output output = collected(exec);

    CHECK_INT(output.exit->code, -1);
    CHECK_INT(output.exit->signal, SIGKILL);
    CHECK_BYTES(output.stdout_data, output.stdout_len, "last words\n");
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_a1_nothing_collected_is_null_and_no_bytes)
{
    msb_exec_options options = command("true");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_output output = collected(exec);

    /* NULL, and not a dangling address: a garbage collector may follow it. */
    CHECK(output.stdout_data == NULL && output.stderr_data == NULL && output.lost == NULL);
    CHECK_INT(output.stdout_len + output.stderr_len + output.lost_len, 0);
    CHECK_INT(output.exit->code, 0);
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_a1_a_failure_to_start_is_collected_with_its_kind)
{
    msb_exec_options options = command("nonexistent");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_output output = collected(exec);

    CHECK_INT(output.kind, MSB_EVENT_FAILED);
    CHECK_INT(output.failure->kind, MSB_FAILURE_NOT_FOUND);
    CHECK_TEXT(output.failure->kind_name, "not_found");
    CHECK_TEXT(output.failure->os_error_name, "ENOENT");
    CHECK_TEXT(output.failure->path, "nonexistent");
    CHECK(strlen(output.failure->stage) > 0 && strlen(output.failure->message) > 0);
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_d3_a_timeout_is_collected_with_the_output_so_far)
{
    msb_exec_options options = script("echo so far; echo also >&2; sleep 600");
    msb_exec *exec;
    msb_output output;

    options.timeout_ns = 500000000;
    exec = start(shared(), &options, NULL);
    output = collected(exec);
    CHECK_INT(output.kind, MSB_EVENT_EXITED);
    CHECK_INT(output.exit->flags & MSB_EXIT_TIMED_OUT, MSB_EXIT_TIMED_OUT);
    CHECK_INT(output.exit->signal, SIGKILL);
    CHECK_BYTES(output.stdout_data, output.stdout_len, "so far\n");
    CHECK_BYTES(output.stderr_data, output.stderr_len, "also\n");
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_a4_limit_truncates_each_stream_and_reports_totals)
{
    static const struct {
        uint64_t max;
        const char *out, *err;
        uint32_t flags;
    } cases[] = {
        {1, "0", "a", MSB_OUTPUT_TRUNCATED},
        {3, "012", "abc", MSB_OUTPUT_TRUNCATED},
        {4, "0123", "abc\n", MSB_OUTPUT_TRUNCATED},
        {10, "0123456789", "abc\n", MSB_OUTPUT_TRUNCATED},
        {11, "0123456789\n", "abc\n", 0},
        {UINT64_MAX, "0123456789\n", "abc\n", 0},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        msb_exec_options options = script("echo 0123456789; echo abc >&2");
        msb_output output;
        msb_exec *exec;

        options.max_output = cases[i].max;
        exec = start(shared(), &options, NULL);
        output = collected(exec);
        CHECK_BYTES(output.stdout_data, output.stdout_len, cases[i].out);
        CHECK_BYTES(output.stderr_data, output.stderr_len, cases[i].err);
        CHECK_INT(output.stdout_total, 11);
        CHECK_INT(output.stderr_total, 4);
        CHECK_INT(output.flags, cases[i].flags);
        done(&output);
        CHECK_INT(msb_handle_close(exec), MSB_OK);
    }
}

TEST(test_a4_limit_bounds_memory_and_does_not_block)
{
    uint64_t total = UINT64_C(64) * 1024 * 1024 / harness_scale();
    char text[64];
    msb_exec_options options;
    msb_output output;
    msb_exec *exec;
    long before;

    snprintf(text, sizeof text, "head -c %" PRIu64 " /dev/zero", total);
    options = script(text);
    options.max_output = 100000;
    reset_peak(0);
    before = status_kib(0, "VmHWM:");
    exec = start(shared(), &options, NULL);
    output = collected(exec);
    CHECK_INT(output.stdout_len, 100000);
    CHECK_INT(output.stdout_total, (int64_t)total);
    CHECK_INT(output.exit->code, 0);
    CHECK_INT(output.flags, MSB_OUTPUT_TRUNCATED);
    if (harness_scale() == 1)
        CHECK_SAY(status_kib(0, "VmHWM:") - before < 16384, "%ld KiB more",
                  status_kib(0, "VmHWM:") - before);
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_b4_background_writer_is_reported_with_its_output)
{
    msb_exec_options options = script("sh -c 'echo late; touch /tmp/b4-late; exec sleep 600' & "
                                      "until [ -e /tmp/b4-late ]; do usleep 10000; done");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_output output = collected(exec);

    CHECK_INT(output.kind, MSB_EVENT_EXITED);
    CHECK_INT(output.flags, MSB_EVENT_WRITER_LEFT);
    CHECK_BYTES(output.stdout_data, output.stdout_len, "late\n");
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_b7_loss_includes_earlier_output)
{
    msb_sandbox *sandbox = sandbox_of_own("b7-collect");
    msb_exec_options options = script("echo before; exec sleep 600");
    msb_exec *exec = start(sandbox, &options, NULL);
    msb_output output = MSB_OUTPUT_INIT;
    uint64_t position = 0;

    while (position < 7) {
        CHECK_STATUS(msb_exec_collect(exec, 10, &output, &err), MSB_AGAIN);
        CHECK_OK(msb_exec_position(exec, &position, NULL, &err));
    }
    CHECK_OK(msb_sandbox_kill(sandbox, &err));
    output = collected(exec);
    CHECK_INT(output.kind, MSB_EVENT_LOST);
    CHECK(output.lost_len > 0 && !memchr(output.lost, '\n', output.lost_len));
    CHECK_BYTES(output.stdout_data, output.stdout_len, "before\n");
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    /* The output outlives both. */
    CHECK_BYTES(output.stdout_data, output.stdout_len, "before\n");
    done(&output);
    CHECK_OK(msb_sandbox_remove("b7-collect", 0, &err));
}

TEST(test_b10_timed_out_collect_keeps_its_output)
{
    msb_exec_options options = script("while read -r line; do echo $line; echo $line >&2; done");
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    msb_output output = MSB_OUTPUT_INIT, same = MSB_OUTPUT_INIT;
    uint64_t position = 0;

    for (int i = 0; i < 5; i++) {
        write_all(sink, "line\n", 5);
        while (position < (uint64_t)(i + 1) * 10) {
            CHECK_STATUS(msb_exec_collect(exec, i % 2 ? 0 : 20, &output, &err), MSB_AGAIN);
            CHECK(memcmp(&output, &same, sizeof output) == 0);
            CHECK_OK(msb_exec_position(exec, &position, NULL, &err));
        }
    }
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    output = collected(exec);
    CHECK_BYTES(output.stdout_data, output.stdout_len, "line\nline\nline\nline\nline\n");
    CHECK_BYTES(output.stderr_data, output.stderr_len, "line\nline\nline\nline\nline\n");
    CHECK_INT(output.stdout_total, 25);
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_b10_collect_returns_unreceived_output)
{
    msb_exec_options options = script("echo first; read -r go; echo second; exit 2");
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    struct outcome outcome = {0};
    msb_output output;

    while (outcome.out.len < 6)
        take(exec, &outcome, 10000);
    write_all(sink, "go\n", 3);
    output = collected(exec);
    CHECK_BYTES(output.stdout_data, output.stdout_len, "second\n");
    CHECK_INT(output.stdout_total, 7);
    CHECK_INT(output.exit->code, 2);
    done(&output);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    forget(&outcome);
}

TEST(test_b10_second_collect_has_same_end_and_no_output)
{
    msb_exec_options options = script("echo once; exit 6");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_output output = collected(exec), again = collected(exec);
    msb_event event = MSB_EVENT_INIT;

    CHECK_BYTES(output.stdout_data, output.stdout_len, "once\n");
    CHECK_INT(again.kind, MSB_EVENT_EXITED);
    CHECK_INT(again.exit->code, 6);
    CHECK_INT(again.stdout_len + again.stdout_total, 0);
    CHECK(again.owner != output.owner);
    done(&again);
    CHECK_STATUS(msb_exec_recv(exec, 0, &event, &err), MSB_EOF);
    CHECK_OK(msb_exec_wait(exec, 0, &event, &err));
    CHECK_INT(event.exit->code, 6);
    msb_event_release(&event);
    CHECK_BYTES(output.stdout_data, output.stdout_len, "once\n");
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_b10_collect_after_received_end_has_only_the_end)
{
    msb_exec_options options = script("echo seen; exit 5");
    msb_exec *exec = start(shared(), &options, NULL);
    struct outcome outcome = {0};
    msb_output output;

    while (take(exec, &outcome, 10000))
        ;
    output = collected(exec);
    CHECK_INT(output.exit->code, 5);
    CHECK_INT(output.stdout_total, 0);
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    forget(&outcome);
}

TEST(test_b5_a_time_limit_holds_although_the_output_never_pauses)
{
    msb_exec_options options = command("yes");
    msb_exec *exec;
    msb_output output = MSB_OUTPUT_INIT;
    msb_event event = MSB_EVENT_INIT;
    int64_t begin;

    options.max_output = 1000;
    exec = start(shared(), &options, NULL);
    begin = now_ms();
    CHECK_STATUS(msb_exec_collect(exec, 200, &output, &err), MSB_AGAIN);
    CHECK_STATUS(msb_exec_collect(exec, 0, &output, &err), MSB_AGAIN);
    CHECK_STATUS(msb_exec_wait(exec, 200, &event, &err), MSB_AGAIN);
    CHECK_STATUS(msb_exec_wait(exec, 0, &event, &err), MSB_AGAIN);
    CHECK_SAY(now_ms() - begin < 10000, "%" PRId64 " ms", now_ms() - begin);
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    output = collected(exec);
    CHECK_INT(output.exit->signal, SIGKILL);
    CHECK_INT(output.stdout_len, 1000);
    CHECK(output.stdout_total > 1000);
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_b5_poll_finds_the_end_after_much_output)
{
    /* Less than the window, in more pieces than one step takes. */
    msb_exec_options options =
        script("i=0; while [ $i -lt 200 ]; do echo $i; echo $i >&2; i=$((i+1)); done; exit 8");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_output output = MSB_OUTPUT_INIT;
    msb_exec_entries list = MSB_EXEC_ENTRIES_INIT;
    char id[MSB_SESSION_ID_LEN];
    bool ended = false;
    msb_status rc;
    int32_t fd;

    CHECK_OK(msb_exec_id(exec, id, &err));
    while (!ended) {
        CHECK_OK(msb_exec_list(shared(), &list, &err));
        for (size_t i = 0; i < list.len; i++)
            ended |= strcmp(list.entries[i]->id, id) == 0 && list.entries[i]->exit;
        msb_exec_entries_release(&list);
    }
    /* The end of the stream may follow shortly after the exit. */
    CHECK_OK(msb_handle_fd(exec, &fd, &err));
    while ((rc = msb_exec_collect(exec, 0, &output, &err)) == MSB_AGAIN)
        CHECK(readable(fd, 10000));
    CHECK_INT(rc, MSB_OK);
    CHECK_INT(output.exit->code, 8);
    CHECK_INT(output.stdout_len, 690);
    CHECK_INT(output.stderr_len, 690);
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

struct waiting {
    msb_exec *exec;
    bool collects;
    msb_status rc;
    atomic_bool begun;
};

static void *waits(void *argument)
{
    struct waiting *waiting = argument;
    msb_output output = MSB_OUTPUT_INIT;
    msb_event event = MSB_EVENT_INIT;

    atomic_store(&waiting->begun, true);
    harness_arm();
    /* A thread that checks for the waiter may hold the turn at this moment. */
    do {
        waiting->rc = waiting->collects ? msb_exec_collect(waiting->exec, -1, &output, &err)
                                        : msb_exec_wait(waiting->exec, -1, &event, &err);
    } while (waiting->rc == MSB_E_BUSY);
    msb_output_release(&output);
    msb_event_release(&event);
    return NULL;
}

/* Returns once the thread waits: another caller gets MSB_E_BUSY. */
static helper begin(struct waiting *waiting)
{
    helper thread = helper_start(waits, waiting);
    msb_event event = MSB_EVENT_INIT;
    msb_status rc;

    while (!atomic_load(&waiting->begun))
        sleep_ms(1);
    while ((rc = msb_exec_recv(waiting->exec, 0, &event, &err)) != MSB_E_BUSY) {
        CHECK_SAY(rc == MSB_OK || rc == MSB_AGAIN, "%s", msb_status_name(rc));
        msb_event_release(&event);
        sleep_ms(1);
    }
    return thread;
}

TEST(test_b9_second_collect_or_wait_is_busy)
{
    for (int collects = 0; collects < 2; collects++) {
        msb_exec_options options = command("cat");
        msb_sink *sink = NULL;
        msb_exec *exec = start(shared(), &options, &sink);
        struct waiting waiting = {exec, collects, 77, false};
        helper thread = begin(&waiting);
        msb_output output = MSB_OUTPUT_INIT;
        msb_event events[2] = {MSB_EVENT_INIT, MSB_EVENT_INIT};
        uint64_t position = 77;
        size_t len = 77;
        int32_t fd;

        CHECK_STATUS(msb_exec_collect(exec, 0, &output, &err), MSB_E_BUSY);
        CHECK_STATUS(msb_exec_collect(exec, -1, &output, &err), MSB_E_BUSY);
        CHECK_STATUS(msb_exec_wait(exec, -1, &events[0], &err), MSB_E_BUSY);
        CHECK_STATUS(msb_exec_recv_many(exec, -1, events, 2, &len, &err), MSB_E_BUSY);
        CHECK_INT(len, 77);
        CHECK_OK(msb_exec_position(exec, &position, NULL, &err));
        CHECK_OK(msb_handle_fd(exec, &fd, &err));
        CHECK_OK(msb_exec_signal(exec, SIGCONT, MSB_SIGNAL_GROUP, &err));
        CHECK_INT(msb_handle_close(sink), MSB_OK);
        helper_join(thread);
        CHECK_INT(waiting.rc, MSB_OK);
        CHECK_INT(msb_handle_close(exec), MSB_OK);
    }
}

TEST(test_d1_closing_wakes_collect_and_wait)
{
    for (int collects = 0; collects < 2; collects++) {
        msb_exec_options options = command("sleep");
        const char *args[] = {"600"};
        struct waiting waiting = {NULL, collects, 77, false};
        helper thread;
        int64_t closed;

        SET_ARRAY(options, args, args);
        options.timeout_ns = 20000000000;
        waiting.exec = start(shared(), &options, NULL);
        thread = begin(&waiting);
        closed = now_ms();
        CHECK_INT(msb_handle_close(waiting.exec), MSB_OK);
        helper_join(thread);
        CHECK_INT(waiting.rc, MSB_E_CLOSED);
        CHECK_SAY(now_ms() - closed < 5000, "%" PRId64 " ms", now_ms() - closed);
    }
}

TEST(test_b10_wait_discards_output_and_returns_the_end)
{
    /* More than all buffers hold: the command would block without a reader. */
    msb_exec_options options = script("head -c 5000000 /dev/zero; exit 9");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_event event = MSB_EVENT_INIT, again = MSB_EVENT_INIT;
    msb_output output;
    uint64_t position = 0;

    CHECK_OK(msb_exec_wait(exec, 60000, &event, &err));
    CHECK_INT(event.kind, MSB_EVENT_EXITED);
    CHECK_INT(event.value, 9);
    CHECK_INT(event.exit->code, 9);
    CHECK_INT(event.len, 0);
    CHECK_OK(msb_exec_position(exec, &position, NULL, &err));
    CHECK_INT(position, 5000000);
    CHECK_OK(msb_exec_wait(exec, 0, &again, &err));
    CHECK_INT(again.exit->code, 9);
    msb_event_release(&event);
    CHECK_INT(again.exit->code, 9);
    msb_event_release(&again);
    CHECK_STATUS(msb_exec_recv(exec, 60000, &event, &err), MSB_EOF);
    output = collected(exec);
    CHECK_INT(output.stdout_total, 0);
    CHECK_INT(output.exit->code, 9);
    done(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_b10_wait_returns_an_end_received_before)
{
    msb_exec_options exits = script("exit 4"), fails = command("nonexistent");
    msb_exec *exec = start(shared(), &exits, NULL);
    msb_event event = MSB_EVENT_INIT;
    struct outcome outcome = {0};

    while (outcome.ending == 0)
        take(exec, &outcome, 10000);
    CHECK_OK(msb_exec_wait(exec, 0, &event, &err));
    CHECK_INT(event.exit->code, 4);
    msb_event_release(&event);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    exec = start(shared(), &fails, NULL);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(msb_exec_wait(exec, 60000, &event, &err));
        CHECK_INT(event.kind, MSB_EVENT_FAILED);
        CHECK_TEXT(event.failure->path, "nonexistent");
        msb_event_release(&event);
        CHECK(event.failure == NULL);
    }
    CHECK_STATUS(msb_exec_recv(exec, 0, &event, &err), MSB_EOF);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    forget(&outcome);
}

TEST(test_b10_timed_out_wait_can_be_repeated)
{
    msb_exec_options options = script("read -r line; exit 3");
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    msb_event event = MSB_EVENT_INIT, same = MSB_EVENT_INIT;

    for (int i = 0; i < 5; i++) {
        CHECK_STATUS(msb_exec_wait(exec, i * 5, &event, &err), MSB_AGAIN);
        CHECK(memcmp(&event, &same, sizeof event) == 0);
    }
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    CHECK_OK(msb_exec_wait(exec, -1, &event, &err));
    CHECK_INT(event.exit->code, 3);
    msb_event_release(&event);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_b4_background_output_is_received_after_the_wait)
{
    msb_exec_options options =
        script("sh -c 'until [ -e /tmp/b4-wait ]; do usleep 10000; done; echo behind' & exit 1");
    msb_exec *exec;
    msb_event event = MSB_EVENT_INIT;
    struct outcome outcome = {0};

    options.flags |= MSB_EXEC_WAIT_FOR_EOF;
    exec = start(shared(), &options, NULL);
    CHECK_OK(msb_exec_wait(exec, 60000, &event, &err));
    CHECK_INT(event.exit->code, 1);
    msb_event_release(&event);
    sh("touch /tmp/b4-wait");
    outcome.started = 1;
    outcome.ending = MSB_EVENT_EXITED;
    finish(exec, &outcome);
    CHECK_TEXT(outcome.out.data, "behind\n");
    CHECK_INT(outcome.end_flags, 0);
    forget(&outcome);
}
