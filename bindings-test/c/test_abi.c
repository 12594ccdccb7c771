/* test_abi.c - promises I for collecting, lists and sessions: sizes, NULL, forks. */
#include "support.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A struct of a later version, with more fields at its end. */
#define LATER(type)                                                                               \
    struct {                                                                                      \
        type known;                                                                               \
        uint8_t tail[64];                                                                         \
    }

/* Checks a struct that a call fills: invalid sizes are rejected, and nothing is written; the tail
 * of a larger one is not changed, and it can be released. */
#define CHECK_OUT(type, init, call, release)                                                      \
    do {                                                                                          \
        static const uint32_t wrong[] = {0, 1, 4, 8, sizeof(type) - 1, 4097, UINT32_MAX};         \
        LATER(type) later;                                                                        \
        type *out = &later.known, plain = init;                                                   \
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {                               \
            memset(&later, 0x55, sizeof later);                                                   \
            out->struct_size = wrong[i];                                                          \
            CHECK_STATUS(call, MSB_E_INVALID);                                                    \
            release(out);                                                                         \
            for (size_t k = 4; k < sizeof later; k++)                                             \
                CHECK_INT(((uint8_t *)&later)[k], 0x55);                                          \
        }                                                                                         \
        memset(&later, 0x55, sizeof later);                                                       \
        later.known = plain;                                                                      \
        out->struct_size = sizeof later;                                                          \
        CHECK_OK(call);                                                                           \
        CHECK_INT(out->struct_size, sizeof later);                                                \
        CHECK(out->owner != NULL);                                                                \
        plain = *out;                                                                             \
        plain.struct_size = sizeof plain;                                                         \
        release(out);                                                                             \
        CHECK(out->owner == NULL);                                                                \
        for (size_t k = 0; k < sizeof later.tail; k++)                                            \
            CHECK_INT(later.tail[k], 0x55);                                                       \
        release(&plain); /* a copy of a released one */                                           \
        release(NULL);                                                                            \
        out = NULL;                                                                               \
        CHECK_STATUS(call, MSB_E_INVALID);                                                        \
    } while (0)

/* As CHECK_OUT, for a struct that may be NULL: neither list is filled if one is rejected. */
static void check_wall_sizes(void)
{
    static const uint32_t wrong[] = {0, 1, 4, 8, sizeof(msb_wall_entries) - 1, 4097, UINT32_MAX};
    msb_driver_entries drivers = MSB_DRIVER_ENTRIES_INIT;
    msb_wall_entries walls = MSB_WALL_ENTRIES_INIT;

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        walls.struct_size = wrong[i];
        CHECK_STATUS(msb_doctor(&drivers, &walls, &err), MSB_E_INVALID);
        msb_wall_entries_release(&walls);
        CHECK(!drivers.owner && !walls.owner && walls.struct_size == wrong[i]);
    }
}

