/* test_sandboxes.c - promises B7, D6 and G: finding, inspecting and ending sandboxes. */
#include "support.h"

#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static msb_sandbox *opened(const char *name, uint32_t flags)
{
    msb_sandbox *sandbox = NULL;

    CHECK_OK(msb_sandbox_open(name, flags, &sandbox, &err));
    CHECK_OK(msb_sandbox_wait_ready(sandbox, 60000, &err));
    return sandbox;
}

/* Checks that opening fails, and that every call returns the same failure. */
static void open_fails(const char *name, uint32_t flags, msb_status expected)
{
    msb_sandbox *sandbox = NULL;
    msb_exec_options options = command("true");
    msb_sandbox_entries list = MSB_SANDBOX_ENTRIES_INIT;
    msb_exec *exec = NULL;

    CHECK_OK(msb_sandbox_open(name, flags, &sandbox, &err));
    CHECK_STATUS(msb_sandbox_wait_ready(sandbox, 60000, &err), expected);
    CHECK_STATUS(msb_sandbox_wait_ready(sandbox, 0, &err), expected);
    CHECK_STATUS(msb_sandbox_info(sandbox, &list, &err), expected);
    CHECK_STATUS(msb_sandbox_kill(sandbox, &err), expected);
    CHECK_STATUS(msb_sandbox_wait(sandbox, -1, &err), expected);
    CHECK_STATUS(msb_exec_stream(sandbox, &options, &exec, NULL, &err), expected);
    CHECK(!exec && !list.owner);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
}

/* Returns the only entry of a sandbox's information. */
static const msb_sandbox_entry *info(msb_sandbox *sandbox, msb_sandbox_entries *list)
{
    msb_sandbox_entries fresh = MSB_SANDBOX_ENTRIES_INIT;
    const msb_sandbox_entry *entry;

    *list = fresh;
    CHECK_OK(msb_sandbox_info(sandbox, list, &err));
    CHECK_INT(list->struct_size, sizeof *list);
    CHECK_INT(list->len, 1);
    CHECK(list->entries && list->owner);
    entry = list->entries[0];
    CHECK_INT(entry->struct_size, sizeof *entry);
    CHECK_INT(entry->reserved, 0);
    CHECK(entry->name && entry->image && (entry->labels != NULL) == (entry->labels_len > 0));
    return entry;
}

static void check_state(msb_sandbox *sandbox, uint32_t state, uint32_t reason)
{
    msb_sandbox_entries list;
    const msb_sandbox_entry *entry = info(sandbox, &list);

    CHECK_INT(entry->state, state);
    CHECK_INT(entry->reason, reason);
    msb_sandbox_entries_release(&list);
}

TEST(test_g_a_sandbox_is_opened_by_its_name_and_is_the_same_one)
{
    msb_sandbox *sandbox = sandbox_of_own("opened"), *again = opened("opened", 0);

    CHECK(again != sandbox);
    sh_in(sandbox, "echo kept >/root/file");
    CHECK_TEXT(sh_in(again, "cat /root/file"), "kept\n");
    /* It already runs: starting it fails, and has no effect. */
    open_fails("opened", MSB_OPEN_START, MSB_E_RUNNING);
    CHECK_INT(msb_handle_close(again), MSB_OK);
    CHECK_TEXT(sh_in(sandbox, "cat /root/file"), "kept\n");
    CHECK_OK(msb_sandbox_stop(sandbox, 0, &err));
    /* Found although it is stopped; started with its existing files. */
    again = opened("opened", 0);
    check_state(again, MSB_STATE_STOPPED, MSB_REASON_STOPPED);
    CHECK_STATUS(msb_sandbox_stop(again, 0, &err), MSB_E_NOT_RUNNING);
    CHECK_INT(msb_handle_close(again), MSB_OK);
    again = opened("opened", MSB_OPEN_START);
    check_state(again, MSB_STATE_RUNNING, 0);
    CHECK_TEXT(sh_in(again, "cat /root/file"), "kept\n");
    CHECK_TEXT(sh_in(sandbox, "cat /root/file"), "kept\n");
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    sandbox_end(again, "opened");
    open_fails("opened", 0, MSB_E_NOT_FOUND);
    open_fails("opened", MSB_OPEN_START, MSB_E_NOT_FOUND);
}

