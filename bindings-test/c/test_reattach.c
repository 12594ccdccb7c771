/* test_reattach.c - promises B8, D5: sessions by their id, their list, positions and terminals. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *id_of(msb_exec *exec)
{
    static char ids[4][MSB_SESSION_ID_LEN];
    static int next;
    char *id = ids[next++ % 4];

    CHECK_OK(msb_exec_id(exec, id, &err));
    return id;
}

static msb_exec *reattach(const char *id, int64_t from, msb_sink **sink)
{
    msb_exec *exec = NULL;

    CHECK_OK(msb_exec_reattach(shared(), id, from, &exec, sink, &err));
    CHECK(exec != NULL);
    CHECK_TEXT(id_of(exec), id);
    return exec;
}

static uint64_t position(msb_exec *exec)
{
    uint64_t at = UINT64_MAX;

    CHECK_OK(msb_exec_position(exec, &at, NULL, &err));
    return at;
}

static uint64_t missed(msb_exec *exec)
{
    uint64_t at = 0, count = UINT64_MAX;

    CHECK_OK(msb_exec_position(exec, &at, &count, &err));
    return count;
}

static void kill_and_close(msb_exec *exec)
{
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_d5_reattach_continues_at_the_exact_position)
{
    char expected[16 * 20000], *end = expected;
    msb_exec_options options = command("seq");
    const char *args[] = {"1", "20000"};
    struct outcome outcome = {0};
    msb_exec *exec, *next;
    int handles = 1;

    SET_ARRAY(options, args, args);
    for (int i = 1; i <= 20000; i++)
        end += sprintf(end, "%d\n", i);
    exec = start(shared(), &options, NULL);
    while (outcome.ending == 0) {
        for (int i = 0; i < 3 && outcome.ending == 0; i++)
            take(exec, &outcome, 10000);
        CHECK_INT(position(exec), (int64_t)(outcome.out.len + outcome.err.len));
        CHECK_INT(missed(exec), 0);
        if (outcome.ending)
            break;
        next = reattach(id_of(exec), (int64_t)position(exec), NULL);
        CHECK_INT(msb_handle_close(exec), MSB_OK);
        exec = next;
        outcome.started = 0; /* reported to each joiner */
        handles++;
    }
    CHECK_INT(outcome.out.len, end - expected);
    CHECK(memcmp(outcome.out.data, expected, outcome.out.len) == 0);
    CHECK(handles > 1);
    finish(exec, &outcome);
    forget(&outcome);
}

TEST(test_d5_ended_session_is_replayed_from_start_or_end)
{
    msb_exec_options options = script("echo out; echo err >&2; exit 7");
    msb_exec *exec = start(shared(), &options, NULL), *again;
    struct outcome first = {0}, second = {0}, third = {0};
    msb_sink *sink = (msb_sink *)&options;

    while (take(exec, &first, 10000))
        ;
    again = reattach(id_of(exec), 0, &sink);
    CHECK_INT((intptr_t)sink, 0);
    CHECK_INT(position(again), 0);
    finish(again, &second);
    CHECK_INT(second.pid, first.pid);
    CHECK_TEXT(second.out.data, "out\n");
    CHECK_TEXT(second.err.data, "err\n");
    CHECK_INT(second.exit.code, 7);
    CHECK(memcmp(&first.exit, &second.exit, sizeof first.exit) == 0);
    finish(reattach(id_of(exec), MSB_FROM_NOW, NULL), &third);
    CHECK_INT(third.out.len + third.err.len, 0);
    CHECK_INT(third.exit.code, 7);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    forget(&first), forget(&second), forget(&third);
}

TEST(test_d5_from_now_receives_only_new_output)
{
    msb_exec_options options = script("echo before; read -r line; echo after");
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink), *now, *beyond;
    struct outcome outcome = {0}, late = {0}, later = {0};

    while (outcome.out.len < 7)
        take(exec, &outcome, 10000);
    now = reattach(id_of(exec), MSB_FROM_NOW, NULL);
    beyond = reattach(id_of(exec), INT64_MAX, NULL);
    CHECK_INT(position(now), 7);
    CHECK_INT(missed(now), 0);
    CHECK_INT(position(beyond), 7);
    write_all(sink, "\n", 1);
    finish(now, &late);
    finish(beyond, &later);
    CHECK_TEXT(late.out.data, "after\n");
    CHECK_TEXT(later.out.data, "after\n");
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    forget(&outcome), forget(&late), forget(&later);
}

