//! What operations on files return.

use super::borrowed::{self, Arena, Borrowed, Released, no_owner, size_of_u32, start_of};
use super::failure::Failure;
use super::sized::sized;
use microsandbox::{FsEntry, FsEntryKind, FsFailed, FsHandle, FsMetadata};
use std::ffi::{OsStr, OsString, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::ptr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A regular file.
pub const MSB_FS_KIND_FILE: u32 = 1;
/// A directory.
pub const MSB_FS_KIND_DIRECTORY: u32 = 2;
/// A symbolic link.
pub const MSB_FS_KIND_SYMLINK: u32 = 3;
/// A FIFO, socket or device.
pub const MSB_FS_KIND_OTHER: u32 = 4;

/// The attributes of a file. Times are whole seconds since 1970, rounded down, by the clock of the
/// sandbox, and nanoseconds after that.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_fs_entry {
    /// `sizeof(msb_fs_entry)` of the library.
    pub struct_size: u32,
    /// One of `MSB_FS_KIND_*`; a link in a directory is not followed.
    pub kind: u32,
    /// Borrowed. Its name in the directory: any bytes; NULL of STAT.
    pub name: *const c_char,
    /// Length in bytes; of a link, of its target.
    pub size: u64,
    /// Bytes on the disk.
    pub allocated: u64,
    /// Number of hard links.
    pub links: u64,
    /// Number of the file in its file system.
    pub inode: u64,
    /// Number of the file system.
    pub device: u64,
    /// Time of the last access.
    pub accessed_s: i64,
    /// Time of the last change of the content.
    pub modified_s: i64,
    /// Time of the last change of the attributes.
    pub changed_s: i64,
    /// Time of creation; with `created_ns`, 0 where the file system does not record it.
    pub created_s: i64,
    /// Nanoseconds after `accessed_s`.
    pub accessed_ns: u32,
    /// Nanoseconds after `modified_s`.
    pub modified_ns: u32,
    /// Nanoseconds after `changed_s`.
    pub changed_ns: u32,
    /// Nanoseconds after `created_s`.
    pub created_ns: u32,
    /// Permissions with set-user-id, set-group-id and sticky bit.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The letter with which `ls -l` shows its type: one of `-dlpscb?`.
    pub type_letter: u32,
}

/// The result of an operation on files; which fields are set depends on the operation.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_fs_result {
    /// `sizeof(msb_fs_result)`.
    pub struct_size: u32,
    /// Of EXISTS: 1 or 0.
    pub exists: u32,
    /// Of OPEN_DIR: for READ_DIR and CLOSE_DIR on handles of the same sandbox object.
    pub dir: u64,
    /// Borrowed until `msb_fs_result_release`. Of READ_LINK and REAL_PATH: bytes.
    pub path: *const c_char,
    /// Borrowed until `msb_fs_result_release`. Of STAT, LIST and READ_DIR: `len` pointers.
    pub entries: *const *const msb_fs_entry,
    /// Number of elements.
    pub len: usize,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

sized!(msb_fs_result, owner);

impl Released for msb_fs_result {
    fn owner(&self) -> *mut c_void {
        self.owner
    }

    fn emptied(&self) -> msb_fs_result {
        NO_RESULT
    }
}

const NO_RESULT: msb_fs_result = msb_fs_result {
    struct_size: 0,
    exists: 0,
    dir: 0,
    path: ptr::null(),
    entries: ptr::null(),
    len: 0,
    owner: ptr::null_mut(),
};

/// Why an operation on files failed: the part that `msb_error` has no room for.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct msb_fs_failure {
    /// `sizeof(msb_fs_failure)`.
    pub struct_size: u32,
    /// The `errno`; 0 when no system call failed.
    pub os_error: i32,
    /// Borrowed until `msb_fs_failure_release`, like all pointers below. The name of `os_error`,
    /// such as `ENOENT`; empty when it is 0.
    pub os_error_name: *const c_char,
    /// Borrowed. The operation or the step that failed, as a verb: `open`, `rename`, `write`.
    pub operation: *const c_char,
    /// Borrowed. The path that it failed on; of a tree, the file in it: bytes.
    pub path: *const c_char,
    /// The library's. Do not touch.
    pub owner: *mut c_void,
}

sized!(msb_fs_failure, owner);

impl Released for msb_fs_failure {
    fn owner(&self) -> *mut c_void {
        self.owner
    }

    fn emptied(&self) -> msb_fs_failure {
        let null = ptr::null();
        let (struct_size, os_error) = (0, self.os_error);
        let owner = no_owner();
        msb_fs_failure {
            struct_size,
            os_error,
            os_error_name: null,
            operation: null,
            path: null,
            owner,
        }
    }
}

/// The result of an operation, as the Rust API gives it.
#[derive(Debug)]
pub(super) enum Answer {
    Done,
    Exists(bool),
    Dir(FsHandle),
    Path(OsString),
    Stat(Box<FsMetadata>),
    Entries(Vec<FsEntry>),
}

