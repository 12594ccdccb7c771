/* test_trace.c - the trace: which function receives which messages, and until when. */
#include "support.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KEPT = 256 };

/* Received by the trace function. Written on the library's thread; read after msb_trace_set
 * returned. */
struct seen {
    atomic_int count, drops, after_drop;
    atomic_int lost; /* messages that were dropped, as the trace itself reports */
    atomic_bool holds; /* the function blocks while this is set */
    uint32_t levels[KEPT];
    char targets[KEPT][64], messages[KEPT][512], thread[32];
    bool signals_blocked;
    msb_status set_inside;
};

static void receive(void *user_data, uint32_t level, const char *target, const char *message)
{
    struct seen *seen = user_data;
    int at = atomic_load(&seen->count);
    sigset_t blocked;

    while (atomic_load(&seen->holds))
        sleep_ms(1);
    if (atomic_load(&seen->drops))
        atomic_fetch_add(&seen->after_drop, 1);
    if (at == 0) {
        pthread_getname_np(pthread_self(), seen->thread, sizeof seen->thread);
        pthread_sigmask(SIG_SETMASK, NULL, &blocked);
        seen->signals_blocked = sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGINT) &&
                                sigismember(&blocked, SIGCHLD);
    }
    if (at < KEPT) {
        seen->levels[at] = level;
        snprintf(seen->targets[at], sizeof seen->targets[at], "%s", target);
        snprintf(seen->messages[at], sizeof seen->messages[at], "%s", message);
    }
    if (strcmp(target, "msb::trace") == 0)
        atomic_fetch_add(&seen->lost, atoi(message));
    else
        atomic_fetch_add(&seen->count, 1);
}

static void dropped(void *user_data)
{
    struct seen *seen = user_data;

    atomic_fetch_add(&seen->drops, 1);
}

static void no_trace(void)
{
    CHECK_OK(msb_trace_set(0, NULL, NULL, NULL, &err));
}

static int find(const struct seen *seen, uint32_t level, const char *text)
{
    int found = 0;

    for (int i = 0; i < atomic_load(&seen->count) && i < KEPT; i++)
        found += seen->levels[i] == level && strstr(seen->messages[i], text) != NULL;
    return found;
}

/* Provokes messages of level DEBUG, by attaching to a session that has ended. */
static void provoke(int times)
{
    static char id[MSB_SESSION_ID_LEN];

    if (!id[0]) {
        msb_exec_options options = command("true");
        msb_event event = MSB_EVENT_INIT;
        msb_exec *exec = start(shared(), &options, NULL);

        CHECK_OK(msb_exec_id(exec, id, &err));
        CHECK_OK(msb_exec_wait(exec, -1, &event, &err));
        msb_event_release(&event);
        CHECK_INT(msb_handle_close(exec), MSB_OK);
    }
    for (int i = 0; i < times; i++) {
        msb_exec *exec = NULL;
        CHECK_OK(msb_exec_reattach(shared(), id, 0, &exec, NULL, &err));
        CHECK_INT(msb_handle_close(exec), MSB_OK);
    }
}

TEST(test_trace_messages_come_on_their_own_thread_one_line_each)
{
    struct seen seen = {0};
    msb_exec_options options = command("true");
    msb_event event = MSB_EVENT_INIT;
    char id[MSB_SESSION_ID_LEN];
    msb_exec *exec;

    shared();
    CHECK_OK(msb_trace_set(MSB_TRACE_TRACE, receive, &seen, dropped, &err));
    exec = start(shared(), &options, NULL);
    CHECK_OK(msb_exec_id(exec, id, &err));
    CHECK_OK(msb_exec_wait(exec, -1, &event, &err));
    msb_event_release(&event);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    no_trace();
    CHECK_INT(seen.drops, 1);
    CHECK_TEXT(seen.thread, "msb-trace");
    CHECK(seen.signals_blocked);
    CHECK_SAY(find(&seen, MSB_TRACE_DEBUG, id) >= 1, "%d messages", seen.count);
    for (int i = 0; i < seen.count && i < KEPT; i++) {
        CHECK(seen.levels[i] >= MSB_TRACE_ERROR && seen.levels[i] <= MSB_TRACE_TRACE);
        CHECK(seen.targets[i][0] && seen.messages[i][0]);
        CHECK(!strpbrk(seen.messages[i], "\r\n"));
    }
}