TEST(test_d5_output_no_longer_buffered_is_counted)
{
    enum { TOTAL = 3000000 };
    msb_exec_options options = script("yes | head -c 3000000; exec sleep 600");
    msb_exec *exec = start(shared(), &options, NULL), *again, *part;
    struct outcome outcome = {0};
    uint64_t gone;

    while (position(exec) < TOTAL)
        take(exec, &outcome, 10000);
    again = reattach(id_of(exec), 0, NULL);
    gone = missed(again);
    CHECK_SAY(gone > 0 && gone < TOTAL && TOTAL - gone >= 1 << 20, "%" PRIu64, gone);
    CHECK_INT(position(again), (int64_t)gone);
    forget(&outcome);
    while (position(again) < TOTAL)
        take(again, &outcome, 10000);
    CHECK_INT(outcome.out.len, (int64_t)(TOTAL - gone));
    for (size_t i = 0; i < outcome.out.len; i++)
        if (outcome.out.data[i] != "y\n"[(i + gone) % 2])
            CHECK_SAY(false, "byte %zu", i);
    part = reattach(id_of(exec), (int64_t)gone - 5, NULL);
    CHECK_INT(missed(part), 5);
    CHECK_INT(position(part), (int64_t)gone);
    CHECK_INT(msb_handle_close(part), MSB_OK);
    CHECK_INT(msb_handle_close(again), MSB_OK);
    kill_and_close(exec);
    forget(&outcome);
}

TEST(test_d5_many_follow_one_session_and_each_gets_all)
{
    msb_exec_options options = script("read -r go; i=0; while [ $i -lt 100 ]; do echo out $i; "
                                      "echo err $i >&2; i=$((i+1)); done; exit 9");
    msb_sink *sink = NULL;
    msb_exec *execs[8];
    msb_output first = MSB_OUTPUT_INIT;

    execs[0] = start(shared(), &options, &sink);
    for (int i = 1; i < 8; i++)
        execs[i] = reattach(id_of(execs[0]), i % 2 ? 0 : MSB_FROM_NOW, NULL);
    write_all(sink, "go\n", 3);
    CHECK_OK(msb_exec_collect(execs[0], 60000, &first, &err));
    CHECK_INT(first.stdout_len, 690);
    for (int i = 1; i < 8; i++) {
        msb_output output = MSB_OUTPUT_INIT;
        CHECK_OK(msb_exec_collect(execs[i], 60000, &output, &err));
        CHECK_INT(output.exit->code, 9);
        CHECK_INT(output.stdout_len, (int64_t)first.stdout_len);
        CHECK_INT(output.stderr_len, (int64_t)first.stderr_len);
        CHECK(memcmp(output.stdout_data, first.stdout_data, first.stdout_len) == 0);
        CHECK(memcmp(output.stderr_data, first.stderr_data, first.stderr_len) == 0);
        msb_output_release(&output);
        CHECK_INT(msb_handle_close(execs[i]), MSB_OK);
    }
    msb_output_release(&first);
    CHECK_INT(msb_handle_close(execs[0]), MSB_OK);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
}

TEST(test_d5_input_continues_through_the_reattached_exec)
{
    msb_exec_options options = command("cat");
    msb_sink *first = NULL, *second = NULL, *third = (msb_sink *)&options;
    msb_exec *exec = start(shared(), &options, &first), *again;
    struct outcome outcome = {0};
    const char *id = id_of(exec);

    /* The input stays open with the sink: only closing the sink ends it. */
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    again = reattach(id, 0, &second);
    CHECK(second != NULL && second != first);
    write_all(first, "one ", 4);
    while (outcome.out.len < 4)
        take(again, &outcome, 10000);
    write_all(second, "two", 3);
    CHECK_INT(msb_handle_close(second), MSB_OK);
    finish(again, &outcome);
    CHECK_TEXT(outcome.out.data, "one two");
    CHECK_INT(outcome.exit.code, 0);
    CHECK_INT(msb_handle_close(first), MSB_OK);
    CHECK_INT(msb_handle_close(reattach(id, 0, &third)), MSB_OK);
    CHECK_INT((intptr_t)third, 0);
    forget(&outcome);
}

