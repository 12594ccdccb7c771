/* Made by `make abi` from src: the layout of every struct, as Rust has it. */
#include <microsandbox.h>
#include <assert.h>
#include <stddef.h>

#if !defined(__cplusplus) && __STDC_VERSION__ < 201112L /* C99 has none */
#define static_assert(...) struct unused
#endif
#define IS_AT(type, field, offset, size) \
    static_assert(offsetof(type, field) == offset && sizeof(((type *)0)->field) == size, \
                  #type "." #field)

static_assert(sizeof(msb_error) == 512, "msb_error");
IS_AT(msb_error, struct_size, 0, 4);
IS_AT(msb_error, status, 4, 4);
IS_AT(msb_error, os_error, 8, 4);
IS_AT(msb_error, origin, 12, 4);
IS_AT(msb_error, message, 16, 496);

static_assert(sizeof(msb_progress) == 32, "msb_progress");
IS_AT(msb_progress, struct_size, 0, 4);
IS_AT(msb_progress, phase, 4, 4);
IS_AT(msb_progress, layers, 8, 4);
IS_AT(msb_progress, layers_done, 12, 4);
IS_AT(msb_progress, bytes, 16, 8);
IS_AT(msb_progress, bytes_total, 24, 8);

static_assert(sizeof(msb_mount) == 48, "msb_mount");
IS_AT(msb_mount, struct_size, 0, 4);
IS_AT(msb_mount, kind, 4, 4);
IS_AT(msb_mount, flags, 8, 4);
IS_AT(msb_mount, reserved, 12, 4);
IS_AT(msb_mount, target, 16, 8);
IS_AT(msb_mount, source, 24, 8);
IS_AT(msb_mount, size, 32, 8);
IS_AT(msb_mount, uid, 40, 4);
IS_AT(msb_mount, gid, 44, 4);

static_assert(sizeof(msb_sandbox_options) == 224, "msb_sandbox_options");
IS_AT(msb_sandbox_options, struct_size, 0, 4);
IS_AT(msb_sandbox_options, flags, 4, 4);
IS_AT(msb_sandbox_options, name, 8, 8);
IS_AT(msb_sandbox_options, image, 16, 8);
IS_AT(msb_sandbox_options, driver, 24, 8);
IS_AT(msb_sandbox_options, workdir, 32, 8);
IS_AT(msb_sandbox_options, shell, 40, 8);
IS_AT(msb_sandbox_options, user, 48, 8);
IS_AT(msb_sandbox_options, hostname, 56, 8);
IS_AT(msb_sandbox_options, env, 64, 8);
IS_AT(msb_sandbox_options, env_len, 72, 8);
IS_AT(msb_sandbox_options, labels, 80, 8);
IS_AT(msb_sandbox_options, labels_len, 88, 8);
IS_AT(msb_sandbox_options, cpus, 96, 8);
IS_AT(msb_sandbox_options, memory_mib, 104, 4);
IS_AT(msb_sandbox_options, pids_limit, 108, 4);
IS_AT(msb_sandbox_options, max_duration_ms, 112, 8);
IS_AT(msb_sandbox_options, idle_timeout_ms, 120, 8);
IS_AT(msb_sandbox_options, boot_timeout_ms, 128, 8);
IS_AT(msb_sandbox_options, log_max_bytes, 136, 8);
IS_AT(msb_sandbox_options, log_files, 144, 4);
IS_AT(msb_sandbox_options, reserved, 148, 4);
IS_AT(msb_sandbox_options, pull_policy, 152, 4);
IS_AT(msb_sandbox_options, security, 156, 4);
IS_AT(msb_sandbox_options, disk_mib, 160, 8);
IS_AT(msb_sandbox_options, entrypoint, 168, 8);
IS_AT(msb_sandbox_options, entrypoint_len, 176, 8);
IS_AT(msb_sandbox_options, stop_signal, 184, 8);
IS_AT(msb_sandbox_options, shm_size, 192, 8);
IS_AT(msb_sandbox_options, platform, 200, 8);
IS_AT(msb_sandbox_options, mounts, 208, 8);
IS_AT(msb_sandbox_options, mounts_len, 216, 8);

static_assert(sizeof(msb_bounds) == 40, "msb_bounds");
IS_AT(msb_bounds, struct_size, 0, 4);
IS_AT(msb_bounds, reserved, 4, 4);
IS_AT(msb_bounds, pids, 8, 8);
IS_AT(msb_bounds, memory_bytes, 16, 8);
IS_AT(msb_bounds, disk_bytes, 24, 8);
IS_AT(msb_bounds, cpus, 32, 8);

static_assert(sizeof(msb_sandbox_entry) == 144, "msb_sandbox_entry");
IS_AT(msb_sandbox_entry, struct_size, 0, 4);
IS_AT(msb_sandbox_entry, state, 4, 4);
IS_AT(msb_sandbox_entry, isolation, 8, 4);
IS_AT(msb_sandbox_entry, reason, 12, 4);
IS_AT(msb_sandbox_entry, flags, 16, 4);
IS_AT(msb_sandbox_entry, jailed, 20, 4);
IS_AT(msb_sandbox_entry, memory_mib, 24, 4);
IS_AT(msb_sandbox_entry, reserved, 28, 4);
IS_AT(msb_sandbox_entry, cpus, 32, 8);
IS_AT(msb_sandbox_entry, created_ms, 40, 8);
IS_AT(msb_sandbox_entry, started_ms, 48, 8);
IS_AT(msb_sandbox_entry, name, 56, 8);
IS_AT(msb_sandbox_entry, image, 64, 8);
IS_AT(msb_sandbox_entry, driver, 72, 8);
IS_AT(msb_sandbox_entry, detail, 80, 8);
IS_AT(msb_sandbox_entry, labels, 88, 8);
IS_AT(msb_sandbox_entry, labels_len, 96, 8);
IS_AT(msb_sandbox_entry, command, 104, 8);
IS_AT(msb_sandbox_entry, command_len, 112, 8);
IS_AT(msb_sandbox_entry, missing_walls, 120, 8);
IS_AT(msb_sandbox_entry, missing_walls_len, 128, 8);
IS_AT(msb_sandbox_entry, bounds, 136, 8);

static_assert(sizeof(msb_sandbox_entries) == 32, "msb_sandbox_entries");
IS_AT(msb_sandbox_entries, struct_size, 0, 4);
IS_AT(msb_sandbox_entries, reserved, 4, 4);
IS_AT(msb_sandbox_entries, entries, 8, 8);
IS_AT(msb_sandbox_entries, len, 16, 8);
IS_AT(msb_sandbox_entries, owner, 24, 8);

static_assert(sizeof(msb_driver_entry) == 56, "msb_driver_entry");
IS_AT(msb_driver_entry, struct_size, 0, 4);
IS_AT(msb_driver_entry, isolation, 4, 4);
IS_AT(msb_driver_entry, usable, 8, 4);
IS_AT(msb_driver_entry, reserved, 12, 4);
IS_AT(msb_driver_entry, name, 16, 8);
IS_AT(msb_driver_entry, why, 24, 8);
IS_AT(msb_driver_entry, hint, 32, 8);
IS_AT(msb_driver_entry, unbounded, 40, 8);
IS_AT(msb_driver_entry, unbounded_len, 48, 8);

static_assert(sizeof(msb_driver_entries) == 32, "msb_driver_entries");
IS_AT(msb_driver_entries, struct_size, 0, 4);
IS_AT(msb_driver_entries, reserved, 4, 4);
IS_AT(msb_driver_entries, entries, 8, 8);
IS_AT(msb_driver_entries, len, 16, 8);
IS_AT(msb_driver_entries, owner, 24, 8);

static_assert(sizeof(msb_wall_entry) == 32, "msb_wall_entry");
IS_AT(msb_wall_entry, struct_size, 0, 4);
IS_AT(msb_wall_entry, reserved, 4, 4);
IS_AT(msb_wall_entry, name, 8, 8);
IS_AT(msb_wall_entry, missing, 16, 8);
IS_AT(msb_wall_entry, hint, 24, 8);

static_assert(sizeof(msb_wall_entries) == 32, "msb_wall_entries");
IS_AT(msb_wall_entries, struct_size, 0, 4);
IS_AT(msb_wall_entries, reserved, 4, 4);
IS_AT(msb_wall_entries, entries, 8, 8);
IS_AT(msb_wall_entries, len, 16, 8);
IS_AT(msb_wall_entries, owner, 24, 8);

static_assert(sizeof(msb_image_entry) == 168, "msb_image_entry");
IS_AT(msb_image_entry, struct_size, 0, 4);
IS_AT(msb_image_entry, layers, 4, 4);
IS_AT(msb_image_entry, size, 8, 8);
IS_AT(msb_image_entry, download_size, 16, 8);
IS_AT(msb_image_entry, added_ms, 24, 8);
IS_AT(msb_image_entry, id, 32, 8);
IS_AT(msb_image_entry, architecture, 40, 8);
IS_AT(msb_image_entry, rootfs, 48, 8);
IS_AT(msb_image_entry, workdir, 56, 8);
IS_AT(msb_image_entry, user, 64, 8);
IS_AT(msb_image_entry, names, 72, 8);
IS_AT(msb_image_entry, names_len, 80, 8);
IS_AT(msb_image_entry, digests, 88, 8);
IS_AT(msb_image_entry, digests_len, 96, 8);
IS_AT(msb_image_entry, env, 104, 8);
IS_AT(msb_image_entry, env_len, 112, 8);
IS_AT(msb_image_entry, entrypoint, 120, 8);
IS_AT(msb_image_entry, entrypoint_len, 128, 8);
IS_AT(msb_image_entry, cmd, 136, 8);
IS_AT(msb_image_entry, cmd_len, 144, 8);
IS_AT(msb_image_entry, used_by, 152, 8);
IS_AT(msb_image_entry, used_by_len, 160, 8);

static_assert(sizeof(msb_image_entries) == 32, "msb_image_entries");
IS_AT(msb_image_entries, struct_size, 0, 4);
IS_AT(msb_image_entries, reserved, 4, 4);
IS_AT(msb_image_entries, entries, 8, 8);
IS_AT(msb_image_entries, len, 16, 8);
IS_AT(msb_image_entries, owner, 24, 8);

static_assert(sizeof(msb_volume_options) == 48, "msb_volume_options");
IS_AT(msb_volume_options, struct_size, 0, 4);
IS_AT(msb_volume_options, kind, 4, 4);
IS_AT(msb_volume_options, name, 8, 8);
IS_AT(msb_volume_options, quota_mib, 16, 8);
IS_AT(msb_volume_options, size_mib, 24, 8);
IS_AT(msb_volume_options, labels, 32, 8);
IS_AT(msb_volume_options, labels_len, 40, 8);

static_assert(sizeof(msb_volume_entry) == 88, "msb_volume_entry");
IS_AT(msb_volume_entry, struct_size, 0, 4);
IS_AT(msb_volume_entry, kind, 4, 4);
IS_AT(msb_volume_entry, used, 8, 8);
IS_AT(msb_volume_entry, size, 16, 8);
IS_AT(msb_volume_entry, quota_mib, 24, 8);
IS_AT(msb_volume_entry, created_ms, 32, 8);
IS_AT(msb_volume_entry, name, 40, 8);
IS_AT(msb_volume_entry, path, 48, 8);
IS_AT(msb_volume_entry, labels, 56, 8);
IS_AT(msb_volume_entry, labels_len, 64, 8);
IS_AT(msb_volume_entry, used_by, 72, 8);
IS_AT(msb_volume_entry, used_by_len, 80, 8);

static_assert(sizeof(msb_volume_entries) == 32, "msb_volume_entries");
IS_AT(msb_volume_entries, struct_size, 0, 4);
IS_AT(msb_volume_entries, reserved, 4, 4);
IS_AT(msb_volume_entries, entries, 8, 8);
IS_AT(msb_volume_entries, len, 16, 8);
IS_AT(msb_volume_entries, owner, 24, 8);

static_assert(sizeof(msb_rlimit) == 24, "msb_rlimit");
IS_AT(msb_rlimit, resource, 0, 4);
IS_AT(msb_rlimit, reserved, 4, 4);
IS_AT(msb_rlimit, soft, 8, 8);
IS_AT(msb_rlimit, hard, 16, 8);

static_assert(sizeof(msb_exec_options) == 128, "msb_exec_options");
IS_AT(msb_exec_options, struct_size, 0, 4);
IS_AT(msb_exec_options, flags, 4, 4);
IS_AT(msb_exec_options, cmd, 8, 8);
IS_AT(msb_exec_options, args, 16, 8);
IS_AT(msb_exec_options, args_len, 24, 8);
IS_AT(msb_exec_options, env, 32, 8);
IS_AT(msb_exec_options, env_len, 40, 8);
IS_AT(msb_exec_options, cwd, 48, 8);
IS_AT(msb_exec_options, user, 56, 8);
IS_AT(msb_exec_options, stdin_data, 64, 8);
IS_AT(msb_exec_options, stdin_len, 72, 8);
IS_AT(msb_exec_options, rlimits, 80, 8);
IS_AT(msb_exec_options, rlimits_len, 88, 8);
IS_AT(msb_exec_options, timeout_ns, 96, 8);
IS_AT(msb_exec_options, drain_ns, 104, 8);
IS_AT(msb_exec_options, rows, 112, 2);
IS_AT(msb_exec_options, cols, 114, 2);
IS_AT(msb_exec_options, reserved, 116, 4);
IS_AT(msb_exec_options, max_output, 120, 8);

static_assert(sizeof(msb_exec_exit) == 48, "msb_exec_exit");
IS_AT(msb_exec_exit, struct_size, 0, 4);
IS_AT(msb_exec_exit, code, 4, 4);
IS_AT(msb_exec_exit, signal, 8, 4);
IS_AT(msb_exec_exit, flags, 12, 4);
IS_AT(msb_exec_exit, user_ns, 16, 8);
IS_AT(msb_exec_exit, system_ns, 24, 8);
IS_AT(msb_exec_exit, wall_ns, 32, 8);
IS_AT(msb_exec_exit, max_rss, 40, 8);

static_assert(sizeof(msb_exec_failure) == 56, "msb_exec_failure");
IS_AT(msb_exec_failure, struct_size, 0, 4);
IS_AT(msb_exec_failure, kind, 4, 4);
IS_AT(msb_exec_failure, os_error, 8, 4);
IS_AT(msb_exec_failure, reserved, 12, 4);
IS_AT(msb_exec_failure, kind_name, 16, 8);
IS_AT(msb_exec_failure, stage, 24, 8);
IS_AT(msb_exec_failure, os_error_name, 32, 8);
IS_AT(msb_exec_failure, message, 40, 8);
IS_AT(msb_exec_failure, path, 48, 8);

static_assert(sizeof(msb_event) == 64, "msb_event");
IS_AT(msb_event, struct_size, 0, 4);
IS_AT(msb_event, kind, 4, 4);
IS_AT(msb_event, value, 8, 8);
IS_AT(msb_event, data, 16, 8);
IS_AT(msb_event, len, 24, 8);
IS_AT(msb_event, exit, 32, 8);
IS_AT(msb_event, failure, 40, 8);
IS_AT(msb_event, flags, 48, 4);
IS_AT(msb_event, reserved, 52, 4);
IS_AT(msb_event, owner, 56, 8);

static_assert(sizeof(msb_output) == 104, "msb_output");
IS_AT(msb_output, struct_size, 0, 4);
IS_AT(msb_output, kind, 4, 4);
IS_AT(msb_output, exit, 8, 8);
IS_AT(msb_output, failure, 16, 8);
IS_AT(msb_output, lost, 24, 8);
IS_AT(msb_output, lost_len, 32, 8);
IS_AT(msb_output, stdout_data, 40, 8);
IS_AT(msb_output, stdout_len, 48, 8);
IS_AT(msb_output, stdout_total, 56, 8);
IS_AT(msb_output, stderr_data, 64, 8);
IS_AT(msb_output, stderr_len, 72, 8);
IS_AT(msb_output, stderr_total, 80, 8);
IS_AT(msb_output, flags, 88, 4);
IS_AT(msb_output, reserved, 92, 4);
IS_AT(msb_output, owner, 96, 8);

static_assert(sizeof(msb_exec_entry) == 64, "msb_exec_entry");
IS_AT(msb_exec_entry, struct_size, 0, 4);
IS_AT(msb_exec_entry, flags, 4, 4);
IS_AT(msb_exec_entry, pid, 8, 4);
IS_AT(msb_exec_entry, followers, 12, 4);
IS_AT(msb_exec_entry, age_ns, 16, 8);
IS_AT(msb_exec_entry, output_total, 24, 8);
IS_AT(msb_exec_entry, id, 32, 8);
IS_AT(msb_exec_entry, argv, 40, 8);
IS_AT(msb_exec_entry, argv_len, 48, 8);
IS_AT(msb_exec_entry, exit, 56, 8);

static_assert(sizeof(msb_exec_entries) == 32, "msb_exec_entries");
IS_AT(msb_exec_entries, struct_size, 0, 4);
IS_AT(msb_exec_entries, reserved, 4, 4);
IS_AT(msb_exec_entries, entries, 8, 8);
IS_AT(msb_exec_entries, len, 16, 8);
IS_AT(msb_exec_entries, owner, 24, 8);

static_assert(sizeof(msb_log_options) == 24, "msb_log_options");
IS_AT(msb_log_options, struct_size, 0, 4);
IS_AT(msb_log_options, flags, 4, 4);
IS_AT(msb_log_options, session, 8, 8);
IS_AT(msb_log_options, since_ns, 16, 8);

static_assert(sizeof(msb_log_record) == 96, "msb_log_record");
IS_AT(msb_log_record, struct_size, 0, 4);
IS_AT(msb_log_record, kind, 4, 4);
IS_AT(msb_log_record, time_ns, 8, 8);
IS_AT(msb_log_record, value, 16, 8);
IS_AT(msb_log_record, session, 24, 8);
IS_AT(msb_log_record, data, 32, 8);
IS_AT(msb_log_record, len, 40, 8);
IS_AT(msb_log_record, argv, 48, 8);
IS_AT(msb_log_record, argv_len, 56, 8);
IS_AT(msb_log_record, exit, 64, 8);
IS_AT(msb_log_record, failure, 72, 8);
IS_AT(msb_log_record, flags, 80, 4);
IS_AT(msb_log_record, reserved, 84, 4);
IS_AT(msb_log_record, owner, 88, 8);

static_assert(sizeof(msb_fs_request) == 112, "msb_fs_request");
IS_AT(msb_fs_request, struct_size, 0, 4);
IS_AT(msb_fs_request, op, 4, 4);
IS_AT(msb_fs_request, flags, 8, 4);
IS_AT(msb_fs_request, set, 12, 4);
IS_AT(msb_fs_request, path, 16, 8);
IS_AT(msb_fs_request, to, 24, 8);
IS_AT(msb_fs_request, user, 32, 8);
IS_AT(msb_fs_request, offset, 40, 8);
IS_AT(msb_fs_request, length, 48, 8);
IS_AT(msb_fs_request, size, 56, 8);
IS_AT(msb_fs_request, dir, 64, 8);
IS_AT(msb_fs_request, accessed_s, 72, 8);
IS_AT(msb_fs_request, modified_s, 80, 8);
IS_AT(msb_fs_request, accessed_ns, 88, 4);
IS_AT(msb_fs_request, modified_ns, 92, 4);
IS_AT(msb_fs_request, mode, 96, 4);
IS_AT(msb_fs_request, uid, 100, 4);
IS_AT(msb_fs_request, gid, 104, 4);
IS_AT(msb_fs_request, limit, 108, 4);

static_assert(sizeof(msb_fs_entry) == 120, "msb_fs_entry");
IS_AT(msb_fs_entry, struct_size, 0, 4);
IS_AT(msb_fs_entry, kind, 4, 4);
IS_AT(msb_fs_entry, name, 8, 8);
IS_AT(msb_fs_entry, size, 16, 8);
IS_AT(msb_fs_entry, allocated, 24, 8);
IS_AT(msb_fs_entry, links, 32, 8);
IS_AT(msb_fs_entry, inode, 40, 8);
IS_AT(msb_fs_entry, device, 48, 8);
IS_AT(msb_fs_entry, accessed_s, 56, 8);
IS_AT(msb_fs_entry, modified_s, 64, 8);
IS_AT(msb_fs_entry, changed_s, 72, 8);
IS_AT(msb_fs_entry, created_s, 80, 8);
IS_AT(msb_fs_entry, accessed_ns, 88, 4);
IS_AT(msb_fs_entry, modified_ns, 92, 4);
IS_AT(msb_fs_entry, changed_ns, 96, 4);
IS_AT(msb_fs_entry, created_ns, 100, 4);
IS_AT(msb_fs_entry, mode, 104, 4);
IS_AT(msb_fs_entry, uid, 108, 4);
IS_AT(msb_fs_entry, gid, 112, 4);
IS_AT(msb_fs_entry, type_letter, 116, 4);

static_assert(sizeof(msb_fs_result) == 48, "msb_fs_result");
IS_AT(msb_fs_result, struct_size, 0, 4);
IS_AT(msb_fs_result, exists, 4, 4);
IS_AT(msb_fs_result, dir, 8, 8);
IS_AT(msb_fs_result, path, 16, 8);
IS_AT(msb_fs_result, entries, 24, 8);
IS_AT(msb_fs_result, len, 32, 8);
IS_AT(msb_fs_result, owner, 40, 8);

static_assert(sizeof(msb_fs_failure) == 40, "msb_fs_failure");
IS_AT(msb_fs_failure, struct_size, 0, 4);
IS_AT(msb_fs_failure, os_error, 4, 4);
IS_AT(msb_fs_failure, os_error_name, 8, 8);
IS_AT(msb_fs_failure, operation, 16, 8);
IS_AT(msb_fs_failure, path, 24, 8);
IS_AT(msb_fs_failure, owner, 32, 8);

static_assert(sizeof(msb_attach_options) == 32, "msb_attach_options");
IS_AT(msb_attach_options, struct_size, 0, 4);
IS_AT(msb_attach_options, flags, 4, 4);
IS_AT(msb_attach_options, exec, 8, 8);
IS_AT(msb_attach_options, session, 16, 8);
IS_AT(msb_attach_options, detach_keys, 24, 8);

/* Each struct of the caller's starts from its macro, which has to name every field. */
int layout_is_usable(void);
int layout_is_usable(void)
{
    int usable = 1;
    {
        msb_error one = MSB_ERROR_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_progress one = MSB_PROGRESS_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_mount one = MSB_MOUNT_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_sandbox_options one = MSB_SANDBOX_OPTIONS_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_sandbox_entries one = MSB_SANDBOX_ENTRIES_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_driver_entries one = MSB_DRIVER_ENTRIES_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_wall_entries one = MSB_WALL_ENTRIES_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_image_entries one = MSB_IMAGE_ENTRIES_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_volume_options one = MSB_VOLUME_OPTIONS_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_volume_entries one = MSB_VOLUME_ENTRIES_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_exec_options one = MSB_EXEC_OPTIONS_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_event one = MSB_EVENT_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_output one = MSB_OUTPUT_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_exec_entries one = MSB_EXEC_ENTRIES_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_log_options one = MSB_LOG_OPTIONS_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_log_record one = MSB_LOG_RECORD_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_fs_request one = MSB_FS_REQUEST_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_fs_result one = MSB_FS_RESULT_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_fs_failure one = MSB_FS_FAILURE_INIT;

        usable &= one.struct_size == sizeof one;
    }
    {
        msb_attach_options one = MSB_ATTACH_OPTIONS_INIT;

        usable &= one.struct_size == sizeof one;
    }
    return usable;
}
