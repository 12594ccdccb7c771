//! Resolves the image of a sandbox to a root filesystem.

use super::Surroundings;
use super::operation::{Cancel, perform};
use crate::error::Error;
use msb_image::{
    Digest, ImageConfig, Phase, Platform, Progress, PullPolicy, Reference, Request, Source, Store,
    StoreLock,
};
use msb_state::ByteString;
use std::path::{Path, PathBuf};

/// Retries of a pull when another process removes the image at the same time.
const TRIES: u32 = 3;

/// What a sandbox is to be made from.
pub(crate) struct Wanted<'a> {
    pub(crate) image: &'a ByteString,
    pub(crate) policy: PullPolicy,
    /// `None` for that of this host.
    pub(crate) platform: Option<Platform>,
    /// Whether the driver runs programs in the kernel of this host.
    pub(crate) shares_kernel: bool,
    /// Cancels the pull.
    pub(crate) cancel: &'a Cancel,
    /// Called before a pull or import; its error forbids it.
    pub(crate) check: &'a dyn Fn() -> Result<(), Error>,
}

/// The resolved image.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// The directory of the root filesystem.
    pub(crate) rootfs: ByteString,
    /// The image's name, if it is in the store.
    pub(crate) name: Option<String>,
    /// The defaults for commands.
    pub(crate) config: ImageConfig,
    /// Keeps the image from being removed until the sandbox's configuration refers to it.
    pub(crate) _hold: Option<StoreLock>,
}

/// Finds an image, and pulls it if it is missing. Blocks.
pub(crate) fn resolve(
    found: &Surroundings,
    wanted: &Wanted<'_>,
    each: &mut dyn FnMut(Progress),
) -> Result<Resolved, Error> {
    let source = Source::find(wanted.image.as_os_str(), &found.registries.default_registry)?;
    if let Some(platform) = &wanted.platform {
        check_runnable(&wanted.image.as_path().display().to_string(), platform, wanted)?;
    }
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
    let store = found.store();
    let config = store.config(&id)?;
    check_runnable(&name, &config.platform(), wanted)?;
    if let Some(platform) = wanted.platform.as_ref().filter(|_| !is_for(&config, wanted)) {
        let text = format!("image {name} is for {}, not {platform}", config.platform());
        return Err(msb_image::Error::bad(text).into());
    }
    let mut progress = Progress::default();
    progress.phase = Phase::Starting;
    each(progress);
    Ok(Resolved { rootfs: store.rootfs(&id).into(), name: Some(name), config, _hold: Some(hold) })
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
    wanted: &Wanted<'_>,
    each: &mut dyn FnMut(Progress),
) -> Result<Got, Error> {
    let &Wanted { policy, cancel, check, .. } = wanted;
    let store = found.store();
    let mut must_pull = policy == PullPolicy::Always;
    let name = reference.familiar();
    for _ in 0..TRIES {
        if must_pull {
            check()?;
            let registries = found.registries.clone();
            let platform = wanted.platform.clone();
            let request = Request::Pull { reference: reference.clone(), registries, platform };
            perform(found, &request, None, cancel, each)?;
        }
        let resolved = || Ok(of_platform(&store, store.resolve(reference)?, wanted));
        if let Some((id, hold)) = held(&store, resolved)? {
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
    wanted: &Wanted<'_>,
    each: &mut dyn FnMut(Progress),
) -> Result<Got, Error> {
    let &Wanted { cancel, check, .. } = wanted;
    let store = found.store();
    let name = path.display().to_string();
    for _ in 0..TRIES {
        let imported = || Ok(of_platform(&store, store.imported(path)?, wanted));
        if let Some((id, hold)) = held(&store, imported)? {
            return Ok((id, name, hold));
        }
        check()?;
        let platform = wanted.platform.clone();
        let request = Request::Import { path: path.to_path_buf(), reference: None, platform };
        let made = perform(found, &request, None, cancel, each)?.id;
        if let Some((id, hold)) = held(&store, || Ok(made.filter(|id| store.has(id))))? {
            return Ok((id, name, hold));
        }
    }
    let text = format!("image {name} was removed again and again while it was being used");
    Err(msb_image::Error::not_found(text).into())
}

/// Leaves an image out that is for another platform than the one that is asked for.
fn of_platform(store: &Store, found: Option<Digest>, wanted: &Wanted<'_>) -> Option<Digest> {
    // One that cannot be read is an error later.
    found.filter(|id| store.config(id).map_or(true, |config| is_for(&config, wanted)))
}

fn is_for(config: &ImageConfig, wanted: &Wanted<'_>) -> bool {
    let platform = wanted.platform.as_ref();
    platform.is_none_or(|platform| platform.accepts(&config.platform()))
}

/// Refuses an image whose programs do not run here.
///
/// The kernel of this host may run those of another processor: by an emulator that it starts
/// (binfmt_misc), or because its own processor can. That of a virtual machine does not.
fn check_runnable(name: &str, platform: &Platform, wanted: &Wanted<'_>) -> Result<(), Error> {
    let host = Platform::host();
    let is_own = host.accepts(&Platform { variant: String::new(), ..platform.clone() });
    if is_own || (wanted.shares_kernel && platform.os == "linux" && is_emulated(platform)) {
        return Ok(());
    }
    let text = format!("cannot run image {name}: it is for {platform}, and this host is {host}");
    let hint = match platform.os.as_str() {
        "linux" => "the driver container runs it where binfmt_misc has an emulator for it",
        _ => "only images for Linux can be run",
    };
    Err(msb_image::Error::bad(text).hint(hint).into())
}

/// Whether the kernel of this host runs programs for a platform that is not its own.
fn is_emulated(platform: &Platform) -> bool {
    let emulator = match platform.architecture.as_str() {
        // The kernel has this file where it runs 32-bit programs.
        "386" if cfg!(target_arch = "x86_64") && Path::new("/proc/sys/abi/vsyscall32").exists() => {
            return true;
        }
        "386" => "i386",
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    };
    let entry = Path::new("/proc/sys/fs/binfmt_misc").join(format!("qemu-{emulator}"));
    // Without the flag F the kernel looks for the emulator in the image.
    let entry = std::fs::read_to_string(entry).unwrap_or_default();
    let is_fixed = |line: &str| line.strip_prefix("flags:").is_some_and(|all| all.contains('F'));
    entry.lines().any(|line| line == "enabled") && entry.lines().any(is_fixed)
}

/// Looks something up while nothing can be removed, and keeps it so if it is there.
fn held(
    store: &Store,
    find: impl FnOnce() -> Result<Option<Digest>, Error>,
) -> Result<Option<(Digest, StoreLock)>, Error> {
    let hold = store.lock_shared()?;
    Ok(find()?.map(|id| (id, hold)))
}
