//! Mounts of a new sandbox.

use super::failure::{Failure, wrong};
use super::input::{bytes, text};
use super::sized::sized;
use super::status::MSB_E_INVALID;
use microsandbox::{MountBuilder, VolumeMount};
use std::ffi::{OsString, c_char};
use std::os::unix::ffi::OsStringExt;

/// A directory or a file of the host.
pub const MSB_MOUNT_BIND: u32 = 1;
/// A named volume.
pub const MSB_MOUNT_VOLUME: u32 = 2;
/// An empty filesystem in memory.
pub const MSB_MOUNT_TMPFS: u32 = 3;
/// The filesystem in a file: of the caller, or of the sandbox.
pub const MSB_MOUNT_DISK: u32 = 4;

/// It cannot be written.
pub const MSB_MOUNT_READONLY: u32 = 1;
/// Its programs cannot be run.
pub const MSB_MOUNT_NOEXEC: u32 = 2;
/// Set-user-ID bits are ignored, with the flag or without.
pub const MSB_MOUNT_NOSUID: u32 = 4;
/// Device files are ignored, with the flag or without.
pub const MSB_MOUNT_NODEV: u32 = 8;
/// What belongs to the caller belongs to `uid` and `gid` inside, instead of root.
pub const MSB_MOUNT_OWNER: u32 = 16;
/// The volume is created, and must not exist.
pub const MSB_MOUNT_CREATE: u32 = 32;
/// The volume is created if it does not exist.
pub const MSB_MOUNT_ENSURE_EXISTS: u32 = 64;

const FLAGS: u32 = MSB_MOUNT_READONLY
    | MSB_MOUNT_NOEXEC
    | MSB_MOUNT_NOSUID
    | MSB_MOUNT_NODEV
    | MSB_MOUNT_OWNER
    | MSB_MOUNT_CREATE
    | MSB_MOUNT_ENSURE_EXISTS;

/// A mount of a new sandbox. All pointers are lent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msb_mount {
    /// `sizeof(msb_mount)`; the same for all of an array.
    pub struct_size: u32,
    /// One of `MSB_MOUNT_BIND` to `MSB_MOUNT_DISK`.
    pub kind: u32,
    /// `MSB_MOUNT_READONLY` and the like.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
    /// Lent. The absolute path in the sandbox, bytes.
    pub target: *const c_char,
    /// Lent. The path on the host, bytes; the name of a volume; NULL for a tmpfs, and for a disk of
    /// the sandbox's own.
    pub source: *const c_char,
    /// The size in bytes of a tmpfs (0: half of the memory), or of a disk of the sandbox's own.
    pub size: u64,
    /// With `MSB_MOUNT_OWNER`: a user of the sandbox.
    pub uid: u32,
    /// With `MSB_MOUNT_OWNER`: a group of the sandbox.
    pub gid: u32,
}

sized!(msb_mount, gid);

/// # Safety
/// The pointers are NULL or NUL-terminated strings.
pub(super) unsafe fn mount(from: &msb_mount) -> Result<VolumeMount, Failure> {
    let refuse = |reason: String| Err(wrong(MSB_E_INVALID, reason));
    if from.flags & !FLAGS != 0 || from.reserved != 0 {
        return refuse(format!("unknown mount flags {:#x}", from.flags & !FLAGS));
    }
    // SAFETY: by the contract.
    let Some(target) = (unsafe { bytes(from.target) }) else {
        return refuse("a mount without a target".to_owned());
    };
    // SAFETY: as above.
    let source = unsafe { bytes(from.source) }.map(OsString::from_vec);
    let builder = MountBuilder::new(OsString::from_vec(target));
    let builder = match (from.kind, source) {
        (MSB_MOUNT_BIND, Some(source)) => builder.bind(source),
        (MSB_MOUNT_VOLUME, Some(_)) => {
            // SAFETY: as above.
            let name = unsafe { text(from.source, "the name of the volume") }?;
            let both = MSB_MOUNT_CREATE | MSB_MOUNT_ENSURE_EXISTS;
            builder.named_with(name.unwrap_or_default(), |volume| match from.flags & both {
                0 => volume,
                MSB_MOUNT_CREATE => volume.create(),
                _ => volume.ensure_exists(),
            })
        }
        (MSB_MOUNT_TMPFS, None) => builder.tmpfs(),
        (MSB_MOUNT_DISK, Some(image)) => builder.disk(image),
        (MSB_MOUNT_DISK, None) => builder.own_disk(),
        (MSB_MOUNT_TMPFS, Some(_)) => return refuse("a tmpfs with a source".to_owned()),
        (MSB_MOUNT_BIND | MSB_MOUNT_VOLUME, None) => {
            return refuse("a mount without a source".to_owned());
        }
        (kind, _) => return refuse(format!("unknown kind of mount {kind}")),
    };
    Ok(with_options(builder, from).build()?)
}

fn with_options(mut builder: MountBuilder, from: &msb_mount) -> MountBuilder {
    if from.flags & MSB_MOUNT_READONLY != 0 {
        builder = builder.readonly();
    }
    if from.flags & MSB_MOUNT_NOEXEC != 0 {
        builder = builder.noexec();
    }
    if from.flags & MSB_MOUNT_OWNER != 0 {
        builder = builder.owner(from.uid, from.gid);
    }
    if from.size == 0 { builder } else { builder.size_bytes(from.size) }
}
