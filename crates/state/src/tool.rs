//! Programs that fetch or build what a driver needs, and the directory that they work in.

use crate::dirs::create_private_dir;
use crate::error::{Error, Failure, Result};
use crate::tree::remove_tree;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A directory that is removed on drop.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    /// Creates a hidden directory in `parent`, after removing those of processes that were killed.
    pub(crate) fn new(parent: &Path, name: &str) -> Result<Self> {
        let prefix = format!(".{name}-");
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let found = entry.file_name();
            let pid = found.to_str().and_then(|found| found.strip_prefix(&prefix)?.parse().ok());
            if pid.is_some_and(|pid: u32| !Path::new("/proc").join(pid.to_string()).exists()) {
                remove_tree(&entry.path())?;
            }
        }
        let path = parent.join(format!("{prefix}{}", std::process::id()));
        create_private_dir(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover is never read, and the next process removes it.
        let _ = remove_tree(&self.0);
    }
}

/// Returns the standard output of a program. `reason` picks the line of its standard error that
/// says why it failed.
pub(crate) fn output(
    command: &mut Command,
    reason: impl FnOnce(&str) -> Option<&str>,
) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::io("run", Path::new(&program), error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let reason = reason(&stderr).unwrap_or("no error message").trim();
    Err(failed(format!("{program}: {}: {reason}", output.status)))
}

pub(crate) fn failed(message: String) -> Error {
    Failure::boot(message).into()
}

/// Returns the last line that is not empty.
pub(crate) fn last_line(text: &str) -> Option<&str> {
    text.lines().rev().find(|line| !line.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i_failed_program_is_reported_with_its_last_line() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first >&2; echo last >&2; exit 3"]);
        let text = output(&mut command, last_line).unwrap_err().to_string();
        assert!(text.contains("last") && !text.contains('\n'), "{text}");
        let missing = output(&mut Command::new("/nonexistent/apt-get"), last_line).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/apt-get"), "{missing}");
    }

    #[test]
    fn g_directories_of_killed_processes_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        // A pid above the kernel's limit (PID_MAX_LIMIT) belongs to no process.
        for name in [".kernel-4194305", ".kernel-1", ".kernel-mine", ".other-4194305"] {
            fs::create_dir(at(name)).unwrap();
        }
        let scratch = Scratch::new(parent.path(), "kernel").unwrap();
        let own = scratch.0.clone();
        assert!(own.is_dir() && !at(".kernel-4194305").exists());
        drop(scratch);
        assert!(!own.exists());
        for name in [".kernel-1", ".kernel-mine", ".other-4194305"] {
            assert!(at(name).exists(), "{name}");
        }
    }
}
