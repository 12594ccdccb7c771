/* plain.c - the C baseline of bench.mjs: plain SANDBOX
 *
 * Reads names of variants, one per line, and answers each with its measurement.
 */
#include <microsandbox.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static msb_sandbox *sandbox;
static msb_error err = MSB_ERROR_INIT;
static msb_event events[64];

static void must(msb_status rc)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "plain: %s\n", err.message);
    exit(1);
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static msb_exec *start(const char *script)
{
    msb_exec_options options = MSB_EXEC_OPTIONS_INIT;
    msb_exec *exec = NULL;

    options.cmd = script;
    options.flags = MSB_EXEC_SHELL;
    must(msb_exec_stream(sandbox, &options, &exec, NULL, &err));
    return exec;
}

/* Returns the seconds that a collected no-op command takes. */
static double run(void)
{
    double begun = now();

    for (int times = 0; times < 20; times++) {
        msb_output output = MSB_OUTPUT_INIT;
        msb_exec *exec = start(":");

        must(msb_exec_collect(exec, -1, &output, &err));
        msb_output_release(&output);
        msb_handle_close(exec);
    }
    return (now() - begun) / 20;
}

/* Returns the bytes per second of a large output, copying each chunk as a language binding does. */
static double bulk(void)
{
    msb_exec *exec = start("head -c 134217728 /dev/zero");
    double begun = now();
    size_t total = 0, len = 0;
    msb_status rc;

    while ((rc = msb_exec_recv_many(exec, -1, events, 64, &len, &err)) == MSB_OK) {
        for (size_t i = 0; i < len; i++)
            total += events[i].kind == MSB_EVENT_STDOUT ? events[i].len : 0;
        msb_event_release_many(events, len);
    }
    must(rc);
    msb_handle_close(exec);
    return (double)total / (now() - begun);
}

/* Returns the events per second from a full queue. */
static double small(void)
{
    struct timespec while_it_fills = {0, 100000000};
    msb_exec *exec = start("while :; do echo x; echo y >&2; done");
    size_t total = 0, len = 0;
    double begun;
    msb_status rc = MSB_OK;

    nanosleep(&while_it_fills, NULL);
    begun = now();
    while (total < 2000 &&
           (rc = msb_exec_recv_many(exec, 0, events, 64, &len, &err)) == MSB_OK) {
        total += len;
        msb_event_release_many(events, len);
    }
    must(rc);
    begun = now() - begun;
    must(msb_exec_signal(exec, 9, MSB_SIGNAL_TREE, &err));
    msb_handle_close(exec);
    return (double)total / begun;
}

int main(int argc, char **argv)
{
    char line[64];

    if (argc != 2)
        return 2;
    for (int i = 0; i < 64; i++)
        events[i] = (msb_event)MSB_EVENT_INIT;
    must(msb_sandbox_open(argv[1], 0, &sandbox, &err));
    must(msb_sandbox_wait_ready(sandbox, -1, &err));
    run();
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        printf("%.9g\n", !strcmp(line, "run") ? run() : !strcmp(line, "bulk") ? bulk() : small());
        fflush(stdout);
    }
    return 0;
}
