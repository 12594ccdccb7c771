/* interactive.c - a shell in a sandbox, for a person or a pipe.
 *
 *   cc interactive.c -lmicrosandbox -o interactive
 *   MSB_DRIVER=container ./interactive ./rootfs                      on a terminal
 *   echo 'uname -a' | MSB_DRIVER=container ./interactive ./rootfs    without one
 *
 * On a terminal, msb_attach does everything. Without one, a single thread forwards input and output
 * as they arrive, with poll over both.
 */
#include <microsandbox.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void die(const char *what, const msb_error *err)
{
    fprintf(stderr, "interactive: %s: %s (%s)\n", what, err->message,
            msb_status_name(err->status));
    exit(125);
}

/* Attaches the terminal to a shell. The session survives detaching with ctrl-]; here its sandbox
 * does not. */
static int attach(msb_sandbox *sandbox, msb_error *err)
{
    uint32_t flags = 0;
    int32_t code = 0;

    if (msb_attach(sandbox, NULL, &code, &flags, err) < 0)
        die("attaching", err);
    if (flags & MSB_ATTACH_DETACHED) {
        fprintf(stderr, "\ninteractive: detached\n");
        return 0;
    }
    return code;
}

/* Receives all available events. Returns true at the end of the stream. */
static int pass_output(msb_exec *exec, int *code, msb_error *err)
{
    msb_event event = MSB_EVENT_INIT;
    msb_status rc;

    while ((rc = msb_exec_recv(exec, 0, &event, err)) == MSB_OK) {
        if (event.kind == MSB_EVENT_STDOUT || event.kind == MSB_EVENT_STDERR) {
            FILE *to = event.kind == MSB_EVENT_STDOUT ? stdout : stderr;
            fwrite(event.data, 1, event.len, to);
            fflush(to);
        } else if (event.kind == MSB_EVENT_EXITED) {
            *code = event.exit->signal ? 128 + event.exit->signal : event.exit->code;
        } else if (event.kind == MSB_EVENT_FAILED) {
            fprintf(stderr, "interactive: %s\n", event.failure->message);
        } else if (event.kind == MSB_EVENT_LOST) {
            fprintf(stderr, "interactive: %.*s\n", (int)event.len, (const char *)event.data);
        }
        msb_event_release(&event);
    }
    if (rc < 0)
        die("reading events", err);
    return rc == MSB_EOF;
}

static int feed(msb_sandbox *sandbox, msb_error *err)
{
    msb_exec_options options = MSB_EXEC_OPTIONS_INIT;
    struct pollfd fds[2] = {{-1, POLLIN, 0}, {-1, POLLIN, 0}};
    static uint8_t buffer[4096];
    size_t held = 0, done = 0, written;
    msb_exec *exec = NULL;
    msb_sink *sink = NULL;
    int32_t output, room;
    int code = 125, over = 0;

    options.cmd = "sh";
    if (msb_exec_stream(sandbox, &options, &exec, &sink, err) < 0)
        die("starting the shell", err);
    if (msb_handle_fd(exec, &output, err) < 0 || msb_handle_fd(sink, &room, err) < 0)
        die("getting descriptors", err);
    fds[0].fd = output;
    while (!over) {
        /* Poll the input only if everything read before is written; else poll the sink for room. */
        fds[1].fd = !sink ? -1 : done < held ? room : STDIN_FILENO;
        if (poll(fds, 2, -1) < 0)
            continue;
        over = pass_output(exec, &code, err);
        if (!sink || over || !fds[1].revents)
            continue;
        if (done == held) {
            ssize_t count = read(STDIN_FILENO, buffer, sizeof buffer);
            done = 0;
            held = count > 0 ? (size_t)count : 0;
        }
        if (held == 0) {
            msb_handle_close(sink); /* the end of the shell's input */
            sink = NULL;
            continue;
        }
        switch (msb_sink_write(sink, buffer + done, held - done, 0, &written, err)) {
        case MSB_OK:
            done += written;
            break;
        case MSB_AGAIN:
            break;
        default: /* MSB_E_PIPE: it no longer reads its input. Its exit event follows. */
            msb_handle_close(sink);
            sink = NULL;
        }
    }
    msb_handle_close(sink); /* NULL is fine */
    msb_handle_close(exec);
    return code;
}

int main(int argc, char **argv)
{
    msb_error err = MSB_ERROR_INIT;
    msb_sandbox_options options = MSB_SANDBOX_OPTIONS_INIT;
    msb_sandbox *sandbox = NULL;
    char name[64];
    int code;

    if (argc != 2) {
        fprintf(stderr, "usage: interactive ROOTFS\n");
        return 125;
    }
    snprintf(name, sizeof name, "interactive-%ld", (long)getpid());
    options.name = name;
    options.image = argv[1];
    if (msb_sandbox_create(&options, &sandbox, &err) < 0)
        die("creating the sandbox", &err);
    if (msb_sandbox_wait_ready(sandbox, -1, &err) < 0)
        die("starting the sandbox", &err);
    code = isatty(STDIN_FILENO) ? attach(sandbox, &err) : feed(sandbox, &err);
    msb_handle_close(sandbox);
    if (msb_sandbox_remove(name, MSB_REMOVE_FORCE, &err) < 0)
        die("removing the sandbox", &err);
    return code;
}
