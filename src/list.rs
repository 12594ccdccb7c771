//! Lists: of sandboxes, of the sessions in one, of images, of drivers, of walls of the jail.

use super::boundary::{Failure, Out, Sized32, size_through, wrong};
use super::event::{exit_of, msb_exec_exit};
use super::loan::{self, Arena, Loan, Released, nobody, size_of_u32};
use super::status::{MSB_E_LIMIT, MSB_OK, msb_status};
use microsandbox::image::ImageInfo;
use microsandbox::sandbox::{
    Bounds, Isolation, SandboxEndReason, SandboxInfo, SandboxStatus, SessionInfo,
};
use microsandbox::{DriverReport, HostReport, WallReport};
use std::ffi::{c_char, c_void};
use std::fmt::Debug;
use std::ptr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Never started.
pub const MSB_STATE_CREATED: u32 = 1;
/// Running.
pub const MSB_STATE_RUNNING: u32 = 2;
/// It ended as it was told, or as its options said.
pub const MSB_STATE_STOPPED: u32 = 3;
/// It ended by itself.
pub const MSB_STATE_CRASHED: u32 = 4;

/// A virtual machine that the processor isolates.
pub const MSB_ISOLATION_HARDWARE: u32 = 1;
/// A virtual machine in software.
pub const MSB_ISOLATION_EMULATED: u32 = 2;
/// A container: the kernel is shared.
pub const MSB_ISOLATION_CONTAINER: u32 = 3;
/// A virtual machine on a host that was told to skip the check for hardware isolation.
pub const MSB_ISOLATION_UNCHECKED: u32 = 4;

/// Every process of a sandbox on the host, but its supervisor, is in a jail with all of its walls.
pub const MSB_JAILED_YES: u32 = 1;
/// A wall is missing.
pub const MSB_JAILED_NO: u32 = 2;

/// It was asked to stop.
pub const MSB_REASON_STOPPED: u32 = 1;
/// It was killed on request.
pub const MSB_REASON_KILLED: u32 = 2;
/// It was not detached, and the process that created it ended.
pub const MSB_REASON_CREATOR_GONE: u32 = 3;
/// Its time was over.
pub const MSB_REASON_MAX_DURATION: u32 = 4;
/// Nothing ran in it for too long.
pub const MSB_REASON_IDLE: u32 = 5;
/// It ended by itself.
pub const MSB_REASON_CRASHED: u32 = 6;
/// It did not come up.
pub const MSB_REASON_BOOT_FAILED: u32 = 7;

/// What a sandbox can take at most; 0 where nothing bounds it.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_bounds {
    /// `sizeof(msb_bounds)` of the library.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Processes and threads at once.
    pub pids: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of its upper layer.
    pub disk_bytes: u64,
    /// Processors, also a fraction.
    pub cpus: f64,
}

/// What is known about a sandbox. All pointers are borrowed until the list is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_sandbox_entry {
    /// `sizeof(msb_sandbox_entry)` of the library.
    pub struct_size: u32,
    /// One of `MSB_STATE_*`.
    pub state: u32,
    /// One of `MSB_ISOLATION_*`; 0 when it was never started.
    pub isolation: u32,
    /// Why it ended: one of `MSB_REASON_*`; 0 when it did not.
    pub reason: u32,
    /// `MSB_SANDBOX_DETACHED` or 0.
    pub flags: u32,
    /// One of `MSB_JAILED_*`; 0 when it never came up.
    pub jailed: u32,
    /// Memory that was asked for, in MiB; 0: none was.
    pub memory_mib: u32,
    /// Zero.
    pub reserved: u32,
    /// Processors that were asked for; 0: none were.
    pub cpus: f64,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: i64,
    /// When it was last started, in milliseconds since 1970; 0: never.
    pub started_ms: i64,
    /// Borrowed. Its name.
    pub name: *const c_char,
    /// Borrowed. What it was made from, the name of an image or a path: bytes.
    pub image: *const c_char,
    /// Borrowed. The driver that runs it, or ran it last; NULL when it was never started.
    pub driver: *const c_char,
    /// Borrowed. More about its end, one line for people; NULL when there is nothing to say.
    pub detail: *const c_char,
    /// Borrowed. `labels_len` texts `KEY=value`.
    pub labels: *const *const c_char,
    /// How many.
    pub labels_len: usize,
    /// Borrowed. `command_len` texts: what its image runs when nobody names a command, its
    /// entrypoint and behind it its command. Commands that are run by name know nothing of it.
    pub command: *const *const c_char,
    /// How many; 0 when the image names none.
    pub command_len: usize,
    /// Borrowed. `missing_walls_len` texts: the walls of the jail that are missing, with the reason.
    pub missing_walls: *const *const c_char,
    /// How many.
    pub missing_walls_len: usize,
    /// Borrowed. The bounds in force; NULL when it never came up.
    pub bounds: *const msb_bounds,
}

