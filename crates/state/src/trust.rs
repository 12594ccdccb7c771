//! The check that no other user can replace a program or a state directory.

use crate::error::{Error, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// Most symbolic links, as in the kernel.
const MAX_LINKS: u32 = 40;

/// Checks that no user but root and the caller can replace or change a file or directory.
///
/// The rule is that of `StrictModes` in OpenSSH (`safe_path` in `misc.c`) with the exception for
/// sticky directories of sudo (`sudo_secure_path`), applied to every directory that leads to the
/// file, also by way of symbolic links:
///
/// - the owner is root or the caller, of links as well;
/// - other users cannot write, unless it is a directory with the sticky bit, where only the owner
///   of an entry can replace it;
/// - the group cannot write, unless it is a sticky directory, or the caller's own or root's group
///   without another member (as Debian's OpenSSH has it).
///
/// Each directory is opened relative to the one checked before it, so there is no race with another
/// user. In a user namespace without the host's root, files of others have the overflow id, which
/// counts as root.
pub fn check_trusted(path: &Path) -> Result<()> {
    walk(path).map_err(|fault| match fault {
        Fault::Untrusted(at, what, remedy) => Error::Untrusted {
            path: path.to_path_buf(),
            fault: format!("{} {what}", at.display()),
            remedy: format!("{remedy} {}", at.display()),
        },
        Fault::System(at, error) => Error::io("inspect", &at, error),
    })
}

enum Fault {
    /// The file or directory, its fault, and the command that fixes it.
    Untrusted(PathBuf, String, &'static str),
    System(PathBuf, Errno),
}

/// The directories from the root to the current one.
type Directories = Vec<(PathBuf, OwnedFd)>;

fn walk(path: &Path) -> std::result::Result<(), Fault> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut left: VecDeque<OsString> = parts(&absolute);
    let mut directories = root()?;
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            if directories.len() > 1 {
                directories.pop();
            }
            continue;
        }
        let Some((folder, at)) = directories.last() else { break };
        let shown = folder.join(&name);
        let system = |error| Fault::System(shown.clone(), error);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(at, name.as_os_str(), flags, Mode::empty()).map_err(system)?;
        let found = fstat(&opened).map_err(system)?;
        check(&shown, &opened, &found, left.is_empty())?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Symlink => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Fault::System(shown, Errno::LOOP));
                }
                let target = readlinkat(&opened, "", Vec::new()).map_err(system)?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    directories = root()?;
                }
                for part in parts(&target).into_iter().rev() {
                    left.push_front(part);
                }
            }
            FileType::Directory => directories.push((shown, opened)),
            _ if left.is_empty() => {}
            _ => return Err(Fault::System(shown, Errno::NOTDIR)),
        }
    }
    Ok(())
}

fn root() -> std::result::Result<Directories, Fault> {
    let path = PathBuf::from("/");
    let system = |error| Fault::System("/".into(), error);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(CWD, "/", flags, Mode::empty()).map_err(system)?;
    let found = fstat(&opened).map_err(system)?;
    check(&path, &opened, &found, false)?;
    Ok(vec![(path, opened)])
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    parts.collect()
}

fn check(
    path: &Path,
    opened: &OwnedFd,
    found: &Stat,
    last: bool,
) -> std::result::Result<(), Fault> {
    let untrusted = |what: String, remedy| Err(Fault::Untrusted(path.to_path_buf(), what, remedy));
    let owner = found.st_uid;
    if owner != 0 && owner != geteuid().as_raw() && !(owner == overflow_id() && hides_root()) {
        return untrusted(format!("belongs to user {owner}"), "chown root");
    }
    let kind = FileType::from_raw_mode(found.st_mode);
    let sticky = kind == FileType::Directory && !last && found.st_mode & 0o1000 != 0;
    // A link's mode has no meaning.
    if kind == FileType::Symlink || sticky {
        return Ok(());
    }
    if found.st_mode & 0o002 != 0 {
        return untrusted("is writable by others".to_owned(), "chmod o-w");
    }
    if found.st_mode & 0o020 != 0 && (has_acl(opened) || !is_private_group(found.st_gid)) {
        return untrusted("is writable by its group".to_owned(), "chmod g-w");
    }
    Ok(())
}

