//! Simulates a host that asks for any operations on files.
//!
//! The agent's root is a directory of its own, beside a file that nothing may change; operations
//! run as a user without rights, so that a mistake harms nothing. Checks: the order of messages and
//! the credit on each channel, an end for every operation, no temporary file that is left, no watch
//! that is left, and nothing outside.

use crate::fs::testing::{Host, names, run};
use bytes::{BufMut, BytesMut};
use msb_archive::{Entry, EntryType, TarWriter};
use msb_wire::{
    Decoder, Frame, FsAttributes, FsCopyIn, FsCopyOut, FsMessage, FsOp, FsOpen, FsRequest, FsTime,
    FsWrite, FsWriteStart, Hello, Kind, Message, Peer, data_header, encode,
};
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

/// A user without rights: "nobody" of most systems.
const USER: u32 = 65_534;
/// Operations that are under way at once.
const OPERATIONS: usize = 32;
/// Content of the file outside.
const OUTSIDE: &str = "outside";

/// Runs the bytes of a fuzzer as a script: each step is a byte and its operands.
pub(super) fn run_script(data: &[u8]) {
    run(async || {
        let mut host = Host::start().await;
        let is_root = rustix::process::geteuid().is_root();
        prepare(host.folder.path(), is_root);
        let user = if is_root { USER } else { rustix::process::geteuid().as_raw() };
        let group = if is_root { USER } else { rustix::process::getegid().as_raw() };
        host.become_user(&format!("{user}:{group}"));
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), OUTSIDE).unwrap();
        // Where links would lead if the root did not hold them.
        for name in ["to-outside", "d/to-outside"] {
            symlink(outside.path(), host.at(name)).unwrap();
        }
        let mut script = Script { bytes: data.iter().copied(), channels: Vec::new() };
        while let Some(step) = script.bytes.next() {
            script.step(&mut host, step).await;
        }
        finish(&mut host, &script.channels).await;
        assert_eq!(names(outside.path()), ["file"]);
        assert_eq!(fs::read(outside.path().join("file")).unwrap(), OUTSIDE.as_bytes());
        let host = host.reconnect().await;
        check_nothing_left(&host, is_root).await;
    });
}

