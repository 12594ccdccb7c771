//! Doing what the library asks for.

use crate::helper::Helper;
use crate::make::make_from_rootfs;
use crate::{export, import, pack, registry};
use msb_image::{
    BuildOptions, Error, ErrorKind, Event, ImageConfig, Progress, Request, Result, Selected, Store,
};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often it is told how far something is, at most, beside each layer and phase.
const PERIOD: Duration = Duration::from_millis(100);

/// Carries out a request about the store of a state directory, and tells how it goes. The last
/// event is what came of it.
pub async fn work(request: Request, home: &Path, helper: &Helper, tell: &mut dyn FnMut(Event)) {
    // The client's own choice would need a library that takes minutes to build; fails if there
    // is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut last: Option<(Progress, Instant)> = None;
    let mut report = |progress: Progress| {
        let is_news = last.is_none_or(|(told, at)| {
            let step = (told.phase, told.layers_done) != (progress.phase, progress.layers_done);
            step || (told != progress && at.elapsed() >= PERIOD)
        });
        if is_news {
            last = Some((progress, Instant::now()));
            tell(Event::Progress(progress));
        }
    };
    let store = Store::at(home);
    let result = carry_out(request, &store, helper, &mut report).await;
    if result.as_ref().is_err_and(|error| error.kind == ErrorKind::BadImage) {
        // A later prune would remove them as well.
        let _ = store.remove_unused();
    }
    tell(match result {
        Ok(selected) => Event::Done(selected),
        Err(error) => Event::Error(error),
    });
}

async fn carry_out(
    request: Request,
    store: &Store,
    helper: &Helper,
    report: &mut dyn FnMut(Progress),
) -> Result<Selected> {
    let remove_tree = |path: &Path| helper.remove_tree(path);
    let made = |id| Selected { id: Some(id), ..Selected::default() };
    match request {
        Request::Pull { reference, registries } => {
            store.tidy(&remove_tree)?;
            let _hold = store.hold()?;
            registry::pull(store, helper, &reference, &registries, report).await.map(made)
        }
        Request::Import { path, reference } => {
            store.tidy(&remove_tree)?;
            let _hold = store.hold()?;
            let stamp = Store::stamp(&path);
            let wanted = reference.as_ref();
            let (id, own) = import::import(store, helper, &path, wanted, report)
                .map_err(|error| about(&path, error))?;
            if let Some(name) = reference.or(own) {
                store.name(&name, &id, None)?;
            }
            if let Some(stamp) = stamp {
                store.remember_import(&path, stamp, &id)?;
            }
            Ok(made(id))
        }
        Request::Build { path, reference, options } => {
            store.tidy(&remove_tree)?;
            let _hold = store.hold()?;
            let layer = pack::pack(store, &path)?;
            let config = config_of(options)?;
            let id = make_from_rootfs(store, helper, layer, config, report)?;
            store.name(&reference, &id, None)?;
            Ok(made(id))
        }
        Request::Export { id, reference, path } => {
            let _hold = store.hold()?;
            export::export(store, &id, reference.as_ref(), &path)?;
            Ok(made(id))
        }
        Request::Remove { id, reference, force } => {
            let removed = store.remove(&id, reference.as_ref(), force, &remove_tree)?;
            Ok(Selected { id: Some(id), removed: removed.images, freed: removed.bytes })
        }
        Request::Prune { all } => {
            let pruned = store.prune(all, &remove_tree)?;
            Ok(Selected { id: None, removed: pruned.images, freed: pruned.bytes })
        }
        _ => Err(Error::invalid("this runner is older than the library")),
    }
}

fn about(path: &Path, error: Error) -> Error {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Error { message: format!("{name}: {}", error.message), ..error }
}

fn config_of(options: BuildOptions) -> Result<ImageConfig> {
    let BuildOptions { env, workdir, user, entrypoint, cmd } = options;
    let odd = |entry: &&String| entry.split_once('=').is_none_or(|(key, _)| key.is_empty());
    if let Some(entry) = env.iter().find(odd) {
        return Err(Error::invalid(format!("the variable {entry:?} is not NAME=value")));
    }
    if !workdir.is_empty() && !workdir.starts_with('/') {
        return Err(Error::invalid(format!("workdir {workdir:?} is relative")));
    }
    Ok(ImageConfig { env, workdir, user, entrypoint, cmd, ..ImageConfig::default() })
}
