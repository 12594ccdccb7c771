/* test_misuse.c - promises I: NULL, forged handles, invalid sizes and flags. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A handle of each kind, with a command that waits for its input. */
static struct {
    msb_sandbox *sandbox;
    msb_exec *exec;
    msb_sink *sink;
} open_handles;

static void open_all(void)
{
    msb_exec_options options = command("cat");

    open_handles.sandbox = shared();
    open_handles.exec = start(shared(), &options, &open_handles.sink);
}

static void close_all(void)
{
    struct outcome outcome = {0};

    CHECK_INT(msb_handle_close(open_handles.sink), MSB_OK);
    finish(open_handles.exec, &outcome);
    CHECK_INT(outcome.exit.code, 0);
    CHECK_INT(outcome.out.len, 0);
    forget(&outcome);
}

/* Calls every function with this handle; no output may be written, no command disturbed. */
static void refuse_sandbox(void *handle, msb_error *place)
{
    static const char id[] = "00000000000000000000000000000000";
    msb_exec_options options = command("true");
    msb_sandbox_entries sandboxes = MSB_SANDBOX_ENTRIES_INIT, no_sandboxes = sandboxes;
    msb_exec_entries execs = MSB_EXEC_ENTRIES_INIT, no_execs = execs;
    msb_exec *exec = (msb_exec *)&options;
    msb_sink *sink = (msb_sink *)&options;
    msb_log *logs = (msb_log *)&options;
    int32_t code = -77;
    uint32_t flags = 77;

    CHECK_INT(msb_sandbox_wait_ready(handle, -1, place), MSB_E_HANDLE);
    CHECK_INT(msb_sandbox_stop(handle, 0, place), MSB_E_HANDLE);
    CHECK_INT(msb_sandbox_kill(handle, place), MSB_E_HANDLE);
    CHECK_INT(msb_sandbox_wait(handle, -1, place), MSB_E_HANDLE);
    CHECK_INT(msb_sandbox_info(handle, &sandboxes, place), MSB_E_HANDLE);
    CHECK_INT(msb_exec_list(handle, &execs, place), MSB_E_HANDLE);
    CHECK_INT(msb_log_open(handle, NULL, &logs, place), MSB_E_HANDLE);
    CHECK_INT(msb_exec_stream(handle, &options, &exec, &sink, place), MSB_E_HANDLE);
    CHECK_INT(msb_exec_reattach(handle, id, 0, &exec, &sink, place), MSB_E_HANDLE);
    CHECK_INT(msb_attach(handle, NULL, &code, &flags, place), MSB_E_HANDLE);
    CHECK((void *)exec == &options && (void *)sink == &options && (void *)logs == &options);
    CHECK(code == -77 && flags == 77);
    CHECK(memcmp(&sandboxes, &no_sandboxes, sizeof sandboxes) == 0);
    CHECK(memcmp(&execs, &no_execs, sizeof execs) == 0);
}

static void refuse_exec(void *handle, msb_error *place)
{
    char id[MSB_SESSION_ID_LEN] = "untouched";
    msb_event event = MSB_EVENT_INIT, same = MSB_EVENT_INIT;
    msb_output output = MSB_OUTPUT_INIT, no_output = MSB_OUTPUT_INIT;
    uint64_t position = 77, missed = 77;
    size_t len = 77;

    CHECK_INT(msb_exec_recv(handle, -1, &event, place), MSB_E_HANDLE);
    CHECK_INT(msb_exec_recv_many(handle, -1, &event, 1, &len, place), MSB_E_HANDLE);
    CHECK_INT(msb_exec_wait(handle, -1, &event, place), MSB_E_HANDLE);
    CHECK_INT(msb_exec_collect(handle, -1, &output, place), MSB_E_HANDLE);
    CHECK_INT(msb_exec_resize(handle, 24, 80, place), MSB_E_HANDLE);
    CHECK_INT(msb_exec_position(handle, &position, &missed, place), MSB_E_HANDLE);
    CHECK(len == 77 && position == 77 && missed == 77);
    CHECK(memcmp(&output, &no_output, sizeof output) == 0);
    CHECK_INT(msb_exec_id(handle, id, place), MSB_E_HANDLE);
    CHECK_INT(msb_exec_signal(handle, SIGKILL, 0, place), MSB_E_HANDLE);
    CHECK_TEXT(id, "untouched");
    CHECK(memcmp(&event, &same, sizeof event) == 0);
}

