//! Limits on unpacking any image, however large the disk is.

use msb_image::{Error, Result};
use std::cell::Cell;
use std::ffi::OsStr;
use std::io::{self, Read};

/// Default of `MSB_IMAGE_MAX_BYTES`: total size of an unpacked image.
const DEFAULT_BYTES: u64 = 64 << 30;
/// Default of `MSB_IMAGE_MAX_ENTRIES`: number of members in all layers of an image.
const DEFAULT_ENTRIES: u64 = 4_000_000;
/// Default of `MSB_IMAGE_MAX_RATIO`: uncompressed bytes for each compressed byte. Root filesystems
/// have 2 to 5; gzip reaches 1032 for zeros.
const DEFAULT_RATIO: u64 = 200;
/// Uncompressed bytes below which the ratio does not apply: a small layer may be all zeros.
const FREE: u64 = 1 << 30;

/// The limits of one image, and how much of each is left.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    bytes: Limit,
    entries: Limit,
    /// Maximum number of uncompressed bytes for each compressed byte.
    ratio: u64,
    /// Uncompressed bytes below which the ratio does not apply.
    free: u64,
}

#[derive(Debug, Clone)]
struct Limit {
    max: u64,
    left: u64,
}

impl Limit {
    fn new(max: u64) -> Limit {
        Limit { max, left: max }
    }
}

impl Limits {
    /// Returns the limits that the environment sets, else the defaults.
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

    /// Subtracts a member of this size from the limits.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<()> {
        let Limits { bytes: size, entries, .. } = self;
        entries.left = entries.left.checked_sub(1).ok_or_else(|| {
            exceeded(&format!("more than {} entries", entries.max), "MSB_IMAGE_MAX_ENTRIES")
        })?;
        size.left = size.left.checked_sub(bytes).ok_or_else(|| {
            let what = format!("files of more than {} bytes", size.max);
            exceeded(&what, "MSB_IMAGE_MAX_BYTES")
        })?;
        Ok(())
    }
}

fn exceeded(what: &str, variable: &str) -> Error {
    let error = Error::bad(format!("cannot unpack the image: it has {what}"));
    error.hint(format!("set {variable} to allow more"))
}

/// Counts the compressed and uncompressed bytes of an image's layers.
#[derive(Debug)]
pub(crate) struct Inflation {
    ratio: u64,
    free: u64,
    compressed: Cell<u64>,
    uncompressed: Cell<u64>,
}

impl Inflation {
    pub(crate) fn new(limits: &Limits) -> Inflation {
        let Limits { ratio, free, .. } = *limits;
        Inflation { ratio, free, compressed: Cell::new(0), uncompressed: Cell::new(0) }
    }

    /// Sets the number of compressed bytes.
    pub(crate) fn set_compressed(&self, count: u64) {
        self.compressed.set(count);
    }

    /// Fails if the ratio is exceeded.
    pub(crate) fn check(&self) -> Result<()> {
        let (compressed, uncompressed) = (self.compressed.get(), self.uncompressed.get());
        if uncompressed <= self.free || uncompressed <= compressed.saturating_mul(self.ratio) {
            return Ok(());
        }
        let what = format!("more than {} unpacked bytes for each packed one", self.ratio);
        Err(exceeded(&what, "MSB_IMAGE_MAX_RATIO"))
    }
}

/// Counts the uncompressed bytes read through it, and fails if the ratio is exceeded.
#[derive(Debug)]
pub(crate) struct InflatedReader<'a, R> {
    pub(crate) from: R,
    pub(crate) inflation: &'a Inflation,
}

impl<R: Read> Read for InflatedReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        let count = &self.inflation.uncompressed;
        count.set(count.get().saturating_add(read as u64));
        // The caller checks again and reports that error.
        self.inflation.check().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(read)
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Limits {
    /// Returns limits for tests, with the default ratio.
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
        assert_eq!((limits.bytes.max, limits.entries.max), (1000, DEFAULT_ENTRIES));
        for bad in ["0", "-1", "1G", "x"] {
            let set = |name: &str| (name == "MSB_IMAGE_MAX_RATIO").then_some(bad);
            let error = Limits::from_variables(set).unwrap_err().to_string();
            assert!(error.starts_with("cannot use MSB_IMAGE_MAX_RATIO="), "{error}");
        }
        assert_eq!(Limits::from_variables(|_| Some("")).unwrap().ratio, DEFAULT_RATIO);
    }

    #[test]
    fn j4_ratio_applies_above_one_gibibyte() {
        let inflation = Inflation::new(&Limits::from_variables(|_| None::<&str>).unwrap());
        inflation.set_compressed(500_000);
        inflation.uncompressed.set(500 << 20);
        inflation.check().unwrap();
        // 3 MB that decompress to 3 GiB.
        inflation.set_compressed(3_000_000);
        inflation.uncompressed.set(3 << 30);
        let error = inflation.check().unwrap_err();
        assert_eq!(error.kind, msb_image::ErrorKind::BadImage);
        assert_eq!(
            error.to_string(),
            "cannot unpack the image: it has more than 200 unpacked bytes for each packed one; \
             set MSB_IMAGE_MAX_RATIO to allow more"
        );
        inflation.set_compressed(1 << 30);
        inflation.check().unwrap();
    }
}
