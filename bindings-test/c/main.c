/* main.c - runs the tests whose names contain one of the arguments, or all. */
#include "support.h"

#include <stdio.h>

int main(int argc, char **argv)
{
    int passed = 0, failed = 0;

    harness_begin();
    support_begin();
    harness_run(argc, argv, &passed, &failed);
    failed += harness_end(support_end);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0 || passed == 0;
}