fn prepare(root: &Path, is_root: bool) {
    fs::create_dir_all(root.join("d/e")).unwrap();
    fs::write(root.join("f"), "content").unwrap();
    fs::write(root.join("d/f"), vec![b'x'; 100_000]).unwrap();
    fs::hard_link(root.join("f"), root.join("d/hard")).unwrap();
    for (target, name) in [("f", "l"), ("../../..", "d/up"), ("loop", "loop"), ("/d", "d/e/abs")] {
        symlink(target, root.join(name)).unwrap();
    }
    let (at, kind) = (rustix::fs::CWD, rustix::fs::FileType::Fifo);
    rustix::fs::mknodat(at, root.join("fifo"), kind, rustix::fs::Mode::RWXU, 0).unwrap();
    if is_root {
        for name in [".", "d", "d/e", "f", "d/f", "fifo"] {
            chown(root.join(name), Some(USER), Some(USER)).unwrap();
        }
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Ends every operation, and waits for it.
async fn finish(host: &mut Host, channels: &[(u32, bool)]) {
    for (channel, is_watch) in channels {
        if *is_watch {
            host.close(*channel).await;
        } else if host.takes_input(*channel) {
            host.complete(*channel).await;
        }
    }
    for channel in host.open_operations() {
        let _ = host.end(channel).await;
    }
}

async fn check_nothing_left(host: &Host, is_root: bool) {
    let mut host_watches = host.registry.files().map_or(0, |files| files.watched());
    let files = host.registry.files().unwrap();
    files.finish(std::time::Duration::from_secs(60));
    host_watches = host_watches.min(files.watched());
    assert_eq!(host_watches, 0, "a watch is left");
    if is_root {
        let mut left = vec![host.folder.path().to_path_buf()];
        while let Some(at) = left.pop() {
            // A script may take the rights to a directory away, and with them the agent's.
            if fs::metadata(&at).unwrap().permissions().mode() & 0o700 != 0o700 {
                continue;
            }
            for name in names(&at) {
                assert!(!is_temporary(&name), "{name} is left in {}", at.display());
                let below = at.join(name);
                if fs::symlink_metadata(&below).is_ok_and(|found| found.is_dir()) {
                    left.push(below);
                }
            }
        }
    }
}

/// Returns whether the agent gives such names. A script cannot: it has other ones.
fn is_temporary(name: &str) -> bool {
    name.len() == 21 && name.starts_with(".msb-")
}

struct Script<'a> {
    bytes: std::iter::Copied<std::slice::Iter<'a, u8>>,
    /// The operations, and whether each only ends when it is given up.
    channels: Vec<(u32, bool)>,
}

impl Script<'_> {
    fn next(&mut self) -> u8 {
        self.bytes.next().unwrap_or(0)
    }

    async fn step(&mut self, host: &mut Host, step: u8) {
        match step % 8 {
            0..=2 => {
                let op = self.operation();
                self.begin(host, op).await;
            }
            3 => {
                let length = usize::from(self.next()) << (step >> 5);
                self.feed(host, &vec![step; length]).await;
            }
            4 => {
                let archive = self.archive();
                self.feed(host, &archive).await;
            }
            5 => {
                if let Some(channel) = self.pick()
                    && host.takes_input(channel)
                {
                    host.complete(channel).await;
                }
            }
            6 => {
                if let Some(channel) = self.pick() {
                    host.close(channel).await;
                }
            }
            _ => {
                let length = usize::from(self.next());
                let raw: Vec<u8> = self.bytes.by_ref().take(length).collect();
                if let Some(op) = decode(&raw) {
                    self.begin(host, op).await;
                }
            }
        }
    }

    /// Begins an operation, after the end of others if many are under way.
    async fn begin(&mut self, host: &mut Host, op: FsOp) {
        if self.channels.len() >= OPERATIONS {
            finish(host, &std::mem::take(&mut self.channels)).await;
        }
        let is_watch = matches!(op, FsOp::Watch { .. });
        let channel = host.begin(op).await;
        self.channels.push((channel, is_watch));
    }

    async fn feed(&mut self, host: &mut Host, data: &[u8]) {
        if let Some(channel) = self.pick()
            && host.takes_input(channel)
        {
            host.write(channel, data).await;
        }
    }

    fn pick(&mut self) -> Option<u32> {
        let pick = usize::from(self.next());
        let at = pick.checked_rem(self.channels.len())?;
        self.channels.get(at).map(|(channel, _)| *channel)
    }

    fn path(&mut self) -> Vec<u8> {
        const PATHS: [&str; 24] = [
            "/",
            "/f",
            "/d",
            "/d/f",
            "/d/e",
            "/l",
            "/loop",
            "/d/up",
            "/d/up/f",
            "/d/e/abs/f",
            "/fifo",
            "/new",
            "/d/new",
            "/no/new",
            "/to-outside",
            "/to-outside/file",
            "/d/to-outside/new",
            "/d/hard",
            "/d/../f",
            "/..",
            "",
            "relative",
            "/f/x",
            "/d/e/new/",
        ];
        let pick = usize::from(self.next());
        match PATHS.get(pick % (PATHS.len() + 1)) {
            Some(path) => path.as_bytes().to_vec(),
            None => [b"/d/", [self.next(); 3].as_slice()].concat(),
        }
    }

    fn number(&mut self) -> u64 {
        let (number, shift) = (self.next(), self.next());
        u64::from(number) << (shift % 57)
    }

    fn operation(&mut self) -> FsOp {
        let (pick, flags) = (self.next(), self.next());
        let flag = |bit: u8| flags >> bit & 1 == 1;
        let path = self.path();
        match pick % 24 {
            0 => {
                let (offset, length) = (self.number(), flag(1).then(|| self.number()));
                FsOp::Read { path, offset, length, special: flag(0) }
            }
            1 | 2 => FsOp::Write(FsWrite {
                path,
                start: match flags >> 6 {
                    0 | 1 => FsWriteStart::Replace,
                    2 => FsWriteStart::Append,
                    // No file of many gigabytes.
                    _ => FsWriteStart::At(self.next().into()),
                },
                mode: flag(0).then_some(0o600),
                uid: flag(1).then_some(u32::from(self.next())),
                gid: None,
                exclusive: flag(2),
                existing: flag(3),
                parents: flag(4),
                sync: false,
                special: flag(5),
            }),
            3 => FsOp::Open(FsOpen {
                path,
                read: flag(0),
                write: flag(1),
                append: flag(2),
                create: flag(3),
                exclusive: flag(4),
                truncate: flag(5),
                directory: flag(6),
                no_follow: flag(7),
                mode: None,
                special: false,
            }),
            4 => FsOp::ReadAt { handle: self.next().into(), offset: self.number(), length: None },
            5 => FsOp::WriteAt { handle: self.next().into(), offset: self.next().into() },
            6 => FsOp::CloseHandle { handle: self.next().into(), sync: false },
            7 => FsOp::List { path },
            8 => FsOp::ReadDir { handle: self.next().into(), limit: flag(0).then_some(2) },
            9 => FsOp::Stat { path, follow: flag(0) },
            10 => FsOp::StatHandle { handle: self.next().into() },
            11 | 12 => {
                let time = |wanted: bool, nanos| {
                    wanted.then_some(FsTime { seconds: i64::from(flags) << 50, nanos })
                };
                let attributes = FsAttributes {
                    mode: flag(1).then_some(u32::from(self.next()) << 4),
                    uid: flag(2).then_some(USER),
                    gid: flag(3).then_some(u32::MAX),
                    accessed: time(flag(4), 1),
                    modified: time(flag(5), 999_999_999),
                    size: flag(6).then_some(u64::from(self.next()) << 16),
                };
                match pick % 24 {
                    11 => FsOp::SetStat { path, follow: flag(0), attributes },
                    _ => FsOp::SetStatHandle { handle: self.next().into(), attributes },
                }
            }
            13 => FsOp::Mkdir { path, parents: flag(0), mode: flag(1).then_some(0o700) },
            14 => FsOp::Remove { path },
            15 => FsOp::RemoveDir { path, recursive: flag(0) },
            16 => FsOp::Rename { from: path, to: self.path(), no_replace: flag(0) },
            17 => FsOp::Copy { from: path, to: self.path(), recursive: !flag(0) },
            18 => FsOp::Symlink { target: self.path(), path },
            19 => FsOp::ReadLink { path },
            20 => FsOp::RealPath { path },
            21 if flag(0) => FsOp::Exists { path },
            21 => FsOp::Watch { path, recursive: flag(1) },
            22 => FsOp::CopyIn(FsCopyIn {
                path,
                keep_owner: flag(0),
                uid: None,
                gid: None,
                no_replace: flag(1),
                sync: false,
            }),
            _ => FsOp::CopyOut(FsCopyOut { path, name: b"name".to_vec(), follow: flag(0) }),
        }
    }

    /// Returns a member of an archive, and perhaps its end.
    fn archive(&mut self) -> Vec<u8> {
        const NAMES: [&str; 12] = [
            "a",
            "a/b",
            "b",
            "d",
            "d/e",
            "d/f",
            "../x",
            "/x",
            "l",
            "to-outside/file",
            ".",
            "a/../b",
        ];
        let name = |pick: u8| NAMES.get(usize::from(pick) % NAMES.len()).copied().unwrap_or("a");
        let kinds = [
            EntryType::Regular,
            EntryType::Directory,
            EntryType::Symlink,
            EntryType::Link,
            EntryType::Fifo,
        ];
        let (pick, own, link, size) = (self.next(), self.next(), self.next(), self.next());
        let kind = kinds.get(usize::from(pick) % kinds.len()).copied().unwrap_or(kinds[0]);
        let content = match kind {
            EntryType::Regular => vec![b'x'; usize::from(size) * 50],
            _ => Vec::new(),
        };
        let entry = Entry {
            kind,
            name: name(own).as_bytes(),
            link: name(link).as_bytes(),
            mode: u32::from(pick) << 4,
            uid: u32::from(link),
            gid: 0,
            mtime: (i64::from(size), 1),
            atime: None,
            device: (0, 0),
            xattrs: &[],
            size: content.len() as u64,
            sparse: None,
        };
        let mut writer = TarWriter::new(Vec::new());
        writer.begin(&entry).unwrap();
        writer.write_all(&content).unwrap();
        writer.end().unwrap();
        if pick & 128 != 0 {
            return writer.finish().unwrap();
        }
        std::mem::take(writer.get_mut())
    }
}

/// Decodes the payload of a request.
fn decode(payload: &[u8]) -> Option<FsOp> {
    let mut buffer = BytesMut::new();
    let hello = Frame { channel: 0, message: Message::Hello(Hello::ours(None)) };
    assert!(encode(&hello, &mut buffer), "the hello is too long");
    buffer.put_slice(&data_header(Kind::FsRequest, 1, payload.len()));
    buffer.put_slice(payload);
    let mut decoder = Decoder::new(Peer::Host);
    decoder.next(&mut buffer).ok()?;
    match decoder.next(&mut buffer).ok()??.message {
        // No file of many gigabytes.
        Message::Fs(FsMessage::Request(FsRequest { op: FsOp::WriteAt { .. }, .. })) => None,
        Message::Fs(FsMessage::Request(FsRequest { op: FsOp::SetStat { .. }, .. })) => None,
        Message::Fs(FsMessage::Request(FsRequest { op: FsOp::SetStatHandle { .. }, .. })) => None,
        Message::Fs(FsMessage::Request(FsRequest { op, .. })) => match op {
            FsOp::Write(FsWrite { start: FsWriteStart::At(_), .. }) => None,
            op => Some(op),
        },
        _ => None,
    }
}