TEST(test_d5_unknown_session_is_refused)
{
    msb_exec *exec = NULL;
    msb_sink *sink = NULL;
    char id[MSB_SESSION_ID_LEN] = "00000000000000000000000000000000";
    const char *wrong[] = {"", "0", "no session", "0000000000000000000000000000000g",
                           "000000000000000000000000000000000", "\xff\xff", "\n"};
    int64_t positions[] = {-2, -1000, INT64_MIN};
    msb_exec_options options = command("true");
    msb_exec *known = start(shared(), &options, NULL);

    CHECK_STATUS(msb_exec_reattach(shared(), id, 0, &exec, &sink, &err), MSB_E_NO_SESSION);
    CHECK_STATUS(msb_exec_reattach(shared(), id, MSB_FROM_NOW, &exec, NULL, &err),
                 MSB_E_NO_SESSION);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_STATUS(msb_exec_reattach(shared(), wrong[i], 0, &exec, &sink, &err), MSB_E_INVALID);
    CHECK_OK(msb_exec_id(known, id, &err));
    for (size_t i = 0; i < sizeof positions / sizeof *positions; i++)
        CHECK_STATUS(msb_exec_reattach(shared(), id, positions[i], &exec, &sink, &err),
                     MSB_E_INVALID);
    CHECK_STATUS(msb_exec_reattach(shared(), NULL, 0, &exec, &sink, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_reattach(shared(), id, 0, NULL, &sink, &err), MSB_E_INVALID);
    CHECK(!exec && !sink);
    CHECK_INT(msb_handle_close(known), MSB_OK);
    CHECK_TEXT(sh("echo goes on"), "goes on\n");
}

TEST(test_d5_position_counts_received_collected_and_discarded)
{
    msb_exec_options options = script("printf 12345; printf 678 >&2; read -r line; printf 90");
    msb_event event = MSB_EVENT_INIT;
    msb_output output = MSB_OUTPUT_INIT;
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    struct outcome outcome = {0};
    uint64_t at = 77, count = 77;

    CHECK_INT(position(exec), 0);
    CHECK_STATUS(msb_exec_position(exec, NULL, &count, &err), MSB_E_INVALID);
    CHECK_INT(count, 77);
    while (outcome.out.len + outcome.err.len < 8)
        take(exec, &outcome, 10000);
    CHECK_OK(msb_exec_position(exec, &at, &count, &err));
    CHECK_INT(at, 8);
    CHECK_INT(count, 0);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    CHECK_OK(msb_exec_wait(exec, -1, &event, &err));
    CHECK_INT(event.exit->code, 0);
    msb_event_release(&event);
    CHECK_INT(position(exec), 10);
    CHECK_OK(msb_exec_collect(exec, -1, &output, &err));
    msb_output_release(&output);
    CHECK_INT(position(exec), 10);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    CHECK_STATUS(msb_exec_position(exec, &at, NULL, &err), MSB_E_HANDLE);
    forget(&outcome);
}

/* Returns the entry of a session in a list; NULL if there is none. */
static const msb_exec_entry *find(const msb_exec_entries *list, const char *id)
{
    const msb_exec_entry *found = NULL;

    for (size_t i = 0; i < list->len; i++) {
        const msb_exec_entry *entry = list->entries[i];
        CHECK_INT(entry->struct_size, sizeof *entry);
        CHECK_INT(strlen(entry->id), MSB_SESSION_ID_LEN - 1);
        CHECK(entry->argv_len == 0 || entry->argv != NULL);
        if (strcmp(entry->id, id) == 0)
            found = entry;
    }
    return found;
}

TEST(test_d5_list_has_running_and_ended_sessions)
{
    msb_exec_options runs = command("cat"), ends = script("echo text; kill -TERM $$"),
                     fails = command("nonexistent");
    const char *args[] = {"-", "two words", "", "\xff\xfe", "a\nb"};
    msb_exec_entries list = MSB_EXEC_ENTRIES_INIT, copy;
    const msb_exec_entry *entry;
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *running, *ended, *failed, *again;
    msb_event event = MSB_EVENT_INIT;

    SET_ARRAY(runs, args, args);
    args[1] = "/nonexistent/two words";
    runs.flags = MSB_EXEC_TTY;
    running = start(shared(), &runs, &sink);
    ended = start(shared(), &ends, NULL);
    failed = start(shared(), &fails, NULL);
    take(running, &outcome, 10000);
    CHECK_OK(msb_exec_wait(ended, -1, &event, &err));
    msb_event_release(&event);
    CHECK_OK(msb_exec_wait(failed, -1, &event, &err));
    msb_event_release(&event);
    again = reattach(id_of(running), 0, NULL);

    CHECK_OK(msb_exec_list(shared(), &list, &err));
    CHECK_INT(list.struct_size, sizeof list);
    CHECK(list.len >= 2 && list.entries && list.owner);
    entry = find(&list, id_of(running));
    CHECK(entry != NULL);
    CHECK_INT(entry->flags, MSB_SESSION_TTY);
    CHECK_INT(entry->pid, outcome.pid);
    CHECK_INT(entry->followers, 2);
    CHECK(entry->age_ns > 0 && entry->exit == NULL);
    CHECK_INT(entry->argv_len, 6);
    CHECK_TEXT(entry->argv[0], "cat");
    for (int i = 0; i < 5; i++)
        CHECK_TEXT(entry->argv[i + 1], args[i]);
    entry = find(&list, id_of(ended));
    CHECK(entry != NULL && entry->exit != NULL);
    CHECK_INT(entry->flags, 0);
    CHECK_INT(entry->exit->struct_size, sizeof *entry->exit);
    CHECK_INT(entry->exit->code, -1);
    CHECK_INT(entry->exit->signal, SIGTERM);
    CHECK_INT(entry->output_total, 5);
    CHECK(find(&list, id_of(failed)) == NULL); /* it never became one */

    CHECK_INT(msb_handle_close(again), MSB_OK);
    CHECK_INT(msb_handle_close(ended), MSB_OK);
    CHECK_INT(msb_handle_close(failed), MSB_OK);
    CHECK_INT(entry->exit->signal, SIGTERM); /* it outlives the session */
    copy = list;
    msb_exec_entries_release(&list);
    CHECK(!list.entries && list.len == 0 && !list.owner);
    msb_exec_entries_release(&list);
    msb_exec_entries_release(&copy);
    CHECK(!copy.entries && copy.len == 0);
    msb_exec_entries_release(NULL);
    kill_and_close(running);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    forget(&outcome);
}

TEST(test_b8_resize_reaches_the_program)
{
    msb_exec_options options = script("trap 'stty size' WINCH; stty size; while :; do "
                                      "usleep 10000; done");
    struct outcome outcome = {0};
    msb_exec *exec, *again;

    options.flags |= MSB_EXEC_TTY;
    options.rows = 30;
    options.cols = 100;
    exec = start(shared(), &options, NULL);
    while (outcome.out.len < 8)
        take(exec, &outcome, 10000);
    CHECK_TEXT(outcome.out.data, "30 100\r\n");
    CHECK_OK(msb_exec_resize(exec, 50, 132, &err));
    while (outcome.out.len < 16)
        take(exec, &outcome, 10000);
    CHECK_TEXT(outcome.out.data + 8, "50 132\r\n");
    again = reattach(id_of(exec), MSB_FROM_NOW, NULL);
    CHECK_OK(msb_exec_resize(again, 9999, 7, &err));
    while (outcome.out.len < 24)
        take(exec, &outcome, 10000);
    CHECK_TEXT(outcome.out.data + 16, "9999 7\r\n");
    CHECK_OK(msb_exec_resize(again, UINT16_MAX, UINT16_MAX, &err));
    CHECK_INT(msb_handle_close(again), MSB_OK);
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    while (take(exec, &outcome, 10000))
        ;
    CHECK_STATUS(msb_exec_resize(exec, 1, 1, &err), MSB_E_NO_PROCESS);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    CHECK_STATUS(msb_exec_resize(exec, 1, 1, &err), MSB_E_HANDLE);
    forget(&outcome);
}

TEST(test_b8_resize_without_a_terminal_is_refused)
{
    msb_exec_options options = command("cat");
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink), *again = reattach(id_of(exec), 0, NULL);
    struct outcome outcome = {0};

    CHECK_STATUS(msb_exec_resize(exec, 24, 80, &err), MSB_E_NOT_A_TERMINAL);
    CHECK_STATUS(msb_exec_resize(again, 24, 80, &err), MSB_E_NOT_A_TERMINAL);
    CHECK_INT(msb_handle_close(again), MSB_OK);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    finish(exec, &outcome);
    forget(&outcome);
}