TEST(test_abi_structs_of_other_sizes_are_filled_or_refused)
{
    msb_exec_options options = script("echo text; exit 4");
    msb_exec *exec = start(shared(), &options, NULL);

    CHECK_OUT(msb_sandbox_entries, MSB_SANDBOX_ENTRIES_INIT,
              msb_sandbox_info(shared(), out, &err), msb_sandbox_entries_release);
    CHECK_OUT(msb_sandbox_entries, MSB_SANDBOX_ENTRIES_INIT, msb_sandbox_list(out, &err),
              msb_sandbox_entries_release);
    CHECK_OUT(msb_exec_entries, MSB_EXEC_ENTRIES_INIT, msb_exec_list(shared(), out, &err),
              msb_exec_entries_release);
    CHECK_OUT(msb_driver_entries, MSB_DRIVER_ENTRIES_INIT, msb_doctor(out, NULL, &err),
              msb_driver_entries_release);
    check_wall_sizes();
    CHECK_OUT(msb_output, MSB_OUTPUT_INIT, msb_exec_collect(exec, -1, out, &err),
              msb_output_release);
    CHECK_OUT(msb_event, MSB_EVENT_INIT, msb_exec_wait(exec, -1, out, &err), msb_event_release);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_abi_an_output_of_a_wrong_size_costs_no_output)
{
    msb_exec_options options = script("echo text; exit 4");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_output output = MSB_OUTPUT_INIT;

    output.struct_size--;
    CHECK_STATUS(msb_exec_collect(exec, -1, &output, &err), MSB_E_INVALID);
    output.struct_size++;
    CHECK_STATUS(msb_exec_collect(exec, -2, &output, &err), MSB_E_INVALID);
    CHECK_OK(msb_exec_collect(exec, -1, &output, &err));
    CHECK(output.stdout_len == 5 && memcmp(output.stdout_data, "text\n", 5) == 0);
    msb_output_release(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_abi_invalid_numbers_are_refused)
{
    int64_t times[] = {-2, INT64_MIN};
    msb_exec_options options = command("true");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_event event = MSB_EVENT_INIT;
    msb_output output = MSB_OUTPUT_INIT;

    for (int i = 0; i < 2; i++) {
        CHECK_STATUS(msb_exec_wait(exec, times[i], &event, &err), MSB_E_INVALID);
        CHECK_STATUS(msb_exec_collect(exec, times[i], &output, &err), MSB_E_INVALID);
        CHECK_STATUS(msb_sandbox_wait(shared(), times[i], &err), MSB_E_INVALID);
    }
    CHECK_OK(msb_exec_wait(exec, INT64_MAX, &event, &err));
    CHECK_INT(event.exit->code, 0);
    msb_event_release(&event);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_abi_texts_are_bytes_or_utf8_as_the_header_says)
{
    const char *bytes[] = {"\xff=\xfe"};
    const char *args[] = {"/proc/self/environ"};
    msb_exec_options options = command("cat");
    msb_sandbox_options wrong = sandbox_named("bytes");
    struct outcome outcome;
    msb_sandbox *sandbox = NULL;

    SET_ARRAY(options, env, bytes);
    SET_ARRAY(options, args, args);
    outcome = run_command(&options);
    CHECK(memmem(outcome.out.data, outcome.out.len, "\xff=\xfe", 4) != NULL); /* with NUL */
    forget(&outcome);
    SET_ARRAY(wrong, env, bytes);
    CHECK_STATUS(msb_sandbox_create(&wrong, &sandbox, &err), MSB_E_INVALID);
    wrong = sandbox_named("bytes");
    SET_ARRAY(wrong, labels, bytes);
    CHECK_STATUS(msb_sandbox_create(&wrong, &sandbox, &err), MSB_E_INVALID);
    wrong = sandbox_named("bytes");
    wrong.workdir = "/\xff";
    CHECK_STATUS(msb_sandbox_create(&wrong, &sandbox, &err), MSB_E_INVALID);
    CHECK(sandbox == NULL);
    wrong = sandbox_named("bytes");
    wrong.image = "/nonexistent/\xff";
    CHECK_OK(msb_sandbox_create(&wrong, &sandbox, &err));
    CHECK_STATUS(msb_sandbox_wait_ready(sandbox, -1, &err), MSB_E_CONFIG);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
}

TEST(test_abi_release_rejects_foreign_structs)
{
    msb_exec_options options = script("echo text");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_output output = MSB_OUTPUT_INIT, forged = MSB_OUTPUT_INIT;
    int32_t fd;

    CHECK_OK(msb_exec_collect(exec, -1, &output, &err));
    /* Handles and addresses are not owners. */
    forged.owner = exec;
    msb_output_release(&forged);
    forged.owner = &forged;
    msb_output_release(&forged);
    forged.owner = (void *)(uintptr_t)((uintptr_t)output.owner + ((uintptr_t)1 << 20));
    msb_output_release(&forged);
    CHECK_OK(msb_handle_fd(exec, &fd, &err));
    CHECK_INT(msb_handle_close(output.owner), MSB_E_HANDLE);
    CHECK_STATUS(msb_handle_fd(output.owner, &fd, &err), MSB_E_HANDLE);
    CHECK(memcmp(output.stdout_data, "text\n", 5) == 0);
    msb_output_release(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_abi_many_borrowed_structs_release_in_any_order)
{
    enum { MANY = 2000 };
    msb_sandbox_entries *lists = calloc(MANY, sizeof *lists);
    msb_exec_options options = command("true");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_output *outputs = calloc(MANY, sizeof *outputs);
    long before = 0;

    CHECK(lists && outputs);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MANY / (int)harness_scale(); i++) {
            lists[i].struct_size = sizeof *lists;
            outputs[i].struct_size = sizeof *outputs;
            if (i % 20 == 0)
                CHECK_OK(msb_sandbox_info(shared(), &lists[i], &err));
            CHECK_OK(msb_exec_collect(exec, -1, &outputs[i], &err));
        }
        for (int i = 0; i < MANY / (int)harness_scale(); i++) {
            msb_sandbox_entries_release(&lists[i * 7 % (MANY / (int)harness_scale())]);
            msb_output_release(&outputs[i * 3 % (MANY / (int)harness_scale())]);
        }
        for (int i = 0; i < MANY; i++) { /* those that the steps above did not reach */
            msb_sandbox_entries_release(&lists[i]);
            msb_output_release(&outputs[i]);
        }
        if (round == 0)
            before = status_kib(0, "VmRSS:");
    }
    if (harness_scale() == 1)
        CHECK_SAY(status_kib(0, "VmRSS:") - before < 8192, "%ld KiB more",
                  status_kib(0, "VmRSS:") - before);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    free(lists);
    free(outputs);
}

