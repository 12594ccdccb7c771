//! The root filesystem that the cases are about, and the sandboxes made of it.

use crate::common;
use crate::format::{Profile, Profiles};
use microsandbox::Sandbox;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

pub(crate) fn profiles() -> &'static Profiles {
    static PROFILES: OnceLock<Profiles> = OnceLock::new();
    PROFILES.get_or_init(|| {
        let text = fs::read_to_string(crate::folder().join("profiles.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    })
}

/// The root filesystem, made anew when what makes it has changed.
fn rootfs() -> &'static Path {
    static ROOTFS: OnceLock<PathBuf> = OnceLock::new();
    ROOTFS.get_or_init(|| {
        let maker = crate::folder().join("make-rootfs");
        let mut sum = Sha256::new();
        for source in [&maker, &crate::folder().join("guest/helper.c")] {
            sum.update(fs::read(source).unwrap());
        }
        let sum: String = sum.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let rootfs = scratch.join(format!("conformance-{sum}"));
        if !rootfs.exists() {
            let building = tempfile::tempdir_in(scratch).unwrap();
            let root = building.path().join("root");
            let made = Command::new(&maker).arg(&root).status().unwrap();
            assert!(made.success(), "conformance/make-rootfs failed");
            // Another program may have been faster.
            let _ = fs::rename(&root, &rootfs);
        }
        rootfs
    })
}

/// The sandbox of a profile, which all its cases share.
pub(crate) fn sandbox(profile: &str) -> Sandbox {
    static SANDBOXES: Mutex<Option<HashMap<String, Sandbox>>> = Mutex::new(None);
    let mut sandboxes = SANDBOXES.lock().unwrap();
    let sandboxes = sandboxes.get_or_insert_default();
    let make = || create(profile, profiles().get(profile).unwrap());
    sandboxes.entry(profile.to_owned()).or_insert_with(make).clone()
}

fn create(name: &str, profile: &Profile) -> Sandbox {
    let mut builder = common::builder(&format!("conformance-{name}")).image(rootfs());
    for (key, value) in &profile.env {
        builder = builder.env(key.text(""), value.text(""));
    }
    builder = profile.workdir.iter().fold(builder, |builder, dir| builder.workdir(dir));
    builder = profile.shell.iter().fold(builder, |builder, shell| builder.shell(shell));
    builder = profile.user.iter().fold(builder, |builder, user| builder.user(user));
    common::block_on(builder.create()).unwrap()
}
