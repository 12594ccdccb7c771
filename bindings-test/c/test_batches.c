/* test_batches.c - promises B1, B5, B6, B9 and I: receiving events in batches. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 2 * MSB_RECV_MAX };

static void fresh(msb_event *events, size_t len)
{
    msb_event event = MSB_EVENT_INIT;

    for (size_t i = 0; i < len; i++)
        events[i] = event;
}

/* Receives the remaining events in batches of `capacity`, checks the end, and closes the handle. */
static void finish_in_batches(msb_exec *exec, size_t capacity, struct outcome *outcome)
{
    msb_event events[MANY];
    size_t len = 0, most = 0;
    msb_status rc;

    for (;;) {
        fresh(events, capacity);
        harness_arm();
        rc = msb_exec_recv_many(exec, 60000, events, capacity, &len, &err);
        if (rc != MSB_OK)
            break;
        CHECK_SAY(len >= 1 && len <= capacity && len <= MSB_RECV_MAX, "%zu", len);
        most = len > most ? len : most;
        for (size_t i = 0; i < len; i++)
            note(outcome, &events[i], 0);
        for (size_t i = len; i < capacity; i++)
            CHECK(events[i].kind == 0 && !events[i].owner && !events[i].data);
        msb_event_release_many(events, len);
        for (size_t i = 0; i < len; i++)
            CHECK(!events[i].owner && !events[i].data && !events[i].exit && !events[i].failure);
    }
    harness_status(__FILE__, __LINE__, "msb_exec_recv_many", rc, MSB_EOF);
    CHECK_INT(len, 0);
    CHECK_INT(events[0].kind, 0);
    CHECK(!events[0].owner);
    outcome->end_flags = events[0].flags;
    CHECK(outcome->ending != 0);
    for (int64_t timeout = -1; timeout <= 1; timeout++) {
        CHECK_STATUS(msb_exec_recv_many(exec, timeout, events, 1, &len, &err), MSB_EOF);
        CHECK_INT(events[0].flags, outcome->end_flags);
    }
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_b1_batches_carry_the_same_events_in_the_same_order)
{
    static const char text[] = "i=0; while [ $i -lt 300 ]; do echo out $i; echo err $i >&2; "
                               "i=$((i+1)); done; exit 12";
    static const size_t capacities[] = {1, 2, 64, MSB_RECV_MAX, MANY};
    msb_exec_options options = script(text);
    struct outcome one = run_command(&options);

    CHECK_INT(one.exit.code, 12);
    for (size_t i = 0; i < sizeof capacities / sizeof *capacities; i++) {
        struct outcome many = {0};

        finish_in_batches(start(shared(), &options, NULL), capacities[i], &many);
        CHECK_INT(many.started, 1);
        CHECK_INT(many.out.len, (int64_t)one.out.len);
        CHECK_INT(many.err.len, (int64_t)one.err.len);
        CHECK(memcmp(many.out.data, one.out.data, one.out.len) == 0);
        CHECK(memcmp(many.err.data, one.err.data, one.err.len) == 0);
        CHECK_INT(many.out_at_exit, (int64_t)many.out.len);
        CHECK_INT(many.exit.code, 12);
        CHECK_INT(many.end_flags, 0);
        forget(&many);
    }
    forget(&one);
}

TEST(test_b1_every_kind_of_event_comes_in_a_batch)
{
    msb_exec_options fails = command("nonexistent"), left = script("sleep 600 & echo a"),
                     reads = script("exec 0<&-; echo deaf; until [ -e /tmp/b1-deaf ]; do usleep "
                                    "10000; done");
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec;
    msb_status rc;
    size_t written;

    finish_in_batches(start(shared(), &fails, NULL), 64, &outcome);
    CHECK_INT(outcome.ending, MSB_EVENT_FAILED);
    CHECK_TEXT(outcome.kind_name, "not_found");
    CHECK_INT(outcome.started, 0);
    forget(&outcome);
    finish_in_batches(start(shared(), &left, NULL), 64, &outcome);
    CHECK_INT(outcome.end_flags, MSB_EVENT_WRITER_LEFT);
    forget(&outcome);
    exec = start(shared(), &reads, &sink);
    while (outcome.out.len < 5)
        take(exec, &outcome, 10000);
    while ((rc = msb_sink_write(sink, (const uint8_t *)"x", 1, 10000, &written, &err)) == MSB_OK)
        ;
    CHECK_INT(rc, MSB_E_PIPE);
    sh("touch /tmp/b1-deaf");
    finish_in_batches(exec, 64, &outcome);
    CHECK_INT(outcome.stdin_errors, 1);
    CHECK_INT(outcome.exit.code, 0);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    forget(&outcome);
}

