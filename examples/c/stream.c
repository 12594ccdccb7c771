/* stream.c - start a sandbox, stream a command, feed its input, print every event.
 *
 *   cc stream.c -lmicrosandbox -o stream
 *   MSB_DRIVER=container ./stream ./rootfs
 *
 * The command reads lines and answers each, so that input and output flow at once.
 */
#include <inttypes.h>
#include <microsandbox.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Prints what failed and exits. A sandbox that is not detached ends with the process. */
static void die(const char *what, const msb_error *err)
{
    fprintf(stderr, "stream: %s: %s (%s)\n", what, err->message, msb_status_name(err->status));
    exit(1);
}

/* Writes all of `text`: one call may write only a part. */
static void feed(msb_sink *sink, const char *text, msb_error *err)
{
    const uint8_t *data = (const uint8_t *)text;
    size_t left = strlen(text), written = 0;

    while (left > 0) {
        if (msb_sink_write(sink, data, left, -1, &written, err) != MSB_OK)
            die("writing to the command", err);
        data += written;
        left -= written;
    }
}

/* Prints one event. Its data is bytes, not a string. */
static void print(const msb_event *event)
{
    switch (event->kind) {
    case MSB_EVENT_STARTED:
        printf("started  pid %" PRId64 "\n", event->value);
        break;
    case MSB_EVENT_STDOUT:
    case MSB_EVENT_STDERR:
        printf("%s   ", event->kind == MSB_EVENT_STDOUT ? "stdout" : "stderr");
        fwrite(event->data, 1, event->len, stdout);
        break;
    case MSB_EVENT_STDIN_ERROR:
        printf("stdin    no longer read (errno %" PRId64 ")\n", event->value);
        break;
    case MSB_EVENT_EXITED:
        printf("exited   code %" PRId64 ", signal %" PRId32 ", %" PRIu64 " KiB at most\n",
               event->value, event->exit->signal, event->exit->max_rss / 1024);
        break;
    case MSB_EVENT_FAILED:
        printf("failed   %s at %s: %s: %s\n", event->failure->kind_name, event->failure->stage,
               event->failure->path, event->failure->message);
        break;
    case MSB_EVENT_LOST:
        printf("lost     %.*s\n", (int)event->len, (const char *)event->data);
        break;
    default:
        break; /* a later version of the library may add kinds */
    }
    fflush(stdout);
}

int main(int argc, char **argv)
{
    msb_error err = MSB_ERROR_INIT;
    msb_event event = MSB_EVENT_INIT;
    msb_sandbox_options sandbox_options = MSB_SANDBOX_OPTIONS_INIT;
    msb_exec_options exec_options = MSB_EXEC_OPTIONS_INIT;
    msb_sandbox *sandbox = NULL;
    msb_exec *exec = NULL;
    msb_sink *sink = NULL;
    msb_status rc;
    char name[64];
    int code = 1;

    if (argc != 2) {
        fprintf(stderr, "usage: stream ROOTFS\n");
        return 2;
    }
    snprintf(name, sizeof name, "stream-%ld", (long)getpid());
    sandbox_options.name = name;
    sandbox_options.image = argv[1];
    if (msb_sandbox_create(&sandbox_options, &sandbox, &err) < 0)
        die("creating the sandbox", &err);
    if (msb_sandbox_wait_ready(sandbox, -1, &err) < 0)
        die("starting the sandbox", &err);

    exec_options.cmd = "echo ready; while read -r line; do echo \"you said: $line\"; done; "
                       "echo goodbye >&2; exit 7";
    exec_options.flags = MSB_EXEC_SHELL;
    if (msb_exec_stream(sandbox, &exec_options, &exec, &sink, &err) < 0)
        die("starting the command", &err);
    feed(sink, "hello\nfrom the host\n", &err);
    msb_handle_close(sink); /* the end of its input */

    while ((rc = msb_exec_recv(exec, -1, &event, &err)) == MSB_OK) {
        print(&event);
        if (event.kind == MSB_EVENT_EXITED)
            code = event.value == 7 ? 0 : 1;
        msb_event_release(&event);
    }
    if (rc != MSB_EOF)
        die("reading events", &err);
    msb_handle_close(exec);

    if (msb_sandbox_stop(sandbox, 1000, &err) < 0)
        die("stopping the sandbox", &err);
    msb_handle_close(sandbox);
    if (msb_sandbox_remove(name, 0, &err) < 0)
        die("removing the sandbox", &err);
    return code;
}
