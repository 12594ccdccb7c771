//! What version this is.

use std::ffi::c_char;

/// Version of the ABI that this header describes; the number in the library's soname.
pub const MSB_ABI_VERSION: u32 = 0;
const _: () = assert!(MSB_ABI_VERSION == crate::ABI_VERSION);

/// Version of the ABI that the loaded library has. Compare it with `MSB_ABI_VERSION`.
#[unsafe(no_mangle)]
pub extern "C" fn msb_abi_version() -> u32 {
    MSB_ABI_VERSION
}

/// Version of the library: `"0.1.0"`. Static.
#[unsafe(no_mangle)]
pub extern "C" fn msb_version_string() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
