//! Single archives.

use super::{Case, differs, refused, refused_bytes, same, same_bytes};
use crate::testing::{Archive, bzip2, gzip, xz, zstd};
use tar::EntryType;

pub(super) const POSIX: &[u8] = b"ustar\x0000";
const NO_MAGIC: &[u8] = &[0; 8];
pub(super) const MAGIC_AT: usize = 257;
const PREFIX_AT: usize = 345;
const MODE_AT: usize = 100;
/// The mode of a directory that any user may fill.
const OPEN: &[u8] = b"0000755\0";
const UID_AT: usize = 108;
const SIZE_AT: usize = 124;
const TIME_AT: usize = 136;
const KIND_AT: usize = 156;
const LINK_AT: usize = 157;

fn new() -> Archive {
    Archive::new()
}

/// An archive with a member before and one behind, to see that no one is lost.
pub(super) fn between(middle: impl FnOnce(Archive) -> Archive) -> Archive {
    middle(new().file("before", "1")).file("behind", "2")
}

pub(super) fn kind(letter: u8) -> EntryType {
    EntryType::new(letter)
}

fn sized(archive: Archive, letter: u8, name: &[u8], size: u64) -> Archive {
    archive.raw(kind(letter), name, size, b"", |_| {})
}

fn repeated(text: &str, length: usize) -> String {
    text.chars().cycle().take(length).collect()
}

pub(super) fn types() -> Vec<Case> {
    let every = new().dir("d").file("d/f", "x").symlink("d/s", "f").hard_link("d/h", "d/f");
    let every = every.mode("d/p", EntryType::Fifo, 0o640);
    let device = |major: u32, minor: u32| {
        move |header: &mut tar::Header| {
            header.set_device_major(major).unwrap();
            header.set_device_minor(minor).unwrap();
        }
    };
    let devices = new().raw(EntryType::Char, b"null", 0, b"", device(1, 3)).raw(
        EntryType::Block,
        b"loop",
        0,
        b"",
        device(7, 200),
    );
    let label = |archive: Archive| {
        let label = archive.raw(kind(b'V'), b"a label", 0, b"", |_| {});
        label.edit(MODE_AT, &[0; 24]).edit(SIZE_AT, &[0; 12])
    };
    let incremental = |archive: Archive| {
        archive.raw(kind(b'D'), b"d/", 4, b"Yf\0\0", |header| header.set_mode(0o755))
    };
    let mut cases = vec![
        same("every type", every),
        same("a contiguous file", between(|a| a.raw(kind(b'7'), b"c", 1, b"c", |_| {}))),
        same("a type of NUL", between(|a| a.file("f", "x").edit(KIND_AT, b"\0"))),
        same("no magic", between(|a| a.file("f", "x").edit(MAGIC_AT, NO_MAGIC))),
        same(
            "a directory of old",
            between(|a| a.file("d/", "").edit(KIND_AT, b"\0").edit(MODE_AT, OPEN)).file("d/f", ""),
        ),
        same("a directory by its slash", between(|a| a.file("d/", ""))),
        refused(
            "its slash and content",
            between(|a| a.file("d/", "x")),
            "\"d/\": a directory has content",
        ),
        same(
            "a symlink with a size",
            between(|a| sized(a, b'2', b"l", 11).edit(LINK_AT, b"target-name")),
        ),
        same(
            "a hard link with a size",
            between(|a| sized(a, b'1', b"l", 1).edit(LINK_AT, b"before")),
        ),
        same("a FIFO with a size", between(|a| sized(a, b'6', b"p", 600))),
        same("a label with NULs", label(new()).file("f", "x")),
        same("a label in the middle", between(label)),
        same("a name list of a directory", between(incremental).file("d/f", "")),
        refused(
            "another volume",
            between(|a| sized(a, b'M', b"part", 0)),
            "\"part\": it continues another volume",
        ),
        refused(
            "an old long name",
            between(|a| sized(a, b'N', b"n", 0)),
            "\"n\": its type 'N' is not known",
        ),
        refused(
            "an access list",
            between(|a| sized(a, b'A', b"n", 0)),
            "its type 'A' is not known",
        ),
        refused(
            "a type of a control byte",
            between(|a| sized(a, 1, b"n", 0)),
            "its type '\\u{1}' is not known",
        ),
    ];
    cases.push(same(
        "a directory with a size",
        between(|a| sized(a, b'5', b"d", 4096).edit(MODE_AT, OPEN)).file("d/f", ""),
    ));
    if super::is_root() {
        cases.push(same("devices", devices));
        let sized = between(|a| a.raw(EntryType::Char, b"c", 512, b"", device(1, 5)));
        cases.push(same("a device with a size", sized));
    }
    cases
}

