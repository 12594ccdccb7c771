/* bench.c - the cost of the C library, as ratios to a baseline in the same run.
 *
 *   bench ROOTFS
 *
 * Machines are noisy, so the variants of a comparison take turns and the result is the median of
 * the ratios of each turn. `make bench` builds and runs this.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <microsandbox.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)
#define BULK (256 * MIB)
#define PIECE ((size_t)65536)
#define MOST_TURNS 400
#define IDLE 1000

extern char **environ;

static char busybox[4096];
static msb_sandbox *sandbox;
static msb_error err = MSB_ERROR_INIT;
static uint8_t piece[PIECE];

static void die(const char *what)
{
    fprintf(stderr, "bench: %s: %s (%s)\n", what, err.message, msb_status_name(err.status));
    exit(1);
}

static void die_os(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int order(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;

    return (a > b) - (a < b);
}

static double median(const double *values, int count)
{
    double sorted[MOST_TURNS];

    memcpy(sorted, values, (size_t)count * sizeof *values);
    qsort(sorted, (size_t)count, sizeof *sorted, order);
    return sorted[count / 2];
}

/* A measured variant: its name and one turn of it. */
struct variant {
    const char *name;
    void (*run)(void);
    double seconds[MOST_TURNS];
};

/* Runs the variants in turns, `rest_ms` milliseconds apart. `amount` MiB per turn are reported as
 * MiB/s; 0 as microseconds. */
static void compare(const char *title, int turns, long rest_ms, double amount, struct variant *all,
                    int count)
{
    const struct timespec rest = {0, rest_ms * 1000000};

    printf("\n%s (%d turns)\n\n| | %s | ratio |\n| --- | ---: | ---: |\n", title, turns,
           amount > 0 ? "MiB/s" : "us");
    for (int turn = -1; turn < turns; turn++) /* the first turn warms caches */
        for (int i = 0; i < count; i++) {
            double begun;

            if (rest_ms > 0)
                nanosleep(&rest, NULL);
            begun = now();
            all[i].run();
            if (turn >= 0)
                all[i].seconds[turn] = now() - begun;
        }
    for (int i = 0; i < count; i++) {
        double ratios[MOST_TURNS], middle = median(all[i].seconds, turns);

        for (int turn = 0; turn < turns; turn++)
            ratios[turn] = all[i].seconds[turn] / all[0].seconds[turn];
        printf("| %s | %.0f | %.2f |\n", all[i].name, amount > 0 ? amount / middle : middle * 1e6,
               amount > 0 ? 1 / median(ratios, turns) : median(ratios, turns));
    }
    fflush(stdout);
}

