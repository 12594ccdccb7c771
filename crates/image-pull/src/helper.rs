//! The helper process: it unpacks layers and removes trees of unpacked files.
//!
//! Separate from the process with the network because it works with other owners of files: for an
//! ordinary user in the user namespace that sandboxes of the image use. It exits with its parent,
//! whose exit closes its standard input.

use crate::layer::{Bounds, Layer, Unpacked, unpack};
use crate::tree::{Owners, Tree};
use msb_image::{Digest, Error, ErrorKind, Result};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Minimum interval between reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(50);

/// The command that starts a helper process.
#[derive(Debug, Clone)]
pub struct Helper {
    /// Program and arguments.
    pub command: Vec<OsString>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Job {
    /// Unpack layers into an empty directory, and create those that the configuration names.
    Unpack { layers: Vec<Layer>, into: PathBuf, directories: Vec<String> },
    /// Remove a tree.
    Remove { path: PathBuf },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    /// Layers finished, and bytes read of all layers.
    Progress(u32, u64),
    Done {
        bytes: u64,
        diff_ids: Vec<Digest>,
    },
    Failed(Error),
}

impl Helper {
    /// Unpacks layers into a new directory.
    pub(crate) fn unpack(
        &self,
        layers: Vec<Layer>,
        into: &Path,
        directories: Vec<String>,
        on_progress: impl FnMut(u32, u64),
    ) -> Result<Unpacked> {
        fs::create_dir_all(into).map_err(|error| Error::io("create directory", into, error))?;
        self.run(&Job::Unpack { layers, into: into.to_path_buf(), directories }, on_progress)
    }

    /// Removes a directory tree, including files of other owners.
    pub(crate) fn remove_tree(&self, path: &Path) -> Result<()> {
        match remove(path) {
            Err(error) if is_denied(&error) => {
                self.run(&Job::Remove { path: path.to_path_buf() }, |_, _| {}).map(drop)
            }
            result => result,
        }
    }

    /// Runs a job in a new helper process, and waits for its reply.
    fn run(&self, job: &Job, mut on_progress: impl FnMut(u32, u64)) -> Result<Unpacked> {
        let died = |why: String| Error::new(ErrorKind::Died, format!("cannot unpack: {why}"));
        let [program, arguments @ ..] = self.command.as_slice() else {
            return Err(died("the helper has no program".to_owned()));
        };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Error::io("run", Path::new(program), error))?;
        let mut line = serde_json::to_vec(job).map_err(|error| died(error.to_string()))?;
        line.push(b'\n');
        // Open until the end: the helper exits when it closes.
        let mut input = child.stdin.take();
        let output = child.stdout.take();
        let sent = input.as_mut().map(|input| input.write_all(&line));
        let mut last = None;
        for line in BufReader::new(output.ok_or_else(|| died("no pipe".to_owned()))?).lines() {
            let line = line.map_err(|error| died(error.to_string()))?;
            match serde_json::from_str(&line) {
                Ok(Reply::Progress(layers, bytes)) => on_progress(layers, bytes),
                Ok(reply) => last = Some(reply),
                Err(error) => return Err(died(format!("the helper replied {line:?}: {error}"))),
            }
        }
        drop(input);
        let status = child.wait();
        match (last, sent) {
            (Some(Reply::Done { bytes, diff_ids }), _) => Ok(Unpacked { bytes, diff_ids }),
            (Some(Reply::Failed(error)), _) => Err(error),
            (_, Some(Err(error))) => Err(died(error.to_string())),
            _ => Err(died(format!("the helper exited without a reply: {status:?}"))),
        }
    }
}

/// The paths that an unpack job uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackPaths {
    /// Layers, which are read.
    pub layers: Vec<PathBuf>,
    /// Directory that they are unpacked into, which is written.
    pub into: PathBuf,
}

/// Returns the paths that an unpack job uses. `None` for another job, which parses no image.
pub fn unpack_paths(job: &str) -> Option<UnpackPaths> {
    match serde_json::from_str(job) {
        Ok(Job::Unpack { layers, into, .. }) => {
            Some(UnpackPaths { layers: layers.into_iter().map(|(path, _)| path).collect(), into })
        }
        _ => None,
    }
}

/// Runs a job in the helper process and replies. Returns whether it succeeded.
///
/// The job was read from `input`; the process exits when that closes. Call it in the namespaces
/// that the files are created for.
pub fn run_job(job: &str, input: impl Read + Send + 'static, owners: Owners) -> bool {
    let job = serde_json::from_str(job).map_err(|error| Error::invalid(error.to_string()));
    exit_on_close(input);
    let reply = match job.and_then(|job| execute(job, owners)) {
        Ok(Unpacked { bytes, diff_ids }) => Reply::Done { bytes, diff_ids },
        Err(error) => Reply::Failed(error),
    };
    send(&reply);
    matches!(reply, Reply::Done { .. })
}

/// Replies that a job was not started.
pub fn reject_job(why: &str) {
    send(&Reply::Failed(Error::new(ErrorKind::Died, format!("cannot unpack: {why}"))));
}

/// Exits this process when the other end of its input closes.
#[allow(clippy::exit, reason = "the parent is gone, and the next pull removes leftovers")]
pub fn exit_on_close(mut input: impl Read + Send + 'static) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut input, &mut std::io::sink());
        std::process::exit(1);
    });
}

fn execute(job: Job, owners: Owners) -> Result<Unpacked> {
    match job {
        Job::Remove { path } => {
            remove(&path)?;
            Ok(Unpacked::default())
        }
        Job::Unpack { layers, into, directories } => {
            let mut reported = Instant::now();
            let on_progress = |layer: usize, bytes| {
                if reported.elapsed() >= PROGRESS_INTERVAL {
                    reported = Instant::now();
                    send(&Reply::Progress(u32::try_from(layer).unwrap_or(u32::MAX), bytes));
                }
            };
            reset(&into)?;
            let unpacked = unpack(&layers, &into, owners, Bounds::of_disk(&into)?, on_progress)?;
            let mut tree = Tree::open(&into, owners)?;
            directories.iter().try_for_each(|path| tree.create_directory(path))?;
            Ok(unpacked)
        }
    }
}

/// Removes from a new directory what it inherited from its parent: the group of a set-group-id
/// directory and its access control lists. Files in the directory would inherit them.
fn reset(directory: &Path) -> Result<()> {
    let failed = |error: Errno| Error::io("reset", directory, error);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags, Mode::empty()).map_err(failed)?;
    for list in ["system.posix_acl_access", "system.posix_acl_default"] {
        match rustix::fs::fremovexattr(&root, list) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    rustix::fs::fchown(&root, Some(geteuid()), Some(getegid())).map_err(failed)?;
    rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755)).map_err(failed)
}

fn send(reply: &Reply) {
    let mut line = serde_json::to_vec(reply).unwrap_or_default();
    line.push(b'\n');
    // Fails only if the parent has exited, and then this process exits.
    let _ = std::io::stdout().write_all(&line);
}

fn is_denied(error: &Error) -> bool {
    let denied = [Errno::ACCESS, Errno::PERM].map(Errno::raw_os_error);
    error.os_error.is_some_and(|code| denied.contains(&code))
}

fn remove(path: &Path) -> Result<()> {
    msb_state::remove_tree(path).map_err(|error| match error {
        msb_state::Error::Io { error: source, .. } => Error::io("remove", path, source),
        error => Error::new(ErrorKind::Died, error.to_string()),
    })
}
