//! Bounds on what unpacking any image may cost, however large the disk is.

use msb_image::{Error, Result};
use std::cell::Cell;
use std::ffi::OsStr;
use std::io::{self, Read};

/// Bytes that an image may unpack to, unless `MSB_IMAGE_MAX_BYTES` says otherwise.
const DEFAULT_BYTES: u64 = 64 << 30;
/// Members that the layers of an image may have, unless `MSB_IMAGE_MAX_ENTRIES` says otherwise.
const DEFAULT_ENTRIES: u64 = 4_000_000;
/// Unpacked bytes for each packed byte, unless `MSB_IMAGE_MAX_RATIO` says otherwise. Root
/// filesystems have 2 to 5, and gzip makes 1032 of zeros.
const DEFAULT_RATIO: u64 = 200;
/// Unpacked bytes from which on the ratio counts: a layer may be one file of zeros.
const FREE: u64 = 1 << 30;

/// Bounds on an image, of which each member takes its part.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    bytes: Limit,
    entries: Limit,
    /// Most unpacked bytes for each packed byte.
    ratio: u64,
    /// Unpacked bytes from which on the ratio counts.
    free: u64,
}

#[derive(Debug, Clone)]
struct Limit {
    all: u64,
    left: u64,
}

impl Limit {
    fn new(all: u64) -> Limit {
        Limit { all, left: all }
    }
}

impl Limits {
    /// The bounds that the environment sets, else the defaults.
    pub(crate) fn from_env() -> Result<Limits> {
        Limits::from_variables(|name| std::env::var_os(name))
    }

    fn from_variables<T: AsRef<OsStr>>(get: impl Fn(&str) -> Option<T>) -> Result<Limits> {
        let number = |name: &str, default: u64| match get(name) {
            Some(set) if !set.as_ref().is_empty() => {
                let text = set.as_ref().to_string_lossy();
                text.parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(|| {
                    let text = format!("cannot use {name}={text:?}: not a whole number above 0");
                    Error::invalid(text)
                })
            }
            _ => Ok(default),
        };
        Ok(Limits {
            bytes: Limit::new(number("MSB_IMAGE_MAX_BYTES", DEFAULT_BYTES)?),
            entries: Limit::new(number("MSB_IMAGE_MAX_ENTRIES", DEFAULT_ENTRIES)?),
            ratio: number("MSB_IMAGE_MAX_RATIO", DEFAULT_RATIO)?,
            free: FREE,
        })
    }

    /// Takes a member with so many bytes out of the bounds.
    pub(crate) fn take(&mut self, bytes: u64) -> Result<()> {
        let Limits { bytes: size, entries, .. } = self;
        entries.left = entries.left.checked_sub(1).ok_or_else(|| {
            refused(&format!("more than {} entries", entries.all), "MSB_IMAGE_MAX_ENTRIES")
        })?;
        size.left = size.left.checked_sub(bytes).ok_or_else(|| {
            let what = format!("files of more than {} bytes", size.all);
            refused(&what, "MSB_IMAGE_MAX_BYTES")
        })?;
        Ok(())
    }
}

fn refused(what: &str, variable: &str) -> Error {
    let error = Error::bad(format!("cannot unpack the image: it has {what}"));
    error.hint(format!("set {variable} to allow more"))
}

/// How many bytes were read of an image's layers, and what they have become.
#[derive(Debug)]
pub(crate) struct Inflation {
    ratio: u64,
    free: u64,
    packed: Cell<u64>,
    plain: Cell<u64>,
}

impl Inflation {
    pub(crate) fn new(limits: &Limits) -> Inflation {
        let Limits { ratio, free, .. } = *limits;
        Inflation { ratio, free, packed: Cell::new(0), plain: Cell::new(0) }
    }

    /// Sets how many packed bytes were read.
    pub(crate) fn packed(&self, count: u64) {
        self.packed.set(count);
    }

    /// Whether the ratio holds so far.
    pub(crate) fn check(&self) -> Result<()> {
        let (packed, plain) = (self.packed.get(), self.plain.get());
        if plain <= self.free || plain <= packed.saturating_mul(self.ratio) {
            return Ok(());
        }
        let what = format!("more than {} unpacked bytes for each packed one", self.ratio);
        Err(refused(&what, "MSB_IMAGE_MAX_RATIO"))
    }
}

/// Counts the unpacked bytes that are read through it, and fails where the ratio does not hold.
#[derive(Debug)]
pub(crate) struct Inflated<'a, R> {
    pub(crate) from: R,
    pub(crate) inflation: &'a Inflation,
}

impl<R: Read> Read for Inflated<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let plain = &self.inflation.plain;
        plain.set(plain.get().saturating_add(read as u64));
        // Reported by the caller, which asks for the check again.
        self.inflation.check().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(read)
    }
}

#[cfg(test)]
impl Limits {
    /// Bounds for tests, with the ratio of every image.
    pub(crate) fn of(bytes: u64, entries: u64, free: u64) -> Limits {
        let (bytes, entries) = (Limit::new(bytes), Limit::new(entries));
        Limits { bytes, entries, ratio: DEFAULT_RATIO, free }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j4_image_bounds_are_set_by_variables() {
        let set = |name: &str| (name == "MSB_IMAGE_MAX_BYTES").then_some("1000");
        let limits = Limits::from_variables(set).unwrap();
        assert_eq!((limits.bytes.all, limits.entries.all), (1000, DEFAULT_ENTRIES));
        for bad in ["0", "-1", "1G", "x"] {
            let set = |name: &str| (name == "MSB_IMAGE_MAX_RATIO").then_some(bad);
            let error = Limits::from_variables(set).unwrap_err().to_string();
            assert!(error.starts_with("cannot use MSB_IMAGE_MAX_RATIO="), "{error}");
        }
        assert_eq!(Limits::from_variables(|_| Some("")).unwrap().ratio, DEFAULT_RATIO);
    }

    #[test]
    fn j4_ratio_counts_from_the_first_gibibyte_on() {
        let inflation = Inflation::new(&Limits::from_variables(|_| None::<&str>).unwrap());
        inflation.packed(500_000);
        inflation.plain.set(500 << 20);
        inflation.check().unwrap();
        // 3 MB that unpack to 3 GiB.
        inflation.packed(3_000_000);
        inflation.plain.set(3 << 30);
        let error = inflation.check().unwrap_err();
        assert_eq!(error.kind, msb_image::ErrorKind::BadImage);
        assert_eq!(
            error.to_string(),
            "cannot unpack the image: it has more than 200 unpacked bytes for each packed one; \
             set MSB_IMAGE_MAX_RATIO to allow more"
        );
        inflation.packed(1 << 30);
        inflation.check().unwrap();
    }
}