/* Starts a program on the host with the given standard input and output. */
static pid_t spawn(char *const argv[], int in, int out)
{
    posix_spawn_file_actions_t actions;
    pid_t pid;

    posix_spawn_file_actions_init(&actions);
    if (in >= 0)
        posix_spawn_file_actions_adddup2(&actions, in, 0);
    if (out >= 0)
        posix_spawn_file_actions_adddup2(&actions, out, 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    errno = posix_spawn(&pid, busybox, &actions, NULL, argv, environ);
    if (errno != 0)
        die_os("posix_spawn");
    posix_spawn_file_actions_destroy(&actions);
    return pid;
}

static void reap(pid_t pid)
{
    int status;

    if (waitpid(pid, &status, 0) != pid || status != 0)
        die_os("running the baseline program");
}

static void run_bare(void)
{
    char *argv[] = {"true", NULL};

    reap(spawn(argv, -1, -1));
}

static msb_exec *start(const char *cmd, const char *const *args, size_t args_len, msb_sink **sink)
{
    msb_exec_options options = MSB_EXEC_OPTIONS_INIT;
    msb_exec *exec;

    options.cmd = cmd;
    options.args = args;
    options.args_len = args_len;
    if (msb_exec_stream(sandbox, &options, &exec, sink, &err) != MSB_OK)
        die(cmd);
    return exec;
}

static void expect_success(const msb_exec_exit *exit_)
{
    if (exit_ == NULL || exit_->code != 0) {
        fprintf(stderr, "bench: the command failed\n");
        exit(1);
    }
}

static void run_exec(void)
{
    msb_exec *exec = start("/bin/true", NULL, 0, NULL);
    msb_output output = MSB_OUTPUT_INIT;

    if (msb_exec_collect(exec, -1, &output, &err) != MSB_OK)
        die("msb_exec_collect");
    expect_success(output.exit);
    msb_output_release(&output);
    msb_handle_close(exec);
}

/* Output: `dd` writes zeros in blocks of 64 KiB. */
static void read_bare(int pipe_size)
{
    char count[32];
    char *argv[] = {"dd", "if=/dev/zero", "bs=65536", count, NULL};
    int ends[2];
    size_t total = 0;
    ssize_t got;
    pid_t pid;

    snprintf(count, sizeof count, "count=%zu", BULK / PIECE);
    if (pipe2(ends, O_CLOEXEC) < 0)
        die_os("pipe");
    if (pipe_size > 0 && fcntl(ends[0], F_SETPIPE_SZ, pipe_size) < 0)
        die_os("F_SETPIPE_SZ");
    pid = spawn(argv, -1, ends[1]);
    close(ends[1]);
    while ((got = read(ends[0], piece, sizeof piece)) > 0)
        total += (size_t)got;
    close(ends[0]);
    reap(pid);
    if (total != BULK)
        die_os("reading the pipe");
}

static void read_small_pipe(void)
{
    read_bare(0);
}

static void read_wide_pipe(void)
{
    read_bare(1 << 20);
}

static msb_exec *start_dd(void)
{
    char count[32];
    const char *args[] = {"if=/dev/zero", "bs=65536", count};

    snprintf(count, sizeof count, "count=%zu", BULK / PIECE);
    return start("dd", args, 3, NULL);
}

static void check_bulk(size_t total)
{
    if (total != BULK) {
        fprintf(stderr, "bench: received %zu bytes instead of %zu\n", total, BULK);
        exit(1);
    }
}

static void recv_single(void)
{
    msb_exec *exec = start_dd();
    msb_event event = MSB_EVENT_INIT;
    size_t total = 0;
    msb_status rc;

    while ((rc = msb_exec_recv(exec, -1, &event, &err)) == MSB_OK) {
        if (event.kind == MSB_EVENT_STDOUT)
            total += event.len;
        msb_event_release(&event);
    }
    if (rc != MSB_EOF)
        die("msb_exec_recv");
    msb_handle_close(exec);
    check_bulk(total);
}

static void recv_batches(void)
{
    msb_exec *exec = start_dd();
    msb_event events[64];
    size_t total = 0, len;
    msb_status rc;

    for (int i = 0; i < 64; i++)
        events[i] = (msb_event)MSB_EVENT_INIT;
    while ((rc = msb_exec_recv_many(exec, -1, events, 64, &len, &err)) == MSB_OK) {
        for (size_t i = 0; i < len; i++)
            if (events[i].kind == MSB_EVENT_STDOUT)
                total += events[i].len;
        msb_event_release_many(events, len);
    }
    if (rc != MSB_EOF)
        die("msb_exec_recv_many");
    msb_handle_close(exec);
    check_bulk(total);
}

static void copy_memory(void)
{
    static uint8_t to[PIECE];

    for (size_t done = 0; done < BULK; done += PIECE) {
        memcpy(to, piece, PIECE);
        __asm__ volatile("" : : "r"(to) : "memory"); /* keeps the copy from being optimized away */
    }
}

/* Input: `dd` reads and discards it. */
static void write_bare(void)
{
    char *argv[] = {"dd", "of=/dev/null", "bs=65536", NULL};
    int ends[2];
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) < 0)
        die_os("pipe");
    pid = spawn(argv, ends[0], -1);
    close(ends[0]);
    for (size_t left = BULK; left > 0;) {
        ssize_t wrote = write(ends[1], piece, left < PIECE ? left : PIECE);

        if (wrote < 0)
            die_os("writing to the pipe");
        left -= (size_t)wrote;
    }
    close(ends[1]);
    reap(pid);
}

static void write_sink(void)
{
    const char *args[] = {"of=/dev/null", "bs=65536"};
    msb_sink *sink;
    msb_exec *exec = start("dd", args, 2, &sink);
    msb_event end = MSB_EVENT_INIT;
    size_t written;

    for (size_t left = BULK; left > 0; left -= written)
        if (msb_sink_write(sink, piece, left < PIECE ? left : PIECE, -1, &written, &err) != MSB_OK)
            die("msb_sink_write");
    msb_handle_close(sink);
    if (msb_exec_wait(exec, -1, &end, &err) != MSB_OK)
        die("msb_exec_wait");
    expect_success(end.exit);
    msb_event_release(&end);
    msb_handle_close(exec);
}

/* Drains a full queue and returns the events per second. */
static double drain(msb_exec *exec, int batch)
{
    msb_event events[64];
    size_t total = 0, len = 0;
    struct timespec while_it_fills = {0, 30000000};
    msb_status rc;
    double begun;

    for (int i = 0; i < 64; i++)
        events[i] = (msb_event)MSB_EVENT_INIT;
    nanosleep(&while_it_fills, NULL);
    begun = now();
    while (total < 2000) {
        if (batch) {
            rc = msb_exec_recv_many(exec, 0, events, 64, &len, &err);
        } else {
            rc = msb_exec_recv(exec, 0, events, &err);
            len = 1;
        }
        if (rc != MSB_OK)
            break;
        total += len;
        msb_event_release_many(events, len);
    }
    if (rc < 0)
        die("receiving events");
    return (double)total / (now() - begun);
}