static void refuse_sink(void *handle, msb_error *place)
{
    size_t written = 77;

    CHECK_INT(msb_sink_write(handle, (const uint8_t *)"x", 1, -1, &written, place), MSB_E_HANDLE);
    CHECK_INT(msb_sink_write(handle, NULL, 0, -1, &written, place), MSB_E_HANDLE);
    CHECK_INT(written, 77);
}

static void refuse_logs(void *handle, msb_error *place)
{
    msb_log_record record = MSB_LOG_RECORD_INIT, same = MSB_LOG_RECORD_INIT;

    CHECK_INT(msb_log_recv(handle, -1, &record, place), MSB_E_HANDLE);
    CHECK(memcmp(&record, &same, sizeof record) == 0);
}

static void refuse_any(void *handle, msb_error *place)
{
    int32_t fd = -77;

    CHECK_INT(msb_handle_fd(handle, &fd, place), MSB_E_HANDLE);
    CHECK_INT(fd, -77);
    CHECK_INT(msb_handle_close(handle), handle ? MSB_E_HANDLE : MSB_OK);
}

static void refuse_all(void *handle)
{
    msb_error *places[] = {&err, NULL};

    for (int i = 0; i < 2; i++) {
        refuse_sandbox(handle, places[i]);
        refuse_exec(handle, places[i]);
        refuse_sink(handle, places[i]);
        refuse_logs(handle, places[i]);
        refuse_any(handle, places[i]);
    }
}

TEST(test_i_null_is_refused_wherever_it_is_not_allowed)
{
    msb_exec_options options = command("true");
    msb_sandbox_options sandbox_options = sandbox_named("null");
    msb_event event = MSB_EVENT_INIT;
    msb_sandbox *sandbox = NULL;
    msb_exec *exec = NULL;
    msb_sink *sink = NULL;
    const char *texts[] = {NULL};
    size_t written = 77;

    open_all();
    refuse_all(NULL);
    CHECK_STATUS(msb_handle_fd(NULL, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_handle_fd(open_handles.exec, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_sandbox_create(NULL, &sandbox, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_sandbox_create(&sandbox_options, NULL, &err), MSB_E_INVALID);
    CHECK_INT(msb_sandbox_create(NULL, NULL, NULL), MSB_E_INVALID);
    sandbox_options.name = NULL;
    CHECK_STATUS(msb_sandbox_create(&sandbox_options, &sandbox, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_sandbox_remove(NULL, 0, &err), MSB_E_INVALID);
    CHECK_INT(msb_sandbox_remove(NULL, 0, NULL), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_stream(shared(), NULL, &exec, &sink, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_stream(shared(), &options, NULL, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_stream(shared(), &options, NULL, &sink, &err), MSB_E_INVALID);
    CHECK_INT(msb_exec_stream(NULL, NULL, NULL, NULL, NULL), MSB_E_HANDLE);
    options.cmd = NULL;
    CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, &sink, &err), MSB_E_INVALID);
    options = command("true");
    SET_ARRAY(options, args, texts);
    CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, &sink, &err), MSB_E_INVALID);
    options.args = NULL;
    CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, &sink, &err), MSB_E_INVALID);
    options = command("true");
    options.env_len = options.rlimits_len = SIZE_MAX;
    CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, &sink, &err), MSB_E_INVALID);
    options = command("true");
    options.stdin_len = 1;
    CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_id(open_handles.exec, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_exec_recv(open_handles.exec, -1, NULL, &err), MSB_E_INVALID);
    CHECK_INT(msb_exec_recv(NULL, -1, NULL, NULL), MSB_E_HANDLE);
    CHECK_STATUS(msb_sink_write(open_handles.sink, NULL, 1, -1, &written, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_sink_write(open_handles.sink, (const uint8_t *)"x", 1, -1, NULL, &err),
                 MSB_E_INVALID);
    CHECK_STATUS(msb_sink_write(open_handles.sink, (const uint8_t *)"x", SIZE_MAX, -1, &written,
                                &err), MSB_E_INVALID);
    CHECK_INT(written, 77);
    msb_event_release(NULL);
    msb_event_release(&event);
    CHECK(!sandbox && !exec && !sink);
    close_all();
}

