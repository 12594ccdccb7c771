//! The calls into libkrun: the crate, or the distribution's library by the feature `system-libkrun`.

#[cfg(feature = "system-libkrun")]
mod krun;
#[cfg(not(any(feature = "bundled-libkrun", feature = "system-libkrun")))]
compile_error!("build with one of the features bundled-libkrun and system-libkrun");

use msb_driver_krun::{
    AGENT_PORT, AGENT_SOCKET, CONTROL_PORT, CONTROL_SOCKET, DISK, IMAGE, SOCKETS, Vmm,
};
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// The tag of the root filesystem, which libkrun's kernel command line names.
const ROOT: &CStr = c"/dev/root";
/// The first process that the command line names.
const INIT: &CStr = c"init.krun";
/// The mount points of the first process. The root filesystem has nothing else.
const FOLDERS: [&CStr; 4] = [c"dev", c"proc", c"sys", c"msb"];
/// Disk format and flush mode: a flush of the guest does not reach the host's disk, which need not
/// outlive the sandbox.
const RAW: u32 = 0;
const NO_SYNC: u32 = 0;
/// Errors, but no warnings.
const LOG_LEVEL: u32 = 1;

/// A failed call of libkrun.
#[derive(Debug)]
pub(super) struct KrunError {
    what: &'static str,
    why: String,
}

impl fmt::Display for KrunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.why)
    }
}

/// Checks the result of a call of libkrun, which is negative on error.
fn check(what: &'static str, result: i32) -> Result<u32, KrunError> {
    u32::try_from(result).map_err(|_| {
        let why = io::Error::from_raw_os_error(result.saturating_neg()).to_string();
        KrunError { what, why }
    })
}

fn text(path: impl Into<Vec<u8>>) -> Result<CString, KrunError> {
    let text = CString::new(path);
    text.map_err(|error| KrunError { what: "pass a path", why: error.to_string() })
}

/// Becomes the machine. Returns only on error.
pub(super) fn enter(context: u32) -> KrunError {
    let result = krun::krun_start_enter(context);
    let end = check("start the machine", result).err();
    end.unwrap_or(KrunError { what: "run the machine", why: "libkrun returned".to_owned() })
}

/// Configures the machine. Paths are those of the VMM's jail.
pub(super) fn configure(vmm: &Vmm, agent: Vec<u8>) -> Result<u32, KrunError> {
    check("set up its log", krun::krun_set_log_level(LOG_LEVEL))?;
    let context = check("create a machine", krun::krun_create_ctx())?;
    let size = krun::krun_set_vm_config(context, vmm.cpus, vmm.memory_mib);
    check("set the processors and the memory", size)?;
    root(context, agent)?;
    let image = text(IMAGE)?;
    // SAFETY: both texts end in NUL and live until the call returns, which copies them.
    let shown =
        unsafe { krun::krun_add_virtiofs4(context, c"image".as_ptr(), image.as_ptr(), 0, true, 0) };
    check("share the image", shown)?;
    let disk = text(DISK)?;
    // SAFETY: as above.
    let added = unsafe {
        let id = c"disk".as_ptr();
        krun::krun_add_disk3(context, id, disk.as_ptr(), RAW, false, false, NO_SYNC)
    };
    check("add the disk", added)?;
    check("disable the implicit vsock", krun::krun_disable_implicit_vsock(context))?;
    // Without flags no socket of the guest reaches the host.
    check("add a vsock", krun::krun_add_vsock(context, 0))?;
    let ports = [(AGENT_PORT, AGENT_SOCKET, true), (CONTROL_PORT, CONTROL_SOCKET, false)];
    for (port, name, listen) in ports {
        let path = text(format!("{SOCKETS}/{name}"))?;
        // SAFETY: as above.
        let mapped = unsafe { krun::krun_add_vsock_port2(context, port, path.as_ptr(), listen) };
        check("map a port to a socket", mapped)?;
    }
    // Standard output is the bounded log; a file would not be bounded.
    // SAFETY: as above.
    let output = unsafe { krun::krun_set_console_output(context, c"/proc/self/fd/1".as_ptr()) };
    check("set the console's output", output)?;
    set_environment(context, &vmm.options)?;
    Ok(context)
}

/// Loads libkrunfw. libkrun opens it by name and finds the library that is loaded already.
pub(super) fn load_kernel(path: &Path) -> Result<(), KrunError> {
    let path = text(path.as_os_str().as_bytes())?;
    // SAFETY: the text ends in NUL. On loading only the compiler's start-up code runs; the library
    // is data but for two functions.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if !library.is_null() {
        return Ok(());
    }
    // SAFETY: after a failure it returns a text that ends in NUL, or null.
    let why = unsafe { libc::dlerror() };
    let why = if why.is_null() {
        "unknown error".to_owned()
    } else {
        // SAFETY: not null, and valid until the next call of the loader's in this thread.
        unsafe { CStr::from_ptr(why) }.to_string_lossy().into_owned()
    };
    Err(KrunError { what: "load libkrunfw", why })
}

/// Adds a root filesystem with the agent and its mount points only: the image needs no file of
/// ours.
fn root(context: u32, agent: Vec<u8>) -> Result<(), KrunError> {
    // SAFETY: the tag ends in NUL; a null path is a filesystem without files of the host.
    let added =
        unsafe { krun::krun_add_virtiofs4(context, ROOT.as_ptr(), ptr::null(), 0, false, 0) };
    check("add the root filesystem", added)?;
    for folder in FOLDERS {
        // SAFETY: both texts end in NUL and are static.
        let made = unsafe {
            krun::krun_fs_add_overlay_dir(context, ROOT.as_ptr(), folder.as_ptr(), 0o755)
        };
        check("create a directory", made)?;
    }
    // It is read for as long as the machine runs, and the process ends with that.
    let agent: &'static [u8] = Vec::leak(agent);
    // SAFETY: both texts end in NUL; they and the bytes are static.
    let put = unsafe {
        let (root, path) = (ROOT.as_ptr(), INIT.as_ptr());
        krun::krun_fs_add_overlay_file(
            context,
            root,
            path,
            agent.as_ptr(),
            agent.len(),
            0o755,
            false,
        )
    };
    check("add the agent", put).map(drop)
}

/// Sets the agent's environment.
fn set_environment(context: u32, options: &[String]) -> Result<(), KrunError> {
    let options: Result<Vec<CString>, _> =
        options.iter().map(|option| CString::new(&**option)).collect();
    let options =
        options.map_err(|error| KrunError { what: "pass a variable", why: error.to_string() })?;
    let mut pointers: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
    pointers.push(ptr::null());
    // SAFETY: a list of texts that end in NUL, ended by NULL; all live until the call returns,
    // which copies them.
    check("set the agent's environment", unsafe { krun::krun_set_env(context, pointers.as_ptr()) })
        .map(drop)
}