static void small_events(void)
{
    const char *args[] = {"-c", "while :; do echo x; echo y >&2; done"};
    msb_exec *exec = start("sh", args, 2, NULL);
    double single[100], batched[100], ratios[100];

    for (int turn = 0; turn < 100; turn++) {
        single[turn] = drain(exec, 0);
        batched[turn] = drain(exec, 1);
        ratios[turn] = batched[turn] / single[turn];
    }
    if (msb_exec_signal(exec, 9, MSB_SIGNAL_TREE, &err) != MSB_OK)
        die("msb_exec_signal");
    msb_handle_close(exec);
    printf("\nSmall events from a full queue (100 turns)\n\n| | events/s | ratio |\n"
           "| --- | ---: | ---: |\n| msb_exec_recv | %.0f | 1.00 |\n"
           "| msb_exec_recv_many, 64 | %.0f | %.2f |\n",
           median(single, 100), median(batched, 100), median(ratios, 100));
}

/* Returns a number of /proc/self/status. */
static long own_status(const char *field)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long value = -1;

    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, field, strlen(field)) == 0)
            value = strtol(line + strlen(field), NULL, 10);
    if (file != NULL)
        fclose(file);
    return value;
}

static int descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 4096; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

static void idle_streams(void)
{
    static msb_exec *execs[IDLE];
    const char *args[] = {"100000"};
    long rss = own_status("VmRSS:"), threads = own_status("Threads:");
    int fds = descriptors();
    double begun = now(), took;

    for (int i = 0; i < IDLE; i++) {
        msb_event event = MSB_EVENT_INIT;

        execs[i] = start("sleep", args, 1, NULL);
        if (msb_exec_recv(execs[i], -1, &event, &err) != MSB_OK)
            die("msb_exec_recv");
        if (event.kind != MSB_EVENT_STARTED)
            die("sleep did not start");
        msb_event_release(&event);
    }
    took = now() - begun;
    printf("\n%d concurrent idle commands\n\n| | |\n| --- | ---: |\n"
           "| start of one, sequential | %.0f us |\n| additional threads | %ld |\n"
           "| additional descriptors | %d |\n| additional resident memory | %ld KiB |\n",
           IDLE, took * 1e6 / IDLE, own_status("Threads:") - threads, descriptors() - fds,
           own_status("VmRSS:") - rss);
    for (int i = 0; i < IDLE; i++) {
        if (msb_exec_signal(execs[i], 9, MSB_SIGNAL_TREE, &err) != MSB_OK)
            die("msb_exec_signal");
        msb_handle_close(execs[i]);
    }
}

static const char *rootfs;

static msb_sandbox *create(const char *name)
{
    msb_sandbox_options options = MSB_SANDBOX_OPTIONS_INIT;
    msb_sandbox *created;

    options.name = name;
    options.image = rootfs;
    options.flags = MSB_SANDBOX_REPLACE;
    if (msb_sandbox_create(&options, &created, &err) != MSB_OK ||
        msb_sandbox_wait_ready(created, -1, &err) != MSB_OK)
        die("creating a sandbox");
    return created;
}

static void from_nothing(void)
{
    msb_sandbox *kept = sandbox;

    sandbox = create("fresh");
    run_exec();
    if (msb_sandbox_kill(sandbox, &err) != MSB_OK)
        die("msb_sandbox_kill");
    msb_handle_close(sandbox);
    sandbox = kept;
}

#define COMPARE(title, turns, rest_ms, amount, ...)                                               \
    do {                                                                                          \
        static struct variant all[] = {__VA_ARGS__};                                              \
        compare(title, turns, rest_ms, amount, all, (int)(sizeof all / sizeof *all));             \
    } while (0)
#define VARIANT(name, run) {name, run, {0}}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: bench ROOTFS\n");
        return 2;
    }
    rootfs = argv[1];
    snprintf(busybox, sizeof busybox, "%s/bin/busybox", rootfs);
    sandbox = create("bench-c");
    COMPARE("One command, start to end", 300, 0, 0,
            VARIANT("posix_spawn + wait of the same binary", run_bare),
            VARIANT("msb_exec_stream + msb_exec_collect", run_exec));
    /* Includes work that the kernel defers while commands run back to back, such as RCU. */
    COMPARE("One command every 20 ms, start to end", 100, 20, 0,
            VARIANT("posix_spawn + wait of the same binary", run_bare),
            VARIANT("msb_exec_stream + msb_exec_collect", run_exec));
    COMPARE("256 MiB of output", 9, 0, (double)(BULK / MIB),
            VARIANT("reading the same program's pipe", read_small_pipe),
            VARIANT("the same, pipe of 1 MiB", read_wide_pipe),
            VARIANT("msb_exec_recv", recv_single),
            VARIANT("msb_exec_recv_many, 64", recv_batches),
            VARIANT("memcpy, nothing else", copy_memory));
    COMPARE("256 MiB of input", 9, 0, (double)(BULK / MIB),
            VARIANT("writing to the same program's pipe", write_bare),
            VARIANT("msb_sink_write", write_sink));
    small_events();
    idle_streams();
    COMPARE("Create, run one command, kill", 10, 0, 0,
            VARIANT("posix_spawn + wait of the same binary", run_bare),
            VARIANT("create, exec, kill (container)", from_nothing));
    if (msb_sandbox_stop(sandbox, 0, &err) != MSB_OK)
        die("msb_sandbox_stop");
    msb_handle_close(sandbox);
    return 0;
}
