//! Archives of a hostile guest.

use super::failure::Result;
use super::{place, unpack};
use msb_archive::{Entry, EntryType, TarWriter};
use msb_state::{Copied, CopyFailureKind, CopyOrder};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

const PLAIN: Entry<'static> = Entry {
    kind: EntryType::Regular,
    name: b"",
    link: b"",
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: (1_000_000_000, 5),
    atime: None,
    device: (0, 0),
    xattrs: &[],
    size: 0,
    sparse: None,
};

type Item<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

fn archive(items: &[Item<'_>]) -> File {
    let mut tar = TarWriter::new(tempfile::tempfile().unwrap());
    for (kind, name, link, content) in items {
        let (name, link) = (name.as_bytes(), link.as_bytes());
        let mode = if *kind == EntryType::Directory { 0o755 } else { 0o4755 };
        let size = content.len() as u64;
        tar.begin(&Entry { kind: *kind, name, link, mode, size, ..PLAIN }).unwrap();
        tar.write_all(content).unwrap();
        tar.end().unwrap();
    }
    let mut file = tar.finish().unwrap();
    file.rewind().unwrap();
    file
}

fn order() -> CopyOrder {
    CopyOrder {
        into: Vec::new(),
        root: b"r".to_vec(),
        target: Some(b"t".to_vec()),
        keep_owner: false,
        sync: false,
        max_bytes: 1 << 20,
        max_entries: 100,
    }
}

fn receive(into: &Path, order: &CopyOrder, file: File) -> Result<Copied> {
    let aside = place::Aside::create(into)?;
    let copied = unpack::unpack(order, file, aside.directory())?;
    place::place(order, &aside)?;
    Ok(copied)
}

use EntryType::{Char, Directory, Fifo, Link, Regular, Symlink};

#[test]
fn k4_nothing_leads_out_of_the_destination() {
    let scratch = tempfile::tempdir().unwrap();
    let (into, out) = (scratch.path().join("into"), scratch.path().join("out"));
    fs::create_dir(&into).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("secret"), "secret").unwrap();
    let out_text = out.to_str().unwrap();
    let secret = format!("{out_text}/secret");
    let absolute = format!("{out_text}/new");
    let dir = (Directory, "r", "", &b""[..]);
    let cases: &[&[Item<'_>]] = &[
        &[(Regular, &absolute, "", b"x")],
        &[(Regular, "../out/new", "", b"x")],
        &[dir, (Regular, "r/../../out/new", "", b"x")],
        &[dir, (Regular, "r/./new", "", b"x")],
        &[dir, (Regular, "r//new", "", b"x")],
        &[(Regular, "other", "", b"x")],
        &[(Regular, "", "", b"x")],
        &[dir, (Symlink, "r/l", out_text, b""), (Regular, "r/l/new", "", b"x")],
        &[(Symlink, "r", out_text, b""), (Regular, "r/new", "", b"x")],
        &[(Symlink, "r", out_text, b""), (Directory, "r", "", b"")],
        &[dir, (Symlink, "r/l", &secret, b""), (Regular, "r/l", "", b"x")],
        &[dir, (Symlink, "r/l", "../../out", b""), (Directory, "r/l/new", "", b"")],
        &[dir, (Link, "r/h", &secret, b"")],
        &[dir, (Link, "r/h", "r/../../out/secret", b"")],
        &[dir, (Symlink, "r/l", out_text, b""), (Link, "r/h", "r/l/secret", b"")],
        &[dir, (Link, "r/h", "r/missing", b"")],
        &[(Regular, "r", "", b"x"), (Regular, "r/below", "", b"x")],
    ];
    for case in cases {
        let failure = receive(&into, &order(), archive(case)).unwrap_err();
        assert_eq!(failure.kind, CopyFailureKind::Archive, "{case:?}: {failure:?}");
        assert_eq!(fs::read_dir(&into).unwrap().count(), 0, "{case:?}");
        assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "{case:?}");
        assert_eq!(fs::metadata(out.join("secret")).unwrap().nlink(), 1);
    }
    assert_eq!(fs::read(out.join("secret")).unwrap(), b"secret");
}

