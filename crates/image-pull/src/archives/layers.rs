//! Images of several layers, and names that occur twice.

use super::{Case, image};
use crate::testing::Archive;
use tar::EntryType;

fn new() -> Archive {
    Archive::new()
}

pub(super) fn duplicates() -> Vec<Case> {
    let tree = || new().dir("a").dir("a/b").file("a/b/c", "old");
    vec![
        image("a file over a file", [new().file("a", "1").mode("a", EntryType::Regular, 0o600)]),
        image("a directory over a file", [new().file("a", "1").dir("a").file("a/b", "2")]),
        image("a file over a directory", [tree().file("a", "now")]),
        image("a symlink over a directory", [tree().dir("e").symlink("a", "e").file("a/f", "x")]),
        image(
            "a directory over a symlink",
            [new().dir("e").symlink("a", "e").dir("a").file("a/f", "x")],
        ),
        image("a file over a symlink", [new().file("t", "1").symlink("a", "t").file("a", "2")]),
        image("a FIFO over a directory", [tree().mode("a", EntryType::Fifo, 0o600)]),
        image("a hard link over a file", [new().file("a", "1").file("b", "2").hard_link("b", "a")]),
        image("a file over a hard link", [new().file("a", "1").hard_link("b", "a").file("b", "2")]),
        image("a hard link over a directory", [tree().file("f", "1").hard_link("a", "f")]),
        image("a hard link twice", [new().file("a", "1").hard_link("b", "a").hard_link("b", "a")]),
    ]
}

pub(super) fn layers() -> Vec<Case> {
    let lower = || {
        let archive = new().dir("d").file("d/x", "1").dir("d/sub").file("d/sub/y", "2");
        archive.file("a", "3").symlink("l", "d").hard_link("h", "a")
    };
    let old = |archive: Archive, path| {
        archive.raw(EntryType::Directory, path, 0, b"", |header| {
            header.set_mode(0o755);
            header.set_mtime(500_000_000);
        })
    };
    let opaque = "d/.wh..wh..opq";
    let attribute = |archive: Archive, name: &str| {
        archive.pax(&[(&format!("SCHILY.xattr.user.{name}"), b"1")]).dir("n")
    };
    vec![
        image("a file hidden", [lower(), new().file(".wh.a", "")]),
        image("a directory hidden", [lower(), new().file(".wh.d", "")]),
        image("a symlink hidden", [lower(), new().file(".wh.l", "")]),
        image("a name in a directory hidden", [lower(), new().dir("d").file("d/.wh.x", "")]),
        image(
            "nothing hidden",
            [lower(), new().file(".wh.none", "").file("e/.wh.f", "").file("z", "")],
        ),
        image("hidden and made again", [lower(), new().file(".wh.a", "").file("a", "new")]),
        image(
            "hidden and a directory",
            [lower(), new().file(".wh.d", "").dir("d").file("d/new", "n")],
        ),
        image(
            "hidden in one, made in the next",
            [lower(), new().file(".wh.a", ""), new().file("a", "n")],
        ),
        image("opaque", [lower(), new().dir("d").file(opaque, "").file("d/new", "n")]),
        image("opaque at the end", [lower(), new().dir("d").file("d/new", "n").file(opaque, "")]),
        image(
            "opaque, and a name below again",
            [lower(), new().dir("d").file(opaque, "").dir("d/sub")],
        ),
        image("opaque root", [lower(), new().file(".wh..wh..opq", "").file("only", "o")]),
        image(
            "opaque twice",
            [lower(), new().dir("d").file(opaque, ""), new().dir("d").file(opaque, "")],
        ),
        image("a hard link to a lower file", [lower(), new().hard_link("new", "a")]),
        image("a hard link to a lower symlink", [lower(), new().hard_link("new", "l")]),
        image("a lower hard link replaced", [lower(), new().file("a", "new")]),
        image(
            "a hard link to the lower, then hidden",
            [lower(), new().hard_link("z", "a").file(".wh.a", "")],
        ),
        image("through a lower symlink", [lower(), new().file("l/new", "n")]),
        image("a lower symlink replaced", [lower(), new().dir("l").file("l/new", "n")]),
        image("other metadata", [lower(), new().mode("d", EntryType::Directory, 0o700)]),
        image("a time that stays", [old(new(), b"d"), new().file("d/new", "n")]),
        image("a time that is new", [old(new(), b"d"), new().file("d/new", "n").dir("d")]),
        image(
            "a time after a whiteout",
            [old(new(), b"d").file("d/x", ""), new().file("d/.wh.x", "")],
        ),
        image("an attribute that is gone", [attribute(new(), "a"), attribute(new(), "b")]),
        image("an empty layer", [lower(), new(), new().file("new", "n")]),
    ]
}
