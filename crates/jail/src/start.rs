//! The parent's side: starts a process in a jail.

use crate::channel::{CHANNEL, Message};
use crate::describe::Jail;
use crate::error::JailError;
use crate::group::Group;
use command_fds::{CommandFdExt, FdMapping};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::Duration;

/// Time limit for entering a jail.
const LIMIT: Duration = Duration::from_secs(20);

/// A process that enters a jail.
#[derive(Debug)]
pub struct Starting {
    launcher: Child,
    channel: UnixStream,
}

/// A jailed process, a child of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Its pid.
    pub pid: u32,
    /// The missing walls, each with the reason and the remedy.
    pub missing: Vec<String>,
}

impl Jail {
    /// Starts a command that enters this jail by [`launch`](crate::launch) or
    /// [`enter`](crate::enter). `passed` are descriptors with their numbers in the command.
    ///
    /// Call it on a thread that lives as long as the process: the jail dies with the thread.
    pub fn start(
        &self,
        command: Command,
        passed: Vec<(OwnedFd, i32)>,
    ) -> Result<Starting, JailError> {
        self.start_in(command, passed, None)
    }

    /// As [`Jail::start`], in a cgroup from the start.
    pub fn start_in(
        &self,
        mut command: Command,
        passed: Vec<(OwnedFd, i32)>,
        group: Option<&Group>,
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
        // The command holds the passed descriptors until it is dropped.
        drop(command);
        let launcher = launcher
            .map_err(|error| JailError::new(&format!("run {}", program.display()), error))?;
        let mut starting = Starting { launcher, channel };
        // It has no child before it gets the description.
        if let Some(error) = group.and_then(|group| group.add(starting.launcher.id()).err()) {
            // Both fail only if it has exited.
            let _ = starting.launcher.kill();
            let _ = starting.launcher.wait();
            return Err(JailError::new("enter a cgroup", error));
        }
        channel = starting.channel.try_clone().map_err(failed)?;
        // Fails if the launcher has exited, which `wait` reports.
        let _ = channel.write_all(&description);
        channel.shutdown(Shutdown::Write).map_err(failed)?;
        Ok(starting)
    }
}

impl Starting {
    /// Waits until the process is in its jail; the error has the reason if it is not.
    pub fn wait(self) -> Result<Started, JailError> {
        let Starting { mut launcher, channel } = self;
        let report = receive(channel);
        if report.is_err() {
            // Fails if it has exited.
            let _ = launcher.kill();
        }
        let _ = launcher.wait();
        let Report { pid, missing, result } = report.unwrap_or_else(|error| Report {
            result: Some(Err(JailError::new("start a process in a jail", error))),
            ..Report::default()
        });
        let error = match (result, pid.and_then(|pid| u32::try_from(pid).ok())) {
            (Some(Ok(())), Some(pid)) => return Ok(Started { pid, missing }),
            (Some(Err(error)), _) => error,
            _ => JailError::of("cannot enter the jail: the process ended".to_owned()),
        };
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // Neither fails: it is reaped here only.
            let _ = kill_process(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
        Err(error)
    }
}

#[derive(Debug, Default)]
struct Report {
    pid: Option<i32>,
    missing: Vec<String>,
    result: Option<Result<(), JailError>>,
}

fn receive(channel: UnixStream) -> std::io::Result<Report> {
    channel.set_read_timeout(Some(LIMIT))?;
    let mut report = Report::default();
    for line in BufReader::new(channel).lines() {
        match serde_json::from_str(&line?)? {
            Message::Pid(pid) => report.pid = Some(pid),
            Message::Missing(wall) => report.missing.push(wall),
            Message::Ready if report.result.is_none() => report.result = Some(Ok(())),
            Message::Ready => {}
            Message::Error(text) => report.result = Some(Err(JailError::of(text))),
            Message::Unmapped(text) => report.result = Some(Err(JailError::unmapped(text))),
        }
    }
    Ok(report)
}
