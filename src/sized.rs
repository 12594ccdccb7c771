//! Reading and writing a caller's structs, which start with their size.

use super::failure::{Failure, wrong};
use super::status::{MSB_E_INVALID, MSB_E_UNSUPPORTED, MSB_OK, msb_status};
use std::mem::size_of;
use std::ptr::NonNull;

/// A struct of the header, which starts with its size.
///
/// # Safety
/// The type is `repr(C)`, its first field is `struct_size: u32`, and any bytes are a valid value.
pub(super) unsafe trait Sized32: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// The size of its first published version: no caller has a smaller one.
    const FIRST_SIZE: usize;
}

/// Reads a caller's struct: a smaller one is extended by zeros, the tail of a larger one must be
/// zero (the rule of openat2).
///
/// # Safety
/// `place` is NULL or valid for reading as many bytes as its first four say.
pub(super) unsafe fn copy_in<T: Sized32>(place: *const T) -> Result<T, Failure> {
    // SAFETY: the same contract.
    let (value, size) = unsafe { copy_known(place) }?;
    for offset in size_of::<T>()..size {
        // SAFETY: within the size that the caller's struct has.
        let byte = unsafe { place.cast::<u8>().add(offset) };
        // SAFETY: as above.
        let byte = unsafe { byte.read() };
        if byte != 0 {
            let text = format!("{} has a field that this version does not know", T::NAME);
            return Err(wrong(MSB_E_UNSUPPORTED, text));
        }
    }
    Ok(value)
}

/// Reads an array of structs, which all have the size of the first.
///
/// # Safety
/// `first` is NULL or the first of `len` structs, each valid as for [`copy_in`].
pub(super) unsafe fn copy_array<T: Sized32>(
    first: *const T,
    len: usize,
    what: &str,
) -> Result<Vec<T>, Failure> {
    const MOST: usize = 4096;
    if len == 0 {
        return Ok(Vec::new());
    }
    if first.is_null() || len > MOST {
        return Err(wrong(MSB_E_INVALID, format!("{len} {what} at {first:p}")));
    }
    // SAFETY: not NULL, and every such struct starts with its size.
    let size = unsafe { first.cast::<u32>().read_unaligned() };
    let stride = check_size::<T>(size)?;
    let mut all = Vec::with_capacity(len);
    for index in 0..len {
        // SAFETY: within the array.
        let place = unsafe { first.cast::<u8>().add(index * stride) }.cast::<T>();
        // SAFETY: as above.
        if unsafe { place.cast::<u32>().read_unaligned() } != size {
            let text = format!("{} of different sizes in one array", T::NAME);
            return Err(wrong(MSB_E_INVALID, text));
        }
        // SAFETY: by the contract.
        all.push(unsafe { copy_in(place) }?);
    }
    Ok(all)
}

/// Reads the known part of a caller's struct, and returns its size.
///
/// # Safety
/// As [`copy_in`].
pub(super) unsafe fn copy_known<T: Sized32>(place: *const T) -> Result<(T, usize), Failure> {
    if place.is_null() {
        let text = format!("NULL instead of {}", T::NAME);
        return Err(wrong(MSB_E_INVALID, text));
    }
    // SAFETY: not NULL, and every such struct starts with its size.
    let size = unsafe { place.cast::<u32>().read_unaligned() };
    let size = check_size::<T>(size)?;
    let known = size.min(size_of::<T>());
    // SAFETY: zeros are a valid value of these types.
    let mut value: T = unsafe { std::mem::zeroed() };
    // SAFETY: both are valid for `known` bytes: ours by its type, the caller's by its size.
    unsafe { place.cast::<u8>().copy_to_nonoverlapping((&raw mut value).cast(), known) };
    Ok((value, size))
}

fn check_size<T: Sized32>(size: u32) -> Result<usize, Failure> {
    let size = usize::try_from(size).unwrap_or(0);
    // Larger than any struct of ours: an uninitialised size, not a later version. In every version
    // the fields are aligned.
    if (T::FIRST_SIZE..=4096).contains(&size) && size % align_of::<T>() == 0 {
        return Ok(size);
    }
    let text = format!("{} with struct_size {size}: start from its INIT macro", T::NAME);
    Err(wrong(MSB_E_INVALID, text))
}

/// An output struct. Validated before anything is dequeued for it.
#[derive(Debug)]
pub(super) struct Out<T> {
    place: NonNull<T>,
}

impl<T: Sized32> Out<T> {
    /// # Safety
    /// `place` is NULL or valid for reading its first four bytes, and for writing as many bytes as
    /// those say for as long as this value is used.
    pub(super) unsafe fn new(place: *mut T) -> Result<Out<T>, Failure> {
        let Some(found) = NonNull::new(place) else {
            let text = format!("NULL instead of {}", T::NAME);
            return Err(wrong(MSB_E_INVALID, text));
        };
        // SAFETY: not NULL, and every such struct starts with its size.
        let size = unsafe { place.cast::<u32>().read_unaligned() };
        check_size::<T>(size)?;
        Ok(Out { place: found })
    }

