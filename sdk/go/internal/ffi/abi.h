// Shared by the cgo files of this package: the header, and values that only its macros can make.

#ifndef MSB_GO_ABI_H
#define MSB_GO_ABI_H

#define _GNU_SOURCE
#include <dlfcn.h>
#include <microsandbox.h>
#include <stdlib.h>

static inline void go_error_init(msb_error *to) { *to = (msb_error)MSB_ERROR_INIT; }

static inline msb_error go_error(void) {
    msb_error made = MSB_ERROR_INIT;
    return made;
}

static inline msb_sandbox_options go_sandbox_options(void) {
    msb_sandbox_options made = MSB_SANDBOX_OPTIONS_INIT;
    return made;
}

static inline msb_exec_options go_exec_options(void) {
    msb_exec_options made = MSB_EXEC_OPTIONS_INIT;
    return made;
}

static inline msb_attach_options go_attach_options(void) {
    msb_attach_options made = MSB_ATTACH_OPTIONS_INIT;
    return made;
}

static inline msb_output go_output(void) {
    msb_output made = MSB_OUTPUT_INIT;
    return made;
}

static inline msb_sandbox_entries go_sandbox_entries(void) {
    msb_sandbox_entries made = MSB_SANDBOX_ENTRIES_INIT;
    return made;
}

static inline msb_exec_entries go_exec_entries(void) {
    msb_exec_entries made = MSB_EXEC_ENTRIES_INIT;
    return made;
}

static inline msb_image_entries go_image_entries(void) {
    msb_image_entries made = MSB_IMAGE_ENTRIES_INIT;
    return made;
}

static inline msb_volume_options go_volume_options(void) {
    msb_volume_options made = MSB_VOLUME_OPTIONS_INIT;
    return made;
}

static inline msb_volume_entries go_volume_entries(void) {
    msb_volume_entries made = MSB_VOLUME_ENTRIES_INIT;
    return made;
}

static inline msb_fs_request go_fs_request(void) {
    msb_fs_request made = MSB_FS_REQUEST_INIT;
    return made;
}

static inline msb_fs_result go_fs_result(void) {
    msb_fs_result made = MSB_FS_RESULT_INIT;
    return made;
}

static inline msb_fs_failure go_fs_failure(void) {
    msb_fs_failure made = MSB_FS_FAILURE_INIT;
    return made;
}

static inline msb_progress go_progress(void) {
    msb_progress made = MSB_PROGRESS_INIT;
    return made;
}

static inline msb_driver_entries go_driver_entries(void) {
    msb_driver_entries made = MSB_DRIVER_ENTRIES_INIT;
    return made;
}

static inline msb_wall_entries go_wall_entries(void) {
    msb_wall_entries made = MSB_WALL_ENTRIES_INIT;
    return made;
}

// Initializes and receives an event in one cgo call.
static inline msb_status go_recv(msb_exec *exec, msb_event *event, msb_error *err) {
    *event = (msb_event)MSB_EVENT_INIT;
    return msb_exec_recv(exec, 0, event, err);
}

static inline msb_status go_wait(msb_exec *exec, msb_event *event, msb_error *err) {
    *event = (msb_event)MSB_EVENT_INIT;
    return msb_exec_wait(exec, 0, event, err);
}

static inline msb_log_options go_log_options(void) {
    msb_log_options made = MSB_LOG_OPTIONS_INIT;
    return made;
}

static inline msb_status go_log_recv(msb_log *logs, msb_log_record *record, msb_error *err) {
    *record = (msb_log_record)MSB_LOG_RECORD_INIT;
    return msb_log_recv(logs, 0, record, err);
}

// Returns the file that contains the library's code: the shared library, or the statically linked
// program.
static inline const char *go_library_path(void) {
    Dl_info info;
    return dladdr((void *)msb_abi_version, &info) != 0 ? info.dli_fname : NULL;
}

#endif
