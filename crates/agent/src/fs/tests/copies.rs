//! Copies: archives in both directions, and copies inside.

use super::path;
use crate::fs::testing::{Host, names, run};
use msb_archive::{Entry, EntryType, Kind, TarReader, TarWriter};
use msb_wire::limits::FS_WINDOW;
use msb_wire::{FsCopyIn, FsCopyOut, FsDone, FsErrorKind, FsOp, FsReply};
use rustix::fs::{FileType, Mode, Timespec, Timestamps, XattrFlags};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

const MEBI: u64 = 1 << 20;

fn done(reply: FsReply) -> FsDone {
    match reply {
        FsReply::Done(done) => done,
        other => panic!("{other:?}"),
    }
}

fn copy_out(at: &str, name: &str) -> FsOp {
    FsOp::CopyOut(FsCopyOut { path: path(at), name: path(name), follow: false })
}

fn copy_in(at: &str) -> FsOp {
    FsOp::CopyIn(FsCopyIn { path: path(at), keep_owner: true, ..FsCopyIn::default() })
}

/// Makes a tree with one of everything. Returns the number of what can be copied.
fn make_tree(root: &Path) -> u64 {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("dir/empty")).unwrap();
    fs::write(at("dir/file"), "content").unwrap();
    fs::hard_link(at("dir/file"), at("dir/second")).unwrap();
    symlink("../nowhere", at("dir/link")).unwrap();
    let sparse = fs::File::create(at("sparse")).unwrap();
    sparse.write_all_at(b"data", 7 * MEBI).unwrap();
    sparse.set_len(64 * MEBI + 1).unwrap();
    fs::write(at("odd\n\u{ff}name"), vec![b'x'; 100_000]).unwrap();
    let long = "n".repeat(200);
    fs::write(at(&long), "").unwrap();
    let set = rustix::fs::setxattr(at("dir/file"), "user.test", b"a\0b", XattrFlags::empty());
    // Not every file system has them.
    assert!(set.is_ok() || set == Err(rustix::io::Errno::OPNOTSUPP));
    for (name, mode) in [("dir/file", 0o4755), ("sparse", 0o400), ("dir", 0o1711), (".", 0o750)] {
        chown(at(name), Some(123), Some(456)).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for name in ["dir/file", "dir/link", "sparse", "dir/empty", "dir", "."] {
        let time = |tv_sec| Timespec { tv_sec, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time(-7), last_modification: time(1_000_000_000) };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, at(name), &times, flags).unwrap();
    }
    9
}

/// What a file is, as far as a copy keeps it.
fn facts(root: &Path) -> Vec<(PathBuf, String)> {
    let (mut facts, mut left) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = left.pop() {
        let at = root.join(&below);
        let found = fs::symlink_metadata(&at).unwrap();
        let content = match found.file_type() {
            kind if kind.is_dir() => {
                left.extend(names(&at).iter().map(|name| below.join(name)));
                Vec::new()
            }
            kind if kind.is_file() => fs::read(&at).unwrap(),
            _ => fs::read_link(&at).unwrap().into_os_string().into_encoded_bytes(),
        };
        let mut value = [0; 10];
        let length = rustix::fs::lgetxattr(&at, "user.test", &mut value[..]).unwrap_or(0);
        let text = format!(
            "{:o} {}:{} {} {:?} {:?} {} {}",
            found.mode(),
            found.uid(),
            found.gid(),
            if found.is_dir() { 0 } else { found.nlink() },
            (found.mtime(), found.mtime_nsec()),
            &value[..length],
            content.len(),
            content
                .iter()
                .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into())),
        );
        facts.push((below, text));
    }
    facts.sort();
    facts
}

