//! Links the distribution's libkrun where the feature requests it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_SYSTEM_LIBKRUN").is_some() {
        println!("cargo::rustc-link-lib=dylib=krun");
    }
}
