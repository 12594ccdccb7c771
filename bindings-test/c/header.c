/* header.c - compiled as every language that the header is for: the header first, alone, twice. */
#include <microsandbox.h>

#include <microsandbox.h>

/* Each starts from its own macro, which has to name every field. */
int header_is_usable(void);
int header_is_usable(void)
{
    msb_error error = MSB_ERROR_INIT;
    msb_event event = MSB_EVENT_INIT;
    msb_sandbox_options sandbox_options = MSB_SANDBOX_OPTIONS_INIT;
    msb_exec_options exec_options = MSB_EXEC_OPTIONS_INIT;

    return error.struct_size == sizeof error && event.struct_size == sizeof event &&
           sandbox_options.struct_size == sizeof sandbox_options &&
           exec_options.struct_size == sizeof exec_options && sizeof(void *) == 8;
}