TEST(test_b5_recv_and_recv_many_take_turns_without_loss)
{
    char expected[16 * 20000], *end = expected;
    msb_exec_options options = command("seq");
    const char *args[] = {"1", "20000"};
    struct outcome outcome = {0};
    msb_event events[7];
    msb_exec *exec;
    msb_status rc = MSB_OK;
    size_t len;

    SET_ARRAY(options, args, args);
    for (int i = 1; i <= 20000; i++)
        end += sprintf(end, "%d\n", i);
    exec = start(shared(), &options, NULL);
    for (int round = 0; outcome.ending == 0; round++) {
        fresh(events, 7);
        harness_arm();
        if (round % 3 == 0) {
            take(exec, &outcome, 10000);
            continue;
        }
        rc = msb_exec_recv_many(exec, round % 3 == 1 ? 0 : 3, events, 7, &len, &err);
        if (rc == MSB_AGAIN)
            continue;
        CHECK_INT(rc, MSB_OK);
        for (size_t i = 0; i < len; i++)
            note(&outcome, &events[i], 0);
        msb_event_release_many(events, 7);
    }
    CHECK_INT(outcome.out.len, end - expected);
    CHECK(memcmp(outcome.out.data, expected, outcome.out.len) == 0);
    finish(exec, &outcome);
    forget(&outcome);
}

TEST(test_b5_empty_batch_writes_nothing)
{
    msb_exec_options options = command("cat");
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    struct outcome outcome = {0};
    msb_event events[4], same[4];
    size_t len = 77;

    take(exec, &outcome, -1);
    fresh(events, 4);
    fresh(same, 4);
    CHECK_STATUS(msb_exec_recv_many(exec, 0, events, 4, &len, &err), MSB_AGAIN);
    CHECK_STATUS(msb_exec_recv_many(exec, 20, events, 4, &len, &err), MSB_AGAIN);
    CHECK(memcmp(events, same, sizeof events) == 0);
    CHECK_INT(len, 77);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    finish_in_batches(exec, 4, &outcome);
    forget(&outcome);
}

