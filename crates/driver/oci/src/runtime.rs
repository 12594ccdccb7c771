//! The OCI runtime's program: where it is, and how it is called.

use msb_driver::watch;
use msb_state::{Failure, check_trusted};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// The runtimes in the order of preference: the fastest first.
pub(crate) const NAMES: [&str; 3] = ["crun", "runc", "youki"];
/// Directories that an ordinary user's `PATH` often lacks.
const SYSTEM_DIRECTORIES: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
/// Time limit of a call of the runtime.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(20);

/// A runtime's program.
#[derive(Debug, Clone)]
pub(crate) struct Runtime {
    pub(crate) program: PathBuf,
}

impl Runtime {
    /// Returns the runtimes to try, best first.
    pub(crate) fn candidates() -> Vec<Runtime> {
        let programs: Vec<PathBuf> = match std::env::var_os("MSB_OCI_RUNTIME") {
            Some(named) if !named.is_empty() => {
                // A name that is not found is kept for the error.
                vec![search(&named).unwrap_or_else(|| named.into())]
            }
            _ => NAMES.iter().filter_map(|name| search(OsStr::new(name))).collect(),
        };
        programs.into_iter().map(|program| Runtime { program }).collect()
    }

    /// Returns a command of the runtime. The launcher kills it when the runner dies, so that no
    /// half-made container appears after a sweep.
    pub(crate) fn command(&self, launcher: &[PathBuf], root: &Path, log: &Path) -> Command {
        let mut command = match launcher {
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.program);
                command
            }
            [] => Command::new(&self.program),
        };
        command.arg("--root").arg(root).arg("--log").arg(log).args(["--log-format", "json"]);
        command.stdin(Stdio::null());
        command
    }

    /// Returns whether no other user can replace the program.
    pub(crate) fn is_trusted(&self) -> bool {
        check_trusted(&self.program).is_ok()
    }
}

/// Returns the last error in a runtime's log.
pub(crate) fn last_error(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    text.lines().rev().find_map(|line| {
        let record: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_error = record.get("level")?.as_str()?.eq_ignore_ascii_case("error");
        is_error.then(|| record.get("msg")?.as_str().map(str::to_owned)).flatten()
    })
}

/// Watches the container's process, which the runtime has left to this process.
pub(crate) fn watch_init(pid_file: &Path) -> Result<AsyncFd<OwnedFd>, Failure> {
    let failed = |error: io::Error| Failure::boot_io("watch the process of", pid_file, error);
    let text = fs::read_to_string(pid_file).map_err(failed)?;
    let pid = text.trim().parse().map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    // Its parent, the runtime, has exited, so it is a child of this process and its pid is not
    // reused until it is reaped here.
    watch(pid).map_err(failed)
}

fn search(program: &OsStr) -> Option<PathBuf> {
    let named = Path::new(program);
    if named.components().count() > 1 || named.is_absolute() {
        return named.is_file().then(|| named.to_path_buf());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(std::env::split_paths(SYSTEM_DIRECTORIES))
        .filter(|directory| directory.is_absolute())
        .collect();
    directories.into_iter().map(|directory| directory.join(program)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_error_of_a_log_is_found() {
        let scratch = tempfile::tempdir().unwrap();
        let log = scratch.path().join("log");
        let lines = "{\"level\":\"error\",\"msg\":\"first\"}\n\
            {\"level\":\"error\",\"msg\":\"last\"}\n{\"level\":\"warning\",\"msg\":\"no\"}\nx\n";
        fs::write(&log, lines).unwrap();
        assert_eq!(last_error(&log).as_deref(), Some("last"));
        assert_eq!(last_error(&scratch.path().join("none")), None);
    }
}
