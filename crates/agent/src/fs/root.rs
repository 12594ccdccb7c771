//! Paths of the sandbox, and the opening of what they name.
//!
//! Invariant: every path of a client is resolved here, in the thread that has the client's rights.
//! Nothing is opened in a way that can block on a FIFO or a device, and no path leads through a
//! link of `/proc` to a descriptor of the agent, or to the agent's own memory.

use super::error::{Result, failed, invalid};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The most links that a path may end in, one after the other (`MAXSYMLINKS` of the kernel).
const MAX_LINKS: usize = 40;
/// The magic number of proc (statfs(2)).
const PROC_MAGIC: i64 = 0x9fa0;
/// Tries of a lookup that another process disturbs (openat2(2), `EAGAIN`).
const TRIES: usize = 64;

/// Opens something only to name it.
pub(super) const NAME: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// Opens a directory to list it.
pub(super) const LIST: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// Flags of every open for reading or writing: it neither blocks nor takes a terminal.
pub(super) const SAFE: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// The directory that paths begin at.
#[derive(Debug)]
pub(crate) struct Root {
    fd: OwnedFd,
    /// Whether links must not lead out of it: then it is not `/`.
    is_confined: bool,
}

/// A name in an open directory.
#[derive(Debug)]
pub(super) struct Location {
    pub(super) directory: OwnedFd,
    pub(super) name: Vec<u8>,
    /// The path that it was found by.
    pub(super) path: Vec<u8>,
}

impl Root {
    /// Opens the root of the sandbox.
    pub(crate) fn open() -> rustix::io::Result<Root> {
        let fd = rustix::fs::open(c"/", NAME | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Root { fd, is_confined: false })
    }

    /// Opens a directory that no path leads out of, for tests.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn confined(path: &std::path::Path) -> rustix::io::Result<Root> {
        let fd = rustix::fs::open(path, NAME | OFlags::DIRECTORY, Mode::empty())?;
        Ok(Root { fd, is_confined: true })
    }

    /// Opens a path, following links.
    pub(super) fn open_path(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let resolve = match self.is_confined {
            true => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            false => ResolveFlags::NO_MAGICLINKS,
        };
        for _ in 0..TRIES {
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if self.is_confined => {}
                // gVisor, Linux before 5.6, or a seccomp filter without this call.
                Err(Errno::NOSYS | Errno::PERM) if !self.is_confined => {
                    return rustix::fs::openat(&self.fd, path, flags, Mode::empty());
                }
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Splits a path into its parent directory, which is opened, and its last component. Of `/`,
    /// and of a path that ends in `..`, the name is `.`.
    pub(super) fn place(&self, path: &[u8]) -> rustix::io::Result<Location> {
        let (parent, name) = split(path);
        let directory = self.open_path(parent, NAME | OFlags::DIRECTORY)?;
        Ok(Location { directory, name: name.to_vec(), path: path.to_vec() })
    }

    /// Like [`Root::place`], for what links at the end of the path lead to. It need not exist.
    pub(super) fn target(&self, path: &[u8]) -> rustix::io::Result<Location> {
        let mut path = path.to_vec();
        for _ in 0..MAX_LINKS {
            let place = self.place(&path)?;
            match rustix::fs::readlinkat(&place.directory, place.name.as_slice(), Vec::new()) {
                Ok(link) => path = joined(split(&path).0, link.as_bytes()),
                // No link, nothing at all.
                Err(Errno::INVAL | Errno::NOENT) => return Ok(place),
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::LOOP)
    }

    /// Returns the path without links, `.` and `..`.
    pub(super) fn real_path(&self, path: &[u8]) -> rustix::io::Result<Vec<u8>> {
        // Permissions and existence are the kernel's matter, also of what `..` cancels below.
        drop(self.open_path(path, NAME)?);
        let mut real: Vec<u8> = Vec::new();
        let mut rest: Vec<Vec<u8>> = components(path);
        let mut links = 0;
        while let Some(name) = rest.pop() {
            match name.as_slice() {
                b".." => real.truncate(real.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
                name => {
                    let parent = if real.is_empty() { &b"/"[..] } else { &real };
                    let directory = self.open_path(parent, NAME | OFlags::DIRECTORY)?;
                    match rustix::fs::readlinkat(&directory, name, Vec::new()) {
                        Ok(link) => {
                            links += 1;
                            if links > MAX_LINKS {
                                return Err(Errno::LOOP);
                            }
                            if link.as_bytes().starts_with(b"/") {
                                real.clear();
                            }
                            rest.extend(components(link.as_bytes()));
                        }
                        Err(Errno::INVAL) => {
                            real.push(b'/');
                            real.extend_from_slice(name);
                        }
                        Err(errno) => return Err(errno),
                    }
                }
            }
        }
        Ok(if real.is_empty() { b"/".to_vec() } else { real })
    }
}

impl Location {
    /// Opens the name, which must not be a link.
    pub(super) fn open(&self, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.directory, self.name.as_slice(), flags, mode)
    }
}

/// Checks a path of a client.
pub(super) fn check(operation: &'static str, path: &[u8]) -> Result<()> {
    if path.contains(&0) {
        return Err(invalid(operation, path, "the path contains a NUL"));
    }
    match path.first() {
        Some(b'/') => Ok(()),
        Some(_) => Err(invalid(operation, path, "the path is not absolute")),
        None => Err(invalid(operation, path, "the path is empty")),
    }
}

/// Splits a path at its last component. Slashes at the end do not count.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let path = path.get(..end).unwrap_or_default();
    let start = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    match path.split_at_checked(start) {
        Some((_, b"")) | None => (b"/", b"."),
        Some((_, b"..")) => (path, b"."),
        Some((parent, name)) => (parent, name),
    }
}

/// Returns what a link says, as a path from the directory of the link.
fn joined(directory: &[u8], link: &[u8]) -> Vec<u8> {
    match link.first() {
        Some(b'/') => link.to_vec(),
        _ => [directory, b"/", link].concat(),
    }
}

/// Returns the components of a path, the last one first.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/');
    let names = names.filter(|name| !matches!(*name, b"" | b"."));
    names.rev().map(<[u8]>::to_vec).collect()
}

