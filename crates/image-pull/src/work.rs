//! Carries out requests of the library.

use crate::helper::Helper;
use crate::make::make_from_rootfs;
use crate::{export, import, pack, registry};
use msb_image::{
    BuildOptions, Error, ErrorKind, Event, ImageConfig, Progress, Request, Result, Store,
    TaskOutcome,
};
use std::path::Path;
use std::time::{Duration, Instant};

/// Minimum interval between reports of progress within one layer and phase.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Carries out a request on the store of a state directory. Emits progress, and last the outcome.
pub async fn run_request(
    request: Request,
    home: &Path,
    helper: &Helper,
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
    let result = execute(request, &store, helper, &mut report).await;
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
    report: &mut dyn FnMut(Progress),
) -> Result<TaskOutcome> {
    let remove_tree = |path: &Path| helper.remove_tree(path);
    let begin = || {
        store.remove_leftovers(&remove_tree)?;
        store.lock_shared()
    };
    let made = |id| TaskOutcome { id: Some(id), ..TaskOutcome::default() };
    match request {
        Request::Pull { reference, registries } => {
            let _lock = begin()?;
            registry::pull(store, helper, &reference, &registries, report).await.map(made)
        }
        Request::Import { path, reference } => {
            let _lock = begin()?;
            let stamp = Store::stamp(&path);
            let wanted = reference.as_ref();
            let (id, own_name) = import::import(store, helper, &path, wanted, report)
                .map_err(|error| with_file_name(&path, error))?;
            if let Some(name) = reference.or(own_name) {
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
            let id = make_from_rootfs(store, helper, layer, config, report)?;
            store.set_name(&reference, &id, None)?;
            Ok(TaskOutcome { skipped, ..made(id) })
        }
        Request::Export { id, reference, path } => {
            let _lock = store.lock_shared()?;
            export::export(store, &id, reference.as_ref(), &path)?;
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
