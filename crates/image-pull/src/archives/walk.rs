//! Describes a tree of files, one line for each.

use super::Case;
use msb_image::Digest;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Times in this range are those of the test, and not of an archive.
const NOW: std::ops::Range<i64> = 1_700_000_000..5_000_000_000;

/// Returns a line for each file below a root, and for the root: its name, type, mode, owner, time,
/// content or target, and attributes.
pub(super) fn describe(root: &Path) -> Vec<String> {
    let mut paths = vec![root.to_path_buf()];
    let mut found = Vec::new();
    while let Some(path) = paths.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            paths.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.push((path, meta));
    }
    found.sort_by(|(a, _), (b, _)| a.as_os_str().cmp(b.as_os_str()));
    let mut first_names = BTreeMap::new();
    found.iter().map(|(path, meta)| line(root, path, meta, &mut first_names)).collect()
}

fn line(
    root: &Path,
    path: &Path,
    meta: &Metadata,
    first_names: &mut BTreeMap<u64, String>,
) -> String {
    let relative = path.strip_prefix(root).unwrap();
    let name = relative.as_os_str().as_bytes().escape_ascii().to_string();
    let kind = meta.file_type();
    if !meta.is_dir() && meta.nlink() > 1 {
        if let Some(first) = first_names.get(&meta.ino()) {
            return format!("{name} = {first}");
        }
        first_names.insert(meta.ino(), name.clone());
    }
    let device = || (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let (letter, content) = match () {
        () if kind.is_dir() => ("d", String::new()),
        () if kind.is_symlink() => ("l", target(path)),
        () if kind.is_fifo() => ("p", String::new()),
        () if kind.is_char_device() => ("c", format!("{:?}", device())),
        () if kind.is_block_device() => ("b", format!("{:?}", device())),
        () => ("-", content(path)),
    };
    let owner = match rustix::process::geteuid().is_root() {
        true => format!("{}:{}", meta.uid(), meta.gid()),
        false => String::new(),
    };
    // umoci sets the time of a root that no layer has to 0.
    let is_unset_root = name.is_empty() && meta.mtime() == 0;
    let time = match is_unset_root || NOW.contains(&meta.mtime()) {
        true => "now".to_owned(),
        false => format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()),
    };
    let mode = meta.mode() & 0o7777;
    let attributes = attributes(path);
    format!("{name} {letter}{mode:04o} {owner} {time} {content} {attributes}").trim_end().to_owned()
}

fn target(path: &Path) -> String {
    fs::read_link(path).unwrap().as_os_str().as_bytes().escape_ascii().to_string()
}

fn content(path: &Path) -> String {
    let bytes = fs::read(path).unwrap();
    match bytes.len() {
        0..32 => format!("{:?}", String::from_utf8_lossy(&bytes)),
        length => format!("{length} bytes, {}", &Digest::of(&bytes).hex()[..12]),
    }
}

fn attributes(path: &Path) -> String {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap_or(0);
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"user.") || name == b"security.capability" {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
            found.push(format!("{}={}", name.escape_ascii(), value[..length].escape_ascii()));
        }
    }
    found.sort();
    found.join(" ")
}

/// Checks that large files of a case about sparse files take less space than their length.
pub(super) fn check_holes(case: &Case, root: &Path) {
    let mut files: Vec<PathBuf> = vec![root.to_path_buf()];
    while let Some(path) = files.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            files.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if meta.len() >= 1 << 20 {
            assert!(meta.blocks() * 512 < meta.len() / 2, "{}: {path:?} has no holes", case.name);
        }
    }
}