pub(super) fn names() -> Vec<Case> {
    let exact = repeated("n", 100);
    let prefix = format!("{}/{}", repeated("p", 100), repeated("q", 54));
    let with_prefix = |length: usize| {
        let prefix = &prefix.as_bytes()[..length];
        new().file(&exact, "x").edit(MAGIC_AT, POSIX).edit(PREFIX_AT, prefix)
    };
    let long = format!("{}/{}", repeated("d", 150), repeated("f", 150));
    let (name, link) = (EntryType::GNULongName, EntryType::GNULongLink);
    vec![
        same("a name of 100 bytes", between(|a| a.file(&exact, "x"))),
        same("a name of 99 bytes", between(|a| a.file(&exact[..99], "x"))),
        same("a prefix", with_prefix(8)),
        same("a prefix of 155 bytes", with_prefix(155)),
        same("no prefix without the magic", new().file("f", "x").edit(PREFIX_AT, b"00000000000")),
        same("a target of 100 bytes", new().symlink("l", &exact)),
        same("a hard link to 100 bytes", new().file(&exact, "x").hard_link("l", &exact)),
        same("a long name", between(|a| a.long(name, long.as_bytes()).file("cut", "x"))),
        same("a long name of a directory", new().long(name, &long.as_bytes()[..150]).dir("cut")),
        same("a long target", between(|a| a.long(link, long.as_bytes()).symlink("l", "cut"))),
        same(
            "both long",
            new()
                .long(name, long.as_bytes())
                .file("cut", "x")
                .long(link, long.as_bytes())
                .long(name, format!("{long}2").as_bytes())
                .hard_link("cut", "cut"),
        ),
        same("a long name with a NUL", between(|a| a.long(name, b"name\0rest").file("cut", "x"))),
        same("a name with a newline", new().file("a\nb", "x").symlink("l\n", "a\nb")),
        same(
            "a name of other bytes",
            new().raw(EntryType::Regular, b"\xff\xfe\xe9", 0, b"", |_| {}),
        ),
        same("a name with blanks", new().file(" a b ", "x").dir("c\\d").file("c\\d/e", "y")),
        same("dots and slashes", new().dir("./").file("./a//b", "1").file("c/./d", "2").dir("e//")),
        same("an absolute name", new().file("/a", "1").file("//b/c", "2")),
        refused("dots that lead out", new().file("a/../../b", "x"), "leads out of the image"),
        refused("no name", new().file("", "x"), "its root is not a directory"),
    ]
}

