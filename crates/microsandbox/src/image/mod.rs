//! Images: pulls, imports, and the store.
//!
//! Owns: requests to `msb-runner` for work on the store, and the resolution of a sandbox's image.
//! Does not own: the store's layout (`msb-image`) and transfers (`msb-image-pull`, in the runner).
//! Invariant: this process only reads the store; it contains no network and no archive code.

mod archive;
mod info;
mod operation;
mod progress;
mod resolve;

use crate::error::{Error, MicrosandboxResult};
use archive::NewArchive;
use msb_image::{Request, Source, Store};
use msb_state::{Companions, Home};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

pub use info::{ImageInfo, PruneReport};
pub use msb_image::{BuildOptions, Phase as ImagePhase, Progress as ImageProgress, PullPolicy};
pub use operation::Cancel;
pub use operation::ImageOperation;
pub(crate) use resolve::{Resolved, Wanted, resolve};

/// The images on this host.
///
/// Names are as in docker and podman: `python`, `python:3.12-slim`, `ghcr.io/org/app@sha256:...`.
/// An image in the store can also be named by the first 12 or more digits of its id.
#[derive(Debug)]
pub struct Image;

impl Image {
    /// Pulls an image from its registry, also if it is in the store.
    pub fn pull(name: impl AsRef<str>) -> MicrosandboxResult<ImageOperation> {
        Image::pull_for(name, None)
    }

    /// As [`Image::pull`], for a platform such as `linux/arm64` or `linux/arm/v7`; without it for
    /// that of this host. The name then means the image for that platform.
    pub fn pull_for(
        name: impl AsRef<str>,
        platform: Option<&str>,
    ) -> MicrosandboxResult<ImageOperation> {
        let found = Surroundings::find()?;
        let reference = found.reference(name.as_ref())?;
        let registries = found.registries.clone();
        let platform = platform_of(platform)?;
        operation::begin(found, Request::Pull { reference, registries, platform })
    }

    /// Imports an image from a file or directory: an archive of a root filesystem, the output of
    /// `docker save`, or an OCI layout, uncompressed or compressed with gzip or zstd.
    ///
    /// Without `name`, the image gets the name that the archive gives, else it has only its id.
    pub fn import(
        path: impl AsRef<Path>,
        name: Option<&str>,
    ) -> MicrosandboxResult<ImageOperation> {
        Image::import_for(path, name, None)
    }

    /// As [`Image::import`], for a platform, as in [`Image::pull_for`].
    pub fn import_for(
        path: impl AsRef<Path>,
        name: Option<&str>,
        platform: Option<&str>,
    ) -> MicrosandboxResult<ImageOperation> {
        let path = path.as_ref();
        // A pipe has a name of this process only, such as /dev/stdin.
        if path.canonicalize().is_err()
            && let Ok(file) = File::open(path)
        {
            return import_passed(file.into(), path, name, platform);
        }
        let found = Surroundings::find()?;
        let reference = name.map(|name| found.reference(name)).transpose()?;
        let path = absolute(path)?;
        let platform = platform_of(platform)?;
        operation::begin(found, Request::Import { path, reference, platform })
    }

    /// Imports an image from an archive that is read from a descriptor until its end. Otherwise
    /// like [`Image::import`].
    pub fn import_from(
        archive: impl Into<OwnedFd>,
        name: Option<&str>,
        platform: Option<&str>,
    ) -> MicrosandboxResult<ImageOperation> {
        import_passed(archive.into(), Path::new("standard input"), name, platform)
    }

    /// Builds an image of one layer from a directory.
    pub fn build_from_dir(
        path: impl AsRef<Path>,
        name: impl AsRef<str>,
        options: BuildOptions,
    ) -> MicrosandboxResult<ImageOperation> {
        let found = Surroundings::find()?;
        let reference = found.reference(name.as_ref())?;
        let path = absolute(path.as_ref())?;
        if !path.is_dir() {
            let text = format!("cannot build from {}: it is not a directory", path.display());
            return Err(msb_image::Error::invalid(text).into());
        }
        operation::begin(found, Request::Build { path, reference, options })
    }

    /// Writes an image into an archive in OCI's layout, which docker and podman load as well. A
    /// file with this name is replaced once the archive is complete.
    pub fn export(
        name: impl AsRef<str>,
        path: impl AsRef<Path>,
    ) -> MicrosandboxResult<ImageOperation> {
        let found = Surroundings::find()?;
        let (id, reference) = found.image(name.as_ref())?;
        let path = std::path::absolute(path.as_ref())
            .map_err(|error| Error::io(format!("cannot use {}", path.as_ref().display()), error))?;
        let request = Request::Export { id, reference, to: path.clone() };
        operation::begin_with(found, move |call| {
            let archive = NewArchive::create(&path)?;
            let outcome = call.perform(&request, Some(archive.descriptor()?))?;
            archive.commit().map(|()| outcome)
        })
    }

