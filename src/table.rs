//! Handles: values that name an object and cannot be confused with an address.
//!
//! ```text
//!  63        56 55    48 47               20 19          0
//!  +-----------+--------+-------------------+------------+
//!  |  tag 4Dh  |  kind  |    generation     |    slot    |
//!  +-----------+--------+-------------------+------------+
//! ```
//!
//! The tag makes the value a non-canonical address, so an accidental dereference faults at once.
//! The generation of a slot is incremented when its handle is closed; a slot whose generation would
//! wrap is retired.

use super::sync::lock;
use super::wait::Waits;
use std::sync::{Arc, Mutex};

const TAG: u64 = 0x4d << 56;
const SLOT_BITS: u32 = 20;
const GENERATION_BITS: u32 = 28;
const SLOTS: usize = 1 << SLOT_BITS;
/// Maximum of threads between [`Table::has_room`] and opening their handles.
const RESERVE: usize = 1024;
const LAST_GENERATION: u32 = (1 << GENERATION_BITS) - 1;

/// The kind of object that a handle names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Sandbox = 1,
    Exec = 2,
    Sink = 3,
    /// The `owner` of a borrowed struct; callers do not see it as a handle.
    Borrowed = 4,
    Log = 5,
    Image = 6,
    Fs = 7,
}

/// A handle's value.
pub(super) type Id = u64;

/// Returns the kind in a value, if it has the tag.
pub(super) fn kind_of(id: Id) -> Option<Kind> {
    let kind = (id >> 48) & 0xff;
    [Kind::Sandbox, Kind::Exec, Kind::Sink, Kind::Borrowed, Kind::Log, Kind::Image, Kind::Fs]
        .into_iter()
        .find(|known| id >> 56 == TAG >> 56 && *known as u64 == kind)
}

/// The open objects of one kind.
#[derive(Debug)]
pub(super) struct Table<T> {
    kind: Kind,
    inner: Mutex<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<Open<T>>,
}

/// An open handle: its object, and the calls that are woken when it is closed.
#[derive(Debug)]
pub(super) struct Open<T> {
    pub(super) object: Arc<T>,
    pub(super) waits: Arc<Waits>,
}

impl<T> Clone for Open<T> {
    fn clone(&self) -> Self {
        Open { object: Arc::clone(&self.object), waits: Arc::clone(&self.waits) }
    }
}

impl<T> Table<T> {
    pub(super) const fn new(kind: Kind) -> Table<T> {
        Table { kind, inner: Mutex::new(Inner { slots: Vec::new(), free: Vec::new() }) }
    }

    /// Opens a handle; `None` if a million are open.
    pub(super) fn insert(&self, value: Arc<T>) -> Option<Id> {
        let mut inner = lock(&self.inner);
        let index = match inner.free.pop() {
            Some(index) => index,
            None if inner.slots.len() < SLOTS => {
                inner.slots.push(Slot { generation: 0, value: None });
                inner.slots.len() - 1
            }
            None => return None,
        };
        let slot = inner.slots.get_mut(index)?;
        slot.value = Some(Open { object: value, waits: Arc::default() });
        let generation = u64::from(slot.generation) << SLOT_BITS;
        Some(TAG | (self.kind as u64) << 48 | generation | index as u64)
    }

    /// Returns whether this many handles are guaranteed to fit, also if other threads open as many.
    pub(super) fn has_room(&self, handles: usize) -> bool {
        let inner = lock(&self.inner);
        inner.free.len() + (SLOTS - inner.slots.len()) > RESERVE * handles
    }

    /// Returns the object of an open handle, and the calls that wait on it.
    pub(super) fn open(&self, id: Id) -> Option<Open<T>> {
        let (index, generation) = self.parts(id)?;
        let inner = lock(&self.inner);
        let slot = inner.slots.get(index).filter(|slot| slot.generation == generation)?;
        slot.value.clone()
    }

    /// Closes a handle and returns its object. Once only.
    pub(super) fn remove(&self, id: Id) -> Option<Arc<T>> {
        let (index, generation) = self.parts(id)?;
        let mut inner = lock(&self.inner);
        let slot = inner.slots.get_mut(index).filter(|slot| slot.generation == generation)?;
        let Open { object, waits } = slot.value.take()?;
        if slot.generation < LAST_GENERATION {
            slot.generation += 1;
            inner.free.push(index);
        }
        drop(inner);
        waits.close();
        Some(object)
    }

    fn parts(&self, id: Id) -> Option<(usize, u32)> {
        if kind_of(id) != Some(self.kind) {
            return None;
        }
        let index = usize::try_from(id & ((1 << SLOT_BITS) - 1)).ok()?;
        let generation = u32::try_from((id >> SLOT_BITS) & u64::from(LAST_GENERATION)).ok()?;
        Some((index, generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_handle_stays_closed_when_its_slot_is_used_again() {
        let table = Table::new(Kind::Exec);
        let first = table.insert(Arc::new("first")).unwrap();
        assert_eq!(table.remove(first).as_deref(), Some(&"first"));
        let second = table.insert(Arc::new("second")).unwrap();
        assert_ne!(first, second);
        assert!(table.open(first).is_none() && table.remove(first).is_none());
        assert_eq!(table.open(second).map(|open| *open.object), Some("second"));
    }

    #[test]
    fn a_handle_is_not_an_address_and_not_of_another_kind() {
        let (execs, sinks) = (Table::new(Kind::Exec), Table::new(Kind::Sink));
        let exec = execs.insert(Arc::new(())).unwrap();
        // Canonical addresses have bits 63 to 47 all alike.
        assert!(exec >> 47 != 0 && exec >> 47 != (1 << 17) - 1);
        assert!(sinks.insert(Arc::new(())).is_some());
        assert!(sinks.open(exec).is_none());
        for foreign in [0, 1, u64::MAX, exec ^ (1 << 63), exec ^ (1 << 30)] {
            assert!(execs.open(foreign).is_none(), "{foreign:#x}");
        }
    }

    #[test]
    fn a_slot_whose_generation_would_wrap_is_retired() {
        let table = Table::new(Kind::Exec);
        let id = table.insert(Arc::new(())).unwrap();
        lock(&table.inner).slots[0].generation = LAST_GENERATION;
        assert!(table.open(id).is_none());
        let last = id | u64::from(LAST_GENERATION) << SLOT_BITS;
        assert!(table.remove(last).is_some());
        let next = table.insert(Arc::new(())).unwrap();
        assert_eq!(next & ((1 << SLOT_BITS) - 1), 1);
    }
}
