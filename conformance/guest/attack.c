/* What a hostile program in a container tries: attack calls | namespaces | exhaust | fork | users
 *
 * "calls" prints a line with OPEN for each system call that is wrongly allowed, and "end";
 * "namespaces" tries those only that make namespaces and mounts. "fork" creates as many children as
 * it can, prints how many, and waits for the end of its input. "users" does the same as
 * many users in turn. "exhaust" first allocates as much
 * as it can of what else the kernel counts, and prints how much that was. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Rejected by the filter, not because of the arguments. */
static int filtered(void)
{
    return errno == EPERM || errno == ENOSYS;
}

static void expect_closed(const char *name, long result)
{
    if (result >= 0 || !filtered())
        printf("%s OPEN %ld %s\n", name, result, strerror(errno));
}

#ifdef __x86_64__
/* A system call of 32-bit programs, which a 64-bit one can make as well. */
static long call32(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(number), "b"(a), "c"(b), "d"(c)
                     : "memory", "r8", "r9", "r10", "r11");
    if (result < 0 && result > -4096) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

static void calls32(void)
{
    enum { SOCKETCALL = 102, SOCKET = 359, MOUNT = 21, UNSHARE = 310, KEYCTL = 288 };
    unsigned *arguments = mmap((void *)0x10000000, 4096, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    static const unsigned families[] = {38, 40};
    for (int i = 0; i < 2; i++) {
        arguments[0] = families[i];
        arguments[1] = families[i] == 38 ? SOCK_SEQPACKET : SOCK_STREAM;
        arguments[2] = 0;
        expect_closed("32-bit socketcall", call32(SOCKETCALL, 1, (long)arguments, 0));
        expect_closed("32-bit socket", call32(SOCKET, families[i], arguments[1], 0));
    }
    expect_closed("32-bit mount", call32(MOUNT, 0, 0, 0));
    expect_closed("32-bit unshare", call32(UNSHARE, 0x10000000, 0, 0));
    expect_closed("32-bit keyctl", call32(KEYCTL, 0, 0, 0));
    /* x32: the same numbers with an additional bit. */
    expect_closed("x32 unshare", syscall(0x40000000 | SYS_unshare, 0x10000000));
    expect_closed("x32 socket", syscall(0x40000000 | SYS_socket, 40, SOCK_STREAM, 0));
}
#else
static void calls32(void)
{
}
#endif

static void namespaces(void)
{
    expect_closed("unshare", syscall(SYS_unshare, 0x10000000));
    expect_closed("clone", syscall(SYS_clone, 0x10000000 | SIGCHLD, 0, 0, 0, 0));
    expect_closed("clone3", syscall(435, 0, 0));
    expect_closed("setns", syscall(SYS_setns, -1, 0));
    expect_closed("mount", syscall(SYS_mount, 0, 0, 0, 0, 0));
    expect_closed("umount2", syscall(SYS_umount2, "/etc/hosts", 0));
    expect_closed("pivot_root", syscall(SYS_pivot_root, "/", "/"));
    expect_closed("open_tree", syscall(428, -1, "", 0));
    expect_closed("move_mount", syscall(429, -1, "", -1, "", 0));
    expect_closed("fsopen", syscall(430, "tmpfs", 0));
    expect_closed("mount_setattr", syscall(442, -1, "", 0, 0, 0));
}

static void calls(void)
{
    unsigned long context = 0;
    expect_closed("AF_ALG", socket(38, SOCK_SEQPACKET, 0));
    expect_closed("AF_VSOCK", socket(40, SOCK_STREAM, 0));
    /* The kernel ignores the upper half of the number. */
    expect_closed("AF_ALG with more bits", syscall(SYS_socket, 38 | 1UL << 32, SOCK_SEQPACKET, 0));
    expect_closed("AF_VSOCK with more bits", syscall(SYS_socket, 40 | 1UL << 32, SOCK_STREAM, 0));
    expect_closed("io_setup", syscall(SYS_io_setup, 1, &context));
    expect_closed("io_uring_setup", syscall(425, 8, 0));
    namespaces();
    expect_closed("keyctl", syscall(SYS_keyctl, 0, 0, 0, 0, 0));
    expect_closed("add_key", syscall(SYS_add_key, 0, 0, 0, 0, 0));
    expect_closed("bpf", syscall(SYS_bpf, 0, 0, 0));
    expect_closed("perf_event_open", syscall(SYS_perf_event_open, 0, 0, 0, 0, 0));
    expect_closed("userfaultfd", syscall(SYS_userfaultfd, 0));
    expect_closed("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, 0, 0));
    expect_closed("ptrace of the agent", syscall(SYS_ptrace, 16, 1, 0, 0));
    calls32();
}

/* Forks until that fails. */
static int fork_all(void)
{
    int count;
    for (count = 0; count < 20000; count++) {
        int child = fork();
        if (child < 0)
            break;
        if (child == 0) {
            pause();
            _exit(0);
        }
    }
    return count;
}

static void users(void)
{
    for (int user = 1; user <= 16; user++) {
        if (fork() != 0)
            continue;
        if (setresuid(user, user, user) == 0)
            fork_all();
        pause();
        _exit(0);
    }
}

static void children(void)
{
    char byte;
    int count = fork_all();
    printf("children %d\nexhausted\n", count);
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        ;
}

static void exhaust(void)
{
    unsigned long context = 0;
    int count = 0;
    while (count < 100000 && inotify_init1(0) >= 0)
        count++;
    printf("inotify %d\n", count);
    for (count = 0; count < 20000 && syscall(SYS_io_setup, 64, &context) == 0; count++)
        context = 0;
    printf("aio %d\n", count);
    for (count = 0; count < 10000 && open("/dev/ptmx", O_RDWR | O_NOCTTY) >= 0;)
        count++;
    printf("ptys %d\n", count);
    fflush(stdout);
    children();
}

int main(int argc, char **argv)
{
    const char *what = argc == 2 ? argv[1] : "";
    if (strcmp(what, "calls") == 0)
        calls();
    else if (strcmp(what, "namespaces") == 0)
        namespaces();
    else if (strcmp(what, "exhaust") == 0)
        exhaust();
    else if (strcmp(what, "fork") == 0)
        children();
    else if (strcmp(what, "users") == 0) {
        users();
        children();
    } else
        return 2;
    puts("end");
    return 0;
}
