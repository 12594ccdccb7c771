//! Operations through the agent's whole path: frames, credit, threads, rights.

mod copies;
mod watches;

use super::testing::{Host, names, run};
use msb_wire::fs::decode_entries;
use msb_wire::limits::{FS_HANDLES, FS_WINDOW, MAX_DATA, OUTPUT_WINDOW};
use msb_wire::{
    FsAttributes, FsDone, FsErrorKind, FsFileKind, FsOp, FsOpen, FsReply, FsStat, FsTime, FsWrite,
    FsWriteStart,
};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EEXIST: i32 = 17;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;

fn path(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn read(at: &str) -> FsOp {
    FsOp::Read { path: path(at), offset: 0, length: None, special: false }
}

fn write(at: &str) -> FsWrite {
    FsWrite { path: path(at), ..FsWrite::default() }
}

fn stat(at: &str, follow: bool) -> FsOp {
    FsOp::Stat { path: path(at), follow }
}

fn bytes(reply: &FsReply) -> u64 {
    match reply {
        FsReply::Done(FsDone { bytes, .. }) => *bytes,
        other => panic!("{other:?}"),
    }
}

fn attributes(reply: FsReply) -> FsStat {
    match reply {
        FsReply::Stat(stat) => stat,
        other => panic!("{other:?}"),
    }
}

/// Bytes that do not repeat within a frame.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at * 167 + (at >> 8)) & 0xff) as u8).collect()
}

