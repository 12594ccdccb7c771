/* The program that the conformance cases run for what a shell cannot do or observe.
 * helper SUBCOMMAND [ARGUMENT...]; README.md lists the subcommands. Static, no dependencies. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static long number(char **argv, int at, long otherwise)
{
    for (int i = 0; i <= at; i++)
        if (!argv[i])
            return otherwise;
    return strtol(argv[at], NULL, 0);
}

static void pause_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&time, &time) < 0 && errno == EINTR)
        ;
}

static void put(int fd, const void *data, size_t len)
{
    const char *at = data;
    while (len > 0) {
        ssize_t done = write(fd, at, len);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            _exit(111);
        at += done;
        len -= (size_t)done;
    }
}

static void say(const char *text)
{
    put(1, text, strlen(text));
}

static void hex(const char *text)
{
    for (; *text; text++)
        printf("%02x", (unsigned char)*text);
    putchar('\n');
}

/* Byte i of every pattern is i mod 251. */
static void cycle(int fd, size_t from, size_t len)
{
    static unsigned char block[65536];
    while (len > 0) {
        size_t part = len < sizeof block ? len : sizeof block;
        for (size_t i = 0; i < part; i++)
            block[i] = (unsigned char)((from + i) % 251);
        put(fd, block, part);
        from += part;
        len -= part;
    }
}

/* By raw calls: libc hides two signals, and not every kernel shows the sets in /proc. */
static void signals(void)
{
    unsigned long long blocked = 0;
    struct {
        void (*handler)(int);
        unsigned long flags, restorer, mask;
    } action;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &blocked, sizeof blocked);
    printf("blocked:");
    for (int n = 1; n <= 64; n++)
        if (blocked >> (n - 1) & 1)
            printf(" %d", n);
    printf("\nignored:");
    for (int n = 1; n <= 64; n++)
        if (!syscall(SYS_rt_sigaction, n, NULL, &action, 8) && action.handler == SIG_IGN)
            printf(" %d", n);
    putchar('\n');
}

static volatile sig_atomic_t caught;

static void note(int n)
{
    caught = n;
}

static void handle(int n, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};
    sigaction(n, &action, NULL);
}

/* Waits for a signal, which is blocked outside of this function. */
static int next_signal(void)
{
    sigset_t none;
    sigemptyset(&none);
    caught = 0;
    while (!caught)
        sigsuspend(&none);
    return caught;
}

static void block_all(void)
{
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
}

static void size(void)
{
    struct winsize size = {0, 0, 0, 0};
    char line[64];
    ioctl(0, TIOCGWINSZ, &size);
    snprintf(line, sizeof line, "%u %u\n", size.ws_row, size.ws_col);
    say(line);
}

static void descriptors(void)
{
    char path[64], target[512];
    for (int fd = 0; fd < 4096; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t len = readlink(path, target, sizeof target - 1);
        if (len < 0)
            continue;
        target[len] = 0;
        struct stat stat;
        fstat(fd, &stat);
        const char *kind = isatty(fd)               ? "terminal"
                           : S_ISFIFO(stat.st_mode) ? "pipe"
                           : S_ISCHR(stat.st_mode)  ? target
                                                    : "other";
        int flags = fcntl(fd, F_GETFL);
        static const char *const access[] = {"read", "write", "both", "none"};
        printf("%d %s %s%s\n", fd, kind, access[flags & O_ACCMODE],
               flags & O_NONBLOCK ? " nonblocking" : "");
    }
}

static void place(void)
{
    int tty = open("/dev/tty", O_RDWR | O_NOCTTY);
    printf("session leader: %s\n", getsid(0) == getpid() ? "yes" : "no");
    printf("group leader: %s\n", getpgrp() == getpid() ? "yes" : "no");
    printf("controlling terminal: %s\n", tty >= 0 ? "yes" : "no");
    if (tty >= 0)
        printf("foreground: %s\n", tcgetpgrp(tty) == getpgrp() ? "yes" : "no");
}

static void credentials(void)
{
    unsigned r, e, s;
    gid_t groups[256];
    mode_t mask = umask(0);
    getresuid(&r, &e, &s);
    printf("uid %u %u %u\n", r, e, s);
    getresgid(&r, &e, &s);
    printf("gid %u %u %u\ngroups", r, e, s);
    int count = getgroups(256, groups);
    for (int i = 0; i < count; i++)
        printf(" %u", groups[i]);
    printf("\numask %03o\n", mask);
}

static void limits(void)
{
    static const char *const names[] = {"cpu",     "fsize",  "data",  "stack",      "core",     "rss",
                                        "nproc",   "nofile", "memlock", "as",       "locks",    "sigpending",
                                        "msgqueue", "nice",  "rtprio", "rttime"};
    for (unsigned i = 0; i < 16; i++) {
        struct rlimit limit;
        getrlimit((__rlimit_resource_t)i, &limit);
        printf("%s", names[i]);
        rlim_t both[] = {limit.rlim_cur, limit.rlim_max};
        for (int j = 0; j < 2; j++)
            if (both[j] == RLIM_INFINITY)
                printf(" infinity");
            else
                printf(" %llu", (unsigned long long)both[j]);
        putchar('\n');
    }
}

