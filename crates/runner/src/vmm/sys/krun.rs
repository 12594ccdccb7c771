//! The distribution's libkrun, under the names of the crate `libkrun`.
//!
//! Declares what `libkrun-sys` 0.11 lacks, as libkrun.h of 1.19 has it. Calls that take numbers only
//! are safe, as they are in the crate.

use std::ffi::c_char;

pub(super) use libkrun_sys::{krun_add_vsock_port2, krun_set_console_output, krun_set_env};

unsafe extern "C" {
    pub(super) fn krun_add_virtiofs4(
        context: u32,
        tag: *const c_char,
        path: *const c_char,
        shm_size: u64,
        read_only: bool,
        semantics: u32,
    ) -> i32;
    pub(super) fn krun_add_disk3(
        context: u32,
        id: *const c_char,
        path: *const c_char,
        format: u32,
        read_only: bool,
        direct_io: bool,
        sync_mode: u32,
    ) -> i32;
    pub(super) fn krun_fs_add_overlay_file(
        context: u32,
        tag: *const c_char,
        path: *const c_char,
        data: *const u8,
        length: usize,
        mode: u32,
        one_shot: bool,
    ) -> i32;
    pub(super) fn krun_fs_add_overlay_dir(
        context: u32,
        tag: *const c_char,
        path: *const c_char,
        mode: u32,
    ) -> i32;
}

/// Gives a call of libkrun that takes numbers only a safe name.
macro_rules! safe {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(pub(super) fn $name($($argument: $type),*) -> i32 {
            // SAFETY: it takes numbers, which libkrun checks.
            unsafe { libkrun_sys::$name($($argument),*) }
        })*
    };
}

safe! {
    krun_set_log_level(level: u32);
    krun_create_ctx();
    krun_set_vm_config(context: u32, cpus: u8, memory_mib: u32);
    krun_disable_implicit_vsock(context: u32);
    krun_add_vsock(context: u32, features: u32);
    krun_start_enter(context: u32);
}
