/* test_threads.c - concurrent calls, on own and on shared handles. */
#include "support.h"

#include <stdio.h>
#include <string.h>

enum { THREADS = 8, TURNS = 15, EVENTS = 16 };

static void *runs_commands(void *argument)
{
    for (int turn = 0; turn < TURNS; turn++) {
        msb_error err = MSB_ERROR_INIT;
        msb_output output = MSB_OUTPUT_INIT;
        msb_exec *exec = NULL;
        char text[64], wanted[64];
        msb_exec_options options = script(text);

        snprintf(text, sizeof text, "echo %d.%d", (int)(intptr_t)argument, turn);
        snprintf(wanted, sizeof wanted, "%d.%d\n", (int)(intptr_t)argument, turn);
        CHECK_INT(msb_exec_stream(shared(), &options, &exec, NULL, &err), MSB_OK);
        CHECK_INT(msb_exec_collect(exec, -1, &output, &err), MSB_OK);
        CHECK_INT(output.stdout_len, strlen(wanted));
        CHECK(output.stdout_data && !memcmp(output.stdout_data, wanted, output.stdout_len));
        msb_output_release(&output);
        CHECK_INT(msb_handle_close(exec), MSB_OK);
    }
    return NULL;
}

TEST(test_a12_threads_run_commands_at_once)
{
    helper threads[THREADS];

    sh("true");
    for (intptr_t i = 0; i < THREADS; i++)
        threads[i] = helper_start(runs_commands, (void *)i);
    for (int i = 0; i < THREADS; i++)
        helper_join(threads[i]);
}

static void *releases(void *argument)
{
    for (int i = 0; i < EVENTS; i++)
        msb_event_release(&((msb_event *)argument)[i]);
    return NULL;
}

TEST(test_i_events_are_released_on_any_thread)
{
    msb_exec_options options = script("for i in 1 2 3 4 5 6; do echo $i; usleep 5000; done");
    msb_exec *exec = start(shared(), &options, NULL);
    msb_event events[EVENTS];
    char text[64] = "";

    for (int i = 0; i < EVENTS; i++)
        events[i] = (msb_event)MSB_EVENT_INIT;
    for (int i = 0; i < EVENTS; i++) {
        msb_status status = msb_exec_recv(exec, -1, &events[i], &err);

        if (status == MSB_EOF)
            break;
        CHECK_INT(status, MSB_OK);
        if (events[i].kind == MSB_EVENT_STDOUT)
            strncat(text, (const char *)events[i].data, events[i].len);
    }
    CHECK_TEXT(text, "1\n2\n3\n4\n5\n6\n");
    helper_join(helper_start(releases, events));
    releases(events);
    for (int i = 0; i < EVENTS; i++)
        CHECK(!events[i].data && !events[i].exit && !events[i].owner);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}
