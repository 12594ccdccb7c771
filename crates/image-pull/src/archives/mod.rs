//! A corpus of archives: each is unpacked as another reader unpacks it, or refused by name.
//!
//! GNU tar reads single archives; umoci reads images of several layers and archives in which one
//! name occurs twice.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod cases;
mod layers;
mod mutations;
mod sparse;
mod walk;

use crate::layer::{Bounds, Unpacked, unpack};
use crate::limits::Limits;
use crate::testing::Archive;
use crate::tree::Owners;
use msb_image::{Digest, ErrorKind, Result};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What becomes of a case.
enum Expected {
    /// The other reader's files.
    Same,
    /// An error with this text.
    Refused(&'static str),
    /// The other reader's files, but for these lines: `-` before one of the other reader only, `+`
    /// before one of ours only. With the reason.
    Differs(&'static str, &'static [&'static str]),
}

/// Which program a case is compared with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Tar,
    Umoci,
}

/// One image.
struct Case {
    name: &'static str,
    layers: Vec<Vec<u8>>,
    reader: Reader,
    expected: Expected,
}

fn same(name: &'static str, archive: Archive) -> Case {
    same_bytes(name, archive.end())
}

fn same_bytes(name: &'static str, bytes: Vec<u8>) -> Case {
    Case { name, layers: vec![bytes], reader: Reader::Tar, expected: Expected::Same }
}

fn refused(name: &'static str, archive: Archive, text: &'static str) -> Case {
    refused_bytes(name, archive.end(), text)
}

fn refused_bytes(name: &'static str, bytes: Vec<u8>, text: &'static str) -> Case {
    Case { expected: Expected::Refused(text), ..same_bytes(name, bytes) }
}

fn differs(case: Case, reason: &'static str, lines: &'static [&'static str]) -> Case {
    Case { expected: Expected::Differs(reason, lines), ..case }
}

/// A case of several layers, or of one in which a name occurs twice.
fn image<const N: usize>(name: &'static str, layers: [Archive; N]) -> Case {
    let layers = layers.into_iter().map(Archive::end).collect();
    Case { layers, reader: Reader::Umoci, ..same_bytes(name, Vec::new()) }
}

fn all_cases() -> Vec<Case> {
    let groups = [
        cases::types(),
        cases::names(),
        cases::numbers(),
        cases::pax(),
        cases::orders(),
        sparse::sparse(),
        cases::streams(),
        layers::duplicates(),
        layers::layers(),
    ];
    groups.into_iter().flatten().collect()
}

fn new_directory(path: &Path) -> PathBuf {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_path_buf()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn unpack_ours(case: &Case, scratch: &Path) -> Result<Vec<String>> {
    let root = new_directory(&scratch.join("ours"));
    let files = case.layers.iter().enumerate().map(|(index, bytes)| {
        let path = scratch.join(format!("layer{index}"));
        fs::write(&path, bytes).unwrap();
        (path, None)
    });
    let owners = if is_root() { Owners::All } else { Owners::RootOnly };
    let limits = Limits::of(u64::MAX, u64::MAX, 1 << 30);
    let bounds = Bounds { bytes: 1 << 30, members: 100_000, limits };
    let files: Vec<_> = files.collect();
    let unpacked: Unpacked = unpack(&files, &root, owners, bounds, |_, _| {})?;
    assert_eq!(unpacked.diff_ids.len(), case.layers.len());
    if case.name.starts_with("sparse") {
        walk::check_holes(case, &root);
    }
    Ok(walk::describe(&root))
}

fn run(command: &mut Command) -> Output {
    let program = command.get_program().to_owned();
    let failed = |error| panic!("cannot run {program:?}: {error}; run scripts/setup test");
    command.env("LC_ALL", "C").env("TZ", "UTC0").output().unwrap_or_else(failed)
}

fn tar() -> Command {
    let mut command = Command::new("tar");
    command.arg("--numeric-owner");
    command
}

/// Unpacks with another reader. Returns what it complained about.
fn unpack_theirs(case: &Case, scratch: &Path) -> (Vec<String>, String) {
    let root = new_directory(&scratch.join("theirs"));
    let output = match case.reader {
        Reader::Tar => run(tar()
            .args(["-p", "--delay-directory-restore", "--xattrs", "--xattrs-include=*", "-x"])
            .args(if is_root() { &["--same-owner"][..] } else { &[] })
            .arg("-C")
            .arg(&root)
            .arg("-f")
            .arg(scratch.join("layer0"))),
        Reader::Umoci => {
            let layout = scratch.join("layout");
            write_layout(&layout, &case.layers);
            let mut image = layout.into_os_string();
            image.push(":case");
            run(Command::new("umoci")
                .args(["raw", "unpack"])
                .args(if is_root() { &[][..] } else { &["--rootless"] })
                .arg("--image")
                .arg(image)
                .arg(&root))
        }
    };
    let complaint = match output.status.success() {
        true => String::new(),
        false => String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    (walk::describe(&root), complaint)
}

/// Writes an OCI image layout with one image.
fn write_layout(path: &Path, layers: &[Vec<u8>]) {
    fs::create_dir_all(path.join("blobs/sha256")).unwrap();
    let add = |bytes: &[u8], kind: &str| {
        let digest = Digest::of(bytes);
        fs::write(path.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        let kind = format!("application/vnd.oci.image.{kind}");
        serde_json::json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    };
    let diffs: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diffs},
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": add(config.to_string().as_bytes(), "config.v1+json"),
        "layers": layers.iter().map(|layer| add(layer, "layer.v1.tar")).collect::<Vec<_>>(),
    });
    let mut entry = add(manifest.to_string().as_bytes(), "manifest.v1+json");
    entry["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "case"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(path.join("index.json"), index.to_string()).unwrap();
    fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Returns what is wrong with a case.
fn check(case: &Case) -> Option<String> {
    let scratch = tempfile::tempdir().unwrap();
    let ours = match (unpack_ours(case, scratch.path()), &case.expected) {
        (Err(error), Expected::Refused(text)) => {
            let is_named = error.kind == ErrorKind::BadImage
                && error.message.starts_with("cannot ")
                && error.message.contains(text);
            return (!is_named).then(|| format!("another error: {error}"));
        }
        (Ok(ours), Expected::Refused(_)) => return Some(format!("not refused: {ours:#?}")),
        (Err(error), _) => return Some(format!("refused: {error}")),
        (Ok(ours), _) => ours,
    };
    let (theirs, complaint) = unpack_theirs(case, scratch.path());
    let only = |sign: &str, these: &[String], others: &[String]| -> Vec<String> {
        let lines = these.iter().filter(|line| !others.contains(line));
        lines.map(|line| format!("{sign}{line}")).collect()
    };
    let mut found = only("-", &theirs, &ours);
    found.extend(only("+", &ours, &theirs));
    match case.expected {
        Expected::Differs(reason, lines) => {
            assert!(!reason.is_empty());
            let owner = if is_root() { "0:0" } else { "" };
            let lines: Vec<String> = lines.iter().map(|line| line.replace("0:0", owner)).collect();
            (found != lines).then(|| format!("other differences: {found:#?} {complaint}"))
        }
        _ if !complaint.is_empty() => Some(format!("the other reader: {complaint} {found:#?}")),
        _ => (!found.is_empty()).then(|| format!("differences: {found:#?}")),
    }
}

#[test]
fn g_corpus_is_read_as_by_others_or_refused() {
    let cases = all_cases();
    assert!(cases.len() >= 60, "{}", cases.len());
    let wrong = cases.iter().filter_map(|case| Some((case.name, check(case)?)));
    let wrong: Vec<String> = wrong.map(|(name, text)| format!("{name}: {text}")).collect();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
