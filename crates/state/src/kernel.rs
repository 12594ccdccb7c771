//! A guest kernel from the distribution's packages, without installing anything.

use crate::dirs::retire;
use crate::error::{Error, Result};
use crate::tool::{Scratch, failed, last_line, output};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The metapackage that depends on the newest kernel for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";
/// The prefix of that kernel's package.
const KERNEL: &str = "linux-image-";

/// Downloads Debian's newest kernel for virtual machines with `apt-get download` and unpacks it
/// into `folder`, which it replaces. Needs no privileges: nothing is installed, and missing package
/// lists are downloaded to a private directory. Returns the kernel's path.
pub fn fetch_kernel(folder: &Path) -> Result<PathBuf> {
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|error| Error::io("create directory", parent, error))?;
    if !replaceable(folder) {
        let kind = io::ErrorKind::AlreadyExists;
        let error = io::Error::new(kind, "it exists and holds something other than a kernel");
        return Err(Error::io("replace", folder, error));
    }
    let scratch = Scratch::new(parent, "kernel")?;
    let mut apt = Apt { folder: scratch.0.clone(), own_lists: false };
    let package = match apt.newest() {
        Ok(package) => package,
        // A new system has no package lists yet.
        Err(_) => {
            apt.own_lists = true;
            apt.update()?;
            apt.newest()?
        }
    };
    apt.run("apt-get", &["-q", "download", &package])?;
    let archive = find(&scratch.0, |name| name.ends_with(".deb"))
        .ok_or_else(|| failed(format!("apt-get download {package} left no package")))?;
    let tree = scratch.0.join("tree");
    let arguments = [OsString::from("-x"), archive.into(), tree.clone().into()];
    output(Command::new("dpkg-deb").args(arguments), last_line)?;
    if folder.exists() {
        retire(folder)?;
    }
    fs::rename(&tree, folder).map_err(|error| Error::io("create", folder, error))?;
    kernel_in(folder).ok_or_else(|| failed(format!("package {package} holds no kernel")))
}

fn kernel_in(folder: &Path) -> Option<PathBuf> {
    find(&folder.join("boot"), |name| name.starts_with("vmlinuz-"))
}

/// Returns whether a kernel may replace the folder: it is missing, empty, or holds a kernel.
fn replaceable(folder: &Path) -> bool {
    match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none() || kernel_in(folder).is_some(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The package manager, without privileges.
struct Apt {
    folder: PathBuf,
    own_lists: bool,
}

impl Apt {
    fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        // apt's sandbox user cannot write here.
        command.current_dir(&self.folder).args(["-o", "APT::Sandbox::User="]);
        if self.own_lists {
            let lists = self.folder.join("lists");
            for kind in ["State::Lists", "Cache"] {
                let place = lists.join(kind);
                fs::create_dir_all(place.join("partial"))
                    .map_err(|error| Error::io("create", &place, error))?;
                command.args(["-o", &format!("Dir::{kind}={}", place.display())]);
            }
        }
        output(command.args(arguments), last_line)
    }

    fn update(&self) -> Result<()> {
        self.run("apt-get", &["-q", "update"]).map(drop)
    }

    /// Returns the package of the newest kernel.
    fn newest(&self) -> Result<String> {
        let text = self.run("apt-cache", &["show", NEWEST])?;
        depends(&text).ok_or_else(|| failed(format!("package {NEWEST} names no kernel")))
    }
}

/// Parses the kernel that a package depends on from the output of `apt-cache show`.
fn depends(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let mut packages = line.split([',', ' ']).filter(|word| word.starts_with(KERNEL));
    packages.next().map(str::to_owned)
}

fn find(folder: &Path, mut matches: impl FnMut(&str) -> bool) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    let mut found = entries.filter(|entry| matches(&entry.file_name().to_string_lossy()));
    found.next().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_package_is_parsed_from_the_dependency() {
        let text = "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-1-cloud-amd64 \
                    (= 6.1.1-1), other\n";
        assert_eq!(depends(text).as_deref(), Some("linux-image-6.1.0-1-cloud-amd64"));
        assert_eq!(depends("Package: x\nDepends: y\n"), None);
        assert_eq!(depends(""), None);
    }

    #[test]
    fn i_only_an_empty_folder_or_a_kernel_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        assert!(replaceable(&folder.path().join("missing")));
        assert!(replaceable(folder.path()));
        fs::write(folder.path().join("letters"), "mine").unwrap();
        assert!(!replaceable(folder.path()));
        assert!(!replaceable(&folder.path().join("letters")));
        let error = fetch_kernel(folder.path()).unwrap_err().to_string();
        assert!(error.contains("holds something other than a kernel"), "{error}");
        assert_eq!(fs::read(folder.path().join("letters")).unwrap(), b"mine");
        fs::create_dir(folder.path().join("boot")).unwrap();
        fs::write(folder.path().join("boot/vmlinuz-6.1"), "").unwrap();
        assert!(replaceable(folder.path()));
    }
}