/// What is known about an image in the store. All pointers are borrowed until the list is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_image_entry {
    /// `sizeof(msb_image_entry)` of the library.
    pub struct_size: u32,
    /// How many layers it has.
    pub layers: u32,
    /// How many bytes its files have.
    pub size: u64,
    /// How many bytes its layers have as they came.
    pub download_size: u64,
    /// When it came into the store, in milliseconds since 1970.
    pub added_ms: i64,
    /// Borrowed. Its id: `sha256:` and 64 digits.
    pub id: *const c_char,
    /// Borrowed. The processor's architecture that it is for, as in `amd64`.
    pub architecture: *const c_char,
    /// Borrowed. Its root filesystem, a directory that must not be written: bytes.
    pub rootfs: *const c_char,
    /// Borrowed. Its working directory; NULL for none.
    pub workdir: *const c_char,
    /// Borrowed. Its user; NULL for root.
    pub user: *const c_char,
    /// Borrowed. `names_len` names, as short as they can be written.
    pub names: *const *const c_char,
    /// How many.
    pub names_len: usize,
    /// Borrowed. `digests_len` digests by which registries know it.
    pub digests: *const *const c_char,
    /// How many.
    pub digests_len: usize,
    /// Borrowed. `env_len` texts `NAME=value`.
    pub env: *const *const c_char,
    /// How many.
    pub env_len: usize,
    /// Borrowed. `entrypoint_len` texts: what runs in front of a command of its own.
    pub entrypoint: *const *const c_char,
    /// How many.
    pub entrypoint_len: usize,
    /// Borrowed. `cmd_len` texts: its own command.
    pub cmd: *const *const c_char,
    /// How many.
    pub cmd_len: usize,
    /// Borrowed. `used_by_len` names of the sandboxes that use it, running or not.
    pub used_by: *const *const c_char,
    /// How many.
    pub used_by_len: usize,
}

/// Images.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_image_entries {
    /// `sizeof(msb_image_entries)`.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed until `msb_image_entries_release`. `len` pointers.
    pub entries: *const *const msb_image_entry,
    /// How many.
    pub len: usize,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

/// Sandboxes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_sandbox_entries {
    /// `sizeof(msb_sandbox_entries)`.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed until `msb_sandbox_entries_release`. `len` pointers.
    pub entries: *const *const msb_sandbox_entry,
    /// How many.
    pub len: usize,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

/// Of a session: it has a terminal.
pub const MSB_SESSION_TTY: u32 = 1;

/// One run of a command. All pointers are borrowed until the list is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_exec_entry {
    /// `sizeof(msb_exec_entry)` of the library.
    pub struct_size: u32,
    /// `MSB_SESSION_TTY` or 0.
    pub flags: u32,
    /// Process id in the guest.
    pub pid: u32,
    /// How many readers follow it.
    pub followers: u32,
    /// How long ago it started, in nanoseconds.
    pub age_ns: u64,
    /// How many bytes it has put out.
    pub output_total: u64,
    /// Borrowed. Session id.
    pub id: *const c_char,
    /// Borrowed. `argv_len` texts: the program and its arguments, cut when they are very long.
    pub argv: *const *const c_char,
    /// How many.
    pub argv_len: usize,
    /// Borrowed. How it ended; NULL while it runs.
    pub exit: *const msb_exec_exit,
}

/// Sessions.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_exec_entries {
    /// `sizeof(msb_exec_entries)`.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed until `msb_exec_entries_release`. `len` pointers.
    pub entries: *const *const msb_exec_entry,
    /// How many.
    pub len: usize,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

