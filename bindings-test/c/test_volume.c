/* test_volume.c - promises A4, B2, B6 and C2: every byte of large data, in bounded memory. */
#include "noise.h"
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MIB = 1 << 20, BOUND_KIB = 24 << 10 };

static uint64_t volume(void)
{
    return (uint64_t)256 * MIB / harness_scale();
}

static pid_t agent;
static long before[2];

static void watch_memory(void)
{
    agent = agent_of(shared());
    reset_peak(0);
    before[0] = status_kib(0, "VmHWM:");
    if (agent) {
        reset_peak(agent);
        before[1] = status_kib(agent, "VmHWM:");
    }
}

static void check_memory(void)
{
    long ours = status_kib(0, "VmHWM:"), theirs = agent ? status_kib(agent, "VmHWM:") : -1;

    harness_note("peak memory (VmHWM): this process %ld -> %ld KiB", before[0], ours);
    if (agent)
        harness_note("peak memory (VmHWM): the agent %ld -> %ld KiB", before[1], theirs);
    else
        harness_note("the agent cannot be seen from here: its memory was not checked");
    if (harness_scale() > 1)
        return;
    CHECK_SAY(ours - before[0] < BOUND_KIB, "%ld KiB", ours - before[0]);
    if (agent)
        CHECK_SAY(theirs - before[1] < BOUND_KIB, "%ld KiB", theirs - before[1]);
}

static void note_rate(uint64_t bytes, int64_t since)
{
    int64_t ms = now_ms() - since;

    harness_note("%" PRIu64 " MiB in %" PRId64 " ms, %" PRIu64 " MiB/s", bytes / MIB, ms,
                 bytes * 1000 / MIB / (uint64_t)(ms ? ms : 1));
}

/* Reads to the end of the stream; both streams must be noise. Returns the exit code. */
static int64_t read_noise(msb_exec *exec, struct noise *out, struct noise *error, uint64_t total[2])
{
    msb_event event = MSB_EVENT_INIT;
    int64_t code = -2;
    msb_status rc;

    while ((rc = msb_exec_recv(exec, -1, &event, &err)) == MSB_OK) {
        if (event.kind == MSB_EVENT_STDOUT || event.kind == MSB_EVENT_STDERR) {
            bool is_error = event.kind == MSB_EVENT_STDERR;
            if (!noise_is_next(is_error ? error : out, event.data, event.len))
                CHECK_SAY(false, "bytes of stream %" PRIu32 " differ behind %" PRIu64, event.kind,
                          total[is_error]);
            total[is_error] += event.len;
        } else if (event.kind >= MSB_EVENT_EXITED) {
            CHECK_INT(event.kind, MSB_EVENT_EXITED);
            code = event.value;
        }
        msb_event_release(&event);
    }
    CHECK_INT(rc, MSB_EOF);
    CHECK_INT(event.flags, 0);
    return code;
}