TEST(test_g_failed_open_is_reported_at_once_or_when_known)
{
    msb_sandbox *sandbox = NULL;
    const char *names[] = {"", "-a", "a/b", "..", "a b", "\xc3\xa4"};

    CHECK_STATUS(msb_sandbox_open(NULL, 0, &sandbox, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_sandbox_open("a", 0, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_sandbox_open("\xff", 0, &sandbox, &err), MSB_E_INVALID);
    for (int bit = 1; bit < 32; bit++)
        CHECK_STATUS(msb_sandbox_open("a", 1u << bit, &sandbox, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_sandbox_open("a", MSB_OPEN_START | 2, &sandbox, &err), MSB_E_INVALID);
    CHECK(sandbox == NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        open_fails(names[i], 0, MSB_E_CONFIG);
}

TEST(test_g_the_other_process)
{
    const char *task = getenv("MSB_TEST_OTHER");
    char name[64], id[MSB_SESSION_ID_LEN];
    struct outcome outcome = {0};
    msb_sandbox *sandbox;
    msb_exec *exec = NULL;
    msb_sink *sink = NULL;

    if (!task)
        return;
    CHECK_INT(sscanf(task, "%63s %32s", name, id), 2);
    sandbox = opened(name, 0);
    CHECK_OK(msb_exec_reattach(sandbox, id, 0, &exec, &sink, &err));
    write_all(sink, "from the other\n", 15);
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    finish(exec, &outcome);
    CHECK_TEXT(outcome.out.data, "before from the other\n");
    CHECK_INT(outcome.exit.code, 0);
    forget(&outcome);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
}

TEST(test_g_another_process_opens_a_sandbox_and_reattaches)
{
    msb_sandbox *sandbox = sandbox_of_own("two-processes");
    msb_exec_options options = command("cat");
    char id[MSB_SESSION_ID_LEN], task[128];
    struct outcome outcome = {0};
    msb_sink *sink = NULL;
    msb_exec *exec = start(sandbox, &options, &sink);

    CHECK_OK(msb_exec_id(exec, id, &err));
    write_all(sink, "before ", 7);
    snprintf(task, sizeof task, "two-processes %s", id);
    CHECK_INT(run_again("test_g_the_other_process", task), 0);
    finish(exec, &outcome);
    CHECK_TEXT(outcome.out.data, "before from the other\n");
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    forget(&outcome);
    sandbox_end(sandbox, "two-processes");
}

TEST(test_g_information_about_a_sandbox)
{
    msb_sandbox_options options = sandbox_named("known");
    const char *labels[] = {"owner=me", "empty=", "a=b=c", "owner=you"};
    const char *entrypoint[] = {"cat", "-n"};
    msb_sandbox_entries list, second = MSB_SANDBOX_ENTRIES_INIT, copy;
    const msb_sandbox_entry *entry;
    msb_sandbox *sandbox = NULL;
    int64_t now = (int64_t)time(NULL) * 1000;

    SET_ARRAY(options, labels, labels);
    SET_ARRAY(options, entrypoint, entrypoint);
    options.cpus = 0.5;
    options.memory_mib = 256;
    options.pids_limit = 512;
    options.disk_mib = 1024;
    options.security = MSB_SECURITY_RESTRICTED;
    options.flags |= MSB_SANDBOX_INIT;
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    second.struct_size = sizeof second;
    harness_arm();
    if (msb_sandbox_wait_ready(sandbox, 0, &err) == MSB_AGAIN)
        CHECK_STATUS(msb_sandbox_info(sandbox, &second, &err), MSB_E_NOT_RUNNING);
    CHECK_OK(msb_sandbox_wait_ready(sandbox, -1, &err));
    entry = info(sandbox, &list);
    CHECK_INT(entry->state, MSB_STATE_RUNNING);
    CHECK_INT(entry->reason, 0);
    CHECK_INT(entry->flags, options.flags & MSB_SANDBOX_DETACHED);
    CHECK(entry->cpus == 0.5);
    CHECK_INT(entry->memory_mib, 256);
    CHECK(entry->jailed == MSB_JAILED_YES || entry->jailed == MSB_JAILED_NO);
    CHECK(entry->jailed == MSB_JAILED_NO || entry->missing_walls_len == 0);
    CHECK(entry->bounds != NULL);
    CHECK_INT(entry->bounds->struct_size, sizeof *entry->bounds);
    CHECK(entry->bounds->cpus >= 0);
    CHECK_SAY(llabs(entry->created_ms - now) < 60000, "%" PRId64, entry->created_ms);
    CHECK_SAY(entry->started_ms >= entry->created_ms, "%" PRId64, entry->started_ms);
    CHECK_TEXT(entry->name, "known");
    CHECK(entry->driver != NULL && entry->isolation != 0);
    if (strcmp(entry->driver, "container") == 0)
        CHECK_INT(entry->isolation, MSB_ISOLATION_CONTAINER);
    CHECK(entry->image[0] == '/' && strstr(entry->image, "rootfs"));
    CHECK(entry->detail == NULL);
    CHECK_INT(entry->command_len, 2);
    CHECK_TEXT(entry->command[0], "cat");
    CHECK_TEXT(entry->command[1], "-n");
    /* By key, and each key once: the last one wins. */
    CHECK_INT(entry->labels_len, 3);
    CHECK_TEXT(entry->labels[0], "a=b=c");
    CHECK_TEXT(entry->labels[1], "empty=");
    CHECK_TEXT(entry->labels[2], "owner=you");

    CHECK_OK(msb_sandbox_kill(sandbox, &err));
    check_state(sandbox, MSB_STATE_STOPPED, MSB_REASON_KILLED);
    CHECK_OK(msb_sandbox_remove("known", 0, &err));
    CHECK_STATUS(msb_sandbox_info(sandbox, &second, &err), MSB_E_NOT_FOUND);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_STATUS(msb_sandbox_info(sandbox, &second, &err), MSB_E_HANDLE);
    /* The list is valid until it is released. */
    CHECK_TEXT(entry->name, "known");
    CHECK_INT(entry->state, MSB_STATE_RUNNING);
    copy = list;
    msb_sandbox_entries_release(&list);
    CHECK(!list.entries && list.len == 0 && !list.owner);
    msb_sandbox_entries_release(&copy);
    msb_sandbox_entries_release(&list);
    msb_sandbox_entries_release(NULL);
}

/* Creates a sandbox with these options, which must fail with the value in the message. */
static void refused_bound(const msb_sandbox_options *options, const char *text)
{
    msb_sandbox *sandbox = NULL;

    harness_arm();
    CHECK_OK(msb_sandbox_create(options, &sandbox, &err));
    CHECK_STATUS(msb_sandbox_wait_ready(sandbox, -1, &err), MSB_E_CONFIG);
    CHECK_SAY(strstr(err.message, text), "%s", err.message);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
}

TEST(test_g9_invalid_bounds_are_refused)
{
    static const struct {
        double cpus;
        const char *text;
    } wrong[] = {{-1, "cpus is -1;"}, {-0.5, "cpus is -0.5;"}, {NAN, "cpus is NaN;"},
                 {4096.5, "cpus is 4096.5;"}, {INFINITY, "cpus is inf;"}};
    msb_sandbox_options options;
    msb_sandbox *sandbox = NULL;

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options = sandbox_named("refused");
        options.cpus = wrong[i].cpus;
        refused_bound(&options, wrong[i].text);
    }
    options = sandbox_named("refused");
    options.memory_mib = 104857600; /* bytes */
    refused_bound(&options, "memory is 104857600 MiB;");
    options = sandbox_named("refused");
    options.pids_limit = 1;
    refused_bound(&options, "pids_limit is 1;");
    options = sandbox_named("refused");
    options.disk_mib = 1;
    refused_bound(&options, "disk is 1 MiB;");
    options = sandbox_named("refused");
    options.shm_size = 64; /* MiB */
    refused_bound(&options, "shm_size is 64 bytes;");
    options = sandbox_named("refused");
    options.stop_signal = "FOO";
    refused_bound(&options, "\"FOO\" is no signal;");
    options = sandbox_named("refused");
    for (size_t i = 0; i < 2; i++) {
        const char *entrypoint[] = {i ? NULL : "\xff"};

        SET_ARRAY(options, entrypoint, entrypoint);
        CHECK_STATUS(msb_sandbox_create(&options, &sandbox, &err), MSB_E_INVALID);
        CHECK_SAY(strstr(err.message, "entrypoint"), "%s", err.message);
    }
    options = sandbox_named("refused");
    options.security = 2;
    CHECK_STATUS(msb_sandbox_create(&options, &sandbox, &err), MSB_E_INVALID);
    CHECK_SAY(strstr(err.message, "unknown security 2"), "%s", err.message);
    CHECK(sandbox == NULL);
}

TEST(test_g_the_list_is_all_sandboxes_by_name)
{
    msb_sandbox *first = sandbox_of_own("list-b"), *second = sandbox_of_own("list-a");
    msb_sandbox_entries list = MSB_SANDBOX_ENTRIES_INIT;
    int found = 0;

    CHECK_OK(msb_sandbox_stop(second, 0, &err));
    CHECK_OK(msb_sandbox_list(&list, &err));
    for (size_t i = 0; i < list.len; i++) {
        const msb_sandbox_entry *entry = list.entries[i];
        if (i > 0)
            CHECK_SAY(strcmp(list.entries[i - 1]->name, entry->name) < 0, "%s", entry->name);
        if (strcmp(entry->name, "list-a") == 0)
            found += entry->state == MSB_STATE_STOPPED;
        if (strcmp(entry->name, "list-b") == 0)
            found += entry->state == MSB_STATE_RUNNING;
    }
    CHECK_INT(found, 2);
    msb_sandbox_entries_release(&list);
    CHECK_OK(msb_sandbox_list(&list, &err)); /* into the same struct again */
    CHECK(list.len >= 2);
    msb_sandbox_entries_release(&list);
    sandbox_end(first, "list-b");
    CHECK_INT(msb_handle_close(second), MSB_OK);
    CHECK_OK(msb_sandbox_remove("list-a", 0, &err));
}

TEST(test_g_a_home_without_sandboxes_has_an_empty_list)
{
    char home[] = "/tmp/msb-test-empty-XXXXXX", *before = strdup(getenv("MSB_HOME"));
    msb_sandbox_entries list = MSB_SANDBOX_ENTRIES_INIT;

    CHECK(before && mkdtemp(home) != NULL);
    setenv("MSB_HOME", home, 1);
    harness_arm();
    msb_status rc = msb_sandbox_list(&list, &err);
    setenv("MSB_HOME", before, 1);
    free(before);
    harness_status(__FILE__, __LINE__, "msb_sandbox_list", rc, MSB_OK);
    CHECK_INT(list.len, 0);
    CHECK(list.entries == NULL);
    msb_sandbox_entries_release(&list);
    rmdir(home);
}

TEST(test_g_kill_ends_everything_at_once)
{
    msb_sandbox *sandbox = sandbox_of_own("killed"), *other = opened("killed", 0);
    msb_exec_options options = script("trap '' TERM; while :; do sleep 1; done");
    msb_exec *exec = start(sandbox, &options, NULL), *late = NULL;
    msb_exec_entries list = MSB_EXEC_ENTRIES_INIT;
    struct outcome outcome = {0};
    char id[MSB_SESSION_ID_LEN];

    CHECK_OK(msb_exec_id(exec, id, &err));
    take(exec, &outcome, -1);
    CHECK_OK(msb_sandbox_kill(sandbox, &err));
    finish(exec, &outcome);
    CHECK_INT(outcome.ending, MSB_EVENT_LOST);
    check_state(sandbox, MSB_STATE_STOPPED, MSB_REASON_KILLED);
    CHECK_STATUS(msb_sandbox_kill(sandbox, &err), MSB_E_NOT_RUNNING);
    CHECK_STATUS(msb_sandbox_stop(sandbox, 0, &err), MSB_E_NOT_RUNNING);
    CHECK_STATUS(msb_sandbox_kill(other, &err), MSB_E_NOT_RUNNING);
    CHECK_STATUS(msb_exec_stream(sandbox, &options, &late, NULL, &err), MSB_E_NOT_RUNNING);
    CHECK_STATUS(msb_exec_reattach(sandbox, id, 0, &late, NULL, &err), MSB_E_NOT_RUNNING);
    CHECK_STATUS(msb_exec_list(sandbox, &list, &err), MSB_E_NOT_RUNNING);
    CHECK(late == NULL && list.owner == NULL);
    CHECK_INT(msb_handle_close(other), MSB_OK);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_OK(msb_sandbox_remove("killed", 0, &err));
    forget(&outcome);
}

TEST(test_g_wait_returns_the_end_repeatedly)
{
    msb_sandbox *sandbox = sandbox_of_own("waited"), *other = opened("waited", 0);
    int32_t fd = -1;

    CHECK_OK(msb_handle_fd(sandbox, &fd, &err));
    CHECK(readable(fd, 0)); /* it is ready */
    CHECK_STATUS(msb_sandbox_wait(sandbox, 0, &err), MSB_AGAIN);
    CHECK(!readable(fd, 0)); /* and has not ended */
    CHECK_STATUS(msb_sandbox_wait(sandbox, 30, &err), MSB_AGAIN);
    CHECK_OK(msb_sandbox_wait_ready(sandbox, 0, &err));
    CHECK(!readable(fd, 0));
    CHECK_OK(msb_sandbox_stop(other, 0, &err));
    CHECK(readable(fd, 10000));
    for (int64_t timeout = -1; timeout <= 1; timeout++)
        CHECK_OK(msb_sandbox_wait(sandbox, timeout, &err));
    CHECK(readable(fd, 0));
    /* The first call of this handle. */
    CHECK_OK(msb_sandbox_wait(other, 60000, &err));
    CHECK_OK(msb_sandbox_wait(other, 0, &err));
    CHECK_INT(msb_handle_close(other), MSB_OK);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_STATUS(msb_sandbox_wait(sandbox, 0, &err), MSB_E_HANDLE);
    CHECK_OK(msb_sandbox_remove("waited", 0, &err));
}

TEST(test_g_wait_for_the_end_stops_with_its_handle)
{
    enum { HANDLES = 200 };
    msb_sandbox *sandbox = sandbox_of_own("awaited");
    int before = open_descriptors(0);

    for (int i = 0; i < HANDLES; i++) {
        msb_sandbox *other = opened("awaited", 0);

        CHECK_STATUS(msb_sandbox_wait(other, 5, &err), MSB_AGAIN);
        CHECK_INT(msb_handle_close(other), MSB_OK);
    }
    for (int64_t until = now_ms() + 20000; open_descriptors(0) >= before + HANDLES / 2;) {
        CHECK(now_ms() < until);
        sleep_ms(10);
    }
    sandbox_end(sandbox, "awaited");
}

/* Returns the runner of a sandbox: the process with its directory on the command line. 0: none. */
static pid_t runner_of(const char *name)
{
    char text[256];
    FILE *pipe;
    int pid = 0;

    snprintf(text, sizeof text,
             "for p in /proc/[0-9]*; do if grep -q msb-runner $p/comm 2>/dev/null && tr '\\0' ' ' "
             "<$p/cmdline | grep -q '/%s\\(/\\| \\|$\\)'; then echo ${p#/proc/}; break; fi; done",
             name);
    pipe = popen(text, "r");
    if (pipe && fscanf(pipe, "%d", &pid) != 1)
        pid = 0;
    if (pipe)
        pclose(pipe);
    return pid;
}

TEST(test_b7_a_sandbox_whose_runner_is_killed_has_crashed)
{
    msb_sandbox *sandbox = sandbox_of_own("crashed-runner");
    pid_t runner = runner_of("crashed-runner");
    msb_sandbox_entries list;
    int32_t fd = -1;

    if (!runner) {
        harness_note("skipped: the runner cannot be seen from here");
        sandbox_end(sandbox, "crashed-runner");
        return;
    }
    CHECK_STATUS(msb_sandbox_wait(sandbox, 0, &err), MSB_AGAIN);
    CHECK_OK(msb_handle_fd(sandbox, &fd, &err));
    CHECK(!readable(fd, 0));
    CHECK_INT(kill(runner, SIGKILL), 0);
    CHECK(readable(fd, 10000));
    for (int64_t timeout = -1; timeout <= 1; timeout++) {
        CHECK_STATUS(msb_sandbox_wait(sandbox, timeout, &err), MSB_E_CRASHED);
        CHECK_INT(err.origin, MSB_ORIGIN_DRIVER);
        CHECK(strstr(err.message, "crashed-runner") != NULL);
    }
    CHECK_INT(info(sandbox, &list)->state, MSB_STATE_CRASHED);
    CHECK_INT(list.entries[0]->reason, MSB_REASON_CRASHED);
    msb_sandbox_entries_release(&list);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_OK(msb_sandbox_remove("crashed-runner", 0, &err));
}

struct waiting {
    msb_sandbox *sandbox;
    msb_status rc;
    atomic_bool begun;
};

static void *waits(void *argument)
{
    struct waiting *waiting = argument;

    atomic_store(&waiting->begun, true);
    waiting->rc = msb_sandbox_wait(waiting->sandbox, -1, &err);
    return NULL;
}

TEST(test_g_many_wait_and_closing_wakes_them)
{
    msb_sandbox *sandbox = sandbox_of_own("woken-waiters");
    msb_sandbox *handles[2] = {opened("woken-waiters", 0), opened("woken-waiters", 0)};
    struct waiting waiting[6];
    helper threads[6];

    for (int i = 0; i < 6; i++) {
        struct waiting fresh = {handles[i % 2], 77, false};
        waiting[i] = fresh;
        threads[i] = helper_start(waits, &waiting[i]);
    }
    for (int i = 0; i < 6; i++)
        while (!atomic_load(&waiting[i].begun))
            sleep_ms(1);
    sleep_ms(100); /* so that most threads wait; correct either way */
    CHECK_INT(msb_handle_close(handles[0]), MSB_OK);
    for (int i = 0; i < 6; i += 2) {
        helper_join(threads[i]);
        CHECK_SAY(waiting[i].rc == MSB_E_CLOSED || waiting[i].rc == MSB_E_HANDLE, "%s",
                  msb_status_name(waiting[i].rc));
    }
    CHECK_OK(msb_sandbox_stop(sandbox, 0, &err));
    for (int i = 1; i < 6; i += 2) {
        helper_join(threads[i]);
        CHECK_INT(waiting[i].rc, MSB_OK);
    }
    CHECK_INT(msb_handle_close(handles[1]), MSB_OK);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_OK(msb_sandbox_remove("woken-waiters", 0, &err));
}

TEST(test_g_time_limits_end_a_sandbox_with_the_reason)
{
    static const uint32_t reasons[] = {MSB_REASON_MAX_DURATION, MSB_REASON_IDLE};

    for (int i = 0; i < 2; i++) {
        msb_sandbox_options options = sandbox_named("short");
        msb_sandbox *sandbox = NULL;

        options.flags |= MSB_SANDBOX_REPLACE;
        *(i == 0 ? &options.max_duration_ms : &options.idle_timeout_ms) = 1000;
        CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
        CHECK_OK(msb_sandbox_wait_ready(sandbox, -1, &err));
        CHECK_OK(msb_sandbox_wait(sandbox, 50000, &err));
        check_state(sandbox, MSB_STATE_STOPPED, reasons[i]);
        CHECK_INT(msb_handle_close(sandbox), MSB_OK);
        CHECK_OK(msb_sandbox_remove("short", 0, &err));
    }
}

TEST(test_g_running_sandbox_is_removed_only_by_force)
{
    msb_sandbox *sandbox = sandbox_of_own("forced");
    msb_exec_options options = script("sleep 600");
    msb_exec *exec = start(sandbox, &options, NULL);
    struct outcome outcome = {0};

    CHECK_STATUS(msb_sandbox_remove("forced", 0, &err), MSB_E_RUNNING);
    for (int bit = 1; bit < 32; bit++)
        CHECK_STATUS(msb_sandbox_remove("forced", 1u << bit, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_sandbox_remove("forced", MSB_REMOVE_FORCE | 4, &err), MSB_E_INVALID);
    CHECK_TEXT(sh_in(sandbox, "echo alive"), "alive\n");
    CHECK_OK(msb_sandbox_remove("forced", MSB_REMOVE_FORCE, &err));
    finish(exec, &outcome);
    CHECK_INT(outcome.ending, MSB_EVENT_LOST);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_STATUS(msb_sandbox_remove("forced", 0, &err), MSB_E_NOT_FOUND);
    CHECK_STATUS(msb_sandbox_remove("forced", MSB_REMOVE_FORCE, &err), MSB_E_NOT_FOUND);
    /* Also a stopped one. */
    sandbox = sandbox_of_own("forced");
    CHECK_OK(msb_sandbox_stop(sandbox, 0, &err));
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_OK(msb_sandbox_remove("forced", MSB_REMOVE_FORCE, &err));
    forget(&outcome);
}

TEST(test_d6_log_takes_both_limits_or_none_with_its_flag)
{
    static const struct {
        uint32_t flags, files;
        uint64_t bytes;
        msb_status rc;
    } cases[] = {
        {0, 1, 0, MSB_E_INVALID},
        {0, 0, 1000, MSB_E_INVALID},
        {0, 2, 524288, MSB_E_INVALID},
        {MSB_SANDBOX_LOG, 2, 0, MSB_E_INVALID},
        {MSB_SANDBOX_LOG, 0, 524288, MSB_E_INVALID},
        {MSB_SANDBOX_LOG, 2, 524288, MSB_OK},
        {MSB_SANDBOX_LOG, 0, 0, MSB_OK},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        msb_sandbox_options options = sandbox_named("logged");
        msb_sandbox *sandbox = NULL;

        options.flags |= cases[i].flags;
        options.log_files = cases[i].files;
        options.log_max_bytes = cases[i].bytes;
        CHECK_STATUS(msb_sandbox_create(&options, &sandbox, &err), cases[i].rc);
        if (cases[i].rc != MSB_OK) {
            CHECK(sandbox == NULL);
            continue;
        }
        CHECK_OK(msb_sandbox_wait_ready(sandbox, -1, &err));
        CHECK_TEXT(sh_in(sandbox, "echo told"), "told\n");
        sandbox_end(sandbox, "logged");
    }
}

TEST(test_d6_output_is_logged_only_when_requested)
{
    for (int logged = 0; logged < 2; logged++) {
        msb_sandbox_options options = sandbox_named("with-log");
        msb_exec_options exec_options = script("echo for the log");
        msb_event event = MSB_EVENT_INIT;
        char text[256], id[MSB_SESSION_ID_LEN];
        msb_sandbox *sandbox = NULL;
        msb_exec *exec;

        options.flags |= logged ? MSB_SANDBOX_LOG : 0;
        CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
        CHECK_OK(msb_sandbox_wait_ready(sandbox, -1, &err));
        exec = start(sandbox, &exec_options, NULL);
        CHECK_OK(msb_exec_id(exec, id, &err));
        CHECK_OK(msb_exec_wait(exec, -1, &event, &err));
        msb_event_release(&event);
        CHECK_INT(msb_handle_close(exec), MSB_OK);
        /* All of it is written when the sandbox has ended. */
        CHECK_OK(msb_sandbox_stop(sandbox, 1000, &err));
        snprintf(text, sizeof text, "grep -rqs %s '%s/sandboxes/with-log/log'", id,
                 getenv("MSB_HOME"));
        CHECK_SAY((system(text) == 0) == logged, "%s", text);
        CHECK_INT(msb_handle_close(sandbox), MSB_OK);
        CHECK_OK(msb_sandbox_remove("with-log", 0, &err));
    }
}

TEST(test_a11_network_is_available_only_on_request)
{
    static const char count[] = "ip link | grep -c '^[0-9]'";
    int without = atoi(sh(count));
    msb_sandbox_options options = sandbox_named("networked");
    msb_sandbox *sandbox = NULL;

    CHECK_INT(without, 1); /* the loopback */
    options.flags |= MSB_SANDBOX_NETWORK;
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    harness_arm();
    msb_status rc = msb_sandbox_wait_ready(sandbox, -1, &err);
    if (rc == MSB_OK) {
        harness_note("%d interfaces with a network", atoi(sh_in(sandbox, count)));
        sandbox_end(sandbox, "networked");
    } else {
        harness_note("no network here: %s: %s", msb_status_name(rc), err.message);
        CHECK(rc == MSB_E_UNSUPPORTED || rc == MSB_E_NO_DRIVER || rc == MSB_E_CONFIG);
        CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    }
}
