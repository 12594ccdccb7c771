//! The library's own threads.
//!
//! Owns: the I/O thread `msb-io`, created on first use, and the short-lived threads for blocking
//! work. Does not own: what runs on them. Invariant: no thread of the library receives a signal of
//! the host program, and no call waits for a thread that does not exist, because it could not be
//! created or because the process is a forked child.

use crate::error::Error;
use crossbeam_channel::bounded;
use msb_client::check_pid;
use nix::sys::signal::{SigSet, SigmaskHow};
use once_cell::sync::OnceCell;
use std::future::Future;
use std::thread::{self, JoinHandle};
use tokio::runtime::{Builder, Handle};

static RUNTIME: OnceCell<Runtime> = OnceCell::new();

/// The I/O thread.
#[derive(Debug)]
pub(crate) struct Runtime {
    handle: Handle,
    pid: u32,
}

/// Returns the I/O thread, and starts it on first use.
pub(crate) fn get() -> Result<&'static Runtime, Error> {
    let runtime = RUNTIME.get_or_try_init(Runtime::start)?;
    check_pid(runtime.pid)?;
    Ok(runtime)
}

/// Fails in a child that was forked from a process which uses the library.
pub(crate) fn check_fork() -> Result<(), Error> {
    Ok(RUNTIME.get().map_or(Ok(()), |runtime| check_pid(runtime.pid))?)
}

impl Runtime {
    fn start() -> Result<Runtime, Error> {
        let (report, reported) = bounded(1);
        spawn_thread("msb-io", move || {
            let runtime = match Builder::new_current_thread().enable_io().enable_time().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = report.send(Err(error));
                    return;
                }
            };
            if report.send(Ok(runtime.handle().clone())).is_ok() {
                runtime.block_on(std::future::pending::<()>());
            }
        })?;
        let handle = reported
            .recv()
            .map_err(|_| Error::internal("the I/O thread ended during its start"))?
            .map_err(|error| Error::io("cannot start the I/O thread", error))?;
        Ok(Runtime { handle, pid: std::process::id() })
    }

    /// Runs a task on the I/O thread. It must never block.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(task));
    }

    /// Returns the handle of the runtime on the I/O thread.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// Starts a thread that blocks every signal.
pub(crate) fn spawn_thread(name: &str, f: impl FnOnce() + Send + 'static) -> Result<(), Error> {
    spawn_joinable(name, f).map(drop)
}

/// As [`spawn_thread`], and returns its join handle.
pub(crate) fn spawn_joinable(
    name: &str,
    f: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    let failed = |error: std::io::Error| Error::io("cannot make a thread", error);
    // A new thread inherits the mask, so it is never interruptible.
    let before = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(|errno| failed(errno.into()))?;
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(f);
    // The mask was in force before, so this cannot fail.
    let _ = before.thread_set_mask();
    spawned.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_io_thread_has_its_name_and_blocks_every_signal() {
        let (sender, receiver) = bounded(1);
        get().unwrap().spawn(async move {
            let name = thread::current().name().map(str::to_owned);
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            sender.send((name, status)).unwrap();
        });
        let (name, status) = receiver.recv().unwrap();
        assert_eq!(name.as_deref(), Some("msb-io"));
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
        let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
        for signal in [1, 2, 13, 15, 17] {
            assert_ne!(mask & (1 << (signal - 1)), 0, "signal {signal}");
        }
    }

    #[test]
    fn the_callers_own_signals_stay_as_they_were() {
        let before = SigSet::thread_get_mask().unwrap();
        spawn_thread("msb-test", || {}).unwrap();
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }
}
