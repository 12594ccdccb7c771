/* test_trace.c - the trace: which function gets which messages, and until when. */
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

/* What the trace function got. Written on the library's thread; read after msb_trace_set returned. */
struct told {
    atomic_int count, drops, after_drop;
    atomic_int lost; /* messages that came too fast, as the trace itself says */
    atomic_bool holds; /* the function waits while this is set */
    uint32_t levels[KEPT];
    char targets[KEPT][64], messages[KEPT][512], thread[32];
    bool signals_blocked;
    msb_status set_inside;
};

static void tell(void *user_data, uint32_t level, const char *target, const char *message)
{
    struct told *told = user_data;
    int at = atomic_load(&told->count);
    sigset_t blocked;

    while (atomic_load(&told->holds))
        sleep_ms(1);
    if (atomic_load(&told->drops))
        atomic_fetch_add(&told->after_drop, 1);
    if (at == 0) {
        pthread_getname_np(pthread_self(), told->thread, sizeof told->thread);
        pthread_sigmask(SIG_SETMASK, NULL, &blocked);
        told->signals_blocked = sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGINT) &&
                                sigismember(&blocked, SIGCHLD);
    }
    if (at < KEPT) {
        told->levels[at] = level;
        snprintf(told->targets[at], sizeof told->targets[at], "%s", target);
        snprintf(told->messages[at], sizeof told->messages[at], "%s", message);
    }
    if (strcmp(target, "msb::trace") == 0)
        atomic_fetch_add(&told->lost, atoi(message));
    else
        atomic_fetch_add(&told->count, 1);
}

static void dropped(void *user_data)
{
    struct told *told = user_data;

    atomic_fetch_add(&told->drops, 1);
}

static void no_trace(void)
{
    CHECK_OK(msb_trace_set(0, NULL, NULL, NULL, &err));
}

static int find(const struct told *told, uint32_t level, const char *text)
{
    int found = 0;

    for (int i = 0; i < atomic_load(&told->count) && i < KEPT; i++)
        found += told->levels[i] == level && strstr(told->messages[i], text) != NULL;
    return found;
}

/* A message of level DEBUG for each call, which attaches to a session that has ended. */
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
    struct told told = {0};
    msb_exec_options options = command("true");
    msb_event event = MSB_EVENT_INIT;
    char id[MSB_SESSION_ID_LEN];
    msb_exec *exec;

    shared();
    CHECK_OK(msb_trace_set(MSB_TRACE_TRACE, tell, &told, dropped, &err));
    exec = start(shared(), &options, NULL);
    CHECK_OK(msb_exec_id(exec, id, &err));
    CHECK_OK(msb_exec_wait(exec, -1, &event, &err));
    msb_event_release(&event);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    no_trace();
    CHECK_INT(told.drops, 1);
    CHECK_TEXT(told.thread, "msb-trace");
    CHECK(told.signals_blocked);
    CHECK_SAY(find(&told, MSB_TRACE_DEBUG, id) >= 1, "%d messages", told.count);
    for (int i = 0; i < told.count && i < KEPT; i++) {
        CHECK(told.levels[i] >= MSB_TRACE_ERROR && told.levels[i] <= MSB_TRACE_TRACE);
        CHECK(told.targets[i][0] && told.messages[i][0]);
        CHECK(!strpbrk(told.messages[i], "\r\n"));
    }
}

TEST(test_trace_only_up_to_the_level_that_was_asked_for)
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
        struct told told = {0};

        CHECK_OK(msb_trace_set(levels[i], tell, &told, dropped, &err));
        CHECK_OK(msb_sandbox_list(&list, &err)); /* warns of the broken one */
        msb_sandbox_entries_release(&list);
        sandbox_end(sandbox_of_own("logs"), "logs"); /* informs */
        provoke(1); /* for debugging */
        no_trace();
        for (int k = 0; k < told.count && k < KEPT; k++)
            CHECK_SAY(told.levels[k] <= levels[i], "%s", told.messages[k]);
        CHECK_INT(find(&told, MSB_TRACE_WARN, "could not be read"), levels[i] >= MSB_TRACE_WARN);
        CHECK_INT(find(&told, MSB_TRACE_INFO, "sandbox created"), levels[i] >= MSB_TRACE_INFO);
        CHECK((find(&told, MSB_TRACE_DEBUG, "requested") > 0) == (levels[i] >= MSB_TRACE_DEBUG));
        CHECK_INT(told.drops, 1);
    }
    *strrchr(broken, '/') = 0;
    CHECK_INT(msb_sandbox_remove("broken", MSB_REMOVE_FORCE, NULL) <= 0, 1);
    snprintf(broken, sizeof broken, "rm -rf '%s/sandboxes/broken'", getenv("MSB_HOME"));
    CHECK_INT(system(broken), 0);
}

