//! An operation on the store in another process.

use super::Surroundings;
use super::info::ImageInfo;
use super::progress::{ProgressCell, ProgressSender};
use crate::completion::{Pending, completion};
use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use crate::runtime;
use msb_client::lock;
use msb_image::{Event, Progress, Request, TaskOutcome};
use msb_state::{IMAGE_MEMORY, ImageTask};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Cancels an operation, also before it has started.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<Mutex<Line>>);

#[derive(Debug, Default)]
struct Line {
    cancelled: bool,
    input: Option<OwnedFd>,
}

impl Cancel {
    /// Cancels the operation. Applies to every clone.
    pub fn cancel(&self) {
        let mut line = lock(&self.0);
        line.cancelled = true;
        drop(line.input.take());
    }

    /// Returns a guard that cancels when it is dropped.
    pub(crate) fn when_dropped(self) -> impl Drop {
        struct Guard(Cancel);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.cancel();
            }
        }
        Guard(self)
    }

    /// Connects to the process; returns false if the operation was cancelled.
    fn connect(&self, input: OwnedFd) -> bool {
        let mut line = lock(&self.0);
        if !line.cancelled {
            line.input = Some(input);
        }
        !line.cancelled
    }
}

/// An in-progress pull, import, build or export of an image. Dropping this cancels it; what was
/// downloaded is kept for the next pull.
#[derive(Debug)]
pub struct ImageOperation {
    found: Surroundings,
    progress: Arc<ProgressCell>,
    pending: Pending<TaskOutcome>,
    cancel: Cancel,
    skipped: Vec<String>,
}

impl ImageOperation {
    /// Waits for new progress; `None` at the end. A slow reader misses intermediate steps.
    pub async fn progress(&mut self) -> Option<Progress> {
        self.progress.next().await
    }

    /// Waits for the end, and returns information about the image.
    pub async fn wait(&mut self) -> MicrosandboxResult<ImageInfo> {
        let selected = (&mut self.pending).await?;
        self.skipped = selected.skipped;
        let found = self.found.clone();
        on_thread(move || {
            let id =
                selected.id.ok_or_else(|| Error::internal("the operation produced no image"))?;
            Ok(ImageInfo::of(&found.store(), found.store().info(&id)?))
        })
        .await
    }

    /// Returns what building from a directory left out, each with the reason, once
    /// [`ImageOperation::wait`] has returned: sockets, and what is mounted by the kernel.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    pub(crate) async fn outcome(mut self) -> MicrosandboxResult<TaskOutcome> {
        (&mut self.pending).await
    }

    /// Returns a handle that cancels the operation.
    pub fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }
}

impl Drop for ImageOperation {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Begins work on a thread of its own.
pub(super) fn begin(found: Surroundings, request: Request) -> MicrosandboxResult<ImageOperation> {
    begin_with(found, move |call| call.perform(&request, None))
}

/// Work on a thread of its own, which can have the runner carry out a request.
pub(super) struct Call {
    found: Surroundings,
    cancel: Cancel,
    teller: ProgressSender,
}

impl Call {
    pub(super) fn perform(
        &self,
        request: &Request,
        archive: Option<OwnedFd>,
    ) -> Result<TaskOutcome, Error> {
        let each = &mut |progress| self.teller.send(progress);
        perform(&self.found, request, archive, &self.cancel, each)
    }
}

/// Begins what `work` does, on a thread of its own.
pub(super) fn begin_with(
    found: Surroundings,
    work: impl FnOnce(&Call) -> Result<TaskOutcome, Error> + Send + 'static,
) -> MicrosandboxResult<ImageOperation> {
    let ((teller, progress), cancel) = (ProgressCell::new(), Cancel::default());
    let call = Call { found: found.clone(), cancel: cancel.clone(), teller };
    let pending = on_thread(move || work(&call));
    Ok(ImageOperation { found, progress, pending, cancel, skipped: Vec::new() })
}

/// Runs blocking work on a thread of its own.
pub(super) fn on_thread<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Pending<T> {
    let (promise, pending) = completion();
    let begun = runtime::get()
        .and_then(|_| runtime::spawn_thread("msb-image", move || promise.complete(f())));
    match begun {
        Ok(()) => pending,
        Err(error) => Pending::ready(Err(error)),
    }
}

/// Performs the operation in a runner process and waits for it. Blocks.
pub(crate) fn perform(
    found: &Surroundings,
    request: &Request,
    archive: Option<OwnedFd>,
    cancel: &Cancel,
    each: &mut dyn FnMut(Progress),
) -> Result<TaskOutcome, Error> {
    let begun = Instant::now();
    let line = serde_json::to_string(request)
        .map_err(|error| Error::invalid(format!("cannot ask for that: {error}")))?;
    let Surroundings { home, companions, require_jail, .. } = found;
    let ImageTask { input, output, child } =
        msb_state::begin_image_task(home, companions, &line, *require_jail, archive)?;
    let wanted = cancel.connect(input);
    let mut last = None;
    for line in BufReader::new(File::from(output)).lines() {
        match line.ok().and_then(|line| serde_json::from_str(&line).ok()) {
            Some(Event::Progress(progress)) => each(progress),
            Some(event) => last = Some(event),
            // A partial line of a process that died, or a message of a later version.
            None => {}
        }
    }
    let aborted = child.wait();
    tracing::debug!(elapsed = ?begun.elapsed(), "work on images ended");
    match last {
        Some(Event::Done(selected)) => Ok(selected),
        Some(Event::Error(error)) => Err(error.into()),
        _ if !wanted || lock(&cancel.0).cancelled => {
            Err(Error::new(ErrorKind::Closed, Origin::Caller, "the operation was cancelled"))
        }
        _ => {
            let log = found.home.image_log();
            let mib = IMAGE_MEMORY >> 20;
            let why = match aborted {
                true => format!("was aborted, as when it needs more than {mib} MiB of memory"),
                false => "died".to_owned(),
            };
            let text = format!("the process that works on images {why}; see {}", log.display());
            Err(Error::new(ErrorKind::ImageFailed, Origin::Host, text))
        }
    }
}
