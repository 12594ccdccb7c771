/* poll.c - many commands at once on one thread, with epoll.
 *
 *   cc poll.c -lmicrosandbox -o poll
 *   MSB_DRIVER=container ./poll ./rootfs 100
 *
 * A handle's descriptor polls readable when a call would not return MSB_AGAIN. So the loop blocks
 * only in epoll_wait, and calls with a timeout of 0 until MSB_AGAIN.
 */
#include <inttypes.h>
#include <microsandbox.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

struct job {
    msb_exec *exec;
    uint64_t bytes;
    int32_t fd;
    int number, code;
};

static void die(const char *what, const msb_error *err)
{
    fprintf(stderr, "poll: %s: %s (%s)\n", what, err->message, msb_status_name(err->status));
    exit(1);
}

static void begin(msb_sandbox *sandbox, struct job *job, int epoll, msb_error *err)
{
    msb_exec_options options = MSB_EXEC_OPTIONS_INIT;
    struct epoll_event interest = {.events = EPOLLIN, .data.ptr = job};
    char number[16];
    const char *args[] = {"poll", number}; /* $0 and $1, as with sh -c */

    /* Everything is lent for the call. */
    snprintf(number, sizeof number, "%d", job->number);
    options.cmd = "sleep 0.$(($1 % 10)); head -c $(($1 * 1000)) /dev/zero; exit $(($1 % 3))";
    options.flags = MSB_EXEC_SHELL;
    options.args = args;
    options.args_len = 2;
    if (msb_exec_stream(sandbox, &options, &job->exec, NULL, err) < 0)
        die("starting a command", err);
    if (msb_handle_fd(job->exec, &job->fd, err) < 0)
        die("getting its descriptor", err);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, job->fd, &interest) < 0) {
        perror("poll: epoll_ctl");
        exit(1);
    }
}

/* Receives all available events. Returns true at the end of the stream. */
static int advance(struct job *job, int epoll, msb_error *err)
{
    msb_event event = MSB_EVENT_INIT;
    msb_status rc;

    while ((rc = msb_exec_recv(job->exec, 0, &event, err)) == MSB_OK) {
        if (event.kind == MSB_EVENT_STDOUT)
            job->bytes += event.len;
        else if (event.kind == MSB_EVENT_EXITED)
            job->code = event.exit->code;
        else if (event.kind == MSB_EVENT_FAILED)
            fprintf(stderr, "poll: %s\n", event.failure->message);
        else if (event.kind == MSB_EVENT_LOST)
            fprintf(stderr, "poll: %.*s\n", (int)event.len, (const char *)event.data);
        msb_event_release(&event); /* else the command blocks when its window is full */
    }
    if (rc < 0)
        die("reading events", err);
    if (rc == MSB_AGAIN)
        return 0;
    epoll_ctl(epoll, EPOLL_CTL_DEL, job->fd, NULL); /* before it is closed with its handle */
    msb_handle_close(job->exec);
    return 1;
}

int main(int argc, char **argv)
{
    msb_error err = MSB_ERROR_INIT;
    msb_sandbox_options options = MSB_SANDBOX_OPTIONS_INIT;
    msb_sandbox *sandbox = NULL;
    struct epoll_event ready[64];
    int count = argc > 2 ? atoi(argv[2]) : 100, left, codes[3] = {0}, epoll = epoll_create1(0);
    struct job *jobs = calloc(count > 0 ? (size_t)count : 1, sizeof *jobs);
    uint64_t bytes = 0;
    char name[64];

    if (argc < 2 || count < 1 || epoll < 0 || !jobs) {
        fprintf(stderr, "usage: poll ROOTFS [COMMANDS]\n");
        return 2;
    }
    snprintf(name, sizeof name, "poll-%ld", (long)getpid());
    options.name = name;
    options.image = argv[1];
    if (msb_sandbox_create(&options, &sandbox, &err) < 0)
        die("creating the sandbox", &err);
    if (msb_sandbox_wait_ready(sandbox, -1, &err) < 0)
        die("starting the sandbox", &err);
    for (int i = 0; i < count; i++) {
        jobs[i].number = i;
        jobs[i].code = -1;
        begin(sandbox, &jobs[i], epoll, &err);
    }
    for (left = count; left > 0;) {
        int found = epoll_wait(epoll, ready, 64, -1);
        for (int i = 0; i < found; i++)
            left -= advance(ready[i].data.ptr, epoll, &err);
    }
    for (int i = 0; i < count; i++) {
        bytes += jobs[i].bytes;
        if (jobs[i].code >= 0 && jobs[i].code < 3)
            codes[jobs[i].code]++;
    }
    printf("%d commands, %" PRIu64 " bytes, exit codes 0: %d, 1: %d, 2: %d\n", count, bytes,
           codes[0], codes[1], codes[2]);
    free(jobs);
    close(epoll);
    msb_handle_close(sandbox);
    if (msb_sandbox_remove(name, MSB_REMOVE_FORCE, &err) < 0)
        die("removing the sandbox", &err);
    return 0;
}
