//! What callers ask for about files.

use super::failure::{Failure, wrong};
use super::input::{bytes, text};
use super::sized::{copy_in, sized};
use super::status::MSB_E_INVALID;
use microsandbox::{FsSetAttrs, FsWriteOptions};
use std::ffi::{OsString, c_char};
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Returns the attributes of `path`: one entry, without a name.
pub const MSB_FS_OP_STAT: u32 = 1;
/// Changes the attributes of `path` that `set` names.
pub const MSB_FS_OP_SET_STAT: u32 = 2;
/// Returns in `exists` whether `path` exists. A dangling link does not.
pub const MSB_FS_OP_EXISTS: u32 = 3;
/// Lists the directory `path`: entries sorted by name, without `.` and `..`.
pub const MSB_FS_OP_LIST: u32 = 4;
/// Makes the directory `path`, with `mode` if `set` names it, else 0755.
pub const MSB_FS_OP_MKDIR: u32 = 5;
/// Removes the file or link `path`; a link is not followed.
pub const MSB_FS_OP_REMOVE: u32 = 6;
/// Removes the directory `path`, which is empty unless `MSB_FS_RECURSIVE` is set.
pub const MSB_FS_OP_REMOVE_DIR: u32 = 7;
/// Renames `path` to `to`.
pub const MSB_FS_OP_RENAME: u32 = 8;
/// Copies the file or tree `path` to `to` inside the sandbox; `to` is the copy itself.
pub const MSB_FS_OP_COPY: u32 = 9;
/// Makes the symbolic link `path`, whose target is `to`: any bytes, relative or absolute.
pub const MSB_FS_OP_SYMLINK: u32 = 10;
/// Returns in `path` the target of the symbolic link `path`.
pub const MSB_FS_OP_READ_LINK: u32 = 11;
/// Returns in `path` the absolute path without links, `.` and `..`.
pub const MSB_FS_OP_REAL_PATH: u32 = 12;
/// Reads the file `path`: at most `length` bytes from `offset`. Receive them with `msb_fs_recv`.
pub const MSB_FS_OP_READ: u32 = 13;
/// Writes the file `path`. Send its content with `msb_fs_send`, then call `msb_fs_finish`.
pub const MSB_FS_OP_WRITE: u32 = 14;
/// Opens the directory `path` to list it by pages; returns `dir`.
pub const MSB_FS_OP_OPEN_DIR: u32 = 15;
/// Lists the next entries of `dir`, at most `limit`, in the order of the file system; none at the
/// end.
pub const MSB_FS_OP_READ_DIR: u32 = 16;
/// Closes `dir`. It is also closed when the connection to the sandbox ends.
pub const MSB_FS_OP_CLOSE_DIR: u32 = 17;
/// Copies the file or tree `path` of the host to `to` in the sandbox; `to` is the copy itself, in an
/// existing directory. An existing file is replaced, an existing directory is merged.
pub const MSB_FS_OP_COPY_FROM_HOST: u32 = 18;
/// Copies the file or tree `path` of the sandbox to `to` on the host, likewise. Nothing that the
/// sandbox says makes it write elsewhere.
pub const MSB_FS_OP_COPY_TO_HOST: u32 = 19;

/// Of STAT and SET_STAT: the link itself, if `path` is one.
pub const MSB_FS_NO_FOLLOW: u32 = 1;
/// Of REMOVE_DIR: with everything in it.
pub const MSB_FS_RECURSIVE: u32 = 2;
/// Of MKDIR and WRITE: make missing parent directories, with mode 0755. MKDIR then accepts an
/// existing directory.
pub const MSB_FS_PARENTS: u32 = 4;
/// Of RENAME and WRITE: fail if the file exists.
pub const MSB_FS_NO_REPLACE: u32 = 8;
/// Of WRITE: fail if the file does not exist.
pub const MSB_FS_EXISTING: u32 = 16;
/// Of WRITE: append to the content, in place.
pub const MSB_FS_APPEND: u32 = 32;
/// Of WRITE: write in place from `offset`.
pub const MSB_FS_IN_PLACE: u32 = 64;
/// Of WRITE: write content and directory to the disk before the operation succeeds.
pub const MSB_FS_SYNC: u32 = 128;

/// `mode` is set, of MKDIR, WRITE and SET_STAT.
pub const MSB_FS_SET_MODE: u32 = 1;
/// `uid` is set, of WRITE (with `gid`) and SET_STAT.
pub const MSB_FS_SET_UID: u32 = 2;
/// `gid` is set, of WRITE (with `uid`) and SET_STAT.
pub const MSB_FS_SET_GID: u32 = 4;
/// `size` is set, of SET_STAT: the file is cut, or extended by a hole.
pub const MSB_FS_SET_SIZE: u32 = 8;
/// `accessed_s` and `accessed_ns` are set, of SET_STAT.
pub const MSB_FS_SET_ACCESSED: u32 = 16;
/// `modified_s` and `modified_ns` are set, of SET_STAT.
pub const MSB_FS_SET_MODIFIED: u32 = 32;

