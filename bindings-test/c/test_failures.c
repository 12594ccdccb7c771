/* test_failures.c - promises E: why a command failed to start, with pipes and with a terminal. */
#include "support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct expectation {
    uint32_t kind;
    int os_error;
    const char *kind_name, *stage, *os_error_name, *path;
};

static void fails(msb_exec_options options, struct expectation expected)
{
    for (int tty = 0; tty <= 1; tty++) {
        struct outcome outcome;
        options.flags = tty ? MSB_EXEC_TTY : 0;
        outcome = run_command(&options);
        CHECK_INT(outcome.ending, MSB_EVENT_FAILED);
        CHECK_INT(outcome.started, 0);
        CHECK_INT(outcome.failure.kind, expected.kind);
        CHECK_INT(outcome.failure.os_error, expected.os_error);
        CHECK_INT(outcome.failure.reserved, 0);
        CHECK_TEXT(outcome.kind_name, expected.kind_name);
        CHECK_TEXT(outcome.stage, expected.stage);
        CHECK_TEXT(outcome.os_error_name, expected.os_error_name);
        CHECK_TEXT(outcome.path, expected.path);
        CHECK_INT(outcome.end_flags, 0);
        forget(&outcome);
    }
}

static struct expectation execve_says(uint32_t kind, const char *kind_name, int os_error,
                                      const char *os_error_name, const char *path)
{
    return (struct expectation){kind, os_error, kind_name, "execve", os_error_name, path};
}

TEST(test_e_missing_program_is_not_found)
{
    const char *paths[] = {"nonexistent", "/bin/nonexistent", "bytes-\xff", "./bin/nonexistent"};

    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        fails(command(paths[i]),
              execve_says(MSB_FAILURE_NOT_FOUND, "not_found", ENOENT, "ENOENT", paths[i]));
}

TEST(test_e_program_without_execute_bit_is_permission_denied)
{
    msb_exec_options options = command("/work/for-root");

    options.user = "app";
    fails(command("/bin/not-permitted"),
          execve_says(MSB_FAILURE_PERMISSION_DENIED, "permission_denied", EACCES, "EACCES",
                      "/bin/not-permitted"));
    fails(options, execve_says(MSB_FAILURE_PERMISSION_DENIED, "permission_denied", EACCES,
                               "EACCES", "/work/for-root"));
}

TEST(test_e_unknown_executable_format_is_not_executable)
{
    fails(command("/bin/not-a-program"),
          execve_says(MSB_FAILURE_NOT_EXECUTABLE, "not_executable", ENOEXEC, "ENOEXEC",
                      "/bin/not-a-program"));
    fails(command("/bin/no-interpreter"),
          execve_says(MSB_FAILURE_NOT_EXECUTABLE, "not_executable", ENOENT, "ENOENT",
                      "/bin/no-interpreter"));
}

TEST(test_e_inaccessible_directory_is_bad_cwd)
{
    struct expectation expected = {MSB_FAILURE_BAD_CWD, ENOENT, "bad_cwd", "chdir", "ENOENT", ""};
    msb_exec_options options = command("true");

    options.cwd = expected.path = "/nonexistent";
    fails(options, expected);
    options.cwd = expected.path = "/etc/passwd";
    expected.os_error = ENOTDIR;
    expected.os_error_name = "ENOTDIR";
    fails(options, expected);
}

TEST(test_e_unknown_user_is_user_setup_failed)
{
    struct expectation expected = {MSB_FAILURE_USER_SETUP_FAILED, 0, "user_setup_failed",
                                   "resolve_user", "", ""};
    msb_exec_options options = command("true");

    options.user = expected.path = "nobody-knows";
    fails(options, expected);
    options.user = expected.path = "app:no-such-group";
    fails(options, expected);
}

TEST(test_e_arguments_that_are_too_long_are_bad_args)
{
    size_t sizes[] = {200 << 10, 9 << 20};

    for (int i = 0; i < 2; i++) {
        char *text = malloc(sizes[i]);
        const char *args[1] = {text};
        msb_exec_options options = command("true");

        if (!text)
            abort();
        memset(text, 'x', sizes[i]);
        text[sizes[i] - 1] = 0;
        SET_ARRAY(options, args, args);
        fails(options, execve_says(MSB_FAILURE_BAD_ARGS, "bad_args", E2BIG, "E2BIG", "true"));
        free(text);
    }
}

TEST(test_e_limit_above_the_hard_one_is_resource_limit)
{
    struct expectation expected = {MSB_FAILURE_RESOURCE_LIMIT, EPERM, "resource_limit", "rlimit",
                                   "EPERM", "true"};
    msb_rlimit limits[] = {{7, 0, UINT64_MAX, UINT64_MAX}};
    msb_exec_options options = command("true");

    SET_ARRAY(options, rlimits, limits);
    fails(options, expected);
}
