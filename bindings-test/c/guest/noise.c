/* noise.c - runs in the sandbox: writes noise to standard output and standard error at once.
 *
 *   noise BYTES SEED-OF-OUTPUT SEED-OF-ERROR
 */
#include "../noise.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int write_noise(int fd, uint64_t bytes, uint64_t seed)
{
    struct noise noise = noise_from(seed);
    static uint8_t piece[1 << 16];

    while (bytes > 0) {
        size_t len = bytes < sizeof piece ? (size_t)bytes : sizeof piece;
        size_t at = 0;
        noise_fill(&noise, piece, len);
        while (at < len) {
            ssize_t written = write(fd, piece + at, len - at);
            if (written <= 0)
                return 1;
            at += (size_t)written;
        }
        bytes -= len;
    }
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t bytes;
    int status = 1;
    pid_t child;

    if (argc != 4)
        return 2;
    bytes = strtoull(argv[1], NULL, 10);
    child = fork();
    if (child == 0)
        _exit(write_noise(STDERR_FILENO, bytes, strtoull(argv[3], NULL, 10)));
    if (child < 0 || write_noise(STDOUT_FILENO, bytes, strtoull(argv[2], NULL, 10)) != 0)
        return 1;
    if (waitpid(child, &status, 0) != child)
        return 1;
    return status != 0;
}
