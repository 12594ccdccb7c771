//! Removal of directory trees that a guest has filled.
//!
//! A guest can nest directories deeper than a stack, a descriptor table or a path allows. Every
//! non-empty directory is therefore moved to the top of the tree before it is emptied: two
//! descriptors and single-component names reach everything.

use crate::error::{Error, Result};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RawDir, ResolveFlags, fchmod, fstat, openat, openat2, renameat,
    unlinkat,
};
use rustix::io::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Bytes of directory entries per read.
const ENTRIES: usize = 16 * 1024;
/// Passes without progress before giving up.
const IDLE_PASSES: u32 = 4;
/// Flags for opening a directory. `DIRECTORY` refuses FIFOs and devices.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);
/// How the kernel resolves every name below the top.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// Removes a directory with its content; succeeds if it does not exist.
///
/// Changes the mode of directories that deny their owner access, as containers and overlayfs leave
/// them. Follows no symbolic link and enters no mount point. Stack, descriptors and memory are
/// constant at any depth, and removals of the same tree can run concurrently.
pub fn remove_tree(path: &Path) -> Result<()> {
    let failed = |error: Errno| Error::io("remove", path, error);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(failed(Errno::INVAL));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened.map_err(failed)?,
    };
    let name = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name))
        .map_err(|_| failed(Errno::INVAL))?;
    match remove_simple(&parent, &name) {
        Err(Errno::NOTEMPTY) => remove_below(&parent, &name).map_err(failed),
        result => result.map_err(failed),
    }
}

/// Removes a file or an empty directory.
fn remove_simple(at: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
    let file = unlinkat(at, name, AtFlags::empty());
    // Linux reports a directory as EISDIR, POSIX as EPERM.
    let Err(error @ (Errno::ISDIR | Errno::PERM)) = file else { return done(file) };
    match unlinkat(at, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTDIR) => Err(error),
        Err(Errno::EXIST) => Err(Errno::NOTEMPTY),
        result => done(result),
    }
}

