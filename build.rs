//! Gives the shared library its name: `libmicrosandbox.so.` and the version of the C ABI.

include!("src/abi.rs");

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/abi.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libmicrosandbox.so.{ABI_VERSION}");
}
