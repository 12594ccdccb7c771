/* header.c - compiled as every language that the header is for: the header first, alone, twice. */
#include <microsandbox.h>

#include <microsandbox.h>

int header_is_usable(void);
int header_is_usable(void)
{
    return sizeof(void *) == 8;
}