TEST(test_abi_has_reports_abilities_by_name)
{
    static const char *const known[] = {"attach",    "images",      "log",  "reattach",
                                        "recv_many", "session_log", "trace"};
    static const char *const unknown[] = {"", "snapshot", "Attach", "attach ", "log\n", "\xff"};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        CHECK_INT(msb_has(known[i]), 1);
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        CHECK_INT(msb_has(unknown[i]), 0);
    CHECK_INT(msb_has(NULL), 0);
}

TEST(test_abi_doctor_lists_every_driver_with_the_reason)
{
    msb_driver_entries list = MSB_DRIVER_ENTRIES_INIT, copy;
    msb_wall_entries walls = MSB_WALL_ENTRIES_INIT;
    const char *own = getenv("MSB_DRIVER");
    int usable = 0;

    CHECK_OK(msb_doctor(&list, &walls, &err));
    CHECK(walls.owner != NULL);
    for (size_t i = 0; i < walls.len; i++) {
        const msb_wall_entry *entry = walls.entries[i];
        CHECK_INT(entry->struct_size, sizeof *entry);
        CHECK(entry->name[0] && (!entry->missing || entry->missing[0]));
        harness_note("%s: %s", entry->name, entry->missing ? entry->missing : "yes");
    }
    msb_wall_entries_release(&walls);
    CHECK(!walls.entries && walls.len == 0 && !walls.owner);
    msb_wall_entries_release(&walls);
    CHECK(list.len > 0 && list.entries && list.owner);
    for (size_t i = 0; i < list.len; i++) {
        const msb_driver_entry *entry = list.entries[i];
        CHECK_INT(entry->struct_size, sizeof *entry);
        CHECK(entry->isolation >= MSB_ISOLATION_HARDWARE &&
              entry->isolation <= MSB_ISOLATION_GVISOR);
        CHECK(entry->unbounded_len == 0 || entry->unbounded[0][0]);
        CHECK(entry->usable <= 1);
        CHECK_INT(entry->reserved, 0);
        CHECK(entry->name[0] && entry->why[0] && !strpbrk(entry->why, "\r\n"));
        CHECK(entry->hint == NULL || (entry->hint[0] && !strpbrk(entry->hint, "\r\n")));
        if (strcmp(entry->name, own) == 0)
            usable = (int)entry->usable;
        harness_note("%s: %s", entry->name, entry->why);
    }
    CHECK_INT(usable, 1); /* the tests use it */
    copy = list;
    msb_driver_entries_release(&list);
    CHECK(!list.entries && list.len == 0 && !list.owner);
    msb_driver_entries_release(&copy);
    msb_driver_entries_release(&list);
    msb_driver_entries_release(NULL);
}