/// What is known about a driver on this host. All pointers are borrowed until the list is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_driver_entry {
    /// `sizeof(msb_driver_entry)` of the library.
    pub struct_size: u32,
    /// One of `MSB_ISOLATION_*`.
    pub isolation: u32,
    /// 1 when it can be used, else 0.
    pub usable: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed. Its name.
    pub name: *const c_char,
    /// Borrowed. On what it stands when it can be used, else why it cannot; one line.
    pub why: *const c_char,
    /// Borrowed. What would make it usable; NULL when that is not known.
    pub hint: *const c_char,
    /// Borrowed. `unbounded_len` texts: what it cannot bound, with the reason.
    pub unbounded: *const *const c_char,
    /// How many.
    pub unbounded_len: usize,
}

/// A wall of the jail. All pointers are borrowed until the list is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_wall_entry {
    /// `sizeof(msb_wall_entry)` of the library.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed. What it is called, such as `"seccomp"`.
    pub name: *const c_char,
    /// Borrowed. Why this host does not have it, one line; NULL when it does.
    pub missing: *const c_char,
    /// Borrowed. What would help; NULL when that is not known.
    pub hint: *const c_char,
}

/// Walls of the jail.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_wall_entries {
    /// `sizeof(msb_wall_entries)`.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed until `msb_wall_entries_release`. `len` pointers.
    pub entries: *const *const msb_wall_entry,
    /// How many.
    pub len: usize,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

/// Drivers.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_driver_entries {
    /// `sizeof(msb_driver_entries)`.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed until `msb_driver_entries_release`. `len` pointers.
    pub entries: *const *const msb_driver_entry,
    /// How many.
    pub len: usize,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

/// Says of a list what it is a list of.
macro_rules! lists {
    ($($list:ident of $entry:ident),* $(,)?) => {$(
        // SAFETY: `repr(C)`, starts with its size, and holds numbers and raw pointers only.
        unsafe impl Sized32 for $list {
            const NAME: &'static str = stringify!($list);
            const FIRST_SIZE: usize = size_through!($list, owner, *mut c_void);
        }

        impl Released for $list {
            fn owner(&self) -> *mut c_void {
                self.owner
            }

            fn emptied(&self) -> $list {
                $list { struct_size: 0, reserved: 0, entries: ptr::null(), len: 0, owner: nobody() }
            }
        }

        impl ListOf<$entry> for $list {
            fn list(entries: *const *const $entry, len: usize, owner: *mut c_void) -> $list {
                $list { struct_size: 0, reserved: 0, entries, len, owner }
            }
        }
    )*};
}

lists! {
    msb_sandbox_entries of msb_sandbox_entry,
    msb_exec_entries of msb_exec_entry,
    msb_driver_entries of msb_driver_entry,
    msb_wall_entries of msb_wall_entry,
    msb_image_entries of msb_image_entry,
}

trait ListOf<E>: Sized32 {
    fn list(entries: *const *const E, len: usize, owner: *mut c_void) -> Self;
}

/// The entries of a list, and all that they point to.
#[derive(Debug)]
struct Kept<E> {
    _pointers: Box<[*const E]>,
    _entries: Box<[E]>,
    _ground: Ground,
}

// SAFETY: the raw pointers all point into what is kept beside them, which is never changed or moved
// while this lives.
unsafe impl<E> Send for Kept<E> {}
// SAFETY: as above; it is only ever read.
unsafe impl<E> Sync for Kept<E> {}

/// What entries of a list point to while it is made.
#[derive(Debug, Default)]
#[allow(clippy::vec_box, reason = "entries point to them, so that they must not move")]
struct Ground {
    texts: Arena,
    exits: Vec<Box<msb_exec_exit>>,
    bounds: Vec<Box<msb_bounds>>,
}

/// Lends a list to the caller.
fn hand_out<T, E, L>(
    all: Vec<T>,
    out: Out<L>,
    entry: impl Fn(&T, &mut Ground) -> E,
) -> Result<msb_status, Failure>
where
    E: Debug + 'static,
    L: ListOf<E>,
{
    let mut ground = Ground::default();
    let entries: Box<[E]> = all.iter().map(|item| entry(item, &mut ground)).collect();
    let pointers: Box<[*const E]> = entries.iter().map(ptr::from_ref).collect();
    let (list, len) = (loan::start_of(&pointers), pointers.len());
    let kept = Kept { _pointers: pointers, _entries: entries, _ground: ground };
    let owner = loan::lend(Arc::new(Loan::Other(Box::new(kept))))?;
    out.write(&L::list(list, len, owner));
    Ok(MSB_OK)
}

