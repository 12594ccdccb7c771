//! From what a caller gives as an image to a root filesystem.

use super::Surroundings;
use super::operation::{Cancel, perform};
use crate::error::Error;
use msb_image::{
    Digest, ImageConfig, Phase, Progress, PullPolicy, Reference, Request, Source, Store, StoreLock,
};
use msb_state::ByteString;
use std::path::{Path, PathBuf};

/// Retries of a pull when another process removes the image at the same time.
const TRIES: u32 = 3;

/// What a sandbox is to be made from.
pub(crate) struct Wanted<'a> {
    pub(crate) image: &'a ByteString,
    pub(crate) policy: PullPolicy,
    /// Cancels the pull.
    pub(crate) cancel: &'a Cancel,
    /// Called before a pull or import; its error forbids it.
    pub(crate) check: &'a dyn Fn() -> Result<(), Error>,
}

/// What that means here.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// A directory.
    pub(crate) rootfs: ByteString,
    /// What the image is called, where it is one of the store.
    pub(crate) name: Option<String>,
    /// What it says about commands.
    pub(crate) config: ImageConfig,
    /// Keeps it from being removed until the sandbox says that it uses it.
    pub(crate) _hold: Option<StoreLock>,
}

/// Finds an image, and gets it where it is not here. Blocks.
pub(crate) fn resolve(
    found: &Surroundings,
    wanted: &Wanted<'_>,
    each: &mut dyn FnMut(Progress),
) -> Result<Resolved, Error> {
    let source = Source::find(wanted.image.as_os_str(), &found.registries.default_registry)?;
    let (id, name, hold) = match source {
        Source::Directory(path) => return Ok(directory(path)),
        Source::Archive(path) => archive(found, &path, wanted, each)?,
        Source::Name(reference) => named(found, &reference, wanted, each)?,
        Source::Id(digits) => {
            let store = found.store();
            let hold = store.lock_shared()?;
            let id = store.resolve_id(&digits)?.ok_or_else(|| {
                let text = format!("no image's id begins with {digits}");
                Error::from(msb_image::Error::not_found(text))
            })?;
            (id, digits, hold)
        }
        _ => return Err(Error::internal("a kind of source without a way to use it")),
    };
    let mut progress = Progress::default();
    progress.phase = Phase::Starting;
    each(progress);
    let store = found.store();
    Ok(Resolved {
        rootfs: store.rootfs(&id).into(),
        name: Some(name),
        config: store.config(&id)?,
        _hold: Some(hold),
    })
}

impl Resolved {
    /// Stands for an image that is not known yet.
    pub(crate) fn unknown() -> Resolved {
        directory(PathBuf::from("/"))
    }
}

fn directory(path: PathBuf) -> Resolved {
    let config = ImageConfig::default();
    Resolved { rootfs: path.into(), name: None, config, _hold: None }
}

type Got = (Digest, String, StoreLock);

fn named(
    found: &Surroundings,
    reference: &Reference,
    &Wanted { policy, cancel, check, .. }: &Wanted<'_>,
    each: &mut dyn FnMut(Progress),
) -> Result<Got, Error> {
    let store = found.store();
    let mut must_pull = policy == PullPolicy::Always;
    let name = reference.familiar();
    for _ in 0..TRIES {
        if must_pull {
            check()?;
            let registries = found.registries.clone();
            let request =
                Request::Pull { reference: reference.clone(), registries, platform: None };
            perform(found, &request, None, cancel, each)?;
        }
        if let Some((id, hold)) = held(&store, || Ok(store.resolve(reference)?))? {
            return Ok((id, name, hold));
        }
        if policy == PullPolicy::Never {
            let text = format!("image {name} is not in the store, and is not to be pulled");
            return Err(msb_image::Error::not_found(text).hint("msb image pull gets it").into());
        }
        must_pull = true;
    }
    let text = format!("image {name} was removed again and again while it was being used");
    Err(msb_image::Error::not_found(text).into())
}

fn archive(
    found: &Surroundings,
    path: &Path,
    &Wanted { cancel, check, .. }: &Wanted<'_>,
    each: &mut dyn FnMut(Progress),
) -> Result<Got, Error> {
    let store = found.store();
    let name = path.display().to_string();
    for _ in 0..TRIES {
        if let Some((id, hold)) = held(&store, || Ok(store.imported(path)?))? {
            return Ok((id, name, hold));
        }
        check()?;
        let request = Request::Import { path: path.to_path_buf(), reference: None, platform: None };
        let made = perform(found, &request, None, cancel, each)?.id;
        if let Some((id, hold)) = held(&store, || Ok(made.filter(|id| store.has(id))))? {
            return Ok((id, name, hold));
        }
    }
    let text = format!("image {name} was removed again and again while it was being used");
    Err(msb_image::Error::not_found(text).into())
}

/// Looks something up while nothing can be removed, and keeps it so if it is there.
fn held(
    store: &Store,
    find: impl FnOnce() -> Result<Option<Digest>, Error>,
) -> Result<Option<(Digest, StoreLock)>, Error> {
    let hold = store.lock_shared()?;
    Ok(find()?.map(|id| (id, hold)))
}