/// An operation on the files of a sandbox. Zero means default. All pointers are lent. Paths are any
/// bytes; those in the sandbox are absolute.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct msb_fs_request {
    /// `sizeof(msb_fs_request)`.
    pub struct_size: u32,
    /// One of `MSB_FS_OP_*`.
    pub op: u32,
    /// `MSB_FS_NO_FOLLOW` to `MSB_FS_SYNC`, those of the operation.
    pub flags: u32,
    /// Which attributes are set: `MSB_FS_SET_*`, those of the operation.
    pub set: u32,
    /// Lent. The path; NULL only with `dir`.
    pub path: *const c_char,
    /// Lent. Of RENAME, SYMLINK and the copies.
    pub to: *const c_char,
    /// Lent. As whom: `name`, `uid`, `name:group` or `uid:gid`; NULL: the sandbox's user.
    pub user: *const c_char,
    /// Of READ, and of WRITE with `MSB_FS_IN_PLACE`, in bytes.
    pub offset: u64,
    /// Of READ, in bytes; 0: to the end.
    pub length: u64,
    /// New length in bytes.
    pub size: u64,
    /// Of READ_DIR and CLOSE_DIR: what OPEN_DIR returned.
    pub dir: u64,
    /// Time of the last access, in whole seconds since 1970, rounded down.
    pub accessed_s: i64,
    /// Time of the last change of the content, likewise.
    pub modified_s: i64,
    /// Nanoseconds after `accessed_s`, below 1,000,000,000.
    pub accessed_ns: u32,
    /// Nanoseconds after `modified_s`, below 1,000,000,000.
    pub modified_ns: u32,
    /// Permissions with set-user-id, set-group-id and sticky bit, at most 07777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of READ_DIR: most entries of a page; 0: as many as fit into a message.
    pub limit: u32,
}

sized!(msb_fs_request, limit);

/// A request whose pointers were copied.
pub(super) struct Request {
    pub(super) fields: msb_fs_request,
    pub(super) path: OsString,
    pub(super) to: OsString,
    pub(super) user: Option<String>,
}

// SAFETY: the raw pointers in `fields` are never used after `request_in`.
unsafe impl Send for Request {}
// SAFETY: as above.
unsafe impl Sync for Request {}

/// Copies and checks a request.
///
/// # Safety
/// `request` is NULL or valid, and so is what it points to.
pub(super) unsafe fn request_in(request: *const msb_fs_request) -> Result<Request, Failure> {
    // SAFETY: by the contract, as for the pointers below.
    let fields = unsafe { copy_in(request) }?;
    let (flags, set) = allowed(fields.op)?;
    refuse_unknown(fields.flags, flags, "flags")?;
    refuse_unknown(fields.set, set, "attributes")?;
    // SAFETY: as above.
    let path = unsafe { bytes(fields.path) };
    // SAFETY: as above.
    let to = unsafe { bytes(fields.to) };
    // SAFETY: as above.
    let user = unsafe { text(fields.user, "the user") }?;
    let has_path = !matches!(fields.op, MSB_FS_OP_READ_DIR | MSB_FS_OP_CLOSE_DIR);
    let has_to = matches!(
        fields.op,
        MSB_FS_OP_RENAME
            | MSB_FS_OP_COPY
            | MSB_FS_OP_SYMLINK
            | MSB_FS_OP_COPY_FROM_HOST
            | MSB_FS_OP_COPY_TO_HOST
    );
    Ok(Request {
        fields,
        path: needed(path, has_path, "path")?,
        to: needed(to, has_to, "second path")?,
        user,
    })
}

/// Returns the flags and the attributes that an operation has.
fn allowed(op: u32) -> Result<(u32, u32), Failure> {
    const ALL: u32 = MSB_FS_SET_MODE
        | MSB_FS_SET_UID
        | MSB_FS_SET_GID
        | MSB_FS_SET_SIZE
        | MSB_FS_SET_ACCESSED
        | MSB_FS_SET_MODIFIED;
    const WRITE: u32 = MSB_FS_PARENTS
        | MSB_FS_NO_REPLACE
        | MSB_FS_EXISTING
        | MSB_FS_APPEND
        | MSB_FS_IN_PLACE
        | MSB_FS_SYNC;
    match op {
        MSB_FS_OP_STAT => Ok((MSB_FS_NO_FOLLOW, 0)),
        MSB_FS_OP_SET_STAT => Ok((MSB_FS_NO_FOLLOW, ALL)),
        MSB_FS_OP_MKDIR => Ok((MSB_FS_PARENTS, MSB_FS_SET_MODE)),
        MSB_FS_OP_REMOVE_DIR => Ok((MSB_FS_RECURSIVE, 0)),
        MSB_FS_OP_RENAME => Ok((MSB_FS_NO_REPLACE, 0)),
        MSB_FS_OP_WRITE => Ok((WRITE, MSB_FS_SET_MODE | MSB_FS_SET_UID | MSB_FS_SET_GID)),
        MSB_FS_OP_EXISTS
        | MSB_FS_OP_LIST
        | MSB_FS_OP_REMOVE
        | MSB_FS_OP_COPY
        | MSB_FS_OP_SYMLINK
        | MSB_FS_OP_READ_LINK
        | MSB_FS_OP_REAL_PATH
        | MSB_FS_OP_READ
        | MSB_FS_OP_OPEN_DIR
        | MSB_FS_OP_READ_DIR
        | MSB_FS_OP_CLOSE_DIR
        | MSB_FS_OP_COPY_FROM_HOST
        | MSB_FS_OP_COPY_TO_HOST => Ok((0, 0)),
        _ => Err(wrong(MSB_E_INVALID, format!("{op} is no operation on files"))),
    }
}

