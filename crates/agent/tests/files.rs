//! Operations on files of the agent binary, in a root file system of its own: promises K1 to K4.
//!
//! Needs the static binary: `make agent` builds it, `MSB_AGENT` names another one. Each agent has
//! its own root file system, which needs root or user namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bytes::Bytes;
use msb_wire::limits::OUTPUT_WINDOW;
use msb_wire::*;
use std::time::{Duration, Instant};
use support::*;

/// Begins an operation.
fn begin(client: &mut Client, user: Option<&str>, op: FsOp) -> u32 {
    let channel = client.channel();
    let user = user.map(str::to_owned);
    let request = FsRequest { user, window: OUTPUT_WINDOW, op };
    client.send(channel, Message::Fs(FsMessage::Request(request)));
    channel
}

/// Waits for the end of an operation whose data fits the window.
fn end(client: &mut Client, channel: u32) -> (Vec<u8>, Result<FsReply, FsError>) {
    let mut data = Vec::new();
    loop {
        let frame = client.receive();
        if frame.channel != channel {
            continue;
        }
        match frame.message {
            Message::Fs(FsMessage::Data(piece)) => data.extend_from_slice(&piece),
            Message::Fs(FsMessage::Reply(reply)) => return (data, Ok(reply)),
            Message::Fs(FsMessage::Failed(error)) => return (data, Err(error)),
            Message::Fs(FsMessage::Opened(_)) | Message::Credit(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn call(client: &mut Client, user: Option<&str>, op: FsOp) -> (Vec<u8>, Result<FsReply, FsError>) {
    let channel = begin(client, user, op);
    end(client, channel)
}

fn read(path: &str) -> FsOp {
    FsOp::Read { path: path.into(), offset: 0, length: None, special: false }
}

fn write(path: &str) -> FsOp {
    FsOp::Write(FsWrite { path: path.into(), ..FsWrite::default() })
}

/// Performs an operation with input.
fn feed(
    client: &mut Client,
    user: Option<&str>,
    op: FsOp,
    data: &[u8],
) -> Result<FsReply, FsError> {
    let channel = begin(client, user, op);
    let data = Message::Fs(FsMessage::Data(Bytes::copy_from_slice(data)));
    client.send_all([(channel, data), (channel, Message::Fs(FsMessage::Eof))]);
    end(client, channel).1
}

/// Runs a script, which must succeed, and returns its output.
fn run(client: &mut Client, script: &str) -> String {
    let result = client.run(sh(script));
    assert_eq!(result.exited.as_ref().map(|exited| exited.code), Some(0), "{script}: {result:?}");
    String::from_utf8_lossy(&result.stdout).into_owned()
}

fn errno(result: Result<FsReply, FsError>) -> (FsErrorKind, i32) {
    let error = result.unwrap_err();
    (error.kind, error.errno)
}

const DENIED: (FsErrorKind, i32) = (FsErrorKind::PermissionDenied, 13);

#[test]
fn k1_user_of_the_image_has_its_groups_and_nothing_else() {
    let agent = Agent::start_in_root("");
    let mut client = agent.connect();
    run(
        &mut client,
        "echo staff:x:50:me >> /etc/group; chmod 755 /; \
         mkdir /staff; chgrp 50 /staff; chmod 770 /staff; \
         echo hidden > /secret; chmod 600 /secret; echo ours > /staff/file; chmod 640 /staff/file; \
         chgrp 50 /staff/file; mkdir -p /home/me; chown 1000:1000 /home/me",
    );
    let me = Some("me");
    for op in [read("/secret"), read("/proc/1/environ"), read("/etc/shadow-")] {
        let missing = matches!(&op, FsOp::Read { path, .. } if path.ends_with(b"shadow-"));
        let expected = if missing { (FsErrorKind::PathNotFound, 2) } else { DENIED };
        assert_eq!(errno(call(&mut client, me, op).1), expected);
    }
    assert_eq!(errno(feed(&mut client, me, write("/etc/passwd"), b"x")), DENIED);
    assert_eq!(errno(feed(&mut client, me, write("/staff-file"), b"x")), DENIED);
    assert_eq!(call(&mut client, me, read("/staff/file")).0, b"ours\n");
    feed(&mut client, me, write("/staff/new"), b"x").unwrap();
    // A group that is named is the only one.
    assert_eq!(errno(call(&mut client, Some("me:me"), read("/staff/file")).1), DENIED);
    feed(&mut client, me, write("/home/me/file"), b"x").unwrap();
    let owner = run(&mut client, "stat -c %u:%g:%a /home/me/file /staff/new");
    assert_eq!(owner, "1000:1000:644\n1000:1000:644\n");
    assert_eq!(call(&mut client, None, read("/secret")).0, b"hidden\n");
    let error = call(&mut client, Some("nobody-knows"), read("/secret")).1.unwrap_err();
    assert_eq!(error.kind, FsErrorKind::UnknownUser);
}

#[test]
fn j5_files_that_block_hold_up_nobody() {
    let agent = Agent::start_in_root("");
    let mut client = agent.connect();
    run(&mut client, "mkfifo /tmp/fifo; ln -s /dev/zero /tmp/zero; ln -s /proc/kmsg /tmp/kmsg");
    let started = Instant::now();
    for path in ["/tmp/fifo", "/dev/zero", "/tmp/zero"] {
        let error = call(&mut client, None, read(path)).1.unwrap_err();
        assert_eq!(error.kind, FsErrorKind::Invalid, "{path}: {error:?}");
    }
    // A regular file whose reads block: it says so, or what it has.
    let kmsg = begin(&mut client, None, read("/tmp/kmsg"));
    let zero = FsOp::Read { path: b"/dev/zero".to_vec(), offset: 0, length: None, special: true };
    let zero = begin(&mut client, None, zero);
    run(&mut agent.connect(), "echo alive");
    client.send_all([(kmsg, Message::Close), (zero, Message::Close)]);
    assert!(call(&mut client, None, read("/etc/passwd")).1.is_ok());
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn k3_client_that_is_killed_leaves_nothing() {
    let agent = Agent::start_in_root("");
    let mut client = agent.connect();
    run(&mut client, "mkdir /w; echo old > /w/file");
    for op in [
        write("/w/file"),
        write("/w/new"),
        FsOp::CopyIn(FsCopyIn { path: b"/w".to_vec(), ..FsCopyIn::default() }),
    ] {
        let mut other = agent.connect();
        let channel = begin(&mut other, None, op);
        // The header of a file of 1 MiB, and some of its content.
        let mut member = [0; 512];
        member[..1].copy_from_slice(b"a");
        member[100..107].copy_from_slice(b"0000644");
        member[124..135].copy_from_slice(b"00004000000");
        member[148..156].copy_from_slice(b"        ");
        let sum: u32 = member.iter().map(|byte| u32::from(*byte)).sum();
        member[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let data = [&member[..], &[b'x'; 60_000]].concat();
        other.send(channel, Message::Fs(FsMessage::Data(data.into())));
        // Its descriptors close as those of a process that is killed.
        drop(other);
    }
    // Until the agent has seen all of it.
    let script = "until [ \"$(ls -A /w)\" = file ]; do sleep 0.05; done; cat /w/file; \
                  ls -l /proc/1/fd | grep -c /w || true";
    assert_eq!(run(&mut client, script), "old\n0\n");
}

#[test]
fn k2_full_disk_leaves_the_old_content() {
    let agent = Agent::start_in_root("");
    let mut client = agent.connect();
    run(
        &mut client,
        "mkdir /full; mount -t tmpfs -o size=256k none /full; echo old > /full/file; \
         touch /full/bound; echo before > /full/bound; mount --bind /full/bound /full/bound",
    );
    for path in ["/full/file", "/full/bound", "/full/new"] {
        let mut data = vec![b'x'; 1 << 20];
        data.truncate(500_000);
        let channel = begin(&mut client, None, write(path));
        for piece in data.chunks(60_000) {
            let message = FsMessage::Data(Bytes::copy_from_slice(piece));
            client.send(channel, Message::Fs(message));
        }
        client.send(channel, Message::Fs(FsMessage::Eof));
        let error = end(&mut client, channel).1.unwrap_err();
        assert_eq!((error.kind, error.errno), (FsErrorKind::Filesystem, 28), "{path}: {error:?}");
        assert_eq!(error.path, path.as_bytes());
    }
    assert_eq!(
        run(&mut client, "cat /full/file /full/bound; ls -A /full"),
        "old\nbefore\nbound\nfile\n"
    );
    // A mount point is written to in place: with room for the content once more.
    feed(&mut client, None, write("/full/bound"), b"after").unwrap();
    assert_eq!(run(&mut client, "cat /full/bound; ls -A /full"), "afterbound\nfile\n");
    // Room for the new content beside the old one, and not for a second copy of it.
    let channel = begin(&mut client, None, write("/full/bound"));
    for piece in vec![b'y'; 180_000].chunks(60_000) {
        let message = FsMessage::Data(Bytes::copy_from_slice(piece));
        client.send(channel, Message::Fs(message));
    }
    client.send(channel, Message::Fs(FsMessage::Eof));
    assert_eq!(errno(end(&mut client, channel).1), (FsErrorKind::Filesystem, 28));
    assert_eq!(run(&mut client, "cat /full/bound"), "after");
}

#[test]
fn k1_image_of_one_static_file_has_files() {
    // No /tmp, no /proc, no shell, no /etc/passwd.
    let agent = Agent::start_in_root(
        "umount \"$root/proc\"; rm -rf \"$root/proc\" \"$root/tmp\" \"$root/bin\" \"$root/etc\"",
    );
    let mut client = agent.connect();
    let mkdir = FsOp::Mkdir { path: b"/a/b".to_vec(), parents: true, mode: None };
    call(&mut client, None, mkdir).1.unwrap();
    feed(&mut client, None, write("/a/b/file"), b"content").unwrap();
    feed(&mut client, None, write("/a/b/file"), b"other").unwrap();
    assert_eq!(call(&mut client, None, read("/a/b/file")).0, b"other");
    let copy = FsOp::Copy { from: b"/a".to_vec(), to: b"/c".to_vec(), recursive: true };
    call(&mut client, None, copy).1.unwrap();
    assert_eq!(call(&mut client, None, read("/c/b/file")).0, b"other");
    let (listed, _) = call(&mut client, None, FsOp::List { path: b"/a/b".to_vec() });
    assert_eq!(fs::decode_entries(&listed).unwrap().len(), 1, "no temporary file is left");
    let set = FsOp::SetStat {
        path: b"/a".to_vec(),
        follow: true,
        attributes: FsAttributes { mode: Some(0o700), uid: Some(5), ..FsAttributes::default() },
    };
    call(&mut client, None, set).1.unwrap();
    let (_, reply) = call(&mut client, None, FsOp::Stat { path: b"/a".to_vec(), follow: true });
    let Ok(FsReply::Stat(stat)) = reply else { panic!("{reply:?}") };
    assert_eq!((stat.mode, stat.uid), (0o700, 5));
    call(&mut client, None, FsOp::RemoveDir { path: b"/a".to_vec(), recursive: true }).1.unwrap();
}