/// Returns whether the group bits are the mask of an access control list.
fn has_acl(opened: &OwnedFd) -> bool {
    let shown = format!("/proc/self/fd/{}", opened.as_raw_fd());
    let mut none: [u8; 0] = [];
    rustix::fs::getxattr(shown, "system.posix_acl_access", &mut none).is_ok_and(|size| size > 0)
}

/// Returns whether a group is root's or the caller's primary one, without another member in
/// `/etc/passwd` and `/etc/group`.
fn is_private_group(group: u32) -> bool {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    (group == 0 || group == getegid().as_raw())
        && has_no_other_member(group, geteuid().as_raw(), &read("/etc/passwd"), &read("/etc/group"))
}

fn has_no_other_member(group: u32, user: u32, users: &str, groups: &str) -> bool {
    let number = |text: Option<&&str>| text.and_then(|text| text.parse::<u32>().ok());
    let mut own = vec!["root"];
    for line in users.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let (name, id, primary) = (fields.first(), number(fields.get(2)), number(fields.get(3)));
        match (name, id) {
            (Some(name), Some(id)) if id == user || id == 0 => own.push(name),
            _ if primary == Some(group) => return false,
            _ => {}
        }
    }
    let mut known = false;
    for line in groups.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if number(fields.get(2)) == Some(group) {
            known = true;
            let mut members = fields.get(3).into_iter().flat_map(|members| members.split(','));
            if members.any(|member| !member.is_empty() && !own.contains(&member)) {
                return false;
            }
        }
    }
    known
}

fn overflow_id() -> u32 {
    let text = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    text.trim().parse().unwrap_or(65_534)
}

/// Returns whether this user namespace lacks ids of the host.
fn hides_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = map.split_whitespace().collect();
    fields != ["0", "0", "4294967295"] && !fields.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn error_of(path: &Path) -> String {
        check_trusted(path).unwrap_err().to_string()
    }

    #[test]
    fn j10_program_in_a_world_writable_directory_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("open");
        fs::create_dir_all(folder.join("bin")).unwrap();
        let program = folder.join("bin/msb-runner");
        fs::write(&program, "").unwrap();
        check_trusted(&program).unwrap();
        mode(&folder, 0o777);
        let (program_text, folder_text) = (program.display(), folder.display());
        assert_eq!(
            error_of(&program),
            format!(
                "cannot use {program_text}: {folder_text} is writable by others; \
                 chmod o-w {folder_text}"
            )
        );
        // With the sticky bit only an entry's owner can replace it.
        mode(&folder, 0o1777);
        check_trusted(&program).unwrap();
        assert!(check_trusted(&folder).is_err(), "anyone can create entries in it");
        mode(&folder, 0o755);
        mode(&program, 0o777);
        assert!(error_of(&program).contains("msb-runner is writable by others"));
    }

    #[test]
    fn j10_link_is_checked_on_both_sides() {
        let scratch = tempfile::tempdir().unwrap();
        let (open, closed) = (scratch.path().join("open"), scratch.path().join("closed"));
        for folder in [&open, &closed] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("program"), "").unwrap();
        }
        symlink(closed.join("program"), open.join("link")).unwrap();
        symlink("../open/program", closed.join("link")).unwrap();
        symlink("loop", closed.join("loop")).unwrap();
        check_trusted(&open.join("link")).unwrap();
        check_trusted(&closed.join("link")).unwrap();
        mode(&open, 0o777);
        assert!(error_of(&open.join("link")).contains("open is writable"));
        assert!(error_of(&closed.join("link")).contains("open is writable"));
        check_trusted(&closed.join("../closed/program")).unwrap();
        assert!(matches!(check_trusted(&closed.join("loop")), Err(Error::Io { .. })));
        assert!(matches!(check_trusted(&closed.join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn j10_files_of_other_users_are_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let program = scratch.path().join("program");
        fs::write(&program, "").unwrap();
        if chown(&program, Some(12_345), None).is_err() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        assert!(error_of(&program).contains("program belongs to user 12345; chown root "));
    }

    #[test]
    fn j10_only_the_users_own_group_may_write() {
        let users = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/:/bin/sh\nbob:x:1001:100::/:\n";
        let groups = "root:x:0:\nann:x:1000:ann\nusers:x:100:\nteam:x:200:ann,bob\n";
        let private = |group| has_no_other_member(group, 1000, users, groups);
        assert!(private(1000) && private(0));
        assert!(!private(100), "another user's primary group");
        assert!(!private(200), "another member");
        assert!(!private(300), "an unknown group");
    }
}