#[test]
fn k4_tree_is_the_same_after_out_in_and_inside() {
    run(async || {
        let mut host = Host::start().await;
        fs::create_dir(host.at("tree")).unwrap();
        let count = make_tree(&host.at("tree"));
        let expected = facts(&host.at("tree"));
        assert_eq!(expected.len() as u64, count);

        let (archive, reply) = host.ok(copy_out("/tree", "copy")).await;
        let packed = done(reply);
        assert_eq!((packed.entries, packed.skipped_total), (count, 0));
        assert!((archive.len() as u64) < MEBI, "holes are not sent: {}", archive.len());

        fs::create_dir(host.at("into")).unwrap();
        let unpacked = done(host.feed(copy_in("/into"), &archive).await.unwrap());
        assert_eq!((unpacked.entries, unpacked.bytes), (count, packed.bytes));
        assert_eq!(facts(&host.at("into/copy")), expected);
        assert!(fs::metadata(host.at("into/copy/sparse")).unwrap().blocks() * 512 < MEBI);
        assert_eq!(names(&host.at("into")), ["copy"]);

        let (from, to) = (path("/tree"), path("/inside"));
        let copy = FsOp::Copy { from: from.clone(), to, recursive: true };
        assert_eq!(done(host.ok(copy.clone()).await.1).entries, count);
        assert_eq!(facts(&host.at("inside")), expected);
        // Once more over it: the same.
        host.ok(copy).await;
        assert_eq!(facts(&host.at("inside")), expected);
        let copy = FsOp::Copy { from: from.clone(), to: path("/x"), recursive: false };
        assert_eq!(host.fails(copy).await.errno, 21);
        let copy = FsOp::Copy { from, to: path("/tree/dir/x"), recursive: true };
        assert_eq!(host.fails(copy).await.kind, FsErrorKind::Invalid);
        let (from, to) = (path("/tree/dir/file"), path("/inside/sparse"));
        host.ok(FsOp::Copy { from, to, recursive: false }).await;
        assert_eq!(fs::read(host.at("inside/sparse")).unwrap(), b"content");
        assert_eq!(names(host.folder.path()), ["inside", "into", "tree"]);
    });
}

