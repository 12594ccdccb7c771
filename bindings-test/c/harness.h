/* harness.h - registers tests, checks, reports.
 *
 * A test is a function named after the promise that it checks. A failed check prints its place,
 * condition and values. In the main thread it then ends the test; while helper threads run, which
 * may use the test's variables, and in those threads, it is only counted. A test that hangs ends
 * the program.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <inttypes.h>
#include <microsandbox.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Defines and registers a test: TEST(test_b1_events_come_in_order) { ... } */
#define TEST(name)                                                                                \
    static void name(void);                                                                       \
    __attribute__((constructor)) static void register_##name(void)                                \
    {                                                                                             \
        harness_register(#name, name);                                                            \
    }                                                                                             \
    static void name(void)

#define CHECK(condition)                                                                          \
    ((condition) ? (void)0 : harness_fail(__FILE__, __LINE__, "%s", #condition))

/* As CHECK, with a message in the form of printf. */
#define CHECK_SAY(condition, ...)                                                                 \
    ((condition) ? (void)0 : harness_fail(__FILE__, __LINE__, #condition ": " __VA_ARGS__))

#define CHECK_INT(actual, expected)                                                               \
    harness_int(__FILE__, __LINE__, #actual, (int64_t)(actual), (int64_t)(expected))

#define CHECK_TEXT(actual, expected)                                                              \
    harness_text(__FILE__, __LINE__, #actual, (actual), (expected))

/* Checks the status of a call whose last argument is `&err`, and what it wrote to `err`: nothing if
 * it did not fail, else a status, an origin and one line of text. */
#define CHECK_STATUS(call, expected)                                                              \
    harness_status(__FILE__, __LINE__, #call, (harness_arm(), (call)), (expected))
#define CHECK_OK(call) CHECK_STATUS(call, MSB_OK)

/* The `err` of the calls of this thread. */
extern _Thread_local msb_error err;

void harness_register(const char *name, void (*run)(void));
void harness_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void harness_int(const char *file, int line, const char *what, int64_t actual, int64_t expected);
void harness_text(const char *file, int line, const char *what, const char *actual,
                  const char *expected);
void harness_arm(void);
void harness_status(const char *file, int line, const char *call, msb_status actual,
                    msb_status expected);

/* Prints a measured number below the test's line. */
void harness_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

int64_t now_ms(void);

/* For main: prepares, runs the tests that the arguments select, and cleans up after them; returns
 * the number of failures. */
void harness_begin(void);
void harness_run(int argc, char **argv, int *passed, int *failed);
int harness_end(void (*clean_up)(void));

/* A helper thread; checks of the main thread only count until it was joined. */
typedef pthread_t helper;
helper helper_start(void *(*run)(void *), void *argument);
void helper_join(helper thread);

/* Tests with much data divide its size by this: MSB_TEST_SCALE, else 1. Above 1, times and memory
 * are not checked, since the program runs slowly, under valgrind for example. */
unsigned harness_scale(void);

#endif