TEST(test_i_value_that_is_not_a_handle_is_refused)
{
    static const uint64_t values[] = {1, 2, 0xff, UINT64_MAX, UINT64_C(0x4d) << 56,
                                      UINT64_C(0x4d04) << 48, UINT64_C(0x4d06) << 48,
                                      UINT64_C(0x4dff) << 48, UINT64_C(1) << 63, 0x7fffffffffff};
    int on_stack = 0;
    void *on_heap = malloc(64);

    open_all();
    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        refuse_all((void *)(uintptr_t)values[i]);
    refuse_all(&on_stack);
    refuse_all(on_heap);
    refuse_all((void *)(uintptr_t)&refuse_all);
    free(on_heap);
    srand(1);
    for (int i = 0; i < 100000; i++) {
        uint64_t value = ((uint64_t)rand() << 42) ^ ((uint64_t)rand() << 21) ^ (uint64_t)rand();
        msb_event event = MSB_EVENT_INIT;
        CHECK_INT(msb_exec_recv((msb_exec *)(uintptr_t)value, 0, &event, NULL), MSB_E_HANDLE);
    }
    close_all();
}

TEST(test_i_a_handle_with_any_bit_flipped_is_refused)
{
    open_all();
    for (int bit = 0; bit < 64; bit++) {
        uintptr_t flip = (uintptr_t)1 << bit;
        void *sandbox = (void *)((uintptr_t)open_handles.sandbox ^ flip);
        void *exec = (void *)((uintptr_t)open_handles.exec ^ flip);
        void *sink = (void *)((uintptr_t)open_handles.sink ^ flip);

        refuse_sandbox(sandbox, &err);
        refuse_exec(exec, &err);
        refuse_sink(sink, &err);
        if (bit >= 48 && bit < 56)
            continue; /* the kind: may name an open handle of another kind */
        refuse_any(sandbox, &err);
        refuse_any(exec, &err);
        refuse_any(sink, &err);
    }
    close_all();
}

TEST(test_i_a_handle_of_another_kind_is_refused)
{
    struct outcome outcome = {0};
    msb_event event = MSB_EVENT_INIT;
    int32_t fd = -77;

    open_all();
    refuse_exec(open_handles.sandbox, &err);
    refuse_sink(open_handles.sandbox, &err);
    refuse_logs(open_handles.sandbox, &err);
    refuse_logs(open_handles.exec, &err);
    refuse_logs(open_handles.sink, &err);
    refuse_sandbox(open_handles.exec, &err);
    refuse_sink(open_handles.exec, &err);
    refuse_sandbox(open_handles.sink, &err);
    refuse_exec(open_handles.sink, &err);
    /* The owner of an event is not a handle, and a handle is not the owner of an event. */
    write_all(open_handles.sink, "x", 1);
    do {
        msb_event_release(&event);
        CHECK_OK(msb_exec_recv(open_handles.exec, -1, &event, &err));
    } while (event.kind != MSB_EVENT_STDOUT);
    refuse_all(event.owner);
    CHECK_INT(event.data[0], 'x');
    msb_event_release(&event);
    event.owner = open_handles.exec;
    msb_event_release(&event);
    CHECK_OK(msb_handle_fd(open_handles.exec, &fd, &err));
    CHECK_INT(msb_handle_close(open_handles.sink), MSB_OK);
    outcome.started = 1;
    finish(open_handles.exec, &outcome);
    CHECK_INT(outcome.exit.code, 0);
    forget(&outcome);
}