fn done(result: rustix::io::Result<()>) -> rustix::io::Result<()> {
    match result {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

fn remove_below(parent: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
    let root = match open_directory(parent, name) {
        Err(Errno::NOENT) => return Ok(()),
        opened => opened?,
    };
    let mut top = Top { root, raised: Raised { done: 0, made: 0 }, error: None };
    let mut idle = 0;
    loop {
        let removed = match top.pass() {
            // A concurrent removal has finished.
            Err(Errno::NOENT) => true,
            removed => removed?,
        };
        idle = if removed { 0 } else { idle + 1 };
        match remove_simple(parent, name) {
            // Filled concurrently, or an entry cannot be removed.
            Err(Errno::NOTEMPTY) if idle < IDLE_PASSES => {}
            Err(Errno::NOTEMPTY) => return Err(top.error.unwrap_or(Errno::NOTEMPTY)),
            result => return result,
        }
    }
}

/// The directories that were moved to the top and not removed yet, by number.
#[derive(Debug)]
struct Raised {
    done: u64,
    made: u64,
}

/// Returns a name at the top for a directory that is moved there.
///
/// A guest may have used it: such an entry is removed as well.
fn raised_name(number: u64) -> std::ffi::CString {
    std::ffi::CString::new(format!(".raised-{number}")).unwrap_or_default()
}

/// The top of a tree that is being removed.
#[derive(Debug)]
struct Top {
    root: OwnedFd,
    raised: Raised,
    /// The first error, which is reported if something is left.
    error: Option<Errno>,
}

impl Top {
    /// Removes every entry of one reading of the top. Returns whether any was removed.
    fn pass(&mut self) -> rustix::io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        // A new open file description starts at the beginning.
        let listed = openat(&self.root, c".", DIRECTORY, Mode::empty())?;
        let mut entries = RawDir::new(&listed, &mut buffer);
        let mut any = false;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            if !is_dot(entry.file_name()) {
                any |= self.remove(entry.file_name());
                any |= self.remove_raised();
            }
        }
        Ok(any)
    }

    /// Removes the directories that were moved to the top, including those moved meanwhile.
    fn remove_raised(&mut self) -> bool {
        let mut any = false;
        while self.raised.done < self.raised.made {
            let number = self.raised.done;
            self.raised.done += 1;
            any |= self.remove(&raised_name(number));
        }
        any
    }

    /// Removes one entry of the top, and moves its subdirectories to the top.
    fn remove(&mut self, name: &CStr) -> bool {
        let mut any = false;
        let mut idle = 0;
        loop {
            match remove_simple(&self.root, name) {
                Ok(()) => return true,
                Err(Errno::NOTEMPTY) if idle < IDLE_PASSES => {}
                Err(error) => {
                    self.error.get_or_insert(error);
                    return any;
                }
            }
            match open_directory(&self.root, name).and_then(|directory| self.empty(&directory)) {
                // Moved or removed by a concurrent removal.
                Err(Errno::NOENT) => return any,
                Err(error) => {
                    self.error.get_or_insert(error);
                    return any;
                }
                Ok(true) => (any, idle) = (true, 0),
                Ok(false) => idle += 1,
            }
        }
    }

    /// Empties a directory in one reading. Returns whether an entry was removed or moved.
    fn empty(&mut self, directory: &OwnedFd) -> rustix::io::Result<bool> {
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let mut entries = RawDir::new(directory, &mut buffer);
        let mut any = false;
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if is_dot(name) {
                continue;
            }
            let result = match remove_simple(directory, name) {
                Err(Errno::NOTEMPTY) => self.raise(directory, name),
                result => result,
            };
            match result {
                Ok(()) => any = true,
                Err(error) => {
                    self.error.get_or_insert(error);
                }
            }
        }
        Ok(any)
    }

    /// Moves a directory to the top.
    fn raise(&mut self, from: &OwnedFd, name: &CStr) -> rustix::io::Result<()> {
        let mut opened = false;
        loop {
            let number = self.raised.made;
            match renameat(from, name, &self.root, raised_name(number)) {
                // The name is in use; its entry is removed as well.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => self.raised.made += 1,
                // The change of its `..` needs write access to it.
                Err(Errno::ACCESS) if !opened => {
                    opened = true;
                    drop(open_directory(from, name)?);
                }
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error),
                Ok(()) => {
                    self.raised.made += 1;
                    return Ok(());
                }
            }
        }
    }
}

fn is_dot(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

/// Opens a directory for reading and changing, whatever its mode.
fn open_directory(at: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let opened = match open_beneath(at, name, DIRECTORY) {
        Err(Errno::ACCESS) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = open_beneath(at, name, flags)?;
            // Through the descriptor, so it cannot be replaced in between.
            let shown = format!("/proc/self/fd/{}", found.as_raw_fd());
            rustix::fs::chmod(shown.as_str(), Mode::RWXU)?;
            open_beneath(at, name, DIRECTORY)?
        }
        opened => opened?,
    };
    let mode = Mode::from_raw_mode(fstat(&opened)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        // Root needs no access; for others the next call fails.
        let _ = fchmod(&opened, Mode::RWXU);
    }
    Ok(opened)
}

fn open_beneath(at: &OwnedFd, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    match openat2(at, name, flags, Mode::empty(), BENEATH) {
        // Linux before 5.6, or a seccomp filter.
        Err(Errno::NOSYS) => {
            let opened = openat(at, name, flags, Mode::empty())?;
            same_device(std::os::fd::AsFd::as_fd(at), std::os::fd::AsFd::as_fd(&opened))?;
            Ok(opened)
        }
        result => result,
    }
}

fn same_device(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> rustix::io::Result<()> {
    if fstat(one)?.st_dev == fstat(other)?.st_dev { Ok(()) } else { Err(Errno::XDEV) }
}

#[cfg(test)]
mod tests;
