//! Named volumes.

use super::borrowed::{self, size_of_u32};
use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::failure::{Failure, wrong};
use super::input::{name_in, pair, text, texts};
use super::list::{hand_out, list, ms_of};
use super::sized::{Out, copy_in, sized};
use super::status::{MSB_E_INVALID, MSB_OK, msb_status};
use super::wait::run;
use microsandbox::{Volume, VolumeBuilder, VolumeHandle, VolumeKind};
use std::ffi::{c_char, c_void};

/// A directory, which sandboxes can share.
pub const MSB_VOLUME_DIRECTORY: u32 = 0;
/// A filesystem in a file of a fixed size, for one running sandbox at a time.
pub const MSB_VOLUME_DISK: u32 = 1;

/// Options of a new volume. All pointers are lent.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msb_volume_options {
    /// `sizeof(msb_volume_options)`.
    pub struct_size: u32,
    /// One of `MSB_VOLUME_*`.
    pub kind: u32,
    /// Lent. 1 to 128 letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
    pub name: *const c_char,
    /// How much a directory should hold, in MiB; it is reported and not enforced. 0: unset.
    pub quota_mib: u64,
    /// Size of a disk in MiB, 16 to 16,777,216.
    pub size_mib: u64,
    /// Lent. `labels_len` texts `KEY=value`.
    pub labels: *const *const c_char,
    /// Number of elements.
    pub labels_len: usize,
}

sized!(msb_volume_options, labels_len);

/// A volume. All pointers are borrowed until the list is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_volume_entry {
    /// `sizeof(msb_volume_entry)` of the library.
    pub struct_size: u32,
    /// One of `MSB_VOLUME_*`.
    pub kind: u32,
    /// Bytes that its files take on disk, as far as the caller may read them.
    pub used: u64,
    /// Size of a disk in bytes; 0 for a directory.
    pub size: u64,
    /// How much a directory should hold, in MiB; 0: unset.
    pub quota_mib: u64,
    /// When it was created, in milliseconds since 1970.
    pub created_ms: i64,
    /// Borrowed. Its name.
    pub name: *const c_char,
    /// Borrowed. Its directory, or the file of a disk: bytes.
    pub path: *const c_char,
    /// Borrowed. `labels_len` texts `KEY=value`.
    pub labels: *const *const c_char,
    /// Number of elements.
    pub labels_len: usize,
    /// Borrowed. `used_by_len` names of the sandboxes that use it, running or stopped.
    pub used_by: *const *const c_char,
    /// Number of elements.
    pub used_by_len: usize,
}

/// A list of volumes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_volume_entries {
    /// `sizeof(msb_volume_entries)`.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed until `msb_volume_entries_release`. `len` pointers.
    pub entries: *const *const msb_volume_entry,
    /// Number of elements.
    pub len: usize,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

list!(msb_volume_entries of msb_volume_entry);

fn entries(all: Vec<VolumeHandle>, out: Out<msb_volume_entries>) -> Result<msb_status, Failure> {
    hand_out(all, out, |volume, backing| {
        let labels: Vec<String> =
            volume.labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
        let texts = &mut backing.texts;
        msb_volume_entry {
            struct_size: size_of_u32::<msb_volume_entry>(),
            kind: match volume.kind() {
                VolumeKind::Disk => MSB_VOLUME_DISK,
                _ => MSB_VOLUME_DIRECTORY,
            },
            used: volume.used_bytes(),
            size: volume.capacity_bytes().unwrap_or(0),
            quota_mib: volume.quota_mib().unwrap_or(0),
            created_ms: ms_of(volume.created_at()),
            name: texts.text(volume.name()),
            path: texts.text(volume.path().as_os_str().as_encoded_bytes()),
            labels: texts.list(&labels),
            labels_len: labels.len(),
            used_by: texts.list(volume.sandboxes()),
            used_by_len: volume.sandboxes().len(),
        }
    })
}

/// Releases a list of volumes. NULL and a released list are no-ops; afterwards the list is empty.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_volume_entries_release(list: *mut msb_volume_entries) {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    unsafe { borrowed::release(list) }
}

/// # Safety
/// The pointers in `options` are NULL or valid for what their comments say.
unsafe fn builder(options: &msb_volume_options) -> Result<VolumeBuilder, Failure> {
    // SAFETY: by the contract.
    let name = unsafe { text(options.name, "the name") }?;
    let name = name.ok_or_else(|| wrong(MSB_E_INVALID, "a volume without a name"))?;
    let mut builder = Volume::builder(name).kind(match options.kind {
        MSB_VOLUME_DIRECTORY => VolumeKind::Directory,
        MSB_VOLUME_DISK => VolumeKind::Disk,
        kind => return Err(wrong(MSB_E_INVALID, format!("unknown kind of volume {kind}"))),
    });
    if options.quota_mib != 0 {
        builder = builder.quota(options.quota_mib);
    }
    if options.size_mib != 0 {
        builder = builder.size(options.size_mib);
    }
    // SAFETY: by the contract.
    for entry in unsafe { texts(options.labels, options.labels_len, "labels") }? {
        let (key, value) = pair(&entry, "the label")?;
        let utf8 = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes);
            text.map_err(|_| wrong(MSB_E_INVALID, "a label is not valid UTF-8"))
        };
        builder = builder.label(utf8(key)?, utf8(value)?);
    }
    Ok(builder)
}

/// Creates a volume.
///
/// `MSB_OK`. `MSB_E_VOLUME_EXISTS`. `MSB_E_CONFIG`: the name or an option is not valid.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_volume_create(
    options: *const msb_volume_options,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let options = unsafe { copy_in(options) };
    // SAFETY: as above.
    let builder = options.and_then(|options| unsafe { builder(&options) });
    boundary(err, || {
        let builder = builder?;
        run(async move { builder.create().await })?;
        Ok(MSB_OK)
    })
}

/// Finds a volume by its name, which is lent.
///
/// `MSB_OK`: `*out_list` has one entry; release it with `msb_volume_entries_release`.
/// `MSB_E_NO_VOLUME`.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_volume_get(
    name: *const c_char,
    out_list: *mut msb_volume_entries,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let name = unsafe { name_in(name) };
    // SAFETY: as above.
    let out_list = unsafe { Out::new(out_list) };
    boundary(err, || {
        let (name, out_list) = (name?, out_list?);
        entries(vec![run(async move { Volume::get(&name).await })?], out_list)
    })
}

/// Lists all volumes, sorted by name.
///
/// `MSB_OK`: `*out_list` is filled; release it with `msb_volume_entries_release`. `MSB_E_IO`: a
/// record cannot be read.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_volume_list(
    out_list: *mut msb_volume_entries,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_list = unsafe { Out::new(out_list) };
    boundary(err, || {
        let out_list = out_list?;
        entries(run(Volume::list())?, out_list)
    })
}

/// Removes a volume with its files. `name` is lent.
///
/// `MSB_OK`. `MSB_E_NO_VOLUME`. `MSB_E_VOLUME_IN_USE`: a sandbox uses it, running or stopped.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_volume_remove(name: *const c_char, err: *mut msb_error) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let name = unsafe { name_in(name) };
    boundary(err, || {
        let name = name?;
        run(async move { Volume::remove(&name).await })?;
        Ok(MSB_OK)
    })
}
