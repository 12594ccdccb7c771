//! Links the distribution's libkrun where that is asked for.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_SYSTEM_LIBKRUN").is_some() {
        println!("cargo::rustc-link-lib=dylib=krun");
    }
}
