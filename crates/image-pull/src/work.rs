//! Carries out requests of the library.

use crate::helper::Helper;
use crate::make::make_from_rootfs;
use crate::stream::Spool;
use crate::{export, import, pack, registry};
use msb_image::{
    BuildOptions, Error, ErrorKind, Event, ImageConfig, Platform, Progress, Request, Result, Store,
    TaskOutcome,
};
use std::fs::File;
use std::io::IsTerminal;
use std::path::Path;
use std::time::{Duration, Instant};

/// Minimum interval between reports of progress within one layer and phase.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Carries out a request on the store of a state directory. Emits progress, and last the outcome.
///
/// `archive` is the file to import from or to export to, if the library passed one.
pub async fn run_request(
    request: Request,
    home: &Path,
    helper: &Helper,
    archive: Option<File>,
    emit: &mut dyn FnMut(Event),
) {
    // The default provider takes minutes to build. Fails if one is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut last: Option<(Progress, Instant)> = None;
    let mut report = |progress: Progress| {
        let is_new = last.is_none_or(|(reported, at)| {
            let step =
                (reported.phase, reported.layers_done) != (progress.phase, progress.layers_done);
            step || (reported != progress && at.elapsed() >= PROGRESS_INTERVAL)
        });
        if is_new {
            last = Some((progress, Instant::now()));
            emit(Event::Progress(progress));
        }
    };
    let store = Store::at(home);
    let result = execute(request, &store, helper, archive, &mut report).await;
    if result.as_ref().is_err_and(|error| error.kind == ErrorKind::BadImage) {
        // Fails harmlessly: a later prune removes them as well.
        let _ = store.remove_unused_blobs();
    }
    emit(match result {
        Ok(outcome) => Event::Done(outcome),
        Err(error) => Event::Error(error),
    });
}

async fn execute(
    request: Request,
    store: &Store,
    helper: &Helper,
    archive: Option<File>,
    report: &mut dyn FnMut(Progress),
) -> Result<TaskOutcome> {
    let remove_tree = |path: &Path| helper.remove_tree(path);
    let begin = || {
        store.remove_leftovers(&remove_tree)?;
        store.lock_shared()
    };
    let made = |id| TaskOutcome { id: Some(id), ..TaskOutcome::default() };
    match request {
        Request::Pull { reference, registries, platform } => {
            let _lock = begin()?;
            let platform = platform.unwrap_or_else(Platform::host);
            let source = registry::Source { reference: &reference, registries: &registries };
            registry::pull(store, helper, source, &platform, report).await.map(made)
        }
        Request::Import { path, reference, platform } => {
            let _lock = begin()?;
            let spool = spooled(store, &path, archive)?;
            let stamp = if spool.is_none() { Store::stamp(&path) } else { None };
            let from = spool.as_ref().map_or(path.as_path(), Spool::path);
            let platform = platform.unwrap_or_else(Platform::host);
            let wanted = import::Wanted { name: reference.as_ref(), platform: &platform };
            let (id, own_names) = import::import(store, helper, from, wanted, report)
                .map_err(|error| with_file_name(&path, error))?;
            for name in reference.map_or(own_names, |name| vec![name]) {
                store.set_name(&name, &id, None)?;
            }
            if let Some(stamp) = stamp {
                store.remember_import(&path, stamp, &id)?;
            }
            Ok(made(id))
        }
        Request::Build { path, reference, options } => {
            let _lock = begin()?;
            let config = config_from(options)?;
            let pack::Packed { layer, skipped } = pack::pack(store, &path)?;
            let id = make_from_rootfs(store, helper, layer, config, &Platform::host(), report)?;
            store.set_name(&reference, &id, None)?;
            Ok(TaskOutcome { skipped, ..made(id) })
        }
        Request::Export { id, reference, to } => {
            let _lock = store.lock_shared()?;
            let file = archive
                .ok_or_else(|| Error::invalid("cannot export the image: no file was passed"))?;
            export::export(store, &id, reference.as_ref(), file, &to)?;
            Ok(made(id))
        }
        Request::Remove { id, reference, force } => {
            store.remove(&id, reference.as_ref(), force, &remove_tree)
        }
        Request::Prune { all } => store.prune(all, &remove_tree),
        _ => Err(Error::invalid(
            "cannot carry out the request: this runner is older than the library",
        )),
    }
}

/// Copies an archive that can be read once only.
fn spooled(store: &Store, path: &Path, archive: Option<File>) -> Result<Option<Spool>> {
    let file = match archive {
        Some(file) => file,
        None if path.is_file() || path.is_dir() => return Ok(None),
        None => File::open(path).map_err(|error| Error::io("open", path, error))?,
    };
    if file.is_terminal() {
        return Err(Error::invalid(format!("cannot import {}: a terminal", path.display())));
    }
    Spool::fill(store, file).map(Some).map_err(|error| with_file_name(path, error))
}

fn with_file_name(path: &Path, error: Error) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Error { message: format!("{name}: {}", error.message), ..error }
}

fn config_from(options: BuildOptions) -> Result<ImageConfig> {
    let BuildOptions { env, workdir, user, entrypoint, cmd } = options;
    let is_invalid = |entry: &&String| entry.split_once('=').is_none_or(|(key, _)| key.is_empty());
    if let Some(entry) = env.iter().find(is_invalid) {
        return Err(Error::invalid(format!("invalid variable {entry:?}: must be NAME=value")));
    }
    if !workdir.is_empty() && !workdir.starts_with('/') {
        return Err(Error::invalid(format!("invalid workdir {workdir:?}: must be absolute")));
    }
    Ok(ImageConfig { env, workdir, user, entrypoint, cmd, ..ImageConfig::default() })
}