    /// Writes the struct, cut at the caller's size, which is not changed.
    pub(super) fn write(self, value: &T) -> msb_status {
        // SAFETY: valid by the contract of `new`, which has checked the size as well.
        let _ = unsafe { copy_out(self.place.as_ptr(), value) };
        MSB_OK
    }
}

/// An output array, whose elements all have the size of the first.
#[derive(Debug)]
pub(super) struct OutArray<T> {
    first: NonNull<T>,
    stride: usize,
}

impl<T: Sized32> OutArray<T> {
    /// # Safety
    /// `first` is NULL or the first of `len` structs, each valid as for [`Out::new`].
    pub(super) unsafe fn new(first: *mut T, len: usize) -> Result<OutArray<T>, Failure> {
        let Some(found) = NonNull::new(first).filter(|_| len > 0) else {
            let text = format!("{len} {} at {first:p}", T::NAME);
            return Err(wrong(MSB_E_INVALID, text));
        };
        // SAFETY: not NULL, and every such struct starts with its size.
        let size = unsafe { first.cast::<u32>().read_unaligned() };
        let array = OutArray { first: found, stride: check_size::<T>(size)? };
        for index in 1..len {
            // SAFETY: within the array.
            if unsafe { array.place(index).cast::<u32>().read_unaligned() } != size {
                let text = format!("{} of different sizes in one array", T::NAME);
                return Err(wrong(MSB_E_INVALID, text));
            }
        }
        Ok(array)
    }

    pub(super) fn place(&self, index: usize) -> *mut T {
        // Callers keep `index` within the length of the array.
        self.first.as_ptr().cast::<u8>().wrapping_add(index * self.stride).cast()
    }

    /// Writes an element; `index` must be within the length of the array.
    pub(super) fn write(&self, index: usize, value: &T) {
        // SAFETY: valid by the contract of `new`.
        let _ = unsafe { copy_out(self.place(index), value) };
    }
}

/// Writes `value`, except its size, as far as it fits into the caller's struct.
///
/// # Safety
/// `place` is valid for reading its first four bytes and for writing as many bytes as those say.
pub(super) unsafe fn copy_out<T: Copy>(place: *mut T, value: &T) -> Result<(), ()> {
    const HEAD: usize = size_of::<u32>();
    // SAFETY: by the contract.
    let size = unsafe { place.cast::<u32>().read_unaligned() };
    let size = usize::try_from(size).map_err(|_| ())?.min(size_of::<T>());
    let rest = size.checked_sub(HEAD).ok_or(())?;
    // SAFETY: at least four bytes long.
    let from = unsafe { std::ptr::from_ref(value).cast::<u8>().add(HEAD) };
    // SAFETY: as above.
    let to = unsafe { place.cast::<u8>().add(HEAD) };
    // SAFETY: both are valid for `rest` bytes, and ours is not the caller's.
    unsafe { from.copy_to_nonoverlapping(to, rest) };
    Ok(())
}

/// Returns the output for a plain value.
///
/// # Safety
/// `place` is NULL or valid for writing a `T` for as long as the result is used.
pub(super) unsafe fn out<T>(place: *mut T, what: &str) -> Result<Destination<T>, Failure> {
    match NonNull::new(place) {
        Some(place) => Ok(Destination(place)),
        None => Err(wrong(MSB_E_INVALID, format!("NULL instead of a place for {what}"))),
    }
}

/// See [`out`].
#[derive(Debug)]
pub(super) struct Destination<T>(NonNull<T>);

impl<T> Destination<T> {
    pub(super) fn write(self, value: T) {
        // SAFETY: valid by the contract of `out`.
        unsafe { self.0.as_ptr().write_unaligned(value) }
    }
}

/// Declares a caller's struct: its name, and the last field of its first published version. The
/// header gets an INIT macro for each.
macro_rules! sized {
    ($type:ident, $last:ident) => {
        // SAFETY: `repr(C)`, starts with its size, and holds numbers and raw pointers only; xtask
        // refuses to make the header otherwise.
        unsafe impl super::sized::Sized32 for $type {
            const NAME: &'static str = stringify!($type);
            const FIRST_SIZE: usize = std::mem::offset_of!($type, $last)
                + super::sized::size_of_field(|fields: &$type| &fields.$last);
        }
    };
}
pub(super) use sized;

/// Returns the size of the field that the function returns; the function is not called.
pub(super) const fn size_of_field<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}