fn refuse_unknown(given: u32, allowed: u32, what: &str) -> Result<(), Failure> {
    match given & !allowed {
        0 => Ok(()),
        extra => Err(wrong(MSB_E_INVALID, format!("{what} {extra:#x} that the operation lacks"))),
    }
}

fn needed(path: Option<Vec<u8>>, is_needed: bool, what: &str) -> Result<OsString, Failure> {
    match path {
        Some(path) => Ok(OsString::from_vec(path)),
        None if is_needed => Err(wrong(MSB_E_INVALID, format!("NULL instead of a {what}"))),
        None => Ok(OsString::new()),
    }
}

impl Request {
    /// Whether a flag is set.
    pub(super) fn has(&self, flag: u32) -> bool {
        self.fields.flags & flag != 0
    }

    /// Returns an attribute, if it is set.
    fn set<T>(&self, bit: u32, value: T) -> Option<T> {
        (self.fields.set & bit != 0).then_some(value)
    }

    /// Returns the mode, if it is set.
    pub(super) fn mode(&self) -> Option<u32> {
        self.set(MSB_FS_SET_MODE, self.fields.mode)
    }

    /// Returns the attributes to change.
    pub(super) fn attributes(&self) -> Result<FsSetAttrs, Failure> {
        let fields = &self.fields;
        let accessed = self.set(MSB_FS_SET_ACCESSED, (fields.accessed_s, fields.accessed_ns));
        let modified = self.set(MSB_FS_SET_MODIFIED, (fields.modified_s, fields.modified_ns));
        Ok(FsSetAttrs {
            mode: self.mode(),
            uid: self.set(MSB_FS_SET_UID, fields.uid),
            gid: self.set(MSB_FS_SET_GID, fields.gid),
            size: self.set(MSB_FS_SET_SIZE, fields.size),
            accessed: accessed.map(time).transpose()?,
            modified: modified.map(time).transpose()?,
        })
    }

    /// Returns how to write.
    pub(super) fn write_options(&self) -> Result<FsWriteOptions, Failure> {
        let mut options = FsWriteOptions::new();
        if self.has(MSB_FS_APPEND) && self.has(MSB_FS_IN_PLACE) {
            return Err(wrong(MSB_E_INVALID, "MSB_FS_APPEND with MSB_FS_IN_PLACE"));
        }
        if self.has(MSB_FS_APPEND) {
            options = options.append();
        }
        if self.has(MSB_FS_IN_PLACE) {
            options = options.at(self.fields.offset);
        }
        if self.has(MSB_FS_NO_REPLACE) {
            options = options.create_new();
        }
        if self.has(MSB_FS_EXISTING) {
            options = options.existing();
        }
        if self.has(MSB_FS_PARENTS) {
            options = options.parents();
        }
        if self.has(MSB_FS_SYNC) {
            options = options.sync();
        }
        if let Some(mode) = self.mode() {
            options = options.mode(mode);
        }
        let owner =
            (self.set(MSB_FS_SET_UID, self.fields.uid), self.set(MSB_FS_SET_GID, self.fields.gid));
        match owner {
            (None, None) => Ok(options),
            (Some(uid), Some(gid)) => Ok(options.owner(uid, gid)),
            _ => Err(wrong(MSB_E_INVALID, "an owner without a group, or a group without an owner")),
        }
    }
}

fn time((seconds, nanos): (i64, u32)) -> Result<SystemTime, Failure> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let whole = match seconds < 0 {
        true => UNIX_EPOCH.checked_sub(whole),
        false => UNIX_EPOCH.checked_add(whole),
    };
    let time = whole.and_then(|whole| whole.checked_add(Duration::from_nanos(nanos.into())));
    time.filter(|_| nanos < 1_000_000_000)
        .ok_or_else(|| wrong(MSB_E_INVALID, format!("{seconds} s and {nanos} ns is no time")))
}