#[test]
fn k4_devices_and_fifos_are_skipped_and_named() {
    run(async || {
        let mut host = Host::start().await;
        fs::create_dir(host.at("d")).unwrap();
        fs::write(host.at("d/file"), "").unwrap();
        let at = rustix::fs::CWD;
        rustix::fs::mknodat(at, host.at("d/fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(host.at("d/socket")).unwrap();
        let (archive, reply) = host.ok(copy_out("/d", "x")).await;
        let packed = done(reply);
        let mut skipped: Vec<(Vec<u8>, String)> =
            packed.skipped.into_iter().map(|skipped| (skipped.path, skipped.why)).collect();
        skipped.sort();
        let expected = [("x/fifo", "FIFO"), ("x/socket", "socket")];
        assert_eq!(skipped, expected.map(|(name, why)| (path(name), why.to_owned())));
        assert_eq!(list(&archive), ["x", "x/file"]);
        assert_eq!(host.fails(copy_out("/d/fifo", "x")).await.kind, FsErrorKind::Invalid);
        assert_eq!(host.fails(copy_out("/none", "x")).await.kind, FsErrorKind::PathNotFound);
        assert_eq!(host.fails(copy_out("/d", "")).await.kind, FsErrorKind::Invalid);
    });
}

fn list(archive: &[u8]) -> Vec<String> {
    let mut reader = TarReader::new(archive);
    let mut found = Vec::new();
    while let Some(member) = reader.next_member().unwrap() {
        found.push(String::from_utf8(member.path).unwrap());
    }
    found.sort();
    found
}

/// A member to write: its type, name, link and content.
type Made<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

fn archive(members: &[Made<'_>]) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (kind, name, link, content) in members {
        let entry = Entry {
            kind: *kind,
            name: name.as_bytes(),
            link: link.as_bytes(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (1, 0),
            atime: None,
            device: (1, 3),
            xattrs: &[],
            size: content.len() as u64,
            sparse: None,
        };
        writer.begin(&entry).unwrap();
        writer.write_all(content).unwrap();
        writer.end().unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn k4_archive_leads_nowhere_outside() {
    use EntryType::{Directory, Link, Regular, Symlink};
    run(async || {
        let mut host = Host::start().await;
        fs::create_dir_all(host.at("d/real")).unwrap();
        fs::create_dir(host.at("outside")).unwrap();
        fs::write(host.at("outside/file"), "old").unwrap();
        symlink("../outside", host.at("d/link")).unwrap();
        let wrong: [&[Made<'_>]; 10] = [
            &[(Regular, "../outside/file", "", b"x")],
            &[(Regular, "/outside/file", "", b"x")],
            &[(Regular, "a/../../outside/file", "", b"x")],
            &[(Symlink, "out", "../outside", b""), (Regular, "out/file", "", b"x")],
            &[(Symlink, "out", "../outside", b""), (Directory, "out", "", b"")],
            &[(Symlink, "out", "../outside/file", b""), (Link, "in", "out/x", b"")],
            &[(Link, "in", "../outside/file", b"")],
            &[(Link, "in", "/outside/file", b"")],
            &[(Regular, "link/file", "", b"x")],
            &[(Regular, "real", "", b"x")],
        ];
        for members in wrong {
            let error = host.feed(copy_in("/d"), &archive(members)).await.unwrap_err();
            let expected = matches!(error.errno, 20 | 21 | 22 | 40);
            assert!(expected, "{members:?}: {error:?}");
            assert_eq!(names(&host.at("d")), ["link", "real"], "{members:?}");
        }
        // A link may say anything. It is replaced, and its target is not touched.
        let right: &[Made<'_>] = &[
            (Symlink, "l", "/outside", b""),
            (Regular, "l", "", b"1"),
            (Regular, "link", "", b"2"),
        ];
        host.feed(copy_in("/d"), &archive(right)).await.unwrap();
        assert_eq!(fs::read(host.at("d/l")).unwrap(), b"1");
        assert_eq!(fs::read(host.at("d/link")).unwrap(), b"2");
        assert_eq!(names(&host.at("outside")), ["file"]);
        assert_eq!(fs::read(host.at("outside/file")).unwrap(), b"old");
    });
}

#[test]
fn k4_malformed_archives_are_refused_and_leave_nothing() {
    run(async || {
        let mut host = Host::start().await;
        fs::create_dir(host.at("d")).unwrap();
        let good = archive(&[(EntryType::Regular, "a", "", &[b'x'; 2000])]);
        let mut wrong_sum = good.clone();
        wrong_sum[0] = b'b';
        for bytes in [&b"not an archive"[..], &good[..700], &good[..1500], &wrong_sum] {
            let error = host.feed(copy_in("/d"), bytes).await.unwrap_err();
            assert_eq!(error.kind, FsErrorKind::Invalid, "{error:?}");
            assert_eq!(names(&host.at("d")).len(), 0);
        }
        assert_eq!(host.feed(copy_in("/no"), &good).await.unwrap_err().errno, 2);
        // No member at all is an archive.
        host.feed(copy_in("/d"), &[]).await.unwrap();
        assert_eq!(names(&host.at("d")).len(), 0);
    });
}

#[test]
fn k4_merge_replaces_files_and_keeps_the_rest() {
    use EntryType::{Directory, Regular};
    run(async || {
        let mut host = Host::start().await;
        fs::create_dir_all(host.at("d/sub")).unwrap();
        fs::set_permissions(host.at("d/sub"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(host.at("d/sub/old"), "old").unwrap();
        fs::write(host.at("d/sub/both"), "old").unwrap();
        let with = |name| [(Regular, "sub/both", "", &b"new"[..]), (Regular, name, "", &b"1"[..])];
        let only_new = FsCopyIn { path: path("/d"), no_replace: true, ..FsCopyIn::default() };
        let made = archive(&with("sub/a/new"));
        let error = host.feed(FsOp::CopyIn(only_new), &made).await.unwrap_err();
        assert_eq!((error.errno, error.path.as_slice()), (17, &b"/d/sub/both"[..]));
        assert_eq!(names(&host.at("d/sub")), ["both", "old"]);
        host.feed(copy_in("/d"), &made).await.unwrap();
        assert_eq!(fs::read(host.at("d/sub/both")).unwrap(), b"new");
        assert_eq!(names(&host.at("d/sub")), ["a", "both", "old"]);
        // The archive does not say what the directory is like.
        assert_eq!(fs::metadata(host.at("d/sub")).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(host.at("d/sub/a")).unwrap().mode() & 0o777, 0o755);
        host.feed(copy_in("/d"), &archive(&[(Directory, "sub", "", b"")])).await.unwrap();
        let merged = fs::metadata(host.at("d/sub")).unwrap();
        assert_eq!((merged.mode() & 0o777, merged.mtime()), (0o755, 1));
        // An obstacle anywhere changes nothing.
        let obstacle = archive(&[(Regular, "a", "", b""), (Regular, "sub/old/x", "", b"")]);
        assert_eq!(host.feed(copy_in("/d"), &obstacle).await.unwrap_err().errno, 20);
        assert_eq!(names(&host.at("d")), ["sub"]);
    });
}

#[test]
fn k3_copy_cancelled_leaves_nothing() {
    run(async || {
        let mut host = Host::start().await;
        fs::create_dir(host.at("d")).unwrap();
        let content = vec![b'x'; 4 * FS_WINDOW as usize];
        let made = archive(&[
            (EntryType::Regular, "sub/first", "", b"1"),
            (EntryType::Regular, "sub/large", "", &content),
        ]);
        for lost in [false, true] {
            let channel = host.begin(copy_in("/d")).await;
            host.write(channel, &made[..made.len() / 2]).await;
            assert_eq!(names(&host.at("d")).len(), 1, "under way");
            if lost {
                host = host.reconnect().await;
            } else {
                host.close(channel).await;
            }
            host.settle().await;
            assert_eq!(names(&host.at("d")).len(), 0);
        }
    });
}

#[test]
fn k4_user_copies_with_own_rights_and_own_files() {
    run(async || {
        let mut host = Host::start().await;
        fs::set_permissions(host.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(host.at("roots")).unwrap();
        fs::create_dir(host.at("own")).unwrap();
        chown(host.at("own"), Some(1234), Some(1234)).unwrap();
        fs::write(host.at("own/secret"), "").unwrap();
        fs::set_permissions(host.at("own/secret"), fs::Permissions::from_mode(0o600)).unwrap();
        host.become_user("1234:1234");
        let made = archive(&[(EntryType::Regular, "a/b", "", b"x")]);
        let error = host.feed(copy_in("/roots"), &made).await.unwrap_err();
        assert_eq!(error.kind, FsErrorKind::PermissionDenied);
        // To keep root's ownership is a right that the user does not have.
        let error = host.feed(copy_in("/own"), &made).await.unwrap_err();
        assert_eq!(error.kind, FsErrorKind::PermissionDenied);
        let plain = FsCopyIn { path: path("/own"), ..FsCopyIn::default() };
        host.feed(FsOp::CopyIn(plain), &made).await.unwrap();
        assert_eq!(fs::metadata(host.at("own/a/b")).unwrap().uid(), 1234);
        let error = host.fails(copy_out("/own", "x")).await;
        assert_eq!(
            (error.kind, error.path.as_slice()),
            (FsErrorKind::PermissionDenied, &b"/own/secret"[..],)
        );
        assert_eq!(names(&host.at("own")), ["a", "secret"]);
    });
}

#[test]
fn k4_members_have_what_a_header_cannot_hold() {
    run(async || {
        let mut host = Host::start().await;
        fs::create_dir(host.at("d")).unwrap();
        let name = "x".repeat(255);
        fs::write(host.at(&format!("d/{name}")), "content").unwrap();
        let (archive, _) = host.ok(copy_out("/d", "d")).await;
        let mut reader = TarReader::new(&archive[..]);
        assert_eq!(reader.next_member().unwrap().unwrap().kind, Kind::Directory);
        let member = reader.next_member().unwrap().unwrap();
        let found = fs::metadata(host.at(&format!("d/{name}"))).unwrap();
        assert_eq!(member.path, format!("d/{name}").into_bytes());
        assert_eq!(member.mtime, (found.mtime(), u32::try_from(found.mtime_nsec()).unwrap()));
        assert!(member.atime.is_some());
        let mut content = String::new();
        reader.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
    });
}
