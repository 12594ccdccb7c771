/* baseline.c - the jobs of bench.py in C, for comparison.
 *
 *   baseline SANDBOX
 *
 * Reads the name of a job from each line of stdin, runs it in SANDBOX, and prints its duration in
 * seconds (for `small`: events per second).
 */
#include <microsandbox.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BULK ((size_t)256 << 20)
#define MANY 256
#define BATCH 64

static msb_sandbox *sandbox;
static msb_error err = MSB_ERROR_INIT;

static void check(msb_status rc, const char *what)
{
    if (rc != MSB_OK) {
        fprintf(stderr, "baseline: %s: %s\n", what, rc < 0 ? err.message : "not yet, or the end");
        exit(1);
    }
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static msb_exec *start(const char *cmd, const char *const *args, size_t args_len)
{
    msb_exec_options options = MSB_EXEC_OPTIONS_INIT;
    msb_exec *exec;

    options.cmd = cmd, options.args = args, options.args_len = args_len;
    check(msb_exec_stream(sandbox, &options, &exec, NULL, &err), cmd);
    return exec;
}

static void finish(msb_exec *exec)
{
    msb_output output = MSB_OUTPUT_INIT;

    check(msb_exec_collect(exec, -1, &output, &err), "msb_exec_collect");
    if (output.exit == NULL || output.exit->code != 0)
        exit(1);
    msb_output_release(&output);
    msb_handle_close(exec);
}

static void one(void)
{
    finish(start("true", NULL, 0));
}

static void many(void)
{
    static msb_exec *execs[MANY];

    for (int i = 0; i < MANY; i++)
        execs[i] = start("true", NULL, 0);
    for (int i = 0; i < MANY; i++)
        finish(execs[i]);
}

static msb_exec *bulk(void)
{
    const char *args[] = {"if=/dev/zero", "bs=65536", "count=4096"};

    return start("dd", args, 3);
}

static void events_begin(msb_event *events)
{
    for (int i = 0; i < BATCH; i++)
        events[i] = (msb_event)MSB_EVENT_INIT;
}

static void output(void)
{
    msb_exec *exec = bulk();
    msb_event events[BATCH];
    size_t total = 0, len;
    msb_status rc;

    events_begin(events);
    while ((rc = msb_exec_recv_many(exec, -1, events, BATCH, &len, &err)) == MSB_OK) {
        for (size_t i = 0; i < len; i++)
            total += events[i].kind == MSB_EVENT_STDOUT ? events[i].len : 0;
        msb_event_release_many(events, len);
    }
    check(rc == MSB_EOF && total == BULK ? MSB_OK : MSB_AGAIN, "msb_exec_recv_many");
    msb_handle_close(exec);
}

static void collect(void)
{
    finish(bulk());
}

/* Drains a full queue; returns events per second. */
static double small(void)
{
    const char *args[] = {"-c", "i=0; while [ $i -lt 1500 ]; do echo x; echo y >&2; i=$((i+1)); done"};
    struct timespec while_it_fills = {0, 200000000};
    msb_exec *exec = start("sh", args, 2);
    msb_event events[BATCH];
    size_t total = 0, len;
    double begun, rate;

    events_begin(events);
    nanosleep(&while_it_fills, NULL);
    begun = now();
    while (msb_exec_recv_many(exec, 0, events, BATCH, &len, &err) == MSB_OK) {
        total += len;
        msb_event_release_many(events, len);
    }
    rate = (double)total / (now() - begun);
    msb_handle_close(exec);
    return rate;
}

int main(int argc, char **argv)
{
    char line[64];

    if (argc != 2)
        return fprintf(stderr, "usage: baseline SANDBOX\n"), 1;
    check(msb_sandbox_open(argv[1], 0, &sandbox, &err), argv[1]);
    check(msb_sandbox_wait_ready(sandbox, -1, &err), argv[1]);
    while (fgets(line, sizeof line, stdin) != NULL) {
        double begun = now(), rate = 0;

        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "small") == 0)
            rate = small();
        else if (strcmp(line, "one") == 0)
            one();
        else if (strcmp(line, "many") == 0)
            many();
        else if (strcmp(line, "output") == 0)
            output();
        else if (strcmp(line, "collect") == 0)
            collect();
        else
            return fprintf(stderr, "baseline: no job %s\n", line), 1;
        printf("%.9f\n", rate > 0 ? rate : now() - begun);
        fflush(stdout);
    }
    return msb_handle_close(sandbox) < 0;
}