TEST(test_trace_has_messages_up_to_its_level)
{
    static const uint32_t levels[] = {MSB_TRACE_ERROR, MSB_TRACE_WARN, MSB_TRACE_INFO, MSB_TRACE_DEBUG};
    char broken[256];
    FILE *file;

    shared();
    snprintf(broken, sizeof broken, "%s/sandboxes/broken", getenv("MSB_HOME"));
    CHECK_INT(mkdir(broken, 0700), 0);
    strcat(broken, "/config.json");
    file = fopen(broken, "w");
    CHECK(file && fputs("{\"version\": 9999}", file) >= 0 && fclose(file) == 0);
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        msb_sandbox_entries list = MSB_SANDBOX_ENTRIES_INIT;
        struct seen seen = {0};

        CHECK_OK(msb_trace_set(levels[i], receive, &seen, dropped, &err));
        CHECK_OK(msb_sandbox_list(&list, &err)); /* warns of the broken one */
        msb_sandbox_entries_release(&list);
        sandbox_end(sandbox_of_own("logs"), "logs"); /* messages of level INFO */
        provoke(1); /* messages of level DEBUG */
        no_trace();
        for (int k = 0; k < seen.count && k < KEPT; k++)
            CHECK_SAY(seen.levels[k] <= levels[i], "%s", seen.messages[k]);
        CHECK_INT(find(&seen, MSB_TRACE_WARN, "could not be read"), levels[i] >= MSB_TRACE_WARN);
        CHECK_INT(find(&seen, MSB_TRACE_INFO, "sandbox created"), levels[i] >= MSB_TRACE_INFO);
        CHECK((find(&seen, MSB_TRACE_DEBUG, "requested") > 0) == (levels[i] >= MSB_TRACE_DEBUG));
        CHECK_INT(seen.drops, 1);
    }
    *strrchr(broken, '/') = 0;
    CHECK_INT(msb_sandbox_remove("broken", MSB_REMOVE_FORCE, NULL) <= 0, 1);
    snprintf(broken, sizeof broken, "rm -rf '%s/sandboxes/broken'", getenv("MSB_HOME"));
    CHECK_INT(system(broken), 0);
}

TEST(test_trace_contains_no_data_of_commands)
{
    static const char secret[] = "t0p-s3cret";
    struct seen seen = {0};
    const char *args[] = {"behind", secret}, *env[] = {"SECRET=t0p-s3cret"};
    msb_exec_options options = script("echo $SECRET; echo $1 >&2; cat");
    msb_output output = MSB_OUTPUT_INIT;
    msb_exec *exec;

    SET_ARRAY(options, args, args);
    SET_ARRAY(options, env, env);
    options.stdin_data = (const uint8_t *)secret;
    options.stdin_len = strlen(secret);
    CHECK_OK(msb_trace_set(MSB_TRACE_TRACE, receive, &seen, dropped, &err));
    exec = start(shared(), &options, NULL);
    CHECK_OK(msb_exec_collect(exec, -1, &output, &err));
    CHECK_INT(output.stdout_len, 2 * strlen(secret) + 1);
    msb_output_release(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    no_trace();
    CHECK(seen.count > 0);
    for (int i = 0; i < seen.count && i < KEPT; i++)
        CHECK_SAY(!strstr(seen.messages[i], secret), "%s", seen.messages[i]);
}

TEST(test_trace_delivers_earlier_messages_and_no_later_ones)
{
    for (int round = 0; round < 20; round++) {
        struct seen seen = {0};

        shared();
        CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, receive, &seen, dropped, &err));
        provoke(10);
        no_trace();
        CHECK_SAY(find(&seen, MSB_TRACE_DEBUG, "attach requested") == 10, "%d of %d",
                  find(&seen, MSB_TRACE_DEBUG, "attach requested"), seen.count);
        CHECK_INT(seen.drops, 1);
        int count = atomic_load(&seen.count);
        provoke(10);
        no_trace();
        CHECK_INT(seen.count, count);
        CHECK_INT(seen.drops, 1);
        CHECK_INT(seen.after_drop, 0);
    }
}

TEST(test_trace_new_function_replaces_old_which_is_dropped_once)
{
    static struct seen each[10];

    shared();
    memset(each, 0, sizeof each);
    for (int i = 0; i < 10; i++) {
        CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, receive, &each[i], i % 2 ? dropped : NULL, &err));
        if (i > 0)
            CHECK_INT(each[i - 1].drops, (i - 1) % 2);
        CHECK_INT(each[i].drops, 0);
        provoke(3);
    }
    no_trace();
    for (int i = 0; i < 10; i++) {
        CHECK_INT(find(&each[i], MSB_TRACE_DEBUG, "attach requested"), 3);
        CHECK_INT(each[i].drops, i % 2);
    }
}

TEST(test_trace_failed_call_changes_nothing)
{
    static const uint32_t wrong[] = {0, 6, 100, UINT32_MAX};
    struct seen seen = {0}, other = {0};

    shared();
    CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, receive, &seen, dropped, &err));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_STATUS(msb_trace_set(wrong[i], receive, &other, dropped, &err), MSB_E_INVALID);
    provoke(2);
    /* Without a function, the level is not checked. */
    CHECK_OK(msb_trace_set(12345, NULL, &other, dropped, &err));
    CHECK_INT(find(&seen, MSB_TRACE_DEBUG, "attach requested"), 2);
    CHECK_INT(seen.drops, 1);
    CHECK_INT(other.count + other.drops, 0);
    no_trace();
}