#[test]
fn k1_any_bytes_and_any_size_are_written_and_read() {
    run(async || {
        let mut host = Host::start().await;
        for length in [0, 1, MAX_DATA, MAX_DATA + 1, 5_000_003] {
            let content = pattern(length);
            let reply = host.feed(FsOp::Write(write("/file")), &content).await.unwrap();
            assert_eq!(bytes(&reply), length as u64);
            assert!(fs::read(host.at("file")).unwrap() == content);
            let (data, reply) = host.ok(read("/file")).await;
            assert!(data == content && bytes(&reply) == length as u64);
        }
        for (offset, length, expected) in
            [(0, Some(3), 0..3), (5_000_000, None, 5_000_000..5_000_003), (9_999_999, None, 0..0)]
        {
            let op = FsOp::Read { path: path("/file"), offset, length, special: false };
            let (data, _) = host.ok(op).await;
            assert_eq!(data, pattern(5_000_003)[expected]);
        }
        assert_eq!(fs::metadata(host.at("file")).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(names(host.folder.path()), ["file"]);
    });
}

#[test]
fn k1_any_name_works_and_lists_come_whole() {
    run(async || {
        let mut host = Host::start().await;
        host.ok(FsOp::Mkdir { path: path("/d"), parents: false, mode: Some(0o700) }).await;
        let odd = [&b"\xff\xfe"[..], b"new\nline", b" ", b"-rf", &[b'x'; 255]];
        for name in odd {
            let at = [b"/d/", name].concat();
            let op = FsOp::Write(FsWrite { path: at.clone(), ..FsWrite::default() });
            host.feed(op, b"x").await.unwrap();
            host.ok(FsOp::Read { path: at, offset: 0, length: None, special: false }).await;
        }
        for number in 0..3000 {
            fs::write(host.at(&format!("d/file-with-a-longer-name-{number}")), "").unwrap();
        }
        symlink("nowhere", host.at("d/link")).unwrap();
        let (data, reply) = host.ok(FsOp::List { path: path("/d") }).await;
        assert_eq!(reply, FsReply::Done(FsDone { entries: 3006, ..FsDone::default() }));
        let mut found = BTreeSet::new();
        let mut rest = &data[..];
        assert!(host.lengths.len() > 1, "several pages");
        for length in &host.lengths {
            let (page, tail) = rest.split_at(*length);
            for entry in decode_entries(page).unwrap() {
                if entry.name == b"link" {
                    assert_eq!(entry.stat.kind, FsFileKind::Symlink);
                }
                assert!(found.insert(entry.name), "twice");
            }
            rest = tail;
        }
        assert!(found.len() == 3006 && odd.iter().all(|name| found.contains(*name)));
        assert_eq!(host.fails(FsOp::List { path: path("/d/link") }).await.errno, ENOENT);
        assert_eq!(host.fails(FsOp::List { path: path("/d/ ") }).await.errno, ENOTDIR);
    });
}

#[test]
fn k1_names_are_made_renamed_and_removed() {
    run(async || {
        let mut host = Host::start().await;
        let mkdir = |at: &str, parents| FsOp::Mkdir { path: path(at), parents, mode: None };
        assert_eq!(host.fails(mkdir("/a/b/c", false)).await.errno, ENOENT);
        host.ok(mkdir("/a/b/c/", true)).await;
        host.ok(mkdir("/a/b/c", true)).await;
        assert_eq!(host.fails(mkdir("/a/b/c", false)).await.errno, EEXIST);
        fs::write(host.at("a/file"), "1").unwrap();
        assert_eq!(host.fails(mkdir("/a/file", true)).await.errno, EEXIST);
        assert_eq!(host.fails(mkdir("/a/file/x", true)).await.errno, ENOTDIR);

        let link = |at: &str, target: &str| FsOp::Symlink { target: path(target), path: path(at) };
        host.ok(link("/l", "a/b/../file")).await;
        assert_eq!(host.fails(link("/l", "x")).await.errno, EEXIST);
        let (_, says) = host.ok(FsOp::ReadLink { path: path("/l") }).await;
        assert_eq!(says, FsReply::Path(path("a/b/../file")));
        let (_, real) = host.ok(FsOp::RealPath { path: path("/l") }).await;
        assert_eq!(real, FsReply::Path(path("/a/file")));
        for (at, expected) in [("/l", true), ("/a", true), ("/b", false), ("/l/x", false)] {
            let (_, reply) = host.ok(FsOp::Exists { path: path(at) }).await;
            assert_eq!(reply, FsReply::Exists(expected), "{at}");
        }
        let rename = |from: &str, to: &str, no_replace| FsOp::Rename {
            from: path(from),
            to: path(to),
            no_replace,
        };
        host.ok(rename("/a/file", "/moved", false)).await;
        fs::write(host.at("other"), "2").unwrap();
        let error = host.fails(rename("/moved", "/other", true)).await;
        assert_eq!((error.errno, error.path.as_slice()), (EEXIST, &b"/other"[..]));
        host.ok(rename("/moved", "/other", false)).await;
        assert_eq!(fs::read(host.at("other")).unwrap(), b"1");

        assert_eq!(host.fails(FsOp::Remove { path: path("/a") }).await.errno, EISDIR);
        host.ok(FsOp::Remove { path: path("/l") }).await;
        let remove = |at: &str, recursive| FsOp::RemoveDir { path: path(at), recursive };
        assert_eq!(host.fails(remove("/a", false)).await.errno, 39);
        assert_eq!(host.fails(remove("/other", true)).await.errno, ENOTDIR);
        symlink("/other", host.at("a/b/to-other")).unwrap();
        let (_, reply) = host.ok(remove("/a", true)).await;
        assert_eq!(reply, FsReply::Done(FsDone { entries: 4, ..FsDone::default() }));
        assert_eq!(host.fails(remove("/a", true)).await.errno, ENOENT);
        assert_eq!(host.fails(remove("/", true)).await.kind, FsErrorKind::Filesystem);
        assert_eq!(names(host.folder.path()), ["other"]);
    });
}

#[test]
fn k1_attributes_are_set_and_returned() {
    run(async || {
        let mut host = Host::start().await;
        fs::write(host.at("file"), "12345").unwrap();
        symlink("file", host.at("link")).unwrap();
        let time = |seconds| Some(FsTime { seconds, nanos: 123_456_789 });
        let new = FsAttributes {
            mode: Some(0o4751),
            uid: Some(1234),
            gid: Some(5678),
            accessed: time(-5),
            modified: time(1 << 32),
            size: Some(1 << 20),
        };
        let set = |follow, attributes| FsOp::SetStat { path: path("/link"), follow, attributes };
        host.ok(set(true, new)).await;
        let found = attributes(host.ok(stat("/link", true)).await.1);
        assert_eq!((found.mode, found.uid, found.gid, found.size), (0o4751, 1234, 5678, 1 << 20));
        assert_eq!((Some(found.accessed), Some(found.modified)), (new.accessed, new.modified));
        assert_eq!((found.kind, found.links), (FsFileKind::File, 1));
        assert!(found.allocated < 1 << 20, "a hole");

        let owner = FsAttributes { uid: Some(7), ..FsAttributes::default() };
        host.ok(set(false, owner)).await;
        let link = attributes(host.ok(stat("/link", false)).await.1);
        assert_eq!((link.kind, link.uid, link.size), (FsFileKind::Symlink, 7, 4));
        let mode = FsAttributes { mode: Some(0o600), ..FsAttributes::default() };
        assert_eq!(host.fails(set(false, mode)).await.kind, FsErrorKind::Unsupported);
        for wrong in [
            FsAttributes { mode: Some(0o10000), ..FsAttributes::default() },
            FsAttributes { uid: Some(u32::MAX), ..FsAttributes::default() },
            FsAttributes {
                modified: Some(FsTime { seconds: 0, nanos: u32::MAX }),
                ..FsAttributes::default()
            },
        ] {
            assert_eq!(host.fails(set(true, wrong)).await.kind, FsErrorKind::Invalid);
        }
    });
}

#[test]
fn k1_handles_read_write_and_list() {
    run(async || {
        let mut host = Host::start().await;
        let open = FsOpen { path: path("/f"), read: true, write: true, ..FsOpen::default() };
        assert_eq!(host.fails(FsOp::Open(open.clone())).await.errno, ENOENT);
        let open = FsOpen { create: true, mode: Some(0o640), ..open };
        let (_, FsReply::Handle(handle)) = host.ok(FsOp::Open(open.clone())).await else {
            panic!()
        };
        host.feed(FsOp::WriteAt { handle, offset: 100_000 }, b"end").await.unwrap();
        host.feed(FsOp::WriteAt { handle, offset: 0 }, b"begin").await.unwrap();
        let (data, _) = host.ok(FsOp::ReadAt { handle, offset: 99_999, length: Some(3) }).await;
        assert_eq!(data, b"\0en");
        let found = attributes(host.ok(FsOp::StatHandle { handle }).await.1);
        assert_eq!((found.size, found.mode), (100_003, 0o640));
        let new = FsAttributes { size: Some(5), ..FsAttributes::default() };
        host.ok(FsOp::SetStatHandle { handle, attributes: new }).await;
        host.ok(FsOp::CloseHandle { handle, sync: true }).await;
        assert_eq!(host.fails(FsOp::CloseHandle { handle, sync: false }).await.errno, 9);
        assert_eq!(host.fails(FsOp::StatHandle { handle }).await.errno, 9);
        assert_eq!(fs::read(host.at("f")).unwrap(), b"begin");
        let exclusive = FsOpen { exclusive: true, ..open.clone() };
        assert_eq!(host.fails(FsOp::Open(exclusive)).await.errno, EEXIST);

        let directory = FsOpen { path: path("/"), directory: true, ..FsOpen::default() };
        let (_, FsReply::Handle(handle)) = host.ok(FsOp::Open(directory)).await else { panic!() };
        for expected in [1, 0] {
            let (data, _) = host.ok(FsOp::ReadDir { handle, limit: Some(1) }).await;
            let found = if data.is_empty() { 0 } else { decode_entries(&data).unwrap().len() };
            assert_eq!(found, expected);
        }
        assert_eq!(
            host.fails(FsOp::ReadAt { handle, offset: 0, length: None }).await.errno,
            EISDIR
        );
        for wrong in [
            FsOpen { path: path("/f"), ..FsOpen::default() },
            FsOpen { write: false, create: true, ..open.clone() },
            FsOpen { directory: true, ..open },
        ] {
            assert_eq!(host.fails(FsOp::Open(wrong)).await.kind, FsErrorKind::Invalid);
        }
    });
}

#[test]
fn k1_handles_are_bounded_and_end_with_the_connection() {
    run(async || {
        let mut host = Host::start().await;
        fs::write(host.at("f"), "").unwrap();
        let open = FsOp::Open(FsOpen { path: path("/f"), read: true, ..FsOpen::default() });
        for _ in 0..FS_HANDLES {
            host.ok(open.clone()).await;
        }
        assert_eq!(host.fails(open.clone()).await.kind, FsErrorKind::Busy);
        let file = fs::canonicalize(host.at("f")).unwrap();
        let descriptors = || {
            let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
            all.filter(|own| fs::read_link(own.path()).is_ok_and(|link| link == file)).count()
        };
        assert_eq!(descriptors(), FS_HANDLES);
        let mut host = host.reconnect().await;
        host.settle().await;
        assert_eq!(descriptors(), 0);
        host.ok(open).await;
    });
}

#[test]
fn k1_wrong_requests_get_typed_errors() {
    run(async || {
        let mut host = Host::start().await;
        for at in ["", "relative", "/a\0b"] {
            let error = host.fails(read(at)).await;
            assert_eq!((error.kind, error.errno), (FsErrorKind::Invalid, 22), "{at:?}");
            assert_eq!(error.path, at.as_bytes());
        }
        let error = host.fails(read("/nope")).await;
        assert_eq!((error.kind, error.errno), (FsErrorKind::PathNotFound, ENOENT));
        assert_eq!((error.operation.as_str(), error.path.as_slice()), ("open", &b"/nope"[..]));
        assert_eq!(host.fails(FsOp::Unknown).await.kind, FsErrorKind::Unsupported);
        assert_eq!(host.fails(read("/")).await.errno, EISDIR);
        host.become_user("nobody-knows");
        let error = host.fails(read("/nope")).await;
        assert_eq!(error.kind, FsErrorKind::UnknownUser, "{error:?}");
    });
}

#[test]
fn k1_user_has_the_rights_of_the_user_only() {
    run(async || {
        let mut host = Host::start().await;
        fs::set_permissions(host.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(host.at("secret"), "root's").unwrap();
        fs::set_permissions(host.at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(host.at("etc")).unwrap();
        fs::create_dir(host.at("shared")).unwrap();
        fs::set_permissions(host.at("shared"), fs::Permissions::from_mode(0o770)).unwrap();
        std::os::unix::fs::chown(host.at("shared"), Some(0), Some(4321)).unwrap();
        fs::create_dir(host.at("own")).unwrap();
        std::os::unix::fs::chown(host.at("own"), Some(1234), Some(1234)).unwrap();
        fs::write(host.at("own/roots"), "old").unwrap();

        host.become_user("1234:1234");
        for op in [
            read("/secret"),
            FsOp::Open(FsOpen { path: path("/secret"), read: true, ..FsOpen::default() }),
            FsOp::List { path: path("/shared") },
            FsOp::Remove { path: path("/secret") },
            FsOp::Mkdir { path: path("/etc/x"), parents: false, mode: None },
            FsOp::Rename { from: path("/own/roots"), to: path("/etc/x"), no_replace: false },
            FsOp::SetStat {
                path: path("/own/roots"),
                follow: true,
                attributes: FsAttributes { mode: Some(0o777), ..FsAttributes::default() },
            },
            FsOp::SetStat {
                path: path("/own"),
                follow: true,
                attributes: FsAttributes { uid: Some(0), ..FsAttributes::default() },
            },
        ] {
            let error = host.fails(op.clone()).await;
            assert_eq!(error.kind, FsErrorKind::PermissionDenied, "{op:?}: {error:?}");
        }
        for at in ["/etc/passwd", "/own/roots", "/secret", "/shared/x"] {
            let error = host.feed(FsOp::Write(write(at)), b"x").await.unwrap_err();
            assert_eq!((error.kind, error.errno), (FsErrorKind::PermissionDenied, EACCES), "{at}");
        }
        host.feed(FsOp::Write(write("/own/new")), b"x").await.unwrap();
        let made = fs::metadata(host.at("own/new")).unwrap();
        assert_eq!((made.uid(), made.gid()), (1234, 1234));
        host.become_user("1234:4321");
        host.feed(FsOp::Write(write("/shared/x")), b"x").await.unwrap();
        // A thread that was a user is root again for root.
        host.become_user("0");
        host.ok(read("/secret")).await;
        assert_eq!(fs::read(host.at("own/roots")).unwrap(), b"old");
    });
}

#[test]
fn k2_replaced_file_keeps_mode_and_owner_and_links() {
    run(async || {
        let mut host = Host::start().await;
        fs::write(host.at("file"), "old").unwrap();
        fs::set_permissions(host.at("file"), fs::Permissions::from_mode(0o4750)).unwrap();
        std::os::unix::fs::chown(host.at("file"), Some(77), Some(88)).unwrap();
        fs::set_permissions(host.at("file"), fs::Permissions::from_mode(0o4750)).unwrap();
        symlink("file", host.at("link")).unwrap();
        host.feed(FsOp::Write(write("/link")), b"new").await.unwrap();
        let found = fs::metadata(host.at("file")).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o4750, 77, 88));
        assert!(fs::symlink_metadata(host.at("link")).unwrap().is_symlink());
        assert_eq!(fs::read(host.at("file")).unwrap(), b"new");
        symlink("made", host.at("dangling")).unwrap();
        let request = FsWrite { mode: Some(0o600), uid: Some(5), sync: true, ..write("/dangling") };
        host.feed(FsOp::Write(request), b"new").await.unwrap();
        let found = fs::symlink_metadata(host.at("made")).unwrap();
        assert_eq!((found.mode(), found.uid()), (0o100_600, 5));
    });
}

#[test]
fn k2_conditions_of_a_write_hold() {
    run(async || {
        let mut host = Host::start().await;
        let exclusive = FsOp::Write(FsWrite { exclusive: true, ..write("/a") });
        let existing = FsOp::Write(FsWrite { existing: true, ..write("/a") });
        let error = host.feed(existing.clone(), b"1").await.unwrap_err();
        assert_eq!(error.kind, FsErrorKind::PathNotFound);
        host.feed(exclusive.clone(), b"1").await.unwrap();
        assert_eq!(host.feed(exclusive, b"2").await.unwrap_err().errno, EEXIST);
        host.feed(existing, b"3").await.unwrap();
        let append = FsOp::Write(FsWrite { start: FsWriteStart::Append, ..write("/a") });
        host.feed(append, b"45").await.unwrap();
        let at = FsOp::Write(FsWrite { start: FsWriteStart::At(1), ..write("/a") });
        host.feed(at, b"x").await.unwrap();
        assert_eq!(fs::read(host.at("a")).unwrap(), b"3x5");
        let parents = FsOp::Write(FsWrite { parents: true, ..write("/p/q/r") });
        host.feed(parents, b"deep").await.unwrap();
        assert_eq!(fs::read(host.at("p/q/r")).unwrap(), b"deep");
        let error = host.feed(FsOp::Write(write("/no/a")), b"").await.unwrap_err();
        assert_eq!((error.errno, error.path.as_slice()), (ENOENT, &b"/no/a"[..]));
        assert_eq!(host.feed(FsOp::Write(write("/p")), b"").await.unwrap_err().errno, EISDIR);
        assert_eq!(names(host.folder.path()), ["a", "p"]);
    });
}

#[test]
fn k3_cancelled_write_leaves_the_old_content() {
    run(async || {
        let mut host = Host::start().await;
        fs::write(host.at("old"), "old").unwrap();
        for lost in [false, true] {
            for (at, start) in [
                ("/old", FsWriteStart::Replace),
                ("/new", FsWriteStart::Replace),
                ("/old", FsWriteStart::Append),
                ("/new", FsWriteStart::Append),
            ] {
                let op = FsOp::Write(FsWrite { start, ..write(at) });
                let channel = host.begin(op).await;
                // More than a window: some of it is in the file.
                host.write(channel, &pattern(2 * FS_WINDOW as usize)).await;
                if lost {
                    host = host.reconnect().await;
                } else {
                    host.close(channel).await;
                }
                host.settle().await;
                assert_eq!(fs::read(host.at("old")).unwrap(), b"old", "{at} {start:?}");
                assert_eq!(names(host.folder.path()), ["old"], "{at} {start:?}");
            }
        }
    });
}

#[test]
fn k3_reader_that_stops_holds_up_nobody() {
    run(async || {
        let mut host = Host::start().await;
        let content = pattern(8 * OUTPUT_WINDOW as usize);
        fs::write(host.at("large"), &content).unwrap();
        let mut stopped = Vec::new();
        // More than there are threads.
        for _ in 0..100 {
            let channel = host.begin(read("/large")).await;
            host.wait_for_data(channel).await;
            stopped.push(channel);
        }
        let (data, _) = host.ok(read("/large")).await;
        assert!(data == content);
        for channel in &stopped {
            host.close(*channel).await;
        }
        host.settle().await;
    });
}

#[test]
fn j5_special_files_do_not_block() {
    run(async || {
        let mut host = Host::start().await;
        let fifo = rustix::fs::CWD;
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(fifo, host.at("fifo"), kind, mode, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(host.at("socket")).unwrap();
        for at in ["/fifo", "/socket"] {
            for special in [false, true] {
                let op = FsOp::Read { path: path(at), offset: 0, length: None, special };
                let end = host.call(op).await.1;
                // A FIFO without a writer is at its end.
                assert!(end.is_err() || special && at == "/fifo", "{at}: {end:?}");
                let request = FsWrite { special, ..write(at) };
                let error = host.feed(FsOp::Write(request), b"x").await.unwrap_err();
                assert!(matches!(error.errno, 6 | 22), "{at}: {error:?}");
            }
        }
        let _reader = rustix::fs::open(
            host.at("fifo"),
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK,
            rustix::fs::Mode::empty(),
        );
        let request = FsWrite { special: true, ..write("/fifo") };
        let error = host.feed(FsOp::Write(request), &[0; 1 << 20]).await.unwrap_err();
        assert_eq!(error.errno, 11, "a full FIFO: {error:?}");
    });
}
