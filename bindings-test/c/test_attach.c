/* test_attach.c - promises H, and D1: a terminal attached to a session.
 *
 * Each test creates a pseudo-terminal and runs this program again on it: test_h_the_child, which
 * performs the task in its environment with the terminal as standard input and output, and writes
 * its results to a file.
 */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

/* The terminal of a test, and the program on it. */
struct screen {
    int master, slave;
    struct termios before;
    pid_t child;
    char report[64]; /* the file that the child writes */
    struct buffer seen;
};

static void open_screen(struct screen *screen)
{
    struct winsize size = {30, 100, 0, 0};
    int fd;

    memset(screen, 0, sizeof *screen);
    screen->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(screen->master >= 0 && grantpt(screen->master) == 0 && unlockpt(screen->master) == 0);
    screen->slave = open(ptsname(screen->master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(screen->slave >= 0);
    CHECK_INT(ioctl(screen->slave, TIOCSWINSZ, &size), 0);
    CHECK_INT(tcgetattr(screen->slave, &screen->before), 0);
    strcpy(screen->report, "/tmp/msb-test-attach-XXXXXX");
    fd = mkstemp(screen->report);
    CHECK(fd >= 0);
    close(fd);
}

/* Runs this program on the terminal: performs WHAT in the shared sandbox, with an argument. */
static void run_on(struct screen *screen, const char *what, const char *text)
{
    char self[256] = "", task[1024];

    shared();
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    snprintf(task, sizeof task, "%s %s %s", what, screen->report, text);
    fflush(NULL);
    screen->child = fork();
    if (screen->child == 0) {
        setsid();
        if (dup2(screen->slave, 0) < 0 || dup2(screen->slave, 1) < 0 ||
            ioctl(0, TIOCSCTTY, 0) < 0)
            _exit(9);
        setenv("MSB_TEST_OTHER", task, 1);
        execl(self, self, "test_h_the_child", (char *)NULL);
        _exit(9);
    }
    CHECK(screen->child > 0);
}

/* Reads from the terminal until a text appears, also in what was read before. */
static void see(struct screen *screen, const char *text)
{
    int64_t begin = now_ms();
    char piece[4096];

    while (!screen->seen.data || !strstr(screen->seen.data, text)) {
        struct pollfd fd = {screen->master, POLLIN, 0};
        ssize_t count = 0;
        if (poll(&fd, 1, 1000) == 1)
            count = read(screen->master, piece, sizeof piece);
        if (count > 0) {
            screen->seen.data = realloc(screen->seen.data, screen->seen.len + (size_t)count + 1);
            memcpy(screen->seen.data + screen->seen.len, piece, (size_t)count);
            screen->seen.len += (size_t)count;
            screen->seen.data[screen->seen.len] = 0;
        }
        if (now_ms() - begin > 20000) {
            CHECK_SAY(false, "\"%s\" was not seen, but: %s", text,
                      screen->seen.data ? screen->seen.data : "");
            return;
        }
    }
}

static void type(struct screen *screen, const char *text)
{
    CHECK_INT(write(screen->master, text, strlen(text)), (int64_t)strlen(text));
}

/* Waits for the program's end, and checks its report. The terminal's settings must be restored. */
static void ends_with(struct screen *screen, const char *report)
{
    struct termios after;
    char text[512] = "";
    int status = -1;
    FILE *file;

    for (int i = 0; i < 2000 && waitpid(screen->child, &status, WNOHANG) == 0; i++)
        sleep_ms(10);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        kill(screen->child, SIGKILL);
    file = fopen(screen->report, "r");
    if (file && !fgets(text, sizeof text, file))
        text[0] = 0;
    if (file)
        fclose(file);
    unlink(screen->report);
    CHECK_TEXT(text, report);
    CHECK_INT(status, 0);
    CHECK_INT(tcgetattr(screen->slave, &after), 0);
    CHECK(after.c_iflag == screen->before.c_iflag && after.c_oflag == screen->before.c_oflag);
    CHECK(after.c_cflag == screen->before.c_cflag && after.c_lflag == screen->before.c_lflag);
    CHECK(memcmp(after.c_cc, screen->before.c_cc, sizeof after.c_cc) == 0);
    close(screen->master);
    close(screen->slave);
    free(screen->seen.data);
}

/* ---- The child. */

static FILE *report_file;

/* Reports the result of a call, and whether the terminal's settings are restored. */
static void report(msb_status rc, int32_t code, uint32_t flags)
{
    struct termios now;
    bool cooked = tcgetattr(0, &now) == 0 && (now.c_lflag & ICANON);

    fprintf(report_file, "%s %d %u%s;", msb_status_name(rc), (int)code, (unsigned)flags,
            cooked || !isatty(0) ? "" : " still raw");
    fflush(report_file);
}

static void attach(msb_sandbox *sandbox, const msb_attach_options *options)
{
    int32_t code = 77;
    uint32_t flags = 77;
    msb_status rc;

    harness_arm();
    rc = msb_attach(sandbox, options, &code, &flags, &err);
    if (rc == MSB_OK)
        harness_status(__FILE__, __LINE__, "msb_attach", rc, MSB_OK);
    report(rc, code, flags);
}

struct other {
    msb_sandbox *sandbox;
    const char *file;
};

/* Closes the handle as soon as a file exists. */
static void *closes(void *argument)
{
    struct other *other = argument;
    msb_sandbox *own = NULL;
    char text[128];

    CHECK_OK(msb_sandbox_open("shared", 0, &own, &err));
    CHECK_OK(msb_sandbox_wait_ready(own, -1, &err));
    snprintf(text, sizeof text, "until [ -e %s ]; do usleep 10000; done", other->file);
    sh_in(own, text);
    CHECK_INT(msb_handle_close(other->sandbox), MSB_OK);
    CHECK_INT(msb_handle_close(own), MSB_OK);
    return NULL;
}

/* Attaches a second time while the first attach uses the terminal. */
static void *attaches_too(void *argument)
{
    struct other *other = argument;
    struct termios now;
    char text[128];

    /* The command may run shortly before the terminal is raw. */
    while (tcgetattr(0, &now) == 0 && (now.c_lflag & ICANON))
        sleep_ms(1);
    attach(other->sandbox, NULL);
    snprintf(text, sizeof text, "touch %s-done", other->file);
    sh_in(other->sandbox, text);
    return NULL;
}

TEST(test_h_the_child)
{
    const char *task = getenv("MSB_TEST_OTHER");
    msb_attach_options options = MSB_ATTACH_OPTIONS_INIT;
    msb_exec_options exec = MSB_EXEC_OPTIONS_INIT;
    char what[32], path[64], text[900] = "";
    msb_sandbox *sandbox = NULL;

    if (!task)
        return;
    CHECK(sscanf(task, "%31s %63s %899[^\n]", what, path, text) >= 2);
    report_file = fopen(path, "w");
    CHECK(report_file != NULL);
    CHECK_OK(msb_sandbox_open("shared", 0, &sandbox, &err));
    CHECK_OK(msb_sandbox_wait_ready(sandbox, -1, &err));
    exec = script(text);
    options.exec = &exec;
    if (strcmp(what, "run") == 0) {
        attach(sandbox, &options);
    } else if (strcmp(what, "shell") == 0) {
        attach(sandbox, NULL);
    } else if (strcmp(what, "missing") == 0) {
        exec = command("nonexistent");
        attach(sandbox, &options);
    } else if (strcmp(what, "keys") == 0) {
        options.detach_keys = "ctrl-p,ctrl-q";
        attach(sandbox, &options);
    } else if (strcmp(what, "session") == 0) {
        options.exec = NULL;
        options.session = text;
        attach(sandbox, &options);
    } else if (strcmp(what, "twice") == 0) {
        attach(sandbox, &options);
        attach(sandbox, &options);
    } else if (strcmp(what, "closed") == 0) {
        struct other other = {sandbox, "/tmp/h-closed"};
        helper thread = helper_start(closes, &other);
        attach(sandbox, &options);
        helper_join(thread);
        sandbox = NULL;
    } else if (strcmp(what, "busy") == 0) {
        struct other other = {sandbox, "/tmp/h-busy"};
        helper thread = helper_start(attaches_too, &other);
        attach(sandbox, &options);
        helper_join(thread);
    } else {
        CHECK_SAY(false, "%s", what);
    }
    fclose(report_file);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
}

/* ---- The tests. */

TEST(test_h1_attach_forwards_io_and_returns_the_exit_code)
{
    struct screen screen;

    open_screen(&screen);
    run_on(&screen, "run", "stty size; echo ready; read -r line; echo got $line; exit 42");
    see(&screen, "ready");
    CHECK(strstr(screen.seen.data, "30 100") != NULL);
    type(&screen, "hello\r");
    see(&screen, "got hello");
    ends_with(&screen, "MSB_OK 42 0;");
}

TEST(test_h1_exit_by_signal_is_128_plus_its_number)
{
    struct screen screen;

    open_screen(&screen);
    run_on(&screen, "run", "echo ready; kill -KILL $$");
    ends_with(&screen, "MSB_OK 137 0;");
}

TEST(test_h1_default_command_is_the_sandboxs_shell)
{
    struct screen screen;

    open_screen(&screen);
    run_on(&screen, "shell", "");
    type(&screen, "echo $((40+2)); exit 3\r");
    see(&screen, "\n42");
    ends_with(&screen, "MSB_OK 3 0;");
}

TEST(test_h1_resize_of_the_terminal_is_forwarded)
{
    struct winsize size = {50, 132, 0, 0};
    struct screen screen;

    open_screen(&screen);
    run_on(&screen, "run", "trap 'stty size; exit 0' WINCH; echo ready; while :; do "
                           "usleep 10000; done");
    see(&screen, "ready");
    CHECK_INT(ioctl(screen.master, TIOCSWINSZ, &size), 0);
    see(&screen, "50 132");
    ends_with(&screen, "MSB_OK 0 0;");
}

TEST(test_h1_a_command_that_cannot_start_is_a_failure_of_the_call)
{
    struct screen screen;

    open_screen(&screen);
    run_on(&screen, "missing", "");
    ends_with(&screen, "MSB_E_EXEC_FAILED 77 77;");
}

TEST(test_h2_the_detach_keys_leave_the_session_running)
{
    struct screen screen;

    open_screen(&screen);
    run_on(&screen, "run", "rm -f /tmp/h2; echo ready; read -r line; echo $line >/tmp/h2; sleep 1");
    see(&screen, "ready");
    type(&screen, "typed before\r\x1d");
    ends_with(&screen, "MSB_OK -1 1;");
    wait_until("[ -s /tmp/h2 ]");
    CHECK_TEXT(sh("cat /tmp/h2"), "typed before\n");
}

TEST(test_h2_partial_detach_keys_are_sent_whole_ones_detach)
{
    struct screen screen;

    open_screen(&screen);
    run_on(&screen, "keys", "stty -echo raw; echo ready; head -c 3 | od -c | head -n 1; echo next; "
                            "cat");
    see(&screen, "ready");
    type(&screen, "\x10"
                  "ab");
    see(&screen, "next");
    CHECK(strstr(screen.seen.data, "020   a   b") != NULL);
    type(&screen, "\x10\x11");
    ends_with(&screen, "MSB_OK -1 1;");
}

TEST(test_h2_session_is_reattached_on_another_terminal)
{
    msb_exec_options options = script("echo ready; while read -r line; do echo got $line; "
                                      "[ \"$line\" = end ] && exit 5; done");
    msb_exec *exec;
    char id[MSB_SESSION_ID_LEN];
    struct outcome outcome = {0};
    struct screen screen;

    options.flags |= MSB_EXEC_TTY;
    exec = start(shared(), &options, NULL);
    CHECK_OK(msb_exec_id(exec, id, &err));
    while (outcome.out.len < 7)
        take(exec, &outcome, 10000);
    for (int i = 0; i < 2; i++) {
        open_screen(&screen);
        run_on(&screen, "session", id);
        type(&screen, i == 0 ? "one\r" : "end\r");
        see(&screen, i == 0 ? "got one" : "got end");
        if (i == 0)
            type(&screen, "\x1d");
        ends_with(&screen, i == 0 ? "MSB_OK -1 1;" : "MSB_OK 5 0;");
    }
    finish(exec, &outcome);
    CHECK_INT(outcome.exit.code, 5);
    CHECK(strstr(outcome.out.data, "got one") && strstr(outcome.out.data, "got end"));
    forget(&outcome);
}

TEST(test_h2_reattach_without_session_or_terminal_is_refused)
{
    msb_exec_options options = command("cat");
    msb_sink *sink = NULL;
    msb_exec *exec = start(shared(), &options, &sink);
    char id[MSB_SESSION_ID_LEN];
    struct screen screen;

    CHECK_OK(msb_exec_id(exec, id, &err));
    open_screen(&screen);
    run_on(&screen, "session", id);
    ends_with(&screen, "MSB_E_NOT_A_TERMINAL 77 77;");
    open_screen(&screen);
    run_on(&screen, "session", "00000000000000000000000000000000");
    ends_with(&screen, "MSB_E_NO_SESSION 77 77;");
    open_screen(&screen);
    run_on(&screen, "session", "none");
    ends_with(&screen, "MSB_E_INVALID 77 77;");
    CHECK_INT(msb_handle_close(sink), MSB_OK);
    CHECK_INT(msb_handle_close(exec), MSB_OK);
}

TEST(test_h1_one_attach_follows_another)
{
    struct screen screen;

    open_screen(&screen);
    run_on(&screen, "twice", "echo ready; exit 7");
    ends_with(&screen, "MSB_OK 7 0;MSB_OK 7 0;");
}

TEST(test_h1_concurrent_second_attach_is_busy)
{
    struct screen screen;

    sh("rm -f /tmp/h-busy-done");
    open_screen(&screen);
    run_on(&screen, "busy", "until [ -e /tmp/h-busy-done ]; do usleep 10000; done");
    /* Still raw: the first attach uses it. */
    ends_with(&screen, "MSB_E_BUSY 77 77 still raw;MSB_OK 0 0;");
}

TEST(test_d1_h1_sandbox_close_ends_attach_and_not_the_command)
{
    struct screen screen;

    sh("rm -f /tmp/h-closed /tmp/h-alive");
    open_screen(&screen);
    run_on(&screen, "closed", "trap '' HUP; touch /tmp/h-closed; until [ -e /tmp/h-go ]; do "
                              "usleep 10000; done; echo alive >/tmp/h-alive");
    ends_with(&screen, "MSB_E_CLOSED 77 77;");
    sh("touch /tmp/h-go");
    wait_until("[ -s /tmp/h-alive ]");
}

TEST(test_h1_without_a_terminal_nothing_is_started)
{
    int keep = dup(0), null = open("/dev/null", O_RDONLY);
    msb_exec_options exec = script("touch /tmp/h-started");
    msb_attach_options options = MSB_ATTACH_OPTIONS_INIT;
    int32_t code = 77;
    uint32_t flags = 77;
    msb_status rc;

    CHECK(keep >= 0 && null >= 0);
    shared();
    options.exec = &exec;
    dup2(null, 0);
    harness_arm();
    rc = msb_attach(shared(), &options, &code, &flags, &err);
    dup2(keep, 0);
    close(keep), close(null);
    harness_status(__FILE__, __LINE__, "msb_attach", rc, MSB_E_NOT_A_TERMINAL);
    CHECK(code == 77 && flags == 77);
    sh("! [ -e /tmp/h-started ]");
}

TEST(test_h_invalid_attach_options_are_refused)
{
    struct {
        msb_attach_options known;
        uint8_t tail[8];
    } later = {MSB_ATTACH_OPTIONS_INIT, {0}};
    msb_attach_options *options = &later.known;
    msb_exec_options exec = command("true");
    uint32_t wrong[] = {0, 4, sizeof *options - 1, 4097};
    const char *keys[] = {"", "ctrl-", "ctrl-,", ",", "xx", "ctrl-\xff"};
    int32_t code = 77;

#define REFUSED(status) CHECK_STATUS(msb_attach(shared(), options, &code, NULL, &err), status)
    CHECK_STATUS(msb_attach(shared(), NULL, NULL, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_attach(NULL, NULL, &code, NULL, &err), MSB_E_HANDLE);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options->struct_size = wrong[i];
        REFUSED(MSB_E_INVALID);
    }
    options->struct_size = sizeof later;
    later.tail[7] = 1;
    REFUSED(MSB_E_UNSUPPORTED);
    later.tail[7] = 0;
    for (int bit = 0; bit < 32; bit++) {
        options->flags = 1u << bit;
        REFUSED(MSB_E_INVALID);
    }
    options->flags = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        options->detach_keys = keys[i];
        harness_arm();
        CHECK_SAY(msb_attach(shared(), options, &code, NULL, &err) == MSB_E_INVALID, "\"%s\": %s",
                  keys[i], msb_status_name(err.status));
    }
    options->detach_keys = NULL;
    options->session = "00000000000000000000000000000000";
    options->exec = &exec;
    REFUSED(MSB_E_INVALID);
    options->session = NULL;
    exec.cmd = NULL;
    REFUSED(MSB_E_INVALID);
    exec = command("true");
    exec.flags = 1u << 31;
    REFUSED(MSB_E_INVALID);
    exec.flags = 0;
    exec.stdin_data = (const uint8_t *)"x";
    exec.stdin_len = 1;
    REFUSED(MSB_E_INVALID);
    CHECK_INT(code, 77);
#undef REFUSED
}