static void sets_inside(void *user_data, uint32_t level, const char *target, const char *message)
{
    struct seen *seen = user_data;
    msb_error own = MSB_ERROR_INIT;
    msb_status rc = msb_trace_set(0, NULL, NULL, NULL, &own);

    (void)level, (void)target, (void)message;
    if (rc == MSB_E_UNSUPPORTED)
        rc = msb_trace_set(MSB_TRACE_ERROR, sets_inside, user_data, NULL, NULL);
    seen->set_inside = rc;
    atomic_fetch_add(&seen->count, 1);
}

static void drops_inside(void *user_data)
{
    struct seen *seen = user_data;

    if (msb_trace_set(0, NULL, NULL, NULL, NULL) == MSB_E_UNSUPPORTED)
        atomic_fetch_add(&seen->drops, 1);
}

TEST(test_trace_functions_cannot_set_the_trace)
{
    struct seen seen = {0};

    shared();
    CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, sets_inside, &seen, drops_inside, &err));
    provoke(1);
    no_trace();
    CHECK(seen.count > 0);
    CHECK_INT(seen.set_inside, MSB_E_UNSUPPORTED);
    CHECK_INT(seen.drops, 1);
}

struct setter {
    atomic_int returned;
    atomic_int busy, fine;
};

static void *sets(void *argument)
{
    struct setter *setter = argument;
    msb_status rc;

    harness_arm();
    rc = msb_trace_set(0, NULL, NULL, NULL, &err);
    CHECK_SAY(rc == MSB_OK || rc == MSB_E_BUSY, "%s", msb_status_name(rc));
    atomic_fetch_add(rc == MSB_OK ? &setter->fine : &setter->busy, 1);
    atomic_fetch_add(&setter->returned, 1);
    return NULL;
}

TEST(test_trace_concurrent_second_set_is_busy)
{
    struct seen seen = {0};
    struct setter setter = {0};
    helper threads[2];

    shared();
    atomic_store(&seen.holds, true);
    CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, receive, &seen, dropped, &err));
    provoke(1);
    for (int i = 0; i < 2; i++)
        threads[i] = helper_start(sets, &setter);
    while (atomic_load(&setter.returned) == 0)
        sleep_ms(1);
    CHECK_INT(atomic_load(&setter.busy), 1);
    CHECK_INT(atomic_load(&seen.drops), 0);
    /* The other thread waits for the function, and no other call does. */
    CHECK_TEXT(sh("echo nobody waits"), "nobody waits\n");
    CHECK_INT(atomic_load(&setter.returned), 1);
    atomic_store(&seen.holds, false);
    for (int i = 0; i < 2; i++)
        helper_join(threads[i]);
    CHECK_INT(setter.fine, 1);
    CHECK_INT(seen.drops, 1);
    CHECK(seen.count >= 1);
}

static void *sets_all_the_time(void *argument)
{
    struct seen *seen = argument;

    for (int i = 0; i < 50; i++) {
        msb_status rc = msb_trace_set(MSB_TRACE_DEBUG, receive, seen, dropped, NULL);
        CHECK_SAY(rc == MSB_OK || rc == MSB_E_BUSY, "%s", msb_status_name(rc));
        if (rc == MSB_OK)
            atomic_fetch_sub(&seen->drops, 1); /* each function that was set is dropped once */
    }
    return NULL;
}

TEST(test_trace_every_function_that_was_set_is_dropped_once)
{
    static struct seen each[3];
    helper threads[3];

    shared();
    memset(each, 0, sizeof each);
    for (int i = 0; i < 3; i++)
        threads[i] = helper_start(sets_all_the_time, &each[i]);
    provoke(100);
    for (int i = 0; i < 3; i++)
        helper_join(threads[i]);
    no_trace();
    for (int i = 0; i < 3; i++)
        CHECK_INT(each[i].drops, 0);
}

TEST(test_trace_excess_messages_are_counted_and_block_nothing)
{
    enum { MESSAGES = 1500 };
    struct seen seen = {0}, next = {0};

    shared();
    atomic_store(&seen.holds, true);
    CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, receive, &seen, NULL, &err));
    provoke(MESSAGES);
    CHECK_INT(atomic_load(&seen.count), 0);
    atomic_store(&seen.holds, false);
    /* Losses at the end are reported to the function that lost them. */
    CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, receive, &next, NULL, &err));
    provoke(1);
    no_trace();
    harness_note("%d messages were seen, %d counted as dropped", seen.count, seen.lost);
    CHECK(seen.count > 0 && seen.count <= 1024 + 2);
    CHECK_SAY(seen.count + seen.lost >= MESSAGES, "%d and %d", seen.count, seen.lost);
    CHECK_INT(next.lost, 0);
    CHECK(next.count > 0);
}
