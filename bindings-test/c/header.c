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
    msb_attach_options attach_options = MSB_ATTACH_OPTIONS_INIT;
    msb_output output = MSB_OUTPUT_INIT;
    msb_log_options logs_options = MSB_LOG_OPTIONS_INIT;
    msb_log_record logs_record = MSB_LOG_RECORD_INIT;
    msb_sandbox_entries sandboxes = MSB_SANDBOX_ENTRIES_INIT;
    msb_exec_entries execs = MSB_EXEC_ENTRIES_INIT;
    msb_driver_entries drivers = MSB_DRIVER_ENTRIES_INIT;
    msb_wall_entries walls = MSB_WALL_ENTRIES_INIT;
    msb_image_entries images = MSB_IMAGE_ENTRIES_INIT;
    msb_progress progress = MSB_PROGRESS_INIT;

    return error.struct_size == sizeof error && event.struct_size == sizeof event &&
           sandbox_options.struct_size == sizeof sandbox_options &&
           exec_options.struct_size == sizeof exec_options &&
           attach_options.struct_size == sizeof attach_options &&
           logs_options.struct_size == sizeof logs_options &&
           logs_record.struct_size == sizeof logs_record &&
           output.struct_size == sizeof output && sandboxes.struct_size == sizeof sandboxes &&
           execs.struct_size == sizeof execs && drivers.struct_size == sizeof drivers &&
           walls.struct_size == sizeof walls &&
           images.struct_size == sizeof images && progress.struct_size == sizeof progress &&
           sizeof(void *) == 8;
}
