//! Versions and abilities.

use std::ffi::{CStr, c_char};

/// Version of the ABI that this header describes; the number in the library's soname.
pub const MSB_ABI_VERSION: u32 = 0;
const _: () = assert!(MSB_ABI_VERSION == super::abi::ABI_VERSION);

/// Returns the ABI version of the loaded library. Compare it with `MSB_ABI_VERSION`.
#[unsafe(no_mangle)]
pub extern "C" fn msb_abi_version() -> u32 {
    MSB_ABI_VERSION
}

/// Returns the version of the library: `"0.1.0"`. Static.
#[unsafe(no_mangle)]
pub extern "C" fn msb_version_string() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The names that `msb_has` knows.
const ABILITIES: [&CStr; 8] =
    [c"attach", c"fs", c"images", c"log", c"reattach", c"recv_many", c"session_log", c"trace"];

/// Returns 1 if this library has the ability with this name, which is lent, else 0; 0 for NULL.
/// Names: `"attach"`, `"fs"`, `"images"`, `"log"`, `"reattach"`, `"recv_many"`, `"session_log"`
/// and `"trace"`. `msb_doctor` lists the drivers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn msb_has(ability: *const c_char) -> i32 {
    if ability.is_null() {
        return 0;
    }
    // SAFETY: not NULL, so NUL-terminated, by the contract of every export (src/lib.rs).
    let ability = unsafe { CStr::from_ptr(ability) };
    i32::from(ABILITIES.contains(&ability))
}
