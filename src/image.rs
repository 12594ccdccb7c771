//! Images: pull, import, and the store.

use super::async_op::AsyncOp;
use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::failure::descriptor_failed;
use super::failure::{Failure, wrong};
use super::handle::{Object, get, msb_image, open};
use super::image_info::{self, msb_image_entries};
use super::input::{bytes, name_in, text};
use super::progress::{self, msb_progress};
use super::sandbox::MSB_REMOVE_FORCE;
use super::sized::{Out, out};
use super::status::{MSB_AGAIN, MSB_E_INVALID, MSB_OK, msb_status};
use super::table::{Kind, Table};
use super::wait::{Timeout, run};
use microsandbox::MicrosandboxResult;
use microsandbox::image::{Image, ImageInfo, ImageOperation};
use microsandbox::pull::Monitor;
use microsandbox::pull::{Cancel, spawn};
use std::ffi::{OsString, c_char};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

/// The object of an image handle: a pull or import, and its result.
#[derive(Debug)]
pub(super) struct ImageObject {
    op: Monitor<AsyncOp<ImageInfo>>,
    cancel: Cancel,
}

impl ImageObject {
    fn begin(begun: MicrosandboxResult<ImageOperation>) -> Result<*mut msb_image, Failure> {
        let mut operation = begun?;
        let (op, cancel) = (Monitor::new(AsyncOp::new("image")), operation.cancel());
        let object = Arc::new(ImageObject { op, cancel });
        let handle = open(Arc::clone(&object))?;
        spawn(async move {
            while let Some(progress) = operation.progress().await {
                object.op.with(|op| op.set_progress(progress));
            }
            let result = operation.wait().await.map_err(Failure::from);
            drop(object.op.with(|op| op.complete(result)));
        })?;
        Ok(handle)
    }
}

impl Object for ImageObject {
    const WHAT: &'static str = "image";

    fn table() -> &'static Table<Self> {
        static OPEN: Table<ImageObject> = Table::new(Kind::Image);
        &OPEN
    }

    fn poll_fd(&self) -> Result<BorrowedFd<'_>, Failure> {
        self.op.fd().map_err(descriptor_failed)
    }

    fn on_close(&self) {
        self.cancel.cancel();
        drop(self.op.with(AsyncOp::close));
    }
}

/// Pulls an image from its registry, also if it is in the store; unchanged layers are not
/// downloaded again. `name` is lent, such as `"python:3.12"`. Returns at once; `msb_image_wait`
/// returns the result, `msb_image_progress` the progress. Closing the handle cancels the pull.
///
/// `MSB_OK`: `*out_image` is owned. `MSB_E_INVALID`: `name` is NULL. `MSB_E_CONFIG`: it is not a
/// valid image name, or the configuration of registries is invalid.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_image_pull(
    name: *const c_char,
    out_image: *mut *mut msb_image,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_image = unsafe { out(out_image, "an image") };
    // SAFETY: as above.
    let name = unsafe { name_in(name) };
    boundary(err, || {
        let (out_image, name) = (out_image?, name?);
        out_image.write(ImageObject::begin(Image::pull(name))?);
        Ok(MSB_OK)
    })
}

/// Imports an image from a file or directory: an archive of a root filesystem, the output of
/// `docker save`, or an OCI layout; uncompressed, or compressed with gzip or zstd. `path` is lent,
/// bytes. `name` is lent; NULL: the name in the archive, if it has one. Otherwise like
/// `msb_image_pull`.
///
/// `MSB_OK`: `*out_image` is owned. `MSB_E_INVALID`: `path` is NULL. `MSB_E_CONFIG`: nothing exists
/// at `path`, or `name` is not a valid image name.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_image_import(
    path: *const c_char,
    name: *const c_char,
    out_image: *mut *mut msb_image,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_image = unsafe { out(out_image, "an image") };
    // SAFETY: as above.
    let path = unsafe { bytes(path) };
    // SAFETY: as above.
    let name = unsafe { text(name, "the name") };
    boundary(err, || {
        let (out_image, name) = (out_image?, name?);
        let path = path.ok_or_else(|| wrong(MSB_E_INVALID, "NULL instead of a path"))?;
        let path = PathBuf::from(OsString::from_vec(path));
        out_image.write(ImageObject::begin(Image::import(path, name.as_deref()))?);
        Ok(MSB_OK)
    })
}