TEST(test_b2_256_mib_on_both_streams_at_once_arrive_byte_for_byte)
{
    struct noise out = noise_from(1), error = noise_from(2);
    uint64_t total[2] = {0, 0};
    char size[32];
    const char *args[] = {size, "1", "2"};
    msb_exec_options options = command("/bin/noise");
    int64_t begin;
    msb_exec *exec;

    snprintf(size, sizeof size, "%" PRIu64, volume());
    SET_ARRAY(options, args, args);
    watch_memory();
    begin = now_ms();
    exec = start(shared(), &options, NULL);
    CHECK_INT(read_noise(exec, &out, &error, total), 0);
    note_rate(total[0] + total[1], begin);
    CHECK_INT(total[0], volume());
    CHECK_INT(total[1], volume());
    check_memory();
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

static void *feeds_noise(void *sink)
{
    struct noise noise = noise_from(3);
    uint64_t left = volume();
    uint8_t *piece = malloc(100000);

    if (!piece)
        abort();
    for (size_t step = 1; left > 0; left -= step) {
        /* Pieces of many sizes: 1, 8, 57, ... */
        step = step * 7 % 99991 + 1;
        if (step > left)
            step = (size_t)left;
        noise_fill(&noise, piece, step);
        write_all(sink, piece, step);
    }
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    free(piece);
    return NULL;
}

TEST(test_c2_256_mib_through_cat_come_back_byte_for_byte)
{
    struct noise out = noise_from(3), error = noise_from(0);
    uint64_t total[2] = {0, 0};
    msb_exec_options options = command("cat");
    msb_sink *sink = NULL;
    helper writer;
    int64_t begin;
    msb_exec *exec;

    watch_memory();
    begin = now_ms();
    exec = start(shared(), &options, &sink);
    writer = helper_start(feeds_noise, sink);
    CHECK_INT(read_noise(exec, &out, &error, total), 0);
    helper_join(writer);
    note_rate(total[0], begin);
    CHECK_INT(total[0], volume());
    CHECK_INT(total[1], 0);
    check_memory();
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_c4_fixed_input_of_any_size_is_delivered_and_then_ends)
{
    size_t sizes[] = {0, 1, (64 << 10) + 1, (size_t)64 * MIB / harness_scale()};

    for (int i = 0; i < 4; i++) {
        struct noise noise = noise_from(4), out = noise_from(4), error = noise_from(0);
        uint64_t total[2] = {0, 0};
        msb_exec_options options = command("cat");
        uint8_t *data = malloc(sizes[i] + 1);
        msb_exec *exec;

        if (!data)
            abort();
        noise_fill(&noise, data, sizes[i]);
        options.stdin_data = data;
        options.stdin_len = sizes[i];
        exec = start(shared(), &options, NULL);
        memset(data, 0, sizes[i]); /* the library has copied it */
        free(data);
        CHECK_INT(read_noise(exec, &out, &error, total), 0);
        CHECK_INT(total[0], sizes[i]);
        CHECK_INT(msb_handle_close(exec), MSB_OK);
    }
}

TEST(test_b6_stopped_reader_blocks_the_program_in_bounded_memory)
{
    const char *args[] = {"yes"};
    msb_exec_options options = command("yes");
    uint64_t total = 0, goal = (uint64_t)32 * MIB / harness_scale();
    msb_event event = MSB_EVENT_INIT;
    long rss, stopped;
    msb_exec *exec;
    struct outcome outcome = {0};

    SET_ARRAY(options, args, args);
    watch_memory();
    exec = start(shared(), &options, NULL);
    CHECK_OK(msb_exec_recv(exec, -1, &event, &err));
    msb_event_release(&event);
    rss = status_kib(0, "VmRSS:");
    /* Other commands continue. */
    for (int i = 0; i < 10; i++) {
        sleep_ms(100);
        CHECK_TEXT(sh("echo others"), "others\n");
    }
    stopped = status_kib(0, "VmRSS:");
    harness_note("VmRSS while nobody read: %ld -> %ld KiB", rss, stopped);
    if (harness_scale() == 1)
        CHECK_SAY(stopped - rss < 8 << 10, "%ld KiB", stopped - rss);
    while (total < goal) {
        CHECK_OK(msb_exec_recv(exec, -1, &event, &err));
        CHECK_INT(event.kind, MSB_EVENT_STDOUT);
        for (size_t i = 0; i < event.len; i++)
            if (event.data[i] != "yes\n"[(total + i) % 4])
                CHECK_SAY(false, "a byte differs at %" PRIu64, total + i);
        total += event.len;
        msb_event_release(&event);
    }
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    outcome.started = 1;
    finish(exec, &outcome);
    CHECK_INT(outcome.exit.signal, SIGKILL);
    CHECK_INT(outcome.exit.code, -1);
    forget(&outcome);
    check_memory();
}

TEST(test_b6_unreleased_events_block_the_program_as_well)
{
    enum { MOST = 4096 };
    msb_exec_options options = command("yes");
    static msb_event held[MOST];
    struct outcome outcome = {0};
    msb_exec *exec = start(shared(), &options, NULL);
    size_t count = 0, bytes = 0;
    msb_status rc = MSB_OK;
    msb_event event = MSB_EVENT_INIT;

    while (count < MOST) {
        msb_event fresh = MSB_EVENT_INIT;
        held[count] = fresh;
        rc = msb_exec_recv(exec, 1000, &held[count], &err);
        if (rc != MSB_OK)
            break;
        bytes += held[count++].len;
    }
    CHECK_INT(rc, MSB_AGAIN);
    harness_note("%zu bytes in %zu events were held when the program stood", bytes, count);
    CHECK(bytes > 0 && bytes <= MIB);
    for (size_t i = 0; i < count; i++)
        msb_event_release(&held[count - 1 - i]); /* any order */
    CHECK_OK(msb_exec_recv(exec, 5000, &event, &err));
    msb_event_release(&event);
    CHECK_OK(msb_exec_signal(exec, SIGKILL, MSB_SIGNAL_TREE, &err));
    outcome.started = 1;
    finish(exec, &outcome);
    forget(&outcome);
}