/// Checks that an open file is regular, or may be something else, and is not the agent's own.
pub(super) fn check_open(
    operation: &'static str,
    path: &[u8],
    fd: BorrowedFd<'_>,
    special: bool,
) -> Result<()> {
    let found = rustix::fs::fstat(fd).map_err(failed(operation, path))?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(failed(operation, path)(Errno::ISDIR)),
        _ if special => {}
        _ => return Err(invalid(operation, path, "not a regular file")),
    }
    match is_own(fd) {
        true => Err(failed(operation, path)(Errno::ACCESS)),
        false => Ok(()),
    }
}

/// Returns whether a file is one of those that `/proc` has about this process.
fn is_own(fd: BorrowedFd<'_>) -> bool {
    #[allow(clippy::useless_conversion, reason = "its type depends on the architecture")]
    let is_proc = rustix::fs::fstatfs(fd).is_ok_and(|found| i64::from(found.f_type) == PROC_MAGIC);
    if !is_proc {
        return false;
    }
    let own = format!("/proc/{}/", std::process::id());
    let link = rustix::fs::readlink(descriptor_path(fd).as_slice(), Vec::new());
    // Refused as well if it cannot be told.
    link.map_or(true, |link| link.as_bytes().starts_with(own.as_bytes()))
}

/// Returns a path of an open file that calls without a descriptor's form can use.
pub(super) fn descriptor_path(fd: BorrowedFd<'_>) -> Vec<u8> {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes()
}

/// Returns the type of a name, without following it; `None` if there is nothing.
pub(super) fn kind_at(directory: impl AsFd, name: &[u8]) -> rustix::io::Result<Option<FileType>> {
    let found = rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE);
    match found {
        Ok(found) => Ok(Some(FileType::from_raw_mode(found.stx_mode.into()))),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_paths_are_split_at_their_last_component() {
        for (path, parent, name) in [
            ("/", "/", "."),
            ("//", "/", "."),
            ("/a", "/", "a"),
            ("/a/", "/", "a"),
            ("/a//b//", "/a//", "b"),
            ("/a/.", "/a/", "."),
            ("/a/..", "/a/..", "."),
            ("/..", "/..", "."),
            ("/a/...", "/a/", "..."),
        ] {
            assert_eq!(split(path.as_bytes()), (parent.as_bytes(), name.as_bytes()), "{path}");
        }
    }

    #[test]
    fn k1_links_are_resolved_as_the_kernel_does() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::confined(folder.path()).unwrap();
        let at = |path: &str| folder.path().join(path);
        std::fs::create_dir_all(at("a/b")).unwrap();
        std::fs::write(at("a/file"), "x").unwrap();
        for (target, link) in
            [("b/../file", "a/link"), ("/a", "abs"), ("../../../../a/b", "a/up"), ("loop", "loop")]
        {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        let real = |path: &str| {
            let path = root.real_path(path.as_bytes());
            path.map(|path| String::from_utf8(path).unwrap())
        };
        for (path, expected) in [
            ("/", "/"),
            ("/..", "/"),
            ("/a/link", "/a/file"),
            ("/abs/link", "/a/file"),
            ("/abs/up/../../abs/./b/", "/a/b"),
        ] {
            assert_eq!(real(path).unwrap(), expected, "{path}");
        }
        for (path, errno) in [
            ("/nope", Errno::NOENT),
            ("/nope/..", Errno::NOENT),
            ("/a/file/..", Errno::NOTDIR),
            ("/loop", Errno::LOOP),
        ] {
            assert_eq!(real(path), Err(errno), "{path}");
        }
        let target = root.target(b"/abs/link").unwrap();
        assert_eq!(target.name, b"file");
        assert_eq!(root.target(b"/loop").unwrap_err(), Errno::LOOP);
        assert_eq!(root.target(b"/a/new").unwrap().name, b"new");
    }

    #[test]
    fn k1_paths_that_cannot_be_are_refused() {
        for path in [&b""[..], b"a", b"./a", b"/a\0b"] {
            let error = check("open", path).unwrap_err();
            assert_eq!((error.kind, error.errno), (msb_wire::FsErrorKind::Invalid, 22));
        }
        assert!(check("open", b"/\xff\n").is_ok());
    }

    #[test]
    fn j7_files_of_the_agent_itself_are_refused() {
        for (path, own) in [("/proc/self/status", true), ("/proc/1/status", false)] {
            let fd = rustix::fs::open(path, OFlags::RDONLY, Mode::empty()).unwrap();
            assert_eq!(is_own(fd.as_fd()), own, "{path}");
        }
        let root = Root::open().unwrap();
        let link = format!("/proc/self/fd/{}", root.fd.as_raw_fd());
        assert_eq!(root.open_path(link.as_bytes(), NAME).unwrap_err(), Errno::LOOP);
    }
}