/// Pulls or imports an image for a platform, such as `"linux/arm64"` or `"linux/arm/v7"`, which is
/// lent. With `path`, as `msb_image_import`; with `path` NULL, as `msb_image_pull`.
///
/// `MSB_OK`: `*out_image` is owned. `MSB_E_INVALID`: `platform` is NULL, or `path` and `name` are.
/// `MSB_E_CONFIG`: it is not a platform, or as those functions.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_image_load_platform(
    path: *const c_char,
    name: *const c_char,
    platform: *const c_char,
    out_image: *mut *mut msb_image,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_image = unsafe { out(out_image, "an image") };
    // SAFETY: as above.
    let path = unsafe { bytes(path) };
    // SAFETY: as above.
    let name = unsafe { text(name, "the name") };
    // SAFETY: as above.
    let platform = unsafe { text(platform, "the platform") };
    boundary(err, || {
        let (out_image, name, platform) = (out_image?, name?, platform?);
        let platform =
            platform.ok_or_else(|| wrong(MSB_E_INVALID, "NULL instead of a platform"))?;
        let operation = match (path, name) {
            (Some(path), name) => {
                let path = PathBuf::from(OsString::from_vec(path));
                Image::import_for(path, name.as_deref(), Some(&platform))
            }
            (None, Some(name)) => Image::pull_for(name, Some(&platform)),
            (None, None) => return Err(wrong(MSB_E_INVALID, "NULL instead of a path or a name")),
        };
        out_image.write(ImageObject::begin(operation)?);
        Ok(MSB_OK)
    })
}

/// Returns the progress, if it changed since the last call. Waits up to `timeout_ms`. A slow reader
/// misses steps, and never the end. From the first call on, the descriptor of the handle also polls
/// readable for new progress.
///
/// `MSB_OK`: `*out_progress` is filled. `MSB_AGAIN`: no change. `MSB_EOF`: no further progress;
/// `msb_image_wait` returns the result without waiting.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_image_progress(
    image: *mut msb_image,
    timeout_ms: i64,
    out_progress: *mut msb_progress,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_progress = unsafe { Out::new(out_progress) };
    boundary(err, || {
        let (object, out_progress) = (get::<ImageObject, _>(image)?, out_progress?);
        progress::next(&object.op, |op| op, timeout_ms, out_progress)
    })
}

/// Waits until a pull or import is complete, up to `timeout_ms`.
///
/// `MSB_OK`: `*out_list` describes the image; release it with `msb_image_entries_release`.
/// `MSB_AGAIN`: not yet. Any failure is final; expect `MSB_E_NO_IMAGE`, `MSB_E_IMAGE_DENIED` and
/// `MSB_E_REGISTRY`. Later calls return the same.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_image_wait(
    image: *mut msb_image,
    timeout_ms: i64,
    out_list: *mut msb_image_entries,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_list = unsafe { Out::new(out_list) };
    boundary(err, || {
        let (object, out_list) = (get::<ImageObject, _>(image)?, out_list?);
        let deadline = Timeout::from_ms(timeout_ms)?.deadline();
        match object.op.sleep(deadline, AsyncOp::result) {
            Some(info) => image_info::images(vec![info?], out_list),
            None => Ok(MSB_AGAIN),
        }
    })
}

/// Lists all images in the store, newest first.
///
/// `MSB_OK`: `*out_list` is filled; release it with `msb_image_entries_release`. `MSB_E_IO`: the
/// store cannot be read.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_image_list(
    out_list: *mut msb_image_entries,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_list = unsafe { Out::new(out_list) };
    boundary(err, || {
        let out_list = out_list?;
        image_info::images(run(Image::list())?, out_list)
    })
}

/// Removes a name of an image, and the image with its last name. `name` is lent; an id stands for
/// all names. With `MSB_REMOVE_FORCE`, an image in use loses its names, too; the image itself is
/// kept as long as a sandbox uses it.
///
/// `MSB_OK`. `MSB_E_NO_IMAGE`. `MSB_E_IMAGE_IN_USE`: a sandbox uses it.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_image_remove(
    name: *const c_char,
    flags: u32,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let name = unsafe { name_in(name) };
    boundary(err, || {
        let name = name?;
        let force = match flags {
            0 => false,
            MSB_REMOVE_FORCE => true,
            _ => return Err(wrong(MSB_E_INVALID, format!("unknown remove flags {flags:#x}"))),
        };
        run(async move { Image::remove(name, force).await })?;
        Ok(MSB_OK)
    })
}

/// Also remove images that have a name.
pub const MSB_PRUNE_ALL: u32 = 1;

/// Removes every unused image without a name, and partial downloads. Waits for pulls and imports in
/// progress.
///
/// `MSB_OK`: `*out_freed`, which may be NULL, is the approximate number of bytes freed. `MSB_E_IO`:
/// something cannot be removed.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_image_prune(
    flags: u32,
    out_freed: *mut u64,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    // SAFETY: as above.
    let out_freed = unsafe { out(out_freed, "a number of bytes") };
    boundary(err, || {
        let all = match flags {
            0 => false,
            MSB_PRUNE_ALL => true,
            _ => return Err(wrong(MSB_E_INVALID, format!("unknown prune flags {flags:#x}"))),
        };
        let report = run(async move { Image::prune(all).await })?;
        if let Ok(place) = out_freed {
            place.write(report.freed);
        }
        Ok(MSB_OK)
    })
}