/// The memory that the pointers of a result refer to.
#[derive(Debug, Default)]
struct Backing {
    _pointers: Box<[*const msb_fs_entry]>,
    _entries: Box<[msb_fs_entry]>,
    texts: Arena,
}

// SAFETY: the raw pointers all point into memory that is kept beside them, and never changed or
// moved while this lives.
unsafe impl Send for Backing {}
// SAFETY: as above; it is only ever read.
unsafe impl Sync for Backing {}

/// Returns a result, which the caller borrows until its release.
pub(super) fn result(answer: &Answer) -> Result<msb_fs_result, Failure> {
    let mut backing = Backing::default();
    let mut result = NO_RESULT;
    match answer {
        Answer::Done => {}
        Answer::Exists(exists) => result.exists = u32::from(*exists),
        Answer::Dir(handle) => result.dir = *handle,
        Answer::Path(path) => result.path = backing.texts.text(path.as_bytes()),
        Answer::Stat(stat) => {
            (result.entries, result.len) = keep(&mut backing, [entry(stat, ptr::null())].into());
        }
        Answer::Entries(all) => {
            let texts = &mut backing.texts;
            let named = |one: &FsEntry| entry(&one.metadata, name(texts, &one.name));
            let entries = all.iter().map(named).collect();
            (result.entries, result.len) = keep(&mut backing, entries);
        }
    }
    result.owner = borrowed::keep(Arc::new(Borrowed::Other(Box::new(backing))))?;
    Ok(result)
}

fn name(texts: &mut Arena, name: &OsStr) -> *const c_char {
    texts.text(name.as_bytes())
}

fn keep(
    backing: &mut Backing,
    entries: Box<[msb_fs_entry]>,
) -> (*const *const msb_fs_entry, usize) {
    let pointers: Box<[_]> = entries.iter().map(ptr::from_ref).collect();
    let list = (start_of(&pointers), pointers.len());
    (backing._pointers, backing._entries) = (pointers, entries);
    list
}

fn entry(stat: &FsMetadata, name: *const c_char) -> msb_fs_entry {
    let [accessed, modified, changed, created] =
        [stat.accessed, stat.modified, stat.changed, stat.created].map(since_1970);
    msb_fs_entry {
        struct_size: size_of_u32::<msb_fs_entry>(),
        kind: match stat.kind {
            FsEntryKind::File => MSB_FS_KIND_FILE,
            FsEntryKind::Directory => MSB_FS_KIND_DIRECTORY,
            FsEntryKind::Symlink => MSB_FS_KIND_SYMLINK,
            FsEntryKind::Other => MSB_FS_KIND_OTHER,
        },
        name,
        size: stat.size,
        allocated: stat.allocated,
        links: stat.links,
        inode: stat.inode,
        device: stat.device,
        accessed_s: accessed.0,
        modified_s: modified.0,
        changed_s: changed.0,
        created_s: created.0,
        accessed_ns: accessed.1,
        modified_ns: modified.1,
        changed_ns: changed.1,
        created_ns: created.1,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        type_letter: stat.type_letter.into(),
    }
}

fn since_1970(time: Option<SystemTime>) -> (i64, u32) {
    let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    match time.unwrap_or(UNIX_EPOCH).duration_since(UNIX_EPOCH) {
        Ok(after) => (seconds(after.as_secs()), after.subsec_nanos()),
        Err(before) => match (before.duration().as_secs(), before.duration().subsec_nanos()) {
            (whole, 0) => (-seconds(whole), 0),
            (whole, nanos) => (-seconds(whole) - 1, 1_000_000_000 - nanos),
        },
    }
}

/// Returns the details of a failure, which the caller borrows until their release.
pub(super) fn details(failed: &FsFailed) -> Result<msb_fs_failure, Failure> {
    let mut texts = Arena::default();
    let os_error_name = texts.text(&failed.errno_name);
    let (operation, path) = (texts.text(&failed.operation), texts.text(&failed.path));
    let owner = borrowed::keep(Arc::new(Borrowed::Other(Box::new(texts))))?;
    let (struct_size, os_error) = (0, failed.errno);
    Ok(msb_fs_failure { struct_size, os_error, os_error_name, operation, path, owner })
}

/// Releases a result. NULL and a released result are no-ops; afterwards it is empty. Any thread,
/// also after the handle was closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_fs_result_release(result: *mut msb_fs_result) {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    unsafe { borrowed::release(result) }
}

/// Releases the details of a failure. NULL and released ones are no-ops. Any thread, also after the
/// handle was closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_fs_failure_release(failure: *mut msb_fs_failure) {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    unsafe { borrowed::release(failure) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn k1_times_before_1970_are_rounded_down() {
        let before = |ms| UNIX_EPOCH.checked_sub(Duration::from_millis(ms));
        assert_eq!(since_1970(before(500)), (-1, 500_000_000));
        assert_eq!(since_1970(before(2000)), (-2, 0));
        assert_eq!(since_1970(Some(UNIX_EPOCH + Duration::from_millis(1500))), (1, 500_000_000));
        assert_eq!(since_1970(None), (0, 0));
    }
}