pub(super) fn sandboxes(
    all: Vec<SandboxInfo>,
    out: Out<msb_sandbox_entries>,
) -> Result<msb_status, Failure> {
    hand_out(all, out, |info, ground| {
        let bounds = info.bounds.as_ref().map(|bounds| Box::new(bounds_of(bounds)));
        let bounds_pointer = bounds.as_deref().map_or(ptr::null(), ptr::from_ref);
        ground.bounds.extend(bounds);
        let texts = &mut ground.texts;
        let labels = info.labels.iter().map(|(key, value)| format!("{key}={value}"));
        msb_sandbox_entry {
            struct_size: size_of_u32::<msb_sandbox_entry>(),
            state: match info.status {
                SandboxStatus::Created => MSB_STATE_CREATED,
                SandboxStatus::Running => MSB_STATE_RUNNING,
                SandboxStatus::Stopped => MSB_STATE_STOPPED,
                SandboxStatus::Crashed => MSB_STATE_CRASHED,
                _ => 0,
            },
            isolation: info.isolation.map_or(0, isolation_number),
            reason: info.end_reason.map_or(0, reason_number),
            flags: if info.detached { super::MSB_SANDBOX_DETACHED } else { 0 },
            jailed: match info.jailed {
                None => 0,
                Some(true) => MSB_JAILED_YES,
                Some(false) => MSB_JAILED_NO,
            },
            memory_mib: info.memory.unwrap_or(0),
            reserved: 0,
            cpus: info.cpus.unwrap_or(0.0),
            created_ms: ms_of(info.created_at),
            started_ms: info.started_at.map_or(0, ms_of),
            name: texts.text(&info.name),
            image: texts.text(info.image.as_os_str().as_encoded_bytes()),
            driver: texts.text_or_null(info.driver.as_ref()),
            detail: texts.text_or_null(info.end_detail.as_ref()),
            labels: texts.list(labels),
            labels_len: info.labels.len(),
            command: texts.list(&info.default_command),
            command_len: info.default_command.len(),
            missing_walls: texts.list(&info.missing_walls),
            missing_walls_len: info.missing_walls.len(),
            bounds: bounds_pointer,
        }
    })
}

pub(super) fn sessions(
    all: Vec<SessionInfo>,
    out: Out<msb_exec_entries>,
) -> Result<msb_status, Failure> {
    hand_out(all, out, |info, ground| {
        let exit = info.status.as_ref().map(|status| Box::new(exit_of(status)));
        let pointer = exit.as_deref().map_or(ptr::null(), ptr::from_ref);
        ground.exits.extend(exit);
        msb_exec_entry {
            struct_size: size_of_u32::<msb_exec_entry>(),
            flags: if info.tty { MSB_SESSION_TTY } else { 0 },
            pid: info.pid,
            followers: info.followers,
            age_ns: u64::try_from(info.age.as_nanos()).unwrap_or(u64::MAX),
            output_total: info.output_total,
            id: ground.texts.text(&info.id),
            argv: ground.texts.list(&info.command),
            argv_len: info.command.len(),
            exit: pointer,
        }
    })
}

fn bounds_of(bounds: &Bounds) -> msb_bounds {
    msb_bounds {
        struct_size: size_of_u32::<msb_bounds>(),
        reserved: 0,
        pids: bounds.pids.unwrap_or(0),
        memory_bytes: bounds.memory_bytes.unwrap_or(0),
        disk_bytes: bounds.disk_bytes.unwrap_or(0),
        cpus: bounds.cpus().unwrap_or(0.0),
    }
}

/// Both lists or none.
pub(super) fn host(
    report: HostReport,
    out_drivers: Out<msb_driver_entries>,
    out_walls: Option<Out<msb_wall_entries>>,
) -> Result<msb_status, Failure> {
    if !loan::has_room(2) {
        return Err(wrong(MSB_E_LIMIT, "too many lists that were not released"));
    }
    drivers(report.drivers, out_drivers)?;
    match out_walls {
        Some(out) => walls(report.walls, out),
        None => Ok(MSB_OK),
    }
}

fn walls(all: Vec<WallReport>, out: Out<msb_wall_entries>) -> Result<msb_status, Failure> {
    hand_out(all, out, |report, ground| msb_wall_entry {
        struct_size: size_of_u32::<msb_wall_entry>(),
        reserved: 0,
        name: ground.texts.text(&report.name),
        missing: ground.texts.text_or_null(report.missing.as_ref()),
        hint: ground.texts.text_or_null(report.hint.as_ref()),
    })
}

