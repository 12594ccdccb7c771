//! Starting a process in a jail, from outside.

use crate::channel::{CHANNEL, Message};
use crate::describe::Jail;
use crate::error::JailError;
use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Duration;

/// How long a process may take to enter its jail.
const LIMIT: Duration = Duration::from_secs(20);

/// A process on its way into a jail.
#[derive(Debug)]
pub struct Starting {
    launcher: Child,
    channel: UnixStream,
}

/// A process in its jail, a child of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its process id.
    pub pid: u32,
    /// The walls that its jail lacks, each with the reason and the remedy.
    pub missing: Vec<String>,
}

impl Jail {
    /// Starts a command, which is to enter this jail by [`launch`](crate::launch) or
    /// [`enter`](crate::enter), with these descriptors under these numbers.
    ///
    /// To be called on a thread that lives as long as the process, because its end ends the jail.
    pub fn start(
        &self,
        mut command: Command,
        passed: Vec<(OwnedFd, i32)>,
    ) -> Result<Starting, JailError> {
        let failed = |error| JailError::new("start a process in a jail", error);
        let (mut channel, theirs) = UnixStream::pair().map_err(failed)?;
        let description = serde_json::to_vec(&(std::process::id(), self));
        let description = description.map_err(|error| failed(error.into()))?;
        let mappings = passed
            .into_iter()
            .chain([(OwnedFd::from(theirs), CHANNEL)])
            .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        let collision = |error: command_fds::FdMappingCollision| {
            failed(std::io::Error::other(error.to_string()))
        };
        command.fd_mappings(mappings.collect()).map_err(collision)?;
        let program = command.get_program().to_os_string();
        let launcher = command.spawn();
        // The command holds what was passed until it is dropped.
        drop(command);
        let launcher = launcher
            .map_err(|error| JailError::new(&format!("run {}", program.display()), error))?;
        let starting = Starting { launcher, channel };
        channel = starting.channel.try_clone().map_err(failed)?;
        // A launcher that does not read has ended, and is heard of next.
        let _ = channel.write_all(&description);
        channel.shutdown(Shutdown::Write).map_err(failed)?;
        Ok(starting)
    }
}

impl Starting {
    /// Waits until the process is in its jail, or until it is known why not.
    pub fn wait(self) -> Result<Started, JailError> {
        let Starting { mut launcher, channel } = self;
        let heard = listen(channel);
        if heard.is_err() {
            // Fails when it has ended.
            let _ = launcher.kill();
        }
        let _ = launcher.wait();
        let Heard { pid, missing, result } = heard.unwrap_or_else(|error| Heard {
            result: Some(Err(JailError::new("start a process in a jail", error))),
            ..Heard::default()
        });
        let error = match (result, pid.and_then(|pid| u32::try_from(pid).ok())) {
            (Some(Ok(())), Some(pid)) => return Ok(Started { pid, missing }),
            (Some(Err(error)), _) => error,
            _ => JailError::of("cannot enter the jail: the process ended".to_owned()),
        };
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // Both fail only when it has been waited for, and this is the one place.
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
        Err(error)
    }
}

#[derive(Debug, Default)]
struct Heard {
    pid: Option<i32>,
    missing: Vec<String>,
    result: Option<Result<(), JailError>>,
}

fn listen(channel: UnixStream) -> std::io::Result<Heard> {
    channel.set_read_timeout(Some(LIMIT))?;
    let mut heard = Heard::default();
    for line in BufReader::new(channel).lines() {
        match serde_json::from_str(&line?)? {
            Message::Pid(pid) => heard.pid = Some(pid),
            Message::Missing(wall) => heard.missing.push(wall),
            Message::Ready if heard.result.is_none() => heard.result = Some(Ok(())),
            Message::Ready => {}
            Message::Error(text) => heard.result = Some(Err(JailError::of(text))),
            Message::Unmapped(text) => heard.result = Some(Err(JailError::unmapped(text))),
        }
    }
    Ok(heard)
}
