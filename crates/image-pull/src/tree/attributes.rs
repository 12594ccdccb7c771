//! Extended attributes.

use rustix::io::{Errno, Result};
use std::path::Path;

/// Maximum length of the list of names, which is the kernel's.
const MAX_LIST: usize = 64 * 1024;

/// Whether an image may set an attribute. Those of overlayfs would redirect lookups.
fn is_allowed(name: &[u8]) -> bool {
    name == b"security.capability"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// Sets the attributes that an image may set. Ignores those that the filesystem does not support
/// or permissions do not allow.
pub(super) fn set(
    attributes: &[(Vec<u8>, Vec<u8>)],
    set: impl Fn(&[u8], &[u8]) -> Result<()>,
) -> Result<()> {
    for (name, value) in attributes.iter().filter(|(name, _)| is_allowed(name)) {
        match set(name, value) {
            Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes the attributes that a lower layer set. Fails harmlessly: then none could be set.
pub(super) fn clear(path: &Path) {
    let mut names = vec![0; MAX_LIST];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let names = names.get(..length).unwrap_or_default().split(|byte| *byte == 0);
    for name in names.filter(|name| is_allowed(name)) {
        let _ = rustix::fs::lremovexattr(path, name);
    }
}