    /// Writes an image's archive to a descriptor. Otherwise like [`Image::export`].
    pub fn export_to(
        name: impl AsRef<str>,
        archive: impl Into<OwnedFd>,
    ) -> MicrosandboxResult<ImageOperation> {
        let (found, archive) = (Surroundings::find()?, archive.into());
        archive::refuse_terminal(&archive)?;
        let (id, reference) = found.image(name.as_ref())?;
        let request = Request::Export { id, reference, to: "standard output".into() };
        operation::begin_with(found, move |call| call.perform(&request, Some(archive)))
    }

    /// Lists the images in the store, newest first.
    pub async fn list() -> MicrosandboxResult<Vec<ImageInfo>> {
        let found = Surroundings::find()?;
        operation::on_thread(move || {
            let all = found.store().list()?;
            Ok(all.into_iter().map(|info| ImageInfo::of(&found.store(), info)).collect())
        })
        .await
    }

    /// Returns information about one image in the store.
    pub async fn get(name: impl AsRef<str>) -> MicrosandboxResult<ImageInfo> {
        let (found, name) = (Surroundings::find()?, name.as_ref().to_owned());
        operation::on_thread(move || {
            let (id, _) = found.image(&name)?;
            Ok(ImageInfo::of(&found.store(), found.store().info(&id)?))
        })
        .await
    }

    /// Removes a name of an image, and the image with its last name. An id stands for all names.
    /// Fails while a sandbox uses the image; with `force` it loses its names only.
    pub async fn remove(name: impl AsRef<str>, force: bool) -> MicrosandboxResult<PruneReport> {
        let found = Surroundings::find()?;
        let (id, reference) = found.image(name.as_ref())?;
        let request = Request::Remove { id, reference, force };
        operation::begin(found, request)?.outcome().await.map(PruneReport::from)
    }

    /// Removes every unused image without a name, with `all` also those with a name, and partial
    /// downloads.
    pub async fn prune(all: bool) -> MicrosandboxResult<PruneReport> {
        let found = Surroundings::find()?;
        operation::begin(found, Request::Prune { all })?.outcome().await.map(PruneReport::from)
    }
}

/// Imports what a descriptor holds. `path` is what to call it.
fn import_passed(
    archive: OwnedFd,
    path: &Path,
    name: Option<&str>,
    platform: Option<&str>,
) -> MicrosandboxResult<ImageOperation> {
    let platform = platform_of(platform)?;
    archive::refuse_terminal(&archive)?;
    let found = Surroundings::find()?;
    let reference = name.map(|name| found.reference(name)).transpose()?;
    let request = Request::Import { path: path.to_path_buf(), reference, platform };
    operation::begin_with(found, move |call| call.perform(&request, Some(archive)))
}

/// What the environment says; read by the caller of each function, on its own thread.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) home: Home,
    pub(crate) companions: Companions,
    pub(crate) registries: msb_image::Registries,
    /// Whether images are unpacked only if every wall of the jail is available.
    pub(crate) require_jail: bool,
}

impl Surroundings {
    pub(crate) fn find() -> Result<Surroundings, Error> {
        let home = Home::from_env()?;
        let registries = msb_image::Registries::load(home.path())?;
        let companions = crate::library::companions()?;
        let require_jail = msb_state::jail_is_required()?;
        Ok(Surroundings { home, companions, registries, require_jail })
    }

    pub(crate) fn store(&self) -> Store {
        Store::at(self.home.path())
    }

    fn reference(&self, name: &str) -> Result<msb_image::Reference, Error> {
        match Source::find(OsStr::new(name), &self.registries.default_registry)? {
            Source::Name(reference) => Ok(reference),
            _ => {
                let text = format!("{name:?} is not a name that an image can have");
                Err(msb_image::Error::invalid(text).into())
            }
        }
    }

    /// Returns an image in the store, and the name that was asked for.
    fn image(
        &self,
        name: &str,
    ) -> Result<(msb_image::Digest, Option<msb_image::Reference>), Error> {
        let missing = || {
            let text = format!("image {name} is not in the store");
            Error::from(msb_image::Error::not_found(text))
        };
        match Source::find(OsStr::new(name), &self.registries.default_registry)? {
            Source::Name(reference) => {
                let id = self.store().resolve(&reference)?.ok_or_else(missing)?;
                Ok((id, Some(reference)))
            }
            Source::Id(digits) => {
                Ok((self.store().resolve_id(&digits)?.ok_or_else(missing)?, None))
            }
            _ => Err(missing()),
        }
    }
}

/// Reads a platform.
pub(crate) fn platform_of(text: Option<&str>) -> Result<Option<msb_image::Platform>, Error> {
    let parsed = text.map(str::parse).transpose();
    parsed.map_err(|error: msb_image::InvalidPlatform| {
        msb_image::Error::invalid(error.to_string()).into()
    })
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    let wrong = |error| {
        let text = format!("cannot use {}: {error}", path.display());
        Error::from(msb_image::Error::invalid(text))
    };
    path.canonicalize().map_err(wrong)
}