TEST(test_i_batch_without_room_is_refused_and_loses_nothing)
{
    msb_exec_options options = script("echo text; exit 2");
    msb_exec *exec = start(shared(), &options, NULL);
    struct outcome outcome = {0};
    msb_event events[4];
    uint32_t wrong[] = {0, 4, sizeof(msb_event) - 1, 4097, UINT32_MAX};
    size_t len = 77;

    fresh(events, 4);
    CHECK_STATUS(msb_exec_recv_many(exec, -1, NULL, 4, &len, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_recv_many(exec, -1, events, 0, &len, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_recv_many(exec, -1, NULL, 0, &len, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_recv_many(exec, -1, NULL, SIZE_MAX, &len, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_recv_many(exec, -1, events, 4, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_recv_many(exec, -2, events, 4, &len, &err), MSB_E_INVALID);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        events[0].struct_size = wrong[i];
        CHECK_STATUS(msb_exec_recv_many(exec, -1, events, 4, &len, &err), MSB_E_INVALID);
        events[0].struct_size = sizeof *events;
        events[3].struct_size = wrong[i];
        CHECK_STATUS(msb_exec_recv_many(exec, -1, events, 4, &len, &err), MSB_E_INVALID);
        events[3].struct_size = sizeof *events;
    }
    CHECK_INT(len, 77);
    finish_in_batches(exec, 4, &outcome);
    CHECK_INT(outcome.started, 1);
    CHECK_TEXT(outcome.out.data, "text\n");
    CHECK_INT(outcome.exit.code, 2);
    forget(&outcome);
}

TEST(test_i_a_batch_has_the_stride_of_its_callers_struct)
{
    /* From a later version of the header: more fields at the end of each. */
    struct later {
        msb_event known;
        uint8_t tail[40];
    } events[64];
    msb_exec_options options = script("echo one; echo two >&2; exit 4");
    msb_exec *exec = start(shared(), &options, NULL);
    struct outcome outcome = {0};
    msb_event plain = MSB_EVENT_INIT;
    msb_status rc;
    size_t len = 0;

    for (;;) {
        memset(events, 0x55, sizeof events);
        for (size_t i = 0; i < 64; i++) {
            events[i].known = plain;
            events[i].known.struct_size = sizeof *events;
        }
        harness_arm();
        rc = msb_exec_recv_many(exec, 60000, &events[0].known, 64, &len, &err);
        if (rc != MSB_OK)
            break;
        for (size_t i = 0; i < len; i++) {
            CHECK_INT(events[i].known.struct_size, sizeof *events);
            for (size_t k = 0; k < sizeof events[i].tail; k++)
                CHECK_INT(events[i].tail[k], 0x55);
            plain = events[i].known;
            plain.struct_size = sizeof plain;
            note(&outcome, &plain, 0);
        }
        fresh(&plain, 1);
        msb_event_release_many(&events[0].known, 64);
        for (size_t i = 0; i < 64; i++)
            CHECK(!events[i].known.owner && !events[i].known.data);
    }
    CHECK_INT(rc, MSB_EOF);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    CHECK_INT(outcome.exit.code, 4);
    CHECK_INT(outcome.out.len + outcome.err.len, 8);
    forget(&outcome);
}

TEST(test_i_release_many_takes_any_array_or_nothing)
{
    msb_exec_options options = script("echo text");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_event events[8], copies[8];
    size_t len = 0, all = 0;

    msb_event_release_many(NULL, 0);
    msb_event_release_many(NULL, 5);
    fresh(events, 8);
    msb_event_release_many(events, 8);
    msb_event_release_many(events, 0);
    while (all < 3) {
        CHECK_OK(msb_exec_recv_many(exec, 10000, events + all, 8 - all, &len, &err));
        all += len;
    }
    CHECK_INT(all, 3);
    memcpy(copies, events, sizeof events);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    CHECK_INT(memcmp(events[1].data, "text\n", 5), 0);
    CHECK_INT(events[2].exit->code, 0);
    msb_event_release(&events[1]); /* one by itself before the others */
    msb_event_release_many(events, 8);
    msb_event_release_many(events, 8);
    msb_event_release_many(copies, 8);
    for (size_t i = 0; i < 8; i++)
        CHECK(!events[i].owner && !copies[i].owner && !copies[i].data && !copies[i].exit);
}

TEST(test_b6_unreleased_events_block_until_their_release)
{
    msb_exec_options options =
        script("i=0; while :; do head -c 4096 /dev/zero; i=$((i+1)); echo $i >/tmp/b6-batch; done");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_event *held = malloc(4096 * sizeof *held);
    struct outcome outcome = {0};
    size_t len, all = 0, bytes = 0;
    uint64_t position = 0;
    msb_status rc;
    long blocks;

    CHECK(held != NULL);
    fresh(held, 4096);
    /* Until no more arrive: the window is full of events that are held here. */
    while ((rc = msb_exec_recv_many(exec, 2000, held + all, 4096 - all, &len, &err)) == MSB_OK) {
        for (size_t i = all; i < all + len; i++)
            bytes += held[i].len;
        all += len;
        if (bytes > 8 * 1024 * 1024)
            break;
    }
    CHECK_INT(rc, MSB_AGAIN);
    CHECK_SAY(bytes > 256 * 1024 && bytes <= 1024 * 1024, "%zu bytes in %zu events", bytes, all);
    harness_note("held %zu bytes in %zu events", bytes, all);
    blocks = atol(sh("cat /tmp/b6-batch"));
    CHECK_INT(atol(sh("usleep 300000; cat /tmp/b6-batch")), blocks);
    for (size_t i = 0; i < all; i++)
        for (size_t k = 0; held[i].kind == MSB_EVENT_STDOUT && k < held[i].len; k++)
            if (held[i].data[k] != 0)
                CHECK_SAY(false, "byte %zu of event %zu", k, i);
    msb_event_release_many(held, all);
    CHECK_OK(msb_exec_recv(exec, 10000, &held[0], &err));
    CHECK_INT(held[0].kind, MSB_EVENT_STDOUT);
    msb_event_release(&held[0]);
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    CHECK_OK(msb_exec_wait(exec, 60000, &held[0], &err));
    CHECK_INT(held[0].exit->signal, SIGKILL);
    msb_event_release(&held[0]);
    CHECK_OK(msb_exec_position(exec, &position, NULL, &err));
    CHECK(position > bytes);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    free(held);
    forget(&outcome);
}

TEST(test_b5_the_descriptor_follows_batches)
{
    msb_exec_options options = script("read -r line; echo a; echo b >&2; read -r line");
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    struct outcome outcome = {0};
    msb_event events[64];
    size_t len = 0;
    int32_t fd = -1;

    take(exec, &outcome, -1);
    CHECK_OK(msb_handle_fd(exec, &fd, &err));
    CHECK(!readable(fd, 0));
    write_all(sink, "go\n", 3);
    while (outcome.out.len + outcome.err.len < 4) {
        CHECK(readable(fd, 10000));
        fresh(events, 64);
        CHECK_OK(msb_exec_recv_many(exec, 0, events, 64, &len, &err));
        for (size_t i = 0; i < len; i++)
            note(&outcome, &events[i], 0);
        msb_event_release_many(events, len);
    }
    fresh(events, 64);
    CHECK_STATUS(msb_exec_recv_many(exec, 0, events, 64, &len, &err), MSB_AGAIN);
    CHECK(!readable(fd, 0));
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    CHECK(readable(fd, 10000));
    finish_in_batches(exec, 64, &outcome);
    forget(&outcome);
}
