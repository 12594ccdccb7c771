/* collect.c - run one command, print its output, exit with its code.
 *
 *   cc collect.c -lmicrosandbox -o collect
 *   MSB_DRIVER=container ./collect ./rootfs ls -l /
 *
 * Exits like a shell: with the command's code, 128 plus the number of the signal that killed it,
 * 127 if the program does not exist, 126 if it cannot be run; and with 124 if the command timed
 * out, 125 on any other failure.
 */
#include <inttypes.h>
#include <microsandbox.h>
#include <stdio.h>
#include <unistd.h>

static const uint64_t SECOND = 1000000000;

static int failed(const char *what, const msb_error *err)
{
    fprintf(stderr, "collect: %s: %s (%s)\n", what, err->message, msb_status_name(err->status));
    return 125;
}

/* Converts the end of the command to an exit code. */
static int code_of(const msb_output *output)
{
    switch (output->kind) {
    case MSB_EVENT_EXITED:
        if (output->exit->flags & MSB_EXIT_TIMED_OUT) {
            fprintf(stderr, "collect: the command timed out\n");
            return 124;
        }
        return output->exit->signal ? 128 + output->exit->signal : output->exit->code;
    case MSB_EVENT_FAILED:
        fprintf(stderr, "collect: %s: %s\n", output->failure->path, output->failure->message);
        return output->failure->kind == MSB_FAILURE_NOT_FOUND ? 127 : 126;
    case MSB_EVENT_LOST:
        fprintf(stderr, "collect: %.*s\n", (int)output->lost_len, (const char *)output->lost);
        return 125;
    default: /* a later version of the library may add kinds */
        return 125;
    }
}

static int run(msb_sandbox *sandbox, char **words, size_t count, msb_error *err)
{
    msb_exec_options options = MSB_EXEC_OPTIONS_INIT;
    msb_output output = MSB_OUTPUT_INIT;
    msb_exec *exec = NULL;
    int code;

    options.cmd = words[0];
    options.args = (const char *const *)words + 1;
    options.args_len = count - 1;
    options.timeout_ns = 60 * SECOND;
    options.max_output = 16 << 20; /* 0 means no limit */
    if (msb_exec_stream(sandbox, &options, &exec, NULL, err) < 0)
        return failed("running the command", err);
    /* Success of the call; the command may have failed. Its timeout bounds the wait. */
    if (msb_exec_collect(exec, -1, &output, err) < 0) {
        msb_handle_close(exec);
        return failed("collecting its output", err);
    }
    /* Bytes, not text; NULL if empty. */
    if (output.stdout_len > 0)
        fwrite(output.stdout_data, 1, output.stdout_len, stdout);
    if (output.stderr_len > 0)
        fwrite(output.stderr_data, 1, output.stderr_len, stderr);
    if (output.flags & MSB_OUTPUT_TRUNCATED)
        fprintf(stderr, "collect: cut; in all there were %" PRIu64 " and %" PRIu64 " bytes\n",
                output.stdout_total, output.stderr_total);
    code = code_of(&output);
    msb_output_release(&output);
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

    if (argc < 3) {
        fprintf(stderr, "usage: collect ROOTFS COMMAND [ARGUMENT...]\n");
        return 125;
    }
    snprintf(name, sizeof name, "collect-%ld", (long)getpid());
    options.name = name;
    options.image = argv[1];
    if (msb_sandbox_create(&options, &sandbox, &err) < 0)
        return failed("creating the sandbox", &err);
    if (msb_sandbox_wait_ready(sandbox, -1, &err) < 0)
        return failed("starting the sandbox", &err);
    code = run(sandbox, argv + 2, (size_t)argc - 2, &err);
    msb_handle_close(sandbox);
    if (msb_sandbox_remove(name, MSB_REMOVE_FORCE, &err) < 0)
        return failed("removing the sandbox", &err);
    return code;
}
