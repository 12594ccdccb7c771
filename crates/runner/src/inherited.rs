//! The descriptors that the library passes to a runner.

use msb_state::{SandboxDir, SandboxLock, StatusRecord};
use std::io;
use std::os::fd::OwnedFd;

/// Descriptor of the lock.
const LOCK: i32 = 3;
/// Descriptor of the status pipe's write end.
const STATUS: i32 = 4;
/// The creator's pidfd, if the sandbox is attached.
const CREATOR: i32 = 5;

/// The descriptors that a runner starts with.
#[derive(Debug)]
pub(crate) struct Inherited {
    pub(crate) lock: SandboxLock,
    pub(crate) status: Status,
    pub(crate) creator: Option<OwnedFd>,
}

impl Inherited {
    /// Takes ownership of the inherited descriptors.
    pub(crate) fn take(dir: &SandboxDir, attached: bool) -> io::Result<Self> {
        let creator = if attached { Some(crate::sys::inherited(CREATOR)?) } else { None };
        Ok(Inherited {
            lock: SandboxLock::inherited(crate::sys::inherited(LOCK)?, &dir.lock()),
            status: Status(crate::sys::inherited(STATUS)?),
            creator,
        })
    }
}

/// The pipe on which the library waits for one record.
#[derive(Debug)]
pub(crate) struct Status(OwnedFd);

impl Status {
    /// Writes the record.
    pub(crate) fn report(self, record: &StatusRecord) {
        let Ok(mut line) = serde_json::to_vec(record) else { return };
        line.push(b'\n');
        let mut rest = line.as_slice();
        while !rest.is_empty() {
            match rustix::io::write(&self.0, rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                // The library has closed the pipe; the sandbox continues to run.
                Err(_) => return,
            }
        }
    }
}
