//! The C ABI called inside the host's own tokio runtime: it must not enter another runtime.

#![allow(clippy::unwrap_used, unsafe_code, reason = "a test may panic, and calls C functions")]

mod common;

/// The C library: a test cannot link it by its Rust names.
#[path = "../src/lib.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, reason = "it is a library")]
mod ffi;

use ffi::*;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::ptr;

fn zeroed<T>() -> T {
    // SAFETY: used only for structs of the header, for which zeros are a valid value.
    unsafe { std::mem::zeroed() }
}

fn size<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap()
}

/// Creates a sandbox, collects a command, and removes the sandbox, all with blocking calls.
fn whole_life(name: &str) {
    common::setup();
    let text = |text: &str| CString::new(text).unwrap();
    let (name, driver, cmd, arg) = (text(name), text("container"), text("echo"), text("hello"));
    let image = CString::new(common::rootfs().as_os_str().as_bytes()).unwrap();
    let mut err: msb_error = zeroed();
    err.struct_size = size::<msb_error>();
    let err = &raw mut err;
    let options = msb_sandbox_options {
        struct_size: size::<msb_sandbox_options>(),
        name: name.as_ptr(),
        image: image.as_ptr(),
        driver: driver.as_ptr(),
        flags: MSB_SANDBOX_REPLACE,
        ..zeroed()
    };
    let (mut sandbox, mut exec) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: here and below, every pointer is valid for the call.
    assert_eq!(unsafe { msb_sandbox_create(&raw const options, &raw mut sandbox, err) }, MSB_OK);
    // SAFETY: as above.
    assert_eq!(unsafe { msb_sandbox_wait_ready(sandbox, -1, err) }, MSB_OK);
    let args = [arg.as_ptr()];
    let options = msb_exec_options {
        struct_size: size::<msb_exec_options>(),
        cmd: cmd.as_ptr(),
        args: args.as_ptr(),
        args_len: 1,
        ..zeroed()
    };
    // SAFETY: as above.
    let started = unsafe {
        msb_exec_stream(sandbox, &raw const options, &raw mut exec, ptr::null_mut(), err)
    };
    assert_eq!(started, MSB_OK);
    let mut output = msb_output { struct_size: size::<msb_output>(), ..zeroed() };
    // SAFETY: as above.
    assert_eq!(unsafe { msb_exec_collect(exec, -1, &raw mut output, err) }, MSB_OK);
    // SAFETY: valid for this many bytes until the release.
    let printed = unsafe { std::slice::from_raw_parts(output.stdout_data, output.stdout_len) };
    assert_eq!((output.kind, printed), (MSB_EVENT_EXITED, &b"hello\n"[..]));
    // SAFETY: as above.
    unsafe { msb_output_release(&raw mut output) };
    // SAFETY: as above.
    assert_eq!(unsafe { msb_sandbox_kill(sandbox, err) }, MSB_OK);
    assert_eq!((msb_handle_close(exec.cast()), msb_handle_close(sandbox.cast())), (MSB_OK, MSB_OK));
    // SAFETY: as above.
    assert_eq!(unsafe { msb_sandbox_remove(name.as_ptr(), 0, err) }, MSB_OK);
}

#[tokio::test]
async fn abi_calls_work_inside_a_tokio_runtime_of_one_thread() {
    whole_life("tokio-one");
    let inside = tokio::task::LocalSet::new();
    inside.run_until(async { whole_life("tokio-local") }).await;
}

#[test]
fn abi_calls_work_on_a_multi_threaded_tokio_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let blocking = tokio::task::spawn_blocking(|| whole_life("tokio-blocking"));
        tokio::spawn(async { whole_life("tokio-worker") }).await.unwrap();
        blocking.await.unwrap();
    });
}