TEST(test_trace_nothing_of_what_runs_is_told)
{
    static const char secret[] = "t0p-s3cret";
    struct told told = {0};
    const char *args[] = {"behind", secret}, *env[] = {"SECRET=t0p-s3cret"};
    msb_exec_options options = script("echo $SECRET; echo $1 >&2; cat");
    msb_output output = MSB_OUTPUT_INIT;
    msb_exec *exec;

    SET_ARRAY(options, args, args);
    SET_ARRAY(options, env, env);
    options.stdin_data = (const uint8_t *)secret;
    options.stdin_len = strlen(secret);
    CHECK_OK(msb_trace_set(MSB_TRACE_TRACE, tell, &told, dropped, &err));
    exec = start(shared(), &options, NULL);
    CHECK_OK(msb_exec_collect(exec, -1, &output, &err));
    CHECK_INT(output.stdout_len, 2 * strlen(secret) + 1);
    msb_output_release(&output);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
    no_trace();
    CHECK(told.count > 0);
    for (int i = 0; i < told.count && i < KEPT; i++)
        CHECK_SAY(!strstr(told.messages[i], secret), "%s", told.messages[i]);
}

TEST(test_trace_delivers_earlier_messages_and_no_later_ones)
{
    for (int round = 0; round < 20; round++) {
        struct told told = {0};

        shared();
        CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, tell, &told, dropped, &err));
        provoke(10);
        no_trace();
        CHECK_SAY(find(&told, MSB_TRACE_DEBUG, "attach requested") == 10, "%d of %d",
                  find(&told, MSB_TRACE_DEBUG, "attach requested"), told.count);
        CHECK_INT(told.drops, 1);
        int count = atomic_load(&told.count);
        provoke(10);
        no_trace();
        CHECK_INT(told.count, count);
        CHECK_INT(told.drops, 1);
        CHECK_INT(told.after_drop, 0);
    }
}

TEST(test_trace_new_function_replaces_old_which_is_dropped_once)
{
    static struct told tolds[10];

    shared();
    memset(tolds, 0, sizeof tolds);
    for (int i = 0; i < 10; i++) {
        CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, tell, &tolds[i], i % 2 ? dropped : NULL, &err));
        if (i > 0)
            CHECK_INT(tolds[i - 1].drops, (i - 1) % 2);
        CHECK_INT(tolds[i].drops, 0);
        provoke(3);
    }
    no_trace();
    for (int i = 0; i < 10; i++) {
        CHECK_INT(find(&tolds[i], MSB_TRACE_DEBUG, "attach requested"), 3);
        CHECK_INT(tolds[i].drops, i % 2);
    }
}

TEST(test_trace_a_call_that_fails_leaves_everything_as_it_was)
{
    static const uint32_t wrong[] = {0, 6, 100, UINT32_MAX};
    struct told told = {0}, other = {0};

    shared();
    CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, tell, &told, dropped, &err));
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_STATUS(msb_trace_set(wrong[i], tell, &other, dropped, &err), MSB_E_INVALID);
    provoke(2);
    /* Nobody: the rest is not looked at. */
    CHECK_OK(msb_trace_set(12345, NULL, &other, dropped, &err));
    CHECK_INT(find(&told, MSB_TRACE_DEBUG, "attach requested"), 2);
    CHECK_INT(told.drops, 1);
    CHECK_INT(other.count + other.drops, 0);
    no_trace();
}

