//! Probing this host: its drivers, and the walls of the jail.

use super::borrowed::{self, size_of_u32};
use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::failure::{Failure, wrong};
use super::list::{hand_out, list};
use super::sized::Out;
use super::status::{MSB_E_LIMIT, MSB_OK, msb_status};
use super::wait::run;
use microsandbox::sandbox::Isolation;
use microsandbox::{DriverReport, HostReport, WallReport};
use std::ffi::{c_char, c_void};
/// A virtual machine that the processor isolates.
pub const MSB_ISOLATION_HARDWARE: u32 = 1;
/// A virtual machine in software.
pub const MSB_ISOLATION_EMULATED: u32 = 2;
/// A container: the kernel is shared.
pub const MSB_ISOLATION_CONTAINER: u32 = 3;
/// A virtual machine on a host that skips the check for hardware isolation.
pub const MSB_ISOLATION_UNCHECKED: u32 = 4;
/// gVisor: a kernel in user space, which needs no hardware virtualization.
pub const MSB_ISOLATION_GVISOR: u32 = 5;

/// A driver, as probed on this host. All pointers are borrowed until the list is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_driver_entry {
    /// `sizeof(msb_driver_entry)` of the library.
    pub struct_size: u32,
    /// One of `MSB_ISOLATION_*`.
    pub isolation: u32,
    /// 1 if it is usable, else 0.
    pub usable: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed. Its name.
    pub name: *const c_char,
    /// Borrowed. Backend details if usable, else the reason; one line.
    pub why: *const c_char,
    /// Borrowed. A remedy; NULL if none is known.
    pub hint: *const c_char,
    /// Borrowed. `unbounded_len` texts: the resources that it cannot limit, each with the reason.
    pub unbounded: *const *const c_char,
    /// Number of elements.
    pub unbounded_len: usize,
}

/// A list of drivers.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_driver_entries {
    /// `sizeof(msb_driver_entries)`.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed until `msb_driver_entries_release`. `len` pointers.
    pub entries: *const *const msb_driver_entry,
    /// Number of elements.
    pub len: usize,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

/// A wall of the jail. All pointers are borrowed until the list is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_wall_entry {
    /// `sizeof(msb_wall_entry)` of the library.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed. Its name, such as `"seccomp"`.
    pub name: *const c_char,
    /// Borrowed. Why it is unavailable on this host, one line; NULL if it is available.
    pub missing: *const c_char,
    /// Borrowed. A remedy; NULL if none is known.
    pub hint: *const c_char,
}

/// A list of walls of the jail.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_wall_entries {
    /// `sizeof(msb_wall_entries)`.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed until `msb_wall_entries_release`. `len` pointers.
    pub entries: *const *const msb_wall_entry,
    /// Number of elements.
    pub len: usize,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

list!(msb_driver_entries of msb_driver_entry);
list!(msb_wall_entries of msb_wall_entry);

/// Returns both lists or neither.
fn host(
    report: HostReport,
    out_drivers: Out<msb_driver_entries>,
    out_walls: Option<Out<msb_wall_entries>>,
) -> Result<msb_status, Failure> {
    if !borrowed::has_room(2) {
        return Err(wrong(MSB_E_LIMIT, "too many lists that were not released"));
    }
    drivers(report.drivers, out_drivers)?;
    match out_walls {
        Some(out) => walls(report.walls, out),
        None => Ok(MSB_OK),
    }
}

fn walls(all: Vec<WallReport>, out: Out<msb_wall_entries>) -> Result<msb_status, Failure> {
    hand_out(all, out, |report, backing| msb_wall_entry {
        struct_size: size_of_u32::<msb_wall_entry>(),
        reserved: 0,
        name: backing.texts.text(&report.name),
        missing: backing.texts.text_or_null(report.missing.as_ref()),
        hint: backing.texts.text_or_null(report.hint.as_ref()),
    })
}

fn drivers(all: Vec<DriverReport>, out: Out<msb_driver_entries>) -> Result<msb_status, Failure> {
    hand_out(all, out, |report, backing| msb_driver_entry {
        struct_size: size_of_u32::<msb_driver_entry>(),
        isolation: isolation_number(report.isolation),
        usable: u32::from(report.usable),
        reserved: 0,
        name: backing.texts.text(&report.driver),
        why: backing.texts.text(&report.why),
        hint: backing.texts.text_or_null(report.hint.as_ref()),
        unbounded: backing.texts.list(&report.unbounded),
        unbounded_len: report.unbounded.len(),
    })
}

pub(super) fn isolation_number(isolation: Isolation) -> u32 {
    match isolation {
        Isolation::Hardware => MSB_ISOLATION_HARDWARE,
        Isolation::Emulated => MSB_ISOLATION_EMULATED,
        Isolation::Container => MSB_ISOLATION_CONTAINER,
        Isolation::Unchecked => MSB_ISOLATION_UNCHECKED,
        Isolation::Gvisor => MSB_ISOLATION_GVISOR,
        _ => 0,
    }
}

/// Probes this host: lists the drivers in order of preference, and the walls of the jail.
///
/// `MSB_OK`: `*out_drivers` is filled; release it with `msb_driver_entries_release`. So is
/// `*out_walls` unless `out_walls` is NULL; release it with `msb_wall_entries_release`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_doctor(
    out_drivers: *mut msb_driver_entries,
    out_walls: *mut msb_wall_entries,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_drivers = unsafe { Out::new(out_drivers) };
    let out_walls = (!out_walls.is_null()).then(|| {
        // SAFETY: as above.
        unsafe { Out::new(out_walls) }
    });
    boundary(err, || {
        let (out_drivers, out_walls) = (out_drivers?, out_walls.transpose()?);
        host(run(microsandbox::doctor())?, out_drivers, out_walls)
    })
}

/// Releases a list of drivers. NULL and a released list are no-ops; afterwards the list is empty.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_driver_entries_release(list: *mut msb_driver_entries) {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    unsafe { borrowed::release(list) }
}

/// Releases a list of walls. NULL and a released list are no-ops; afterwards the list is empty. Any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_wall_entries_release(list: *mut msb_wall_entries) {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    unsafe { borrowed::release(list) }
}