TEST(test_i_closed_handle_is_refused_after_reuse_of_its_slot)
{
    void *exec, *sink;

    open_all();
    exec = open_handles.exec;
    sink = open_handles.sink;
    close_all();
    for (int i = 0; i < 20; i++) {
        refuse_all(exec);
        refuse_all(sink);
        open_all();
        CHECK(open_handles.exec != exec && open_handles.sink != sink);
        refuse_all(exec);
        refuse_all(sink);
        close_all();
    }
}

TEST(test_i_invalid_flags_and_numbers_are_refused)
{
    msb_sandbox_options sandbox_options;
    msb_sandbox *sandbox = NULL;
    msb_exec_options options;
    msb_exec *exec = NULL;
    msb_sink *sink = NULL;
    msb_event event = MSB_EVENT_INIT;
    size_t written = 0;
    msb_rlimit limits[] = {{16, 0, 1, 1}, {UINT32_MAX, 0, 1, 1}, {7, 0, 2, 1}, {7, 1, 1, 1}};
    const char *bad_env[] = {"NO-EQUALS", "=value", ""};
    const char *names[] = {"", "-a", ".a", "a/b", "a b", "../a", "\xff", "\xc3\xa4"};
    int64_t times[] = {-2, INT64_MIN};

    for (int bit = 0; bit < 32; bit++) {
        options = command("true");
        options.flags = 1u << bit;
        if (bit > 2)
            CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, NULL, &err), MSB_E_INVALID);
        sandbox_options = sandbox_named("flags");
        sandbox_options.flags = 1u << bit;
        if (bit > 5)
            CHECK_STATUS(msb_sandbox_create(&sandbox_options, &sandbox, &err), MSB_E_INVALID);
    }
    options = command("true");
    options.reserved = 1;
    CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, NULL, &err), MSB_E_INVALID);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        options = command("true");
        options.rlimits = &limits[i];
        options.rlimits_len = 1;
        CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, NULL, &err), MSB_E_INVALID);
    }
    for (size_t i = 0; i < sizeof bad_env / sizeof *bad_env; i++) {
        options = command("true");
        options.env = &bad_env[i];
        options.env_len = 1;
        CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, NULL, &err), MSB_E_INVALID);
    }
    options = command("");
    CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, NULL, &err), MSB_E_INVALID);
    options = command("true");
    options.user = "\xff";
    CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, NULL, &err), MSB_E_INVALID);
    options = command("true");
    options.cwd = "";
    CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, NULL, &err), MSB_E_INVALID);
    options = command("true");
    options.stdin_data = (const uint8_t *)"x";
    options.stdin_len = 1;
    CHECK_STATUS(msb_exec_stream(shared(), &options, &exec, &sink, &err), MSB_E_INVALID);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        harness_arm();
        msb_status rc = msb_sandbox_remove(names[i], 0, &err);
        CHECK_SAY(rc == MSB_E_INVALID || rc == MSB_E_CONFIG, "%s: %s", names[i],
                  msb_status_name(rc));
    }
    CHECK(!exec && !sink && !sandbox);
    open_all();
    for (int i = 0; i < 2; i++) {
        CHECK_STATUS(msb_exec_recv(open_handles.exec, times[i], &event, &err), MSB_E_INVALID);
        CHECK_STATUS(msb_sandbox_wait_ready(shared(), times[i], &err), MSB_E_INVALID);
        CHECK_STATUS(msb_sink_write(open_handles.sink, (const uint8_t *)"x", 1, times[i], &written,
                                    &err), MSB_E_INVALID);
    }
    CHECK_OK(msb_sandbox_wait_ready(shared(), INT64_MAX, &err));
    close_all();
}