static void sets_inside(void *user_data, uint32_t level, const char *target, const char *message)
{
    struct told *told = user_data;
    msb_error own = MSB_ERROR_INIT;
    msb_status rc = msb_trace_set(0, NULL, NULL, NULL, &own);

    (void)level, (void)target, (void)message;
    if (rc == MSB_E_UNSUPPORTED)
        rc = msb_trace_set(MSB_TRACE_ERROR, sets_inside, user_data, NULL, NULL);
    told->set_inside = rc;
    atomic_fetch_add(&told->count, 1);
}

static void drops_inside(void *user_data)
{
    struct told *told = user_data;

    if (msb_trace_set(0, NULL, NULL, NULL, NULL) == MSB_E_UNSUPPORTED)
        atomic_fetch_add(&told->drops, 1);
}

TEST(test_trace_functions_cannot_set_the_trace)
{
    struct told told = {0};

    shared();
    CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, sets_inside, &told, drops_inside, &err));
    provoke(1);
    no_trace();
    CHECK(told.count > 0);
    CHECK_INT(told.set_inside, MSB_E_UNSUPPORTED);
    CHECK_INT(told.drops, 1);
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

TEST(test_trace_two_threads_set_it_and_one_is_told_so)
{
    struct told told = {0};
    struct setter setter = {0};
    helper threads[2];

    shared();
    atomic_store(&told.holds, true);
    CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, tell, &told, dropped, &err));
    provoke(1);
    for (int i = 0; i < 2; i++)
        threads[i] = helper_start(sets, &setter);
    while (atomic_load(&setter.returned) == 0)
        sleep_ms(1);
    CHECK_INT(atomic_load(&setter.busy), 1);
    CHECK_INT(atomic_load(&told.drops), 0);
    /* The other one waits for the function, and nothing else does. */
    CHECK_TEXT(sh("echo nobody waits"), "nobody waits\n");
    CHECK_INT(atomic_load(&setter.returned), 1);
    atomic_store(&told.holds, false);
    for (int i = 0; i < 2; i++)
        helper_join(threads[i]);
    CHECK_INT(setter.fine, 1);
    CHECK_INT(told.drops, 1);
    CHECK(told.count >= 1);
}

static void *sets_all_the_time(void *argument)
{
    struct told *told = argument;

    for (int i = 0; i < 50; i++) {
        msb_status rc = msb_trace_set(MSB_TRACE_DEBUG, tell, told, dropped, NULL);
        CHECK_SAY(rc == MSB_OK || rc == MSB_E_BUSY, "%s", msb_status_name(rc));
        if (rc == MSB_OK)
            atomic_fetch_sub(&told->drops, 1); /* each one set is one to be dropped */
    }
    return NULL;
}

TEST(test_trace_every_function_that_was_set_is_dropped_once)
{
    static struct told tolds[3];
    helper threads[3];

    shared();
    memset(tolds, 0, sizeof tolds);
    for (int i = 0; i < 3; i++)
        threads[i] = helper_start(sets_all_the_time, &tolds[i]);
    provoke(100);
    for (int i = 0; i < 3; i++)
        helper_join(threads[i]);
    no_trace();
    for (int i = 0; i < 3; i++)
        CHECK_INT(tolds[i].drops, 0);
}

TEST(test_trace_excess_messages_are_counted_and_block_nothing)
{
    enum { MESSAGES = 1500 };
    struct told told = {0}, next = {0};

    shared();
    atomic_store(&told.holds, true);
    CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, tell, &told, NULL, &err));
    provoke(MESSAGES);
    CHECK_INT(atomic_load(&told.count), 0);
    atomic_store(&told.holds, false);
    /* Also what is lost last is told, to the function that lost it. */
    CHECK_OK(msb_trace_set(MSB_TRACE_DEBUG, tell, &next, NULL, &err));
    provoke(1);
    no_trace();
    harness_note("%d messages were told, %d counted as dropped", told.count, told.lost);
    CHECK(told.count > 0 && told.count <= 1024 + 2);
    CHECK_SAY(told.count + told.lost >= MESSAGES, "%d and %d", told.count, told.lost);
    CHECK_INT(next.lost, 0);
    CHECK(next.count > 0);
}
