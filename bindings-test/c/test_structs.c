/* test_structs.c - promises I: struct_size, statuses, and the detail of a failure. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A struct of a later version, with more fields at its end. */
#define LATER(type)                                                                               \
    struct {                                                                                      \
        type known;                                                                               \
        uint8_t tail[64];                                                                         \
    }

TEST(test_i_options_of_other_size_lose_nothing)
{
    LATER(msb_exec_options) later;
    msb_exec_options *options = &later.known;
    uint32_t wrong[] = {0, 4, 8, sizeof *options - 1, 4097, UINT32_MAX};
    struct outcome outcome = {0};
    msb_exec *exec = NULL;

    memset(&later, 0, sizeof later);
    *options = command("true");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options->struct_size = wrong[i];
        CHECK_STATUS(msb_exec_stream(shared(), options, &exec, NULL, &err), MSB_E_INVALID);
    }
    options->struct_size = sizeof later;
    for (size_t i = 0; i < sizeof later.tail; i++) {
        later.tail[i] = 1;
        CHECK_STATUS(msb_exec_stream(shared(), options, &exec, NULL, &err), MSB_E_UNSUPPORTED);
        later.tail[i] = 0;
    }
    CHECK(exec == NULL);
    finish(start(shared(), options, NULL), &outcome);
    CHECK_INT(outcome.exit.code, 0);
    forget(&outcome);
}

TEST(test_i_sandbox_options_of_other_size_lose_nothing)
{
    LATER(msb_sandbox_options) later;
    msb_sandbox_options *options = &later.known;
    uint32_t wrong[] = {0, 4, 8, sizeof *options - 1, 4097, UINT32_MAX};
    msb_sandbox *sandbox = NULL;

    memset(&later, 0, sizeof later);
    *options = sandbox_named("size");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options->struct_size = wrong[i];
        CHECK_STATUS(msb_sandbox_create(options, &sandbox, &err), MSB_E_INVALID);
    }
    options->struct_size = sizeof later;
    later.tail[63] = 1;
    CHECK_STATUS(msb_sandbox_create(options, &sandbox, &err), MSB_E_UNSUPPORTED);
    CHECK(sandbox == NULL);
    later.tail[63] = 0;
    CHECK_OK(msb_sandbox_create(options, &sandbox, &err));
    CHECK_OK(msb_sandbox_wait_ready(sandbox, -1, &err));
    sandbox_end(sandbox, "size");
}

TEST(test_i_options_are_lent_during_the_call)
{
    enum { LONG = 5000, INPUT = 100000 };
    for (int turn = 0; turn < 20; turn++) {
        char *arg = calloc(1, LONG + 1), *variable = calloc(1, LONG + 3);
        char *input = malloc(INPUT), *text = strdup("echo \"$0 $A\"; cat");
        const char *args[] = {arg}, *env[] = {variable};
        msb_exec_options options = script(text);
        struct outcome outcome = {0};
        msb_exec *exec;

        memset(arg, 'x', LONG);
        memset(variable, 'y', LONG + 2);
        memcpy(variable, "A=", 2);
        memset(input, 'z', INPUT);
        SET_ARRAY(options, args, args);
        SET_ARRAY(options, env, env);
        options.stdin_data = (const uint8_t *)input;
        options.stdin_len = INPUT;
        exec = start(shared(), &options, NULL);
        memset(arg, '!', LONG);
        memset(variable, '!', LONG + 2);
        memset(input, '!', INPUT);
        memset(text, '!', strlen(text));
        memset(&options, 0x55, sizeof options);
        free(arg);
        free(variable);
        free(input);
        free(text);
        finish(exec, &outcome);
        CHECK_INT(outcome.exit.code, 0);
        CHECK_INT(outcome.out.len, LONG + 1 + LONG + 1 + INPUT);
        CHECK_INT(strspn(outcome.out.data, "x"), LONG);
        CHECK_INT(strspn(outcome.out.data + LONG + 1, "y"), LONG);
        CHECK_INT(strspn(outcome.out.data + 2 * LONG + 2, "z"), INPUT);
        forget(&outcome);
    }
}

TEST(test_i_an_event_of_a_wrong_size_is_refused_and_loses_nothing)
{
    msb_exec_options options = script("echo one; exit 4");
    LATER(msb_event) later;
    uint32_t wrong[] = {0, 4, 8, sizeof(msb_event) - 1, 4097, UINT32_MAX};
    struct outcome outcome = {0};
    msb_exec *exec = start(shared(), &options, NULL);
    msb_event none = MSB_EVENT_INIT;

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memset(&later, 0x55, sizeof later);
        later.known.struct_size = wrong[i];
        CHECK_STATUS(msb_exec_recv(exec, -1, &later.known, &err), MSB_E_INVALID);
        msb_event_release(&later.known);
        for (size_t k = 4; k < sizeof later; k++)
            CHECK_INT(((uint8_t *)&later)[k], 0x55);
    }
    /* From a later version of the header: unknown fields are not changed. */
    memset(&later, 0x55, sizeof later);
    later.known = none;
    later.known.struct_size = sizeof later;
    CHECK_OK(msb_exec_recv(exec, -1, &later.known, &err));
    CHECK_INT(later.known.kind, MSB_EVENT_STARTED);
    CHECK_INT(later.known.struct_size, sizeof later);
    CHECK_INT(later.tail[0], 0x55);
    msb_event_release(&later.known);
    outcome.started = 1;
    finish(exec, &outcome);
    CHECK_TEXT(outcome.out.data, "one\n");
    CHECK_INT(outcome.exit.code, 4);
    forget(&outcome);
}