#[test]
fn k4_links_at_the_destination_are_replaced_not_followed() {
    let scratch = tempfile::tempdir().unwrap();
    let (into, out) = (scratch.path().join("into"), scratch.path().join("out"));
    fs::create_dir_all(into.join("t")).unwrap();
    fs::create_dir(&out).unwrap();
    fs::write(out.join("kept"), "kept").unwrap();
    symlink(out.join("kept"), into.join("t/f")).unwrap();
    symlink(&out, into.join("t/d")).unwrap();
    let dir = (Directory, "r", "", &b""[..]);
    receive(&into, &order(), archive(&[dir, (Regular, "r/f", "", b"new")])).unwrap();
    assert_eq!(fs::read(into.join("t/f")).unwrap(), b"new");
    assert!(!into.join("t/f").is_symlink());
    let through = [dir, (Directory, "r/d", "", b""), (Regular, "r/d/kept", "", b"x")];
    let failure = receive(&into, &order(), archive(&through)).unwrap_err();
    assert_eq!(failure.errno, Some(20), "{failure:?}");
    assert_eq!(fs::read(out.join("kept")).unwrap(), b"kept");
}

#[test]
fn k4_special_bits_devices_and_owners_are_not_taken_over() {
    let scratch = tempfile::tempdir().unwrap();
    let items = [
        (Directory, "r", "", &b""[..]),
        (Regular, "r/setuid", "", b"x"),
        (Fifo, "r/fifo", "", b""),
        (Char, "r/device", "", b""),
    ];
    let copied = receive(scratch.path(), &order(), archive(&items)).unwrap();
    let found = fs::metadata(scratch.path().join("t/setuid")).unwrap();
    assert_eq!((found.permissions().mode() & 0o7777, found.mtime()), (0o755, 1_000_000_000));
    assert_eq!((copied.entries, copied.skipped_total), (2, 2));
    assert_eq!(copied.skipped[0], (b"r/fifo".to_vec(), "FIFO".to_owned()));
    assert_eq!(fs::read_dir(scratch.path().join("t")).unwrap().count(), 1);
}

#[test]
fn k4_endless_and_huge_archives_end_at_the_limits() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = (Directory, "r", "", &b""[..]);
    let names: Vec<String> = (0..200).map(|number| format!("r/{number}")).collect();
    let mut many = vec![dir];
    many.extend(names.iter().map(|name| (Regular, name.as_str(), "", &b""[..])));
    let failure = receive(scratch.path(), &order(), archive(&many)).unwrap_err();
    assert_eq!(failure.kind, CopyFailureKind::Limit, "{failure:?}");
    // The header alone says it.
    let mut tar = TarWriter::new(tempfile::tempfile().unwrap());
    tar.begin(&Entry { name: b"r", size: 1 << 40, ..PLAIN }).unwrap();
    let mut file = tar.finish().unwrap();
    file.rewind().unwrap();
    let failure = receive(scratch.path(), &order(), file).unwrap_err();
    assert_eq!(failure.kind, CopyFailureKind::Limit, "{failure:?}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn k4_a_truncated_or_empty_archive_leaves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let whole = archive(&[(Directory, "r", "", b""), (Regular, "r/f", "", &[7; 5000])]);
    for length in [0, 100, 600, 1024, 1100, 4000] {
        let (mut from, mut cut) = (whole.try_clone().unwrap(), tempfile::tempfile().unwrap());
        from.rewind().unwrap();
        std::io::copy(&mut from.take(length), &mut cut).unwrap();
        cut.rewind().unwrap();
        receive(scratch.path(), &order(), cut).unwrap_err();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "{length}");
    }
}
