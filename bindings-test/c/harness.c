/* harness.c - see harness.h. */
#include "harness.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOST_TESTS = 256, HANG_SECONDS = 60, POISON = 0x55 };

struct test {
    const char *name;
    void (*run)(void);
};

static struct test tests[MOST_TESTS];
static int test_count;
static const char *current = "";
static atomic_int failures;
static atomic_int helpers;
static pthread_t main_thread;
static jmp_buf end_of_test;
static char notes[4096];

_Thread_local msb_error err = MSB_ERROR_INIT;

void harness_register(const char *name, void (*run)(void))
{
    if (test_count == MOST_TESTS)
        abort();
    tests[test_count].name = name;
    tests[test_count++].run = run;
}

void harness_fail(const char *file, int line, const char *format, ...)
{
    va_list arguments;
    char text[2048];

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, current, text);
    atomic_fetch_add(&failures, 1);
    if (pthread_equal(pthread_self(), main_thread) && atomic_load(&helpers) == 0)
        longjmp(end_of_test, 1);
}

void harness_int(const char *file, int line, const char *what, int64_t actual, int64_t expected)
{
    if (actual != expected)
        harness_fail(file, line, "%s is %" PRId64 " (%#" PRIx64 "), not %" PRId64, what, actual,
                     (uint64_t)actual, expected);
}

void harness_text(const char *file, int line, const char *what, const char *actual,
                  const char *expected)
{
    if (actual == NULL || strcmp(actual, expected) != 0)
        harness_fail(file, line, "%s is \"%s\", not \"%s\"", what, actual ? actual : "(null)",
                     expected);
}

void harness_arm(void)
{
    memset(&err, POISON, sizeof err);
    err.struct_size = sizeof err;
}

static const char *err_is_wrong(msb_status status)
{
    const char *end = memchr(err.message, 0, sizeof err.message);
    msb_error untouched;

    if (err.struct_size != sizeof err)
        return "its struct_size changed";
    memset(&untouched, POISON, sizeof untouched);
    untouched.struct_size = sizeof untouched;
    if (status >= 0)
        return memcmp(&err, &untouched, sizeof err) == 0 ? NULL : "it was written without failure";
    if (err.status != status)
        return "it carries another status";
    if (err.origin < MSB_ORIGIN_CALLER || err.origin > MSB_ORIGIN_AGENT)
        return "its origin is none";
    if (end == NULL)
        return "its message does not end";
    if (end == err.message || strpbrk(err.message, "\r\n") || strstr(err.message, "  "))
        return "its message is not one tidy line";
    return NULL;
}

void harness_status(const char *file, int line, const char *call, msb_status actual,
                    msb_status expected)
{
    const char *wrong = err_is_wrong(actual);
    const char *message = actual < 0 && err.status == actual ? err.message : "";

    if (actual != expected)
        harness_fail(file, line, "%s says %s, not %s: %.495s (os error %d)", call,
                     msb_status_name(actual), msb_status_name(expected), message,
                     actual < 0 ? err.os_error : 0);
    else if (wrong)
        harness_fail(file, line, "msb_error after %s, %s: %s: \"%.495s\"", call,
                     msb_status_name(actual), wrong, message);
}

void harness_note(const char *format, ...)
{
    size_t used = strlen(notes);
    va_list arguments;

    used += (size_t)snprintf(notes + used, sizeof notes - used, "     ");
    va_start(arguments, format);
    vsnprintf(notes + used, sizeof notes - used, format, arguments);
    va_end(arguments);
    used = strlen(notes);
    snprintf(notes + used, sizeof notes - used, "\n");
}

helper helper_start(void *(*run)(void *), void *argument)
{
    pthread_t thread;

    atomic_fetch_add(&helpers, 1);
    if (pthread_create(&thread, NULL, run, argument) != 0) {
        perror("pthread_create");
        exit(2);
    }
    return thread;
}

void helper_join(helper thread)
{
    pthread_join(thread, NULL);
    /* The last helper thread has ended: failures that were only counted end the test now. */
    if (atomic_fetch_sub(&helpers, 1) == 1 && atomic_load(&failures) > 0)
        longjmp(end_of_test, 1);
}

unsigned harness_scale(void)
{
    const char *text = getenv("MSB_TEST_SCALE");
    int scale = text ? atoi(text) : 1;

    return scale > 0 ? (unsigned)scale : 1;
}

static void hung(int signal)
{
    static const char text[] = " hangs\n";

    (void)signal;
    /* Async-signal-safe calls only. */
    if (write(STDERR_FILENO, current, strlen(current)) < 0 ||
        write(STDERR_FILENO, text, sizeof text - 1) < 0)
        _exit(3);
    _exit(1);
}

int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static bool run(const struct test *test)
{
    int64_t before = now_ms();

    current = test->name;
    notes[0] = 0;
    atomic_store(&failures, 0);
    atomic_store(&helpers, 0);
    alarm(HANG_SECONDS * (harness_scale() > 1 ? 3 : 1));
    if (setjmp(end_of_test) == 0)
        test->run();
    alarm(0);
    printf("%s %s (%" PRId64 " ms)\n%s", atomic_load(&failures) ? "FAIL" : "ok  ", test->name,
           now_ms() - before, notes);
    fflush(stdout);
    return atomic_load(&failures) == 0;
}

static bool chosen(const char *name, int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        if (strstr(name, argv[i]))
            return true;
    return argc == 1;
}

void harness_begin(void)
{
    main_thread = pthread_self();
    signal(SIGALRM, hung);
}

void harness_run(int argc, char **argv, int *passed, int *failed)
{
    for (int i = 0; i < test_count; i++)
        if (chosen(tests[i].name, argc, argv))
            *(run(&tests[i]) ? passed : failed) += 1;
}

int harness_end(void (*clean_up)(void))
{
    current = "the end";
    atomic_store(&failures, 0);
    if (setjmp(end_of_test) == 0)
        clean_up();
    return atomic_load(&failures);
}
