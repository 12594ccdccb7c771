//! gVisor's program `runsc`, built from its Go module.

use crate::error::{Error, Failure, Result};
use crate::home::Home;
use crate::tool::{Scratch, failed, last_line, output};
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The version to build, and the checksums of everything that it is built from. Go refuses other
/// content. `scripts/renew-gvisor` renews them.
const MODULE: &str = include_str!("../gvisor/go.mod");
const SUMS: &str = include_str!("../gvisor/go.sum");
/// The package of the program.
const PACKAGE: &str = "gvisor.dev/gvisor/runsc";
/// The oldest Go 1 that builds it.
const OLDEST_GO: u32 = 24;
const INSTALL_GO: &str = "install Go 1.24 or newer, or name a runsc in MSB_RUNSC";
/// The processors that gVisor runs on.
const PROCESSORS: [&str; 2] = ["x86_64", "aarch64"];

/// The program `runsc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gvisor {
    /// Its path.
    pub program: PathBuf,
    /// Whether it was built just now.
    pub built: bool,
}

/// Builds `runsc` in the home, unless `MSB_RUNSC` names one, the home holds this version, or `PATH`
/// leads to one that can run sandboxes.
pub fn build_gvisor(home: &Home) -> Result<Gvisor> {
    if !PROCESSORS.contains(&std::env::consts::ARCH) {
        let text = format!("cannot build runsc: gVisor does not run on {}", std::env::consts::ARCH);
        return Err(Failure::no_driver(text).hint("use another driver").into());
    }
    let folder = home.gvisor();
    match present(&folder, |name| std::env::var_os(name)) {
        Some(program) => Ok(Gvisor { program, built: false }),
        None => build(home.path(), &folder).map(|program| Gvisor { program, built: true }),
    }
}

/// Returns the program that needs no building.
fn present(folder: &Path, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(named) = variable("MSB_RUNSC").filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let own = folder.join("runsc");
    if own.exists() {
        let sums = fs::read_to_string(folder.join("go.sum"));
        return sums.is_ok_and(|sums| sums == SUMS).then_some(own);
    }
    let path = variable("PATH")?;
    let programs = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    programs
        .map(|folder| folder.join("runsc"))
        .find(|found| found.is_file() && passes_sockets(found))
}

/// Returns whether a `runsc` can pass the agent's socket: Debian 12's, of 2022, cannot.
fn passes_sockets(program: &Path) -> bool {
    let help = Command::new(program).args(["help", "run"]).stdin(Stdio::null()).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("-pass-fd"))
}

fn build(home: &Path, folder: &Path) -> Result<PathBuf> {
    let scratch = Scratch::new(home, "gvisor")?;
    let scratch = scratch.0.as_path();
    for (name, text) in [("go.mod", MODULE), ("go.sum", SUMS)] {
        let file = scratch.join(name);
        fs::write(&file, text).map_err(|error| Error::io("write", &file, error))?;
    }
    check_version(scratch)?;
    let program = scratch.join("runsc");
    output(go(scratch).args(["build", "-o"]).arg(&program).arg(PACKAGE), go_reason)?;
    let io = |path: &Path, error| Error::io("install", path, error);
    fs::set_permissions(&program, Permissions::from_mode(0o755)).map_err(|e| io(&program, e))?;
    fs::create_dir_all(folder).map_err(|error| io(folder, error))?;
    // The checksums last: without them the next call builds it again.
    for name in ["runsc", "go.mod", "go.sum"] {
        let to = folder.join(name);
        fs::rename(scratch.join(name), &to).map_err(|error| io(&to, error))?;
    }
    Ok(folder.join("runsc"))
}

/// Returns a command of Go that neither downloads another Go nor changes the checksums.
fn go(scratch: &Path) -> Command {
    let mut command = Command::new("go");
    command.current_dir(scratch).env("GOTMPDIR", scratch);
    command.env_remove("GOOS").env_remove("GOARCH").env_remove("GOEXPERIMENT");
    command.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOWORK", "off");
    command.env("GO111MODULE", "on").env("GOFLAGS", "-mod=readonly");
    command
}