pub(super) fn numbers() -> Vec<Case> {
    let file = |at: usize, bytes: &'static [u8]| between(|a| a.file("f", "x").edit(at, bytes));
    let invalid = |at: usize, bytes: &'static [u8]| between(|a| a.file("f", "").edit(at, bytes));
    let one = b"00000000001";
    let time = |bytes| file(TIME_AT, bytes);
    let signed = new().raw(EntryType::Regular, b"\xe9t\xe9", 1, b"x", |_| {}).signed_checksum();
    let mut wrong = new().file("f", "x").end();
    wrong[0] = b'g';
    vec![
        same("digits after blanks", file(MODE_AT, b"   640\0 ")),
        same("digits before a blank", file(MODE_AT, b"0000640 ")),
        same("digits without an end", file(TIME_AT, b"007346545000")),
        same("digits after a NUL", file(MODE_AT, b"\x00640\0\0\0\0")),
        same("a mode with a file type", file(MODE_AT, b"0100640\0")),
        same("no owner", file(UID_AT, &[0; 16])),
        same("a time of NULs", time(&[0; 12])),
        differs(
            same("a time of blanks", file(TIME_AT, b"            ")),
            "GNU tar complains, and takes -1; other readers take 0",
            &["-f -0644 0:0 -1.000000000 \"x\"", "+f -0644 0:0 0.000000000 \"x\""],
        ),
        same(
            "a binary size",
            between(|a| a.file("f", "x").edit(SIZE_AT, b"\x80\0\0\0\0\0\0\0\0\0\0\x01")),
        ),
        same("a binary owner", file(UID_AT, b"\x80\0\0\0\x7f\xff\xff\xff")),
        same("a binary time", time(b"\x80\0\0\0\0\0\0\x02\0\0\0\0")),
        same("a negative time", time(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xae\x80")),
        same("signed bytes in the sum", signed.file("behind", "2")),
        same("both sums", new().file("ascii", "x").signed_checksum()),
        refused_bytes("a wrong sum", wrong, "a header has a wrong checksum"),
        refused(
            "digits of another base",
            invalid(SIZE_AT, b"0000000009\0 "),
            "\"f\": its header has an invalid size",
        ),
        refused(
            "a negative size",
            invalid(SIZE_AT, &[0xff; 12]),
            "\"f\": its header has an invalid size",
        ),
        refused("letters in a mode", invalid(MODE_AT, b"rw-r--r-"), "an invalid mode"),
        refused(
            "a time that overflows",
            invalid(TIME_AT, b"\x80\x01\0\0\0\0\0\0\0\0\0\0"),
            "an invalid time",
        ),
        refused(
            "an owner that overflows",
            invalid(UID_AT, b"\x80\0\0\x01\0\0\0\0"),
            "4294967296 is no user",
        ),
        refused("a negative owner", invalid(UID_AT, &[0xff; 8]), "-1 is no user"),
        same(
            "a size of 12 digits",
            new().file("f", "x").edit(SIZE_AT, one).edit(SIZE_AT + 11, b"\0"),
        ),
    ]
}

fn with_pax(records: &[(&str, &[u8])]) -> Archive {
    between(|a| a.pax(records).file("f", "x"))
}

fn global(records: &[(&str, &[u8])], archive: Archive) -> Archive {
    archive.pax(records).edit(KIND_AT, b"g")
}

pub(super) fn pax() -> Vec<Case> {
    let long = repeated("long/", 300);
    let path = long.trim_end_matches('/').as_bytes();
    let time = |text: &'static [u8]| with_pax(&[("mtime", text)]);
    let three = b"000000000000";
    let sized = new().pax(&[("size", b"3")]).raw(EntryType::Regular, b"f", 3, b"abc", |_| {});
    let target = new().pax(&[("linkpath", path)]).symlink("l", "cut");
    let target = target.pax(&[("linkpath", b"t")]).file("t", "x").hard_link("h", "t");
    let label: [(&str, &[u8]); 1] = [("GNU.volume.label", b"a label")];
    let both = new().long(EntryType::GNULongName, b"gnu").pax(&[("path", b"pax")]).file("f", "x");
    let solaris = between(|a| a.pax(&[("path", b"g")]).edit(KIND_AT, b"X").file("f", "x"));
    let malformed = between(|a| a.raw(EntryType::XHeader, b"pax", 8, b"9 a=b\n\n\n", |_| {}));
    let unknown: [(&str, &[u8]); 4] =
        [("VENDOR.key", b"v"), ("atime", b"1.5"), ("ctime", b"1"), ("comment", b"\n\n=")];
    let names: [(&str, &[u8]); 2] = [("uname", b"nobody"), ("gname", b"nogroup")];
    let ids: [(&str, &[u8]); 2] = [("uid", b"3000000"), ("gid", b"4000000")];
    let twice: [(&str, &[u8]); 2] = [("path", b"one"), ("path", b"two")];
    let capability = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let attributes: [(&str, &[u8]); 2] =
        [("SCHILY.xattr.user.a", b"1\n\n2\0=3"), ("SCHILY.xattr.security.capability", capability)];
    let older = global(&[("mtime", b"5.25")], new().file("a", "1")).file("b", "2");
    let older = older.pax(&[("mtime", b"6")]).file("c", "3");
    let newer = global(&[("mtime", b"7")], older).file("d", "4");
    vec![
        same("a path", with_pax(&[("path", path)])),
        same("a path of other bytes", with_pax(&[("path", b"\xc3\xa9\xff")])),
        same("a path with a newline", with_pax(&[("path", b"a\n\nb")])),
        same("targets", target),
        same("a size of records", sized.edit(SIZE_AT, three).file("behind", "2")),
        same("large ids", with_pax(&ids)),
        same("names of owners", with_pax(&names)),
        same("a fraction of a time", time(b"1234567890.123456789")),
        same("a longer fraction", time(b"1234567890.1234567891234")),
        same("a time before 1970", time(b"-86400")),
        same("a fraction before 1970", time(b"-86400.5")),
        same("less than a second before", time(b"-0.25")),
        same("the year 2242", time(b"8589934592")),
        refused("a time of letters", time(b"1e9"), "mtime is \"1e9\""),
        same("unknown keys", with_pax(&unknown)),
        same("a character set", with_pax(&[("hdrcharset", b"BINARY"), ("path", b"\xff")])),
        same("the last of two records", with_pax(&twice)),
        same(
            "the last of two headers",
            between(|a| a.pax(&[("path", b"1")]).pax(&[("path", b"2")]).file("f", "")),
        ),
        same("attributes", with_pax(&attributes)),
        differs(
            same("an empty path", with_pax(&[("path", b"")])),
            "POSIX: an empty value deletes the record; GNU tar extracts a file without a name",
            &["+f -0644 0:0 1000000000.000000000 \"x\""],
        ),
        same("GNU's and a path", both),
        same("a header of Solaris", solaris),
        same("a global time", newer),
        same("a global comment", global(&[("comment", b"0123456789")], new()).file("f", "x")),
        same("a label in pax", global(&label, new()).file("f", "x")),
        refused(
            "a global path",
            global(&[("path", b"p")], new()).file("f", "x"),
            "a global header sets \"path\"",
        ),
        refused(
            "global attributes",
            global(&attributes, new()).file("f", "x"),
            "sets \"SCHILY.xattr.user.a\"",
        ),
        refused(
            "a volume in pax",
            global(&[("GNU.volume.filename", b"p")], new()),
            "continues another volume",
        ),
        refused("a malformed record", malformed.file("f", "x"), "a malformed record"),
        refused("a size of letters", with_pax(&[("size", b"x")]), "size is \"x\""),
        refused(
            "a target with a NUL",
            between(|a| a.pax(&[("linkpath", b"a\0b")]).symlink("l", "")),
            "linkpath is",
        ),
        refused("a path with a NUL", with_pax(&[("path", b"a\0b")]), "path is \"a\\0b\""),
        refused(
            "no member behind records",
            new().pax(&[("path", b"p")]),
            "it ends before a member",
        ),
    ]
}

pub(super) fn orders() -> Vec<Case> {
    let mut cases = vec![
        same("a child before its parent", new().file("d/e/f", "x").dir("d").dir("d/e")),
        same("no parents", new().file("a/b/c/d", "x")),
        same(
            "a directory twice",
            new().dir("d").edit(MODE_AT, b"0000700\0").file("d/f", "").dir("d"),
        ),
        same("the root", new().mode("./", EntryType::Directory, 0o711).file("f", "x")),
        same("the root last", new().file("f", "x").mode(".", EntryType::Directory, 0o1777)),
        same("a hard link to a symlink", new().symlink("s", "nowhere").hard_link("h", "s")),
        same(
            "a hard link of a hard link",
            new().file("a", "").hard_link("b", "a").hard_link("c", "b"),
        ),
        same(
            "set ids and sticky",
            new().mode("s", EntryType::Regular, 0o7755).mode("d", EntryType::Directory, 0o3770),
        ),
        refused(
            "a hard link to nothing",
            new().hard_link("h", "no"),
            "hard link to \"no\": not in the image",
        ),
        refused(
            "a hard link to itself",
            new().file("f", "x").hard_link("f", "f"),
            "hard link to \"f\": not in",
        ),
    ];
    // Other users may not create files in it.
    if super::is_root() {
        let closed = new().mode("d", EntryType::Directory, 0).file("d/f", "x");
        cases.push(same("a closed directory", closed));
    }
    cases
}

pub(super) fn streams() -> Vec<Case> {
    let archive = || new().file("a", &repeated("text ", 3000)).file("b", "2");
    let tar = archive().end();
    let (left, right) = tar.split_at(700);
    let twice = |pack: fn(&[u8]) -> Vec<u8>| [pack(left), pack(right)].concat();
    let skippable = b"\x50\x2a\x4d\x18\x04\0\0\0skip";
    let trailed = |packed: Vec<u8>| [packed, b"garbage".repeat(4)].concat();
    let cut = |packed: Vec<u8>| packed[..packed.len() - 5].to_vec();
    let lone = [new().file("a", "1").open_end(), vec![0; 512], new().file("b", "2").end()].concat();
    let mut unpadded = new().file("a", "1").open_end();
    unpadded.truncate(513);
    let mut cases = vec![
        same_bytes("gzip", gzip(&tar)),
        same_bytes("bzip2", bzip2(&tar)),
        same_bytes("xz", xz(&tar)),
        same_bytes("zstd", zstd(&tar)),
        same_bytes("two members of gzip", twice(gzip)),
        same_bytes("two streams of bzip2", twice(bzip2)),
        same_bytes("two streams of xz", twice(xz)),
        same_bytes("two frames of zstd", [zstd(left), skippable.to_vec(), zstd(right)].concat()),
        same_bytes("zeros behind xz", [xz(&tar), vec![0; 512]].concat()),
        refused_bytes("garbage behind gzip", trailed(gzip(&tar)), "invalid gzip header"),
        refused_bytes("garbage behind bzip2", trailed(bzip2(&tar)), "bz"),
        refused_bytes("garbage behind xz", trailed(xz(&tar)), "invalid data after stream"),
        refused_bytes("garbage behind zstd", trailed(zstd(&tar)), "frame"),
        refused_bytes("gzip cut", cut(gzip(&tar)), "cannot read an archive"),
        refused_bytes("bzip2 cut", cut(bzip2(&tar)), "cannot read an archive"),
        refused_bytes("xz cut", cut(xz(&tar)), "cannot read an archive"),
        refused_bytes("zstd cut", cut(zstd(&tar)), "cannot read an archive"),
        same_bytes("garbage behind the end", [tar.clone(), b"garbage".repeat(200)].concat()),
        same_bytes("an archive behind the end", [tar.clone(), new().file("c", "").end()].concat()),
        same_bytes("no end", archive().open_end()),
        same_bytes("nothing but the end", new().end()),
        refused_bytes("one block of zeros", lone, "data after a single block of zeros"),
        refused_bytes("cut in a file", tar[..1500].to_vec(), "truncated in a file"),
        refused_bytes("cut in a header", tar[..300].to_vec(), "truncated in a header"),
        refused_bytes("no archive", b"#!/bin/sh\n".repeat(100), "a header has a wrong checksum"),
    ];
    // For other users, GNU tar leaves another mode.
    if super::is_root() {
        cases.push(differs(
            same_bytes("no padding", unpadded),
            "the content is whole; GNU tar complains that the archive ends in a block",
            &["-a -0600 0:0 now \"\"", "+a -0644 0:0 1000000000.000000000 \"1\""],
        ));
    }
    cases
}