TEST(test_i_an_error_is_written_only_within_its_size)
{
    uint32_t sizes[] = {0, 3, 4, 8, 12, 16, 100, sizeof(msb_error), 600};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        LATER(msb_error) later;
        uint8_t *bytes = (uint8_t *)&later;
        size_t from = sizes[i] < sizeof(msb_error) ? sizes[i] : sizeof(msb_error);

        memset(&later, 0x55, sizeof later);
        later.known.struct_size = sizes[i];
        CHECK_INT(msb_sandbox_remove(NULL, 0, &later.known), MSB_E_INVALID);
        CHECK_INT(later.known.struct_size, sizes[i]);
        if (sizes[i] >= 8)
            CHECK_INT(later.known.status, MSB_E_INVALID);
        if (sizes[i] >= 16)
            CHECK_INT(later.known.origin, MSB_ORIGIN_CALLER);
        if (sizes[i] >= sizeof(msb_error))
            CHECK(memchr(later.known.message, 0, MSB_ERROR_MESSAGE_LEN) != NULL);
        for (size_t k = from < 4 ? 4 : from; k < sizeof later; k++)
            CHECK_INT(bytes[k], 0x55);
    }
}

TEST(test_i_message_is_one_terminated_line)
{
    char name[2000];
    msb_sandbox_options options = sandbox_named("message");
    msb_exec_options exec_options = command("true");
    msb_sandbox *sandbox = NULL;
    msb_exec *exec = NULL;
    const char *env[] = {"line\nbreak\r\n\x1b[31m"};

    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    CHECK_STATUS(msb_sandbox_remove(name, 0, &err), MSB_E_CONFIG);
    memset(name, '\n', 100);
    CHECK_STATUS(msb_sandbox_remove(name, 0, &err), MSB_E_CONFIG);
    SET_ARRAY(exec_options, env, env);
    CHECK_STATUS(msb_exec_stream(shared(), &exec_options, &exec, NULL, &err), MSB_E_INVALID);
    CHECK(!strchr(err.message, 0x1b));
    options.image = "/nonexistent/\n\n/rootfs";
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    CHECK_STATUS(msb_sandbox_wait_ready(sandbox, -1, &err), MSB_E_CONFIG);
    CHECK_STATUS(msb_sandbox_stop(sandbox, 0, &err), MSB_E_CONFIG);
    CHECK_STATUS(msb_exec_stream(sandbox, &exec_options, &exec, NULL, &err), MSB_E_CONFIG);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    options = sandbox_named("message");
    options.driver = "no-such-driver";
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    harness_arm();
    CHECK(msb_sandbox_wait_ready(sandbox, -1, &err) < 0);
    CHECK(strstr(err.message, "no-such-driver") != NULL);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
}

TEST(test_i_every_status_has_its_name)
{
#define NAMED(status) CHECK_TEXT(msb_status_name(status), #status)
    NAMED(MSB_OK), NAMED(MSB_AGAIN), NAMED(MSB_EOF);
    NAMED(MSB_E_INVALID), NAMED(MSB_E_HANDLE), NAMED(MSB_E_CLOSED), NAMED(MSB_E_BUSY);
    NAMED(MSB_E_UNSUPPORTED), NAMED(MSB_E_LIMIT), NAMED(MSB_E_IO), NAMED(MSB_E_INTERNAL);
    NAMED(MSB_E_PROTOCOL), NAMED(MSB_E_TIMED_OUT), NAMED(MSB_E_CONFIG), NAMED(MSB_E_NOT_FOUND);
    NAMED(MSB_E_EXISTS), NAMED(MSB_E_NOT_RUNNING), NAMED(MSB_E_RUNNING), NAMED(MSB_E_NO_DRIVER);
    NAMED(MSB_E_BOOT), NAMED(MSB_E_CRASHED), NAMED(MSB_E_EXEC_FAILED), NAMED(MSB_E_EXEC_TIMEOUT);
    NAMED(MSB_E_LOST), NAMED(MSB_E_PIPE), NAMED(MSB_E_NO_PROCESS), NAMED(MSB_E_NO_SESSION);
    NAMED(MSB_E_NOT_A_TERMINAL);
#undef NAMED
    for (msb_status status = 3; status < 1000; status++)
        CHECK_TEXT(msb_status_name(status), "MSB_E_UNKNOWN");
    CHECK_TEXT(msb_status_name(INT32_MIN), "MSB_E_UNKNOWN");
    CHECK_TEXT(msb_status_name(INT32_MAX), "MSB_E_UNKNOWN");
}

TEST(test_i_the_library_has_the_headers_version)
{
    int major, minor, patch;

    CHECK_INT(msb_abi_version(), MSB_ABI_VERSION);
    CHECK_INT(sscanf(msb_version_string(), "%d.%d.%d", &major, &minor, &patch), 3);
}