/* Forks a process that is never reaped, in a session of its own. Returns 0 in it. */
static pid_t orphan(void)
{
    pid_t child = fork();
    if (child == 0) {
        setsid();
        pid_t inner = fork();
        if (inner == 0)
            return 0;
        _exit(inner < 0);
    }
    waitpid(child, NULL, 0);
    return child;
}

static void forever(void)
{
    for (;;)
        pause();
}

/* Counts input bytes, and computes the CRC-32 of cksum -o 3, zip and zlib. */
static void count(void)
{
    static unsigned char block[65536];
    uint32_t sum = 0xffffffffu;
    unsigned long long total = 0;
    ssize_t len;
    while ((len = read(0, block, sizeof block)) > 0) {
        total += (unsigned long long)len;
        for (ssize_t i = 0; i < len; i++) {
            sum ^= block[i];
            for (int bit = 0; bit < 8; bit++)
                sum = sum >> 1 ^ (sum & 1 ? 0xedb88320u : 0);
        }
    }
    printf("%llu %08x%s\n", total, sum ^ 0xffffffffu, len < 0 ? strerror(errno) : "");
}

/* Checks that the input is the pattern, and prints its length. */
static void check(void)
{
    static unsigned char block[65536];
    unsigned long long total = 0;
    ssize_t len;
    while ((len = read(0, block, sizeof block)) > 0)
        for (ssize_t i = 0; i < len; i++, total++)
            if (block[i] != total % 251) {
                printf("wrong at %llu\n", total);
                return;
            }
    printf("%llu%s\n", total, len < 0 ? strerror(errno) : "");
}

static void take(size_t want)
{
    char byte;
    size_t got = 0;
    while (got < want && read(0, &byte, 1) == 1)
        got++;
    char line[64];
    snprintf(line, sizeof line, "read %zu\n", got);
    say(line);
}

static void wait_for(const char *path)
{
    while (path && access(path, F_OK) != 0)
        pause_ms(5);
}

static int is(char **argv, const char *name)
{
    return !strcmp(argv[1], name);
}

/* Subcommands that print a process's attributes. */
static int look(char **argv)
{
    if (is(argv, "args"))
        for (char **arg = argv + 2; *arg; arg++)
            hex(*arg);
    else if (is(argv, "argc")) {
        int n = 0;
        while (argv[n])
            n++;
        printf("%d\n", n - 2);
    } else if (is(argv, "argv0"))
        printf("%s\n", argv[0]);
    else if (is(argv, "env"))
        for (char **entry = environ; *entry; entry++)
            hex(*entry);
    else if (is(argv, "getenv"))
        puts(getenv(argv[2]) ? getenv(argv[2]) : "(unset)");
    else if (is(argv, "signals"))
        signals();
    else if (is(argv, "fds"))
        descriptors();
    else if (is(argv, "place"))
        place();
    else if (is(argv, "credentials"))
        credentials();
    else if (is(argv, "limits"))
        limits();
    else if (is(argv, "isatty"))
        printf("%d %d %d\n", isatty(0), isatty(1), isatty(2));
    else if (is(argv, "count"))
        count();
    else if (is(argv, "check"))
        check();
    else
        return 0;
    return 1;
}

/* Subcommands that use a process's streams. */
static int stream(char **argv)
{
    if (is(argv, "write"))
        cycle(1, 0, (size_t)number(argv, 2, 0));
    else if (is(argv, "write-err"))
        cycle(2, 0, (size_t)number(argv, 2, 0));
    else if (is(argv, "write-both")) {
        size_t total = (size_t)number(argv, 2, 0), chunk = (size_t)number(argv, 3, 4096);
        for (size_t at = 0; at < total; at += chunk) {
            size_t len = total - at < chunk ? total - at : chunk;
            cycle(1, at, len);
            cycle(2, at, len);
        }
    } else if (is(argv, "bytes"))
        for (long i = 0, n = number(argv, 2, 0); i < n; i++)
            cycle(1, (size_t)i, 1);
    else if (is(argv, "delay")) {
        pause_ms(number(argv, 2, 0));
        say(argv[3]);
    } else if (is(argv, "take-and-wait")) {
        take((size_t)number(argv, 2, 0));
        wait_for(argv[3]);
        say("on\n");
    } else if (is(argv, "close-stdin")) {
        close(0);
        say("closed\n");
        wait_for(argv[2]);
        say("on\n");
    } else if (is(argv, "close-output")) {
        close(1);
        close(2);
        wait_for(argv[2]);
        return 2 + (int)number(argv, 3, 0);
    } else if (is(argv, "nonblocking")) {
        fcntl(1, F_SETFL, O_NONBLOCK | O_WRONLY);
        say("set\n");
    } else if (is(argv, "winsize")) {
        block_all();
        handle(SIGWINCH, note);
        size();
        for (long i = 0; i < number(argv, 2, 0); i++) {
            next_signal();
            size();
        }
    } else
        return 0;
    return 1;
}

