//! Values that callers borrow until they release them: events, outputs, lists, records.

use super::boundary::boundary;
use super::error::ErrorOut;
use super::failure::{Failure, wrong};
use super::handle::{as_handle, id_of};
use super::sized::{Out, Sized32, copy_known};
use super::status::{MSB_E_LIMIT, MSB_OK};
use super::table::{Kind, Table};
use bytes::Bytes;
use microsandbox::pull::Credit;
use std::ffi::{CString, c_char, c_void};
use std::fmt::Debug;
use std::mem::size_of;
use std::sync::Arc;

/// The memory that the pointers of a borrowed struct refer to.
#[derive(Debug)]
#[allow(dead_code, reason = "only kept until the release")]
pub(super) enum Borrowed {
    /// Output of a command, and its credit.
    Bytes(Bytes, Credit),
    /// Anything else.
    Other(Box<dyn Kept>),
}

/// A value that is kept until the release, and not accessed.
pub(super) trait Kept: Debug + Send + Sync {}

impl<T: Debug + Send + Sync> Kept for T {}

static OPEN: Table<Borrowed> = Table::new(Kind::Borrowed);

/// Keeps a value until its release; returns the owner field of the struct that points into it.
pub(super) fn keep(borrowed: Arc<Borrowed>) -> Result<*mut c_void, Failure> {
    let id = OPEN.insert(borrowed);
    let id = id.ok_or_else(|| wrong(MSB_E_LIMIT, "too many structs that were not released"))?;
    Ok(as_handle(id))
}

/// Returns whether this many structs are guaranteed to fit.
pub(super) fn has_room(structs: usize) -> bool {
    OPEN.has_room(structs)
}

/// A struct whose pointers are borrowed until it is released.
pub(super) trait Released: Sized32 {
    fn owner(&self) -> *mut c_void;
    /// Returns the struct after the release: without pointers.
    fn emptied(&self) -> Self;
}

/// Drops what a struct borrows and clears the pointers in the caller's struct.
///
/// # Safety
/// `place` is NULL or valid for reading its first four bytes, and for reading and writing as many
/// bytes as those say.
pub(super) unsafe fn release<T: Released>(place: *mut T) {
    // SAFETY: NULL is always allowed.
    let err = unsafe { ErrorOut::new(std::ptr::null_mut()) };
    if place.is_null() {
        return;
    }
    // SAFETY: not NULL, so valid by the contract.
    let Ok(out) = (unsafe { Out::new(place) }) else { return };
    // Fields of a later header do not prevent the release.
    // SAFETY: as above.
    let Ok((held, _)) = (unsafe { copy_known(place.cast_const()) }) else {
        return;
    };
    boundary(err, || {
        drop(OPEN.remove(id_of(held.owner())));
        Ok(MSB_OK)
    });
    out.write(&held.emptied());
}

/// Returns the start of a slice; NULL for an empty one, whose address in Rust dangles. Go's
/// runtime, for example, reports such a pointer as corrupt memory.
pub(super) fn start_of<T>(slice: &[T]) -> *const T {
    if slice.is_empty() { std::ptr::null() } else { slice.as_ptr() }
}

/// Returns the owner field of a struct that borrows nothing.
pub(super) fn no_owner() -> *mut c_void {
    as_handle(0)
}

/// Texts and lists of texts that a borrowed struct points to.
#[derive(Debug, Default)]
pub(super) struct Arena {
    texts: Vec<CString>,
    lists: Vec<Box<[*const c_char]>>,
}

// SAFETY: the raw pointers in `lists` point into `texts`, whose heap memory is never changed or
// moved while this lives.
unsafe impl Send for Arena {}
// SAFETY: as above; it is only ever read.
unsafe impl Sync for Arena {}

impl Arena {
    /// Adds a NUL-terminated copy, cut at the first NUL.
    pub(super) fn text(&mut self, bytes: impl AsRef<[u8]>) -> *const c_char {
        let until_nul = bytes.as_ref().split(|byte| *byte == 0).next().unwrap_or_default();
        let text = CString::new(until_nul).unwrap_or_default();
        let pointer = text.as_ptr();
        self.texts.push(text);
        pointer
    }

    /// Like [`Arena::text`]; NULL for `None`.
    pub(super) fn text_or_null(&mut self, bytes: Option<impl AsRef<[u8]>>) -> *const c_char {
        bytes.map_or(std::ptr::null(), |bytes| self.text(bytes))
    }

    /// Adds a list of texts.
    pub(super) fn list(
        &mut self,
        all: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) -> *const *const c_char {
        let list: Box<[_]> = all.into_iter().map(|text| self.text(text)).collect();
        let pointer = start_of(&list);
        self.lists.push(list);
        pointer
    }
}

/// Returns the size of a struct, for its `struct_size`.
pub(super) fn size_of_u32<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn texts_and_lists_stay_where_they_are() {
        let mut arena = Arena::default();
        let first = arena.text("first");
        let list = arena.list(["a", "b\0c"]);
        for number in 0..100 {
            arena.text(number.to_string());
        }
        let read = |text: *const c_char| {
            // SAFETY: made by the arena, which lives.
            unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
        };
        assert_eq!(read(first), "first");
        // SAFETY: a list of two, made by the arena, which lives.
        let both = unsafe { std::slice::from_raw_parts(list, 2) };
        assert_eq!(both.iter().map(|text| read(*text)).collect::<Vec<_>>(), ["a", "b"]);
        assert!(arena.text_or_null(None::<&str>).is_null());
        assert!(arena.list([""; 0]).is_null());
    }
}
