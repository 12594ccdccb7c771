//! The dependencies between the layers of the code, and the places of unsafe code.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Each package of the workspace, and the other packages that it may depend on.
///
/// A client (`microsandbox`, `msb-image-pull`) uses `msb-state` and never a driver; no driver uses
/// another one.
const MAY_USE: [(&str, &[&str]); 20] = [
    (".", &["microsandbox"]),
    ("crates/agent", &["msb-archive", "msb-relay", "msb-transport", "msb-wire"]),
    ("crates/archive", &[]),
    ("crates/client", &["msb-transport", "msb-wire"]),
    ("crates/cli", &["microsandbox"]),
    ("crates/driver/common", &["msb-jail", "msb-relay", "msb-state"]),
    ("crates/driver/gvisor", &["msb-driver", "msb-jail", "msb-state"]),
    ("crates/driver/krun", &["msb-driver", "msb-jail", "msb-state"]),
    ("crates/driver/oci", &["msb-driver", "msb-jail", "msb-state"]),
    ("crates/driver/qemu", &["msb-driver", "msb-jail", "msb-state"]),
    ("crates/image", &[]),
    ("crates/image-pull", &["msb-archive", "msb-image", "msb-state"]),
    ("crates/jail", &[]),
    ("crates/microsandbox", &["msb-archive", "msb-client", "msb-image", "msb-state", "msb-wire"]),
    ("crates/relay", &[]),
    (
        "crates/runner",
        &[
            "msb-archive",
            "msb-client",
            "msb-driver",
            "msb-driver-gvisor",
            "msb-driver-krun",
            "msb-driver-oci",
            "msb-driver-qemu",
            "msb-image",
            "msb-image-pull",
            "msb-jail",
            "msb-state",
            "msb-wire",
        ],
    ),
    ("crates/state", &[]),
    ("crates/transport", &["msb-wire"]),
    ("crates/wire", &[]),
    ("crates/xtask", &["microsandbox"]),
];

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn packages_use_only_lower_layers() {
    for (folder, allowed) in MAY_USE {
        let manifest = read(&Path::new(ROOT).join(folder).join("Cargo.toml"));
        let own = manifest.split("\n[dependencies]").nth(1).unwrap_or_default();
        let own = own.split("\n[").next().unwrap_or_default();
        for line in own.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let ours = name.starts_with("msb-") || name == "microsandbox";
            assert!(!ours || allowed.contains(&name), "{folder} must not use {name}");
        }
    }
    let folders = |folder| std::fs::read_dir(Path::new(ROOT).join(folder)).unwrap().count();
    // One more for the C library; `crates/driver` contains packages and is none itself.
    let packages = folders("crates") + folders("crates/driver");
    assert_eq!(packages, MAY_USE.len(), "a package is missing in the list");
}

#[test]
fn unsafe_code_is_in_the_c_boundary_and_in_the_sys_modules_only() {
    for folder in ["src", "crates"] {
        for file in rust_files(&Path::new(ROOT).join(folder)) {
            let place = file.strip_prefix(ROOT).unwrap().to_string_lossy().into_owned();
            let allowed = place.starts_with("src/")
                || place.contains("/sys/")
                || place.ends_with("/sys.rs")
                || place.contains("/tests/");
            let has = read(&file).lines().any(|line| {
                let code = line.split("//").next().unwrap_or_default();
                code.contains("unsafe {")
                    || code.contains("unsafe fn")
                    || code.contains("unsafe impl")
            });
            assert!(allowed || !has, "unsafe code in {place}");
        }
    }
}

#[test]
fn every_export_ends_at_the_boundary() {
    let borrowed = read(&Path::new(ROOT).join("src/borrowed.rs"));
    let release = borrowed.split("unsafe fn release<").nth(1).unwrap();
    assert!(release.split("\n}\n").next().unwrap().contains("boundary(err"));
    for file in rust_files(&Path::new(ROOT).join("src")) {
        let text = read(&file);
        for export in text.split("#[unsafe(no_mangle)]").skip(1) {
            let name = export.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap();
            // These use no handle, and cannot fail.
            let constant = ["msb_abi_version", "msb_version_string", "msb_status_name", "msb_has"];
            let body = export.split("\n}\n").next().unwrap_or_default();
            // Releases share one function, which ends at the boundary.
            let ends = ["boundary(err", "borrowed::release("].iter().any(|end| body.contains(end));
            assert!(constant.contains(&name) || ends, "{name}");
        }
    }
}