/* Subcommands that end a process, or do not. */
static int end(char **argv)
{
    long n = number(argv, 2, 0);
    if (is(argv, "exit"))
        _exit((int)n);
    else if (is(argv, "abort"))
        abort();
    else if (is(argv, "segv")) {
        volatile int *nowhere = (volatile int *)8;
        *nowhere = 1;
    } else if (is(argv, "raise")) {
        raise((int)n);
        puts("still here");
    } else if (is(argv, "ignore")) {
        block_all();
        handle((int)n, SIG_IGN);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        say("ready\n");
        forever();
    } else if (is(argv, "exit-on")) {
        block_all();
        handle((int)n, note);
        say("ready\n");
        next_signal();
        say("caught\n");
        _exit((int)number(argv, 3, 0));
    } else if (is(argv, "report")) {
        /* Reports every signal that can be caught, until SIGTERM. */
        block_all();
        for (int s = 1; s <= 64; s++)
            if (s != SIGKILL && s != SIGSTOP && s != SIGCHLD)
                handle(s, note);
        say("ready\n");
        for (int s = 0; s != SIGTERM;) {
            char line[32];
            s = next_signal();
            snprintf(line, sizeof line, "signal %d\n", s);
            say(line);
        }
    } else if (is(argv, "spin")) {
        struct rusage usage;
        do
            getrusage(RUSAGE_SELF, &usage);
        while (usage.ru_utime.tv_sec * 1000 + usage.ru_utime.tv_usec / 1000 +
                   usage.ru_stime.tv_sec * 1000 + usage.ru_stime.tv_usec / 1000 < n);
    } else if (is(argv, "alloc")) {
        char *memory = malloc((size_t)n << 20);
        if (!memory)
            _exit(12);
        memset(memory, 1, (size_t)n << 20);
        printf("%d\n", memory[n]);
    } else if (is(argv, "wait"))
        forever();
    else
        return 0;
    return 1;
}

/* Subcommands with further processes. */
static int family(char **argv)
{
    long n = number(argv, 2, 0);
    if (is(argv, "daemon")) {
        /* Leaves a process that holds the output, writes its process id to a file and stays. */
        if (orphan() == 0) {
            FILE *file = fopen(argv[2], "w");
            fprintf(file, "%d\n", getpid());
            fclose(file);
            forever();
        }
        wait_for(argv[2]);
        say("left\n");
    } else if (is(argv, "daemon-write")) {
        /* Leaves a process that writes the text once the file exists, and reports the result. */
        if (orphan() == 0) {
            wait_for(argv[2]);
            ssize_t done = write(1, argv[3], strlen(argv[3]));
            char path[512];
            snprintf(path, sizeof path, "%s.result", argv[2]);
            FILE *file = fopen(path, "w");
            fprintf(file, "%zd\n", done);
            fclose(file);
            _exit(0);
        }
        say("left\n");
    } else if (is(argv, "sessions") || is(argv, "groups")) {
        /* Children, each in its own session or group; writes their process ids, then its own, to a
         * file. */
        char path[512];
        snprintf(path, sizeof path, "%s.part", argv[3]);
        FILE *file = fopen(path, "w");
        int moved[2];
        char byte = 0;
        if (pipe(moved) != 0)
            return 1;
        for (long i = 0; i < n; i++) {
            pid_t child = fork();
            if (child == 0) {
                if (is(argv, "sessions"))
                    setsid();
                else
                    setpgid(0, 0);
                if (write(moved[1], &byte, 1) != 1)
                    _exit(1);
                forever();
            }
            /* Before that, a signal to our group would reach it. */
            if (read(moved[0], &byte, 1) != 1)
                return 1;
            fprintf(file, "%d ", child);
        }
        fprintf(file, "%d\n", getpid());
        fclose(file);
        rename(path, argv[3]);
        say("ready\n");
        forever();
    } else if (is(argv, "orphans")) {
        for (long i = 0; i < n; i++)
            if (orphan() == 0)
                _exit(i % 7);
    } else if (is(argv, "zombies")) {
        for (long i = 0; i < n; i++)
            if (fork() == 0)
                _exit(0);
    } else if (is(argv, "forks")) {
        /* Forks until that fails, and prints the reason. */
        for (long i = 0; i < n; i++) {
            pid_t child = fork();
            if (child == 0)
                forever();
            if (child < 0) {
                printf("refused: %s\n", errno == EAGAIN ? "EAGAIN" : strerror(errno));
                fflush(stdout);
                kill(0, SIGKILL);
            }
        }
        puts("never refused");
        fflush(stdout);
        kill(0, SIGKILL);
    } else
        return 0;
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 110;
    int done = look(argv);
    if (!done)
        done = stream(argv);
    if (!done)
        done = end(argv);
    if (!done)
        done = family(argv);
    if (!done) {
        fprintf(stderr, "helper: no subcommand %s\n", argv[1]);
        return 110;
    }
    fflush(stdout);
    return done > 1 ? done - 2 : 0;
}
