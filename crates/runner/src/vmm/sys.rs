//! The calls into libkrun.

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
/// What that command line names as the first process.
const INIT: &CStr = c"init.krun";
/// Where the first process mounts things. The root filesystem has nothing else.
const FOLDERS: [&CStr; 4] = [c"dev", c"proc", c"sys", c"msb"];
/// A disk without structure, and that nothing is forced to the host's disk when the guest asks: it
/// is as lasting as the sandbox.
const RAW: u32 = 0;
const NO_SYNC: u32 = 0;
/// Errors, but no warnings.
const LOG_LEVEL: u32 = 1;

/// What libkrun refused.
#[derive(Debug)]
pub(super) struct Refused {
    what: &'static str,
    why: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.what, self.why)
    }
}

/// The result of one of libkrun's calls, which are negative error numbers.
fn done(what: &'static str, result: i32) -> Result<u32, Refused> {
    u32::try_from(result).map_err(|_| {
        let why = io::Error::from_raw_os_error(result.saturating_neg()).to_string();
        Refused { what, why }
    })
}

fn text(path: impl Into<Vec<u8>>) -> Result<CString, Refused> {
    let text = CString::new(path);
    text.map_err(|error| Refused { what: "pass a path on", why: error.to_string() })
}

/// Becomes the machine. Comes back only with what was refused.
pub(super) fn enter(context: u32) -> Refused {
    let result = krun::krun_start_enter(context);
    let end = done("start the machine", result).err();
    end.unwrap_or(Refused { what: "stay", why: "libkrun returned".to_owned() })
}

/// Describes the machine to libkrun. Everything is where it is in the VMM's jail.
pub(super) fn configure(vmm: &Vmm, agent: Vec<u8>) -> Result<u32, Refused> {
    done("set up its log", krun::krun_set_log_level(LOG_LEVEL))?;
    let context = done("make a machine", krun::krun_create_ctx())?;
    let size = krun::krun_set_vm_config(context, vmm.cpus, vmm.memory_mib);
    done("have so many processors or so much memory", size)?;
    root(context, agent)?;
    let image = text(IMAGE)?;
    // SAFETY: both texts end in NUL and live until the call returns, which copies them.
    let shown =
        unsafe { krun::krun_add_virtiofs4(context, c"image".as_ptr(), image.as_ptr(), 0, true, 0) };
    done("show the image", shown)?;
    let disk = text(DISK)?;
    // SAFETY: as above.
    let added = unsafe {
        let id = c"disk".as_ptr();
        krun::krun_add_disk3(context, id, disk.as_ptr(), RAW, false, false, NO_SYNC)
    };
    done("use the disk", added)?;
    done("do without its own vsock", krun::krun_disable_implicit_vsock(context))?;
    // Without flags no socket of the guest becomes one of the host's.
    done("have a vsock", krun::krun_add_vsock(context, 0))?;
    let ports = [(AGENT_PORT, AGENT_SOCKET, true), (CONTROL_PORT, CONTROL_SOCKET, false)];
    for (port, name, listen) in ports {
        let path = text(format!("{SOCKETS}/{name}"))?;
        // SAFETY: as above.
        let mapped = unsafe { krun::krun_add_vsock_port2(context, port, path.as_ptr(), listen) };
        done("map a port to a socket", mapped)?;
    }
    // Standard output is the log, which is bounded; a file would not be.
    // SAFETY: as above.
    let output = unsafe { krun::krun_set_console_output(context, c"/proc/self/fd/1".as_ptr()) };
    done("use the console", output)?;
    tell(context, &vmm.words)?;
    Ok(context)
}

/// Loads the library with the kernel, wherever it is. libkrun looks for it by its name, and finds
/// what is loaded under that name already.
pub(super) fn load_kernel(path: &Path) -> Result<(), Refused> {
    let path = text(path.as_os_str().as_bytes())?;
    // SAFETY: the text ends in NUL. The library's code that runs on loading is that of a compiler's
    // start-up files; the library is data but for two functions.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if !library.is_null() {
        return Ok(());
    }
    // SAFETY: after a failure it returns a text that ends in NUL, or nothing.
    let why = unsafe { libc::dlerror() };
    let why = if why.is_null() {
        "the loader does not say why".to_owned()
    } else {
        // SAFETY: not null, and valid until the next call of the loader's in this thread.
        unsafe { CStr::from_ptr(why) }.to_string_lossy().into_owned()
    };
    Err(Refused { what: "load libkrunfw", why })
}

/// A root filesystem with nothing in it but the agent, and where it mounts things: the image needs
/// no file of ours, and no directory.
fn root(context: u32, agent: Vec<u8>) -> Result<(), Refused> {
    // SAFETY: the tag ends in NUL; no path stands for a filesystem without files of the host.
    let added =
        unsafe { krun::krun_add_virtiofs4(context, ROOT.as_ptr(), ptr::null(), 0, false, 0) };
    done("have a root filesystem", added)?;
    for folder in FOLDERS {
        // SAFETY: both texts end in NUL and live for ever.
        let made = unsafe {
            krun::krun_fs_add_overlay_dir(context, ROOT.as_ptr(), folder.as_ptr(), 0o755)
        };
        done("make a directory", made)?;
    }
    // It is read for as long as the machine runs, and the process ends with that.
    let agent: &'static [u8] = Vec::leak(agent);
    // SAFETY: both texts end in NUL and live for ever, as the bytes do.
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
    done("put the agent in", put).map(drop)
}

/// What the agent finds in its environment.
fn tell(context: u32, words: &[String]) -> Result<(), Refused> {
    let words: Result<Vec<CString>, _> = words.iter().map(|word| CString::new(&**word)).collect();
    let words =
        words.map_err(|error| Refused { what: "pass a word on", why: error.to_string() })?;
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(ptr::null());
    // SAFETY: a list of texts that end in NUL, ended by NULL; all live until the call returns,
    // which copies them.
    done("tell the agent", unsafe { krun::krun_set_env(context, pointers.as_ptr()) }).map(drop)
}
