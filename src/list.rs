//! Lists that callers borrow: pointers to entries, and the memory that the entries point to.

use super::borrowed::{self, Arena, Borrowed, Kept, Released};
use super::failure::Failure;
use super::sized::Out;
use super::status::{MSB_OK, msb_status};
use std::ffi::c_void;
use std::fmt::Debug;
use std::ptr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Declares a list and the type of its entries.
macro_rules! list {
    ($list:ident of $entry:ident) => {
        super::sized::sized!($list, owner);

        impl super::borrowed::Released for $list {
            fn owner(&self) -> *mut std::ffi::c_void {
                self.owner
            }

            fn emptied(&self) -> $list {
                super::list::ListOf::list(std::ptr::null(), 0, super::borrowed::no_owner())
            }
        }

        impl super::list::ListOf<$entry> for $list {
            fn list(
                entries: *const *const $entry,
                len: usize,
                owner: *mut std::ffi::c_void,
            ) -> $list {
                $list { struct_size: 0, reserved: 0, entries, len, owner }
            }
        }
    };
}
pub(super) use list;

/// A struct of the header that points to entries.
pub(super) trait ListOf<E>: Released {
    fn list(entries: *const *const E, len: usize, owner: *mut c_void) -> Self;
}

/// The entries of a list, and the memory that they point to.
#[derive(Debug)]
struct Entries<E> {
    _pointers: Box<[*const E]>,
    _entries: Box<[E]>,
    _backing: Backing,
}

// SAFETY: the raw pointers all point into memory that is kept beside them, and never changed or
// moved while this lives.
unsafe impl<E> Send for Entries<E> {}
// SAFETY: as above; it is only ever read.
unsafe impl<E> Sync for Entries<E> {}

/// The memory that entries of a list point to.
#[derive(Debug, Default)]
pub(super) struct Backing {
    pub(super) texts: Arena,
    structs: Vec<Box<dyn Kept>>,
}

impl Backing {
    /// Keeps a struct that an entry points to; NULL for `None`.
    pub(super) fn keep<T: Kept + 'static>(&mut self, value: Option<T>) -> *const T {
        let Some(value) = value.map(Box::new) else { return ptr::null() };
        let pointer = ptr::from_ref(value.as_ref());
        self.structs.push(value);
        pointer
    }
}

/// Returns a list, which the caller borrows until its release.
pub(super) fn hand_out<T, E, L>(
    all: Vec<T>,
    out: Out<L>,
    entry: impl Fn(&T, &mut Backing) -> E,
) -> Result<msb_status, Failure>
where
    E: Debug + 'static,
    L: ListOf<E>,
{
    let mut backing = Backing::default();
    let entries: Box<[E]> = all.iter().map(|item| entry(item, &mut backing)).collect();
    let pointers: Box<[*const E]> = entries.iter().map(ptr::from_ref).collect();
    let (list, len) = (borrowed::start_of(&pointers), pointers.len());
    let kept = Entries { _pointers: pointers, _entries: entries, _backing: backing };
    let owner = borrowed::keep(Arc::new(Borrowed::Other(Box::new(kept))))?;
    out.write(&L::list(list, len, owner));
    Ok(MSB_OK)
}

/// Converts to milliseconds since 1970, UTC.
pub(super) fn ms_of(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