fn drivers(all: Vec<DriverReport>, out: Out<msb_driver_entries>) -> Result<msb_status, Failure> {
    hand_out(all, out, |report, ground| msb_driver_entry {
        struct_size: size_of_u32::<msb_driver_entry>(),
        isolation: isolation_number(report.isolation),
        usable: u32::from(report.usable),
        reserved: 0,
        name: ground.texts.text(&report.driver),
        why: ground.texts.text(&report.why),
        hint: ground.texts.text_or_null(report.hint.as_ref()),
        unbounded: ground.texts.list(&report.unbounded),
        unbounded_len: report.unbounded.len(),
    })
}

pub(super) fn images(
    all: Vec<ImageInfo>,
    out: Out<msb_image_entries>,
) -> Result<msb_status, Failure> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    hand_out(all, out, |info, ground| {
        let texts = &mut ground.texts;
        msb_image_entry {
            struct_size: size_of_u32::<msb_image_entry>(),
            layers: u32::try_from(info.layers.len()).unwrap_or(u32::MAX),
            size: info.size,
            download_size: info.download_size,
            added_ms: ms_of(info.added_at),
            id: texts.text(&info.id),
            architecture: texts.text(&info.architecture),
            rootfs: texts.text(info.rootfs.as_os_str().as_encoded_bytes()),
            workdir: texts.text_or_null(some(&info.workdir)),
            user: texts.text_or_null(some(&info.user)),
            names: texts.list(&info.names),
            names_len: info.names.len(),
            digests: texts.list(&info.digests),
            digests_len: info.digests.len(),
            env: texts.list(&info.env),
            env_len: info.env.len(),
            entrypoint: texts.list(&info.entrypoint),
            entrypoint_len: info.entrypoint.len(),
            cmd: texts.list(&info.cmd),
            cmd_len: info.cmd.len(),
            used_by: texts.list(&info.used_by),
            used_by_len: info.used_by.len(),
        }
    })
}

fn isolation_number(isolation: Isolation) -> u32 {
    match isolation {
        Isolation::Hardware => MSB_ISOLATION_HARDWARE,
        Isolation::Emulated => MSB_ISOLATION_EMULATED,
        Isolation::Container => MSB_ISOLATION_CONTAINER,
        Isolation::Unchecked => MSB_ISOLATION_UNCHECKED,
        _ => 0,
    }
}

fn reason_number(reason: SandboxEndReason) -> u32 {
    match reason {
        SandboxEndReason::Stopped => MSB_REASON_STOPPED,
        SandboxEndReason::Killed => MSB_REASON_KILLED,
        SandboxEndReason::CreatorGone => MSB_REASON_CREATOR_GONE,
        SandboxEndReason::MaxDuration => MSB_REASON_MAX_DURATION,
        SandboxEndReason::Idle => MSB_REASON_IDLE,
        SandboxEndReason::Crashed => MSB_REASON_CRASHED,
        SandboxEndReason::BootFailed => MSB_REASON_BOOT_FAILED,
        _ => 0,
    }
}

fn ms_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Give back a list of sandboxes. NULL and one that was released before are fine; afterwards it is
/// empty. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_sandbox_entries_release(list: *mut msb_sandbox_entries) {
    // SAFETY: by the contract of every export (see the crate), NULL or valid for this call.
    unsafe { loan::release(list) }
}

/// Give back a list of sessions. NULL and one that was released before are fine; afterwards it is
/// empty. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_exec_entries_release(list: *mut msb_exec_entries) {
    // SAFETY: by the contract of every export (see the crate), NULL or valid for this call.
    unsafe { loan::release(list) }
}

/// Give back a list of drivers. NULL and one that was released before are fine; afterwards it is
/// empty. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_driver_entries_release(list: *mut msb_driver_entries) {
    // SAFETY: by the contract of every export (see the crate), NULL or valid for this call.
    unsafe { loan::release(list) }
}

/// Give back a list of walls. NULL and one that was released before are fine; afterwards it is
/// empty. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_wall_entries_release(list: *mut msb_wall_entries) {
    // SAFETY: by the contract of every export (see the crate), NULL or valid for this call.
    unsafe { loan::release(list) }
}

/// Give back a list of images. NULL and one that was released before are fine; afterwards it is
/// empty. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_image_entries_release(list: *mut msb_image_entries) {
    // SAFETY: by the contract of every export (see the crate), NULL or valid for this call.
    unsafe { loan::release(list) }
}
