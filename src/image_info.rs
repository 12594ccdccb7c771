//! Information about images.

use super::borrowed::{self, size_of_u32};
use super::failure::Failure;
use super::list::{hand_out, list, ms_of};
use super::sized::Out;
use super::status::msb_status;
use microsandbox::image::ImageInfo;
use std::ffi::{c_char, c_void};
/// An image in the store. All pointers are borrowed until the list is released.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_image_entry {
    /// `sizeof(msb_image_entry)` of the library.
    pub struct_size: u32,
    /// Number of layers.
    pub layers: u32,
    /// Size of its files in bytes.
    pub size: u64,
    /// Size of its layers in bytes, as downloaded.
    pub download_size: u64,
    /// When it was added to the store, in milliseconds since 1970.
    pub added_ms: i64,
    /// Borrowed. Its id: `sha256:` and 64 digits.
    pub id: *const c_char,
    /// Borrowed. Its processor architecture, such as `amd64`.
    pub architecture: *const c_char,
    /// Borrowed. Its root filesystem, a directory that must not be modified: bytes.
    pub rootfs: *const c_char,
    /// Borrowed. Its working directory; NULL for none.
    pub workdir: *const c_char,
    /// Borrowed. Its user; NULL for root.
    pub user: *const c_char,
    /// Borrowed. `names_len` names, in their shortest form.
    pub names: *const *const c_char,
    /// Number of elements.
    pub names_len: usize,
    /// Borrowed. `digests_len` digests that registries use for it.
    pub digests: *const *const c_char,
    /// Number of elements.
    pub digests_len: usize,
    /// Borrowed. `env_len` texts `NAME=value`.
    pub env: *const *const c_char,
    /// Number of elements.
    pub env_len: usize,
    /// Borrowed. `entrypoint_len` texts: its entrypoint.
    pub entrypoint: *const *const c_char,
    /// Number of elements.
    pub entrypoint_len: usize,
    /// Borrowed. `cmd_len` texts: its default command, or arguments of the entrypoint.
    pub cmd: *const *const c_char,
    /// Number of elements.
    pub cmd_len: usize,
    /// Borrowed. `used_by_len` names of the sandboxes that use it, running or stopped.
    pub used_by: *const *const c_char,
    /// Number of elements.
    pub used_by_len: usize,
}

/// A list of images.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_image_entries {
    /// `sizeof(msb_image_entries)`.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Borrowed until `msb_image_entries_release`. `len` pointers.
    pub entries: *const *const msb_image_entry,
    /// Number of elements.
    pub len: usize,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

list!(msb_image_entries of msb_image_entry);

pub(super) fn images(
    all: Vec<ImageInfo>,
    out: Out<msb_image_entries>,
) -> Result<msb_status, Failure> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    hand_out(all, out, |info, backing| {
        let texts = &mut backing.texts;
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

/// Releases a list of images. NULL and a released list are no-ops; afterwards the list is empty.
/// Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_image_entries_release(list: *mut msb_image_entries) {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    unsafe { borrowed::release(list) }
}
