//! The process that unpacks what is copied out of a sandbox.

use crate::companions::Companions;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::runner::{open_log, pass_descriptors, runner_command};
use command_fds::FdMapping;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

/// Size of the pipe of the archive, in bytes.
const PIPE: usize = 1 << 20;

/// The line that has the process move what it has unpacked into place.
pub const COPY_COMMIT: &str = "commit\n";

/// What to unpack, and where. Paths are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOrder {
    /// An existing directory, absolute. Nothing outside of it is written.
    pub into: Vec<u8>,
    /// The name of the archive's first member, which all others are below.
    pub root: Vec<u8>,
    /// Name of the copy in `into`; `None`: the copy is merged into `into` itself.
    pub target: Option<Vec<u8>>,
    /// Whether to keep owners, and the set-user-id and set-group-id bits.
    pub keep_owner: bool,
    /// Whether to write everything to the disk at the end.
    pub sync: bool,
    /// Most bytes of content.
    pub max_bytes: u64,
    /// Most members.
    pub max_entries: u64,
}

/// The result of unpacking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyReport {
    /// Everything is in place.
    Done(Copied),
    /// Nothing was changed, unless the failure occurred while moving into place.
    Failed(CopyFailure),
}

/// What was copied.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Bytes of content.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// The first of what was left out: path and reason.
    pub skipped: Vec<(Vec<u8>, String)>,
    /// How many were left out.
    pub skipped_total: u64,
}

/// Why nothing was copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyFailure {
    /// The category.
    pub kind: CopyFailureKind,
    /// The `errno` of a failed system call.
    pub errno: Option<i32>,
    /// The failed operation, as a verb.
    pub operation: String,
    /// The path, relative to the copy.
    pub path: Vec<u8>,
    /// The reason.
    pub message: String,
}

/// The category of a [`CopyFailure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyFailureKind {
    /// The host's file system.
    Host,
    /// The archive is malformed or malicious.
    Archive,
    /// A limit of the order.
    Limit,
}

/// A running copy. Closing `control` without [`COPY_COMMIT`] leaves nothing.
#[derive(Debug)]
pub struct CopyTask {
    /// Takes [`COPY_COMMIT`] after the archive.
    pub control: OwnedFd,
    /// Takes the archive.
    pub data: OwnedFd,
    /// Has the [`CopyReport`], one line.
    pub report: OwnedFd,
    /// The process, to be reaped.
    pub child: Child,
}

/// Starts to unpack an archive.
///
/// `require_jail`: in a jail with every wall, or fail.
pub fn begin_copy_task(
    home: &Home,
    companions: &Companions,
    order: &CopyOrder,
    require_jail: bool,
) -> Result<CopyTask> {
    let runner = &companions.runner;
    let failed = |error: io::Error| Error::io("run", runner, error);
    let mut command = runner_command(companions);
    if require_jail {
        command.env("MSB_REQUIRE_JAIL", "1");
    }
    let log = open_log(&home.image_log())?;
    command.arg("copy").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let (archive, data) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    // Beyond a limit of the kernel it stays smaller.
    let _ = fcntl_setpipe_size(&data, PIPE);
    pass_descriptors(
        &mut command,
        companions,
        vec![FdMapping { parent_fd: archive, child_fd: 3 }],
    )?;
    let mut child = command.spawn().map_err(failed)?;
    // It holds the reading end.
    drop(command);
    let (Some(mut control), Some(report)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(io::Error::other("the process has no pipes")));
    };
    let mut line = serde_json::to_vec(order).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    // The report says more than a broken pipe.
    let _ = control.write_all(&line);
    Ok(CopyTask { control: control.into(), data, report: report.into(), child })
}