fn check_version(scratch: &Path) -> Result<()> {
    let told = go(scratch).args(["env", "GOVERSION"]).stdin(Stdio::null()).output();
    let version = match told {
        Ok(told) => String::from_utf8_lossy(&told.stdout).trim().to_owned(),
        Err(error) => {
            let text = format!("cannot build runsc: cannot run go: {error}");
            return Err(Failure::no_driver(text).hint(INSTALL_GO).into());
        }
    };
    match minor(&version) {
        Some(minor) if minor >= OLDEST_GO => Ok(()),
        Some(_) => {
            let text = format!("cannot build runsc: {version} is too old");
            Err(Failure::no_driver(text).hint(INSTALL_GO).into())
        }
        None => Err(failed(format!("cannot build runsc: go has no known version: {version:?}"))),
    }
}

/// Returns `24` of `go1.24.3`.
fn minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("go1.")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Returns the line with the reason of a failed build: the first one that is not about progress.
fn go_reason(stderr: &str) -> Option<&str> {
    let is_progress = |line: &&str| {
        line.trim().is_empty() || line.starts_with("go: downloading") || line.starts_with("# ")
    };
    stderr.lines().find(|line| !is_progress(line)).or_else(|| last_line(stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_of_go_is_parsed() {
        for (text, expected) in [
            ("go1.24", Some(24)),
            ("go1.26.8", Some(26)),
            ("go1.25rc1", Some(25)),
            ("go1.19.8 X:boringcrypto", Some(19)),
            ("devel go1.25-abc", None),
            ("", None),
        ] {
            assert_eq!(minor(text), expected, "{text}");
        }
    }

    #[test]
    fn i_reason_of_a_failed_build_is_its_first_error() {
        let wrong = "go: downloading gvisor.dev/gvisor v0.0.0\nverifying gvisor.dev/gvisor: checksum \
                     mismatch\n\tdownloaded: h1:x\n\nFor more information, see 'go help'.\n";
        assert_eq!(go_reason(wrong), Some("verifying gvisor.dev/gvisor: checksum mismatch"));
        assert_eq!(go_reason("# package\nx.go:1: wrong\n"), Some("x.go:1: wrong"));
        assert_eq!(go_reason("go: downloading x\n"), Some("go: downloading x"));
        assert_eq!(go_reason(""), None);
    }

    #[test]
    fn pin_is_one_version_and_has_its_checksum() {
        let version =
            MODULE.lines().find_map(|line| line.strip_prefix("require gvisor.dev/gvisor "));
        let line = format!("gvisor.dev/gvisor {} h1:", version.unwrap());
        assert!(SUMS.lines().any(|sum| sum.starts_with(&line)), "{line}");
        assert!(MODULE.contains(&format!("go 1.{OLDEST_GO}\n")));
    }

    fn fake(path: &Path, help: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("#!/bin/sh\necho '{help}'\n")).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn program_that_is_there_is_not_built() {
        let scratch = tempfile::tempdir().unwrap();
        let (folder, old, new) =
            (scratch.path().join("gvisor"), scratch.path().join("old"), scratch.path().join("new"));
        fake(&old.join("runsc"), "-bundle");
        fake(&new.join("runsc"), "-pass-fd value");
        let in_path = |folders: &[&Path]| {
            let path = std::env::join_paths(folders).unwrap();
            present(&folder, |name| (name == "PATH").then(|| path.clone()))
        };
        assert_eq!(in_path(&[&old]), None);
        assert_eq!(in_path(&[&old, &new]), Some(new.join("runsc")));
        // Of another version: it comes before PATH, so PATH does not count.
        fake(&folder.join("runsc"), "-pass-fd");
        assert_eq!(in_path(&[&new]), None);
        fs::write(folder.join("go.sum"), SUMS).unwrap();
        assert_eq!(in_path(&[&new]), Some(folder.join("runsc")));
        let named = present(&folder, |name| Some(name.into()));
        assert_eq!(named, Some(PathBuf::from("MSB_RUNSC")));
    }
}