/* Calls every function in a forked child. Returns the number of the first one that does not fail,
 * else 0. */
static int calls_in_child(msb_exec *exec, msb_output *output, msb_sandbox_entries *list)
{
    msb_event event = MSB_EVENT_INIT;
    msb_output fresh = MSB_OUTPUT_INIT;
    msb_sandbox_entries sandboxes = MSB_SANDBOX_ENTRIES_INIT;
    msb_exec_entries execs = MSB_EXEC_ENTRIES_INIT;
    msb_driver_entries drivers = MSB_DRIVER_ENTRIES_INIT;
    msb_sandbox *sandbox = NULL;
    msb_exec *other = NULL;
    msb_log_record record = MSB_LOG_RECORD_INIT;
    msb_log *logs = NULL;
    uint64_t position;
    int32_t code;
    size_t len;
    msb_status statuses[] = {
        msb_exec_recv_many(exec, -1, &event, 1, &len, &err),
        msb_exec_wait(exec, -1, &event, &err),
        msb_exec_collect(exec, -1, &fresh, &err),
        msb_exec_resize(exec, 1, 1, &err),
        msb_exec_position(exec, &position, NULL, &err),
        msb_exec_reattach(shared(), "00000000000000000000000000000000", 0, &other, NULL, &err),
        msb_exec_list(shared(), &execs, &err),
        msb_sandbox_info(shared(), &sandboxes, &err),
        msb_sandbox_list(&sandboxes, &err),
        msb_sandbox_open("shared", 0, &sandbox, &err),
        msb_sandbox_kill(shared(), &err),
        msb_sandbox_wait(shared(), -1, &err),
        msb_attach(shared(), NULL, &code, NULL, &err),
        msb_doctor(&drivers, NULL, &err),
        msb_trace_set(0, NULL, NULL, NULL, &err),
        msb_log_open(shared(), NULL, &logs, &err),
        msb_log_recv(NULL, -1, &record, &err),
    };

    /* These return nothing, and must not hang. */
    msb_output_release(output);
    msb_sandbox_entries_release(list);
    msb_event_release_many(&event, 1);
    msb_log_record_release(&record);
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i] != MSB_E_UNSUPPORTED)
            return (int)i + 1;
    return msb_has("attach") == 1 && !other && !sandbox && !logs ? 0 : 100;
}

TEST(test_abi_forked_child_gets_errors_and_harms_nothing)
{
    msb_exec_options options = script("echo text");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_output output = MSB_OUTPUT_INIT;
    msb_sandbox_entries list = MSB_SANDBOX_ENTRIES_INIT;
    unsigned char unexpected = 0xff;
    int answer[2], status = 0, waited = 0;
    pid_t child;

    CHECK_OK(msb_exec_collect(exec, -1, &output, &err));
    CHECK_OK(msb_sandbox_info(shared(), &list, &err));
    CHECK_INT(pipe(answer), 0);
    fflush(NULL);
    child = fork();
    if (child == 0) {
        unexpected = (unsigned char)calls_in_child(exec, &output, &list);
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
    CHECK_INT(read(answer[0], &unexpected, 1), 1);
    CHECK_INT(unexpected, 0);
    close(answer[0]);
    close(answer[1]);
    CHECK(memcmp(output.stdout_data, "text\n", 5) == 0);
    CHECK_TEXT(list.entries[0]->name, "shared");
    msb_output_release(&output);
    msb_sandbox_entries_release(&list);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}
