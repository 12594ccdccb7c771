//! Frames of protocol generation 1, byte for byte. Never edit a file below `golden/v1`: a changed
//! encoding is a new generation.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "a test may panic")]

use bytes::BytesMut;
use msb_wire::fs::{encode_entries, encode_events};
use msb_wire::*;
use std::fmt::Write as _;
use std::path::Path;

fn samples() -> Vec<(&'static str, Peer, Frame)> {
    let session = SessionId::from_bytes(*b"0123456789abcdef");
    let on = |channel, message| Frame { channel, message };
    vec![
        (
            "hello_host",
            Peer::Host,
            on(
                0,
                Message::Hello(Hello {
                    min_version: 1,
                    max_version: 1,
                    features: 0,
                    required: 0,
                    boot_id: None,
                    software: "0.1.0".into(),
                }),
            ),
        ),
        (
            "hello_agent",
            Peer::Agent,
            on(
                0,
                Message::Hello(Hello {
                    min_version: 1,
                    max_version: 3,
                    features: 5,
                    required: 1,
                    boot_id: Some([7; 16]),
                    software: "0.1.0".into(),
                }),
            ),
        ),
        ("error", Peer::Agent, on(0, Message::Error("too many connections".into()))),
        ("ping", Peer::Host, on(0, Message::Ping(42))),
        ("pong", Peer::Agent, on(0, Message::Pong(42))),
        (
            "shutdown",
            Peer::Host,
            on(0, Message::Shutdown(Shutdown { grace_ns: 1_000_000_000, signal: None })),
        ),
        (
            "shutdown_signal",
            Peer::Host,
            on(0, Message::Shutdown(Shutdown { grace_ns: 0, signal: Some(2) })),
        ),
        ("bye", Peer::Agent, on(0, Message::Bye)),
        (
            "exec_least",
            Peer::Host,
            on(
                1,
                Message::Exec(Exec {
                    session,
                    argv: vec![b"true".to_vec().into()],
                    env: vec![],
                    cwd: b"/".to_vec(),
                    user: None,
                    stdin: StdinMode::Null,
                    tty: None,
                    timeout_ns: None,
                    rlimits: vec![],
                    drain_ns: None,
                    wait_for_eof: false,
                    window: 1 << 20,
                    modes: None,
                }),
            ),
        ),
        (
            "exec_most",
            Peer::Host,
            on(
                0xfffffffe,
                Message::Exec(Exec {
                    session,
                    argv: vec![b"sh".to_vec().into(), b"".to_vec().into(), vec![0xff].into()],
                    env: vec![b"A=b=c".to_vec().into()],
                    cwd: b"/tmp".to_vec(),
                    user: Some("1000:1000".into()),
                    stdin: StdinMode::Pipe,
                    tty: Some(TtySize { rows: 24, cols: 80 }),
                    timeout_ns: Some(1_500_000_000),
                    rlimits: vec![Rlimit { resource: 7, soft: 1024, hard: u64::MAX }],
                    drain_ns: Some(0),
                    wait_for_eof: true,
                    window: 1 << 20,
                    modes: None,
                }),
            ),
        ),
        (
            "exec_modes",
            Peer::Host,
            on(
                7,
                Message::Exec(Exec {
                    session,
                    argv: vec![b"sh".to_vec().into()],
                    env: vec![],
                    cwd: b"/".to_vec(),
                    user: None,
                    stdin: StdinMode::Pipe,
                    tty: Some(TtySize { rows: 24, cols: 80 }),
                    timeout_ns: None,
                    rlimits: vec![],
                    drain_ns: None,
                    wait_for_eof: false,
                    window: 1 << 20,
                    modes: Some(TtyModes {
                        input: 0o42402,
                        output: 5,
                        control: 0o277,
                        local: 0o105073,
                        codes: (1..=17).collect(),
                        speed: 38400,
                    }),
                }),
            ),
        ),
        (
            "attach",
            Peer::Host,
            on(2, Message::Attach(Attach { session, from: Some(4096), window: 1 << 20 })),
        ),
        ("follow_all", Peer::Host, on(6, Message::FollowAll(FollowAll { window: 1 << 20 }))),
        (
            "opened",
            Peer::Agent,
            on(
                0x8000_0000,
                Message::Opened(Opened {
                    session,
                    argv: vec![b"sh".to_vec().into(), vec![0xff].into()],
                    tty: true,
                }),
            ),
        ),
        ("list", Peer::Host, on(3, Message::List)),
        (
            "signal",
            Peer::Host,
            on(4, Message::Signal(SignalRequest { session, signal: 15, scope: Scope::Everything })),
        ),
        (
            "resize",
            Peer::Host,
            on(
                5,
                Message::Resize(ResizeRequest { session, size: TtySize { rows: 50, cols: 132 } }),
            ),
        ),
        ("stdin", Peer::Host, on(1, Message::Stdin((&b"in\0\xff"[..]).into()))),
        ("stdin_eof", Peer::Host, on(1, Message::StdinEof)),
        ("close", Peer::Host, on(1, Message::Close)),
        ("credit", Peer::Host, on(1, Message::Credit(1 << 33))),
        ("started", Peer::Agent, on(1, Message::Started(Started { pid: 2 }))),
        (
            "attached",
            Peer::Agent,
            on(
                2,
                Message::Attached(Attached {
                    pid: 2,
                    from: 8192,
                    missed: 4096,
                    stdin_open: true,
                    tty: false,
                }),
            ),
        ),
        ("stdout", Peer::Agent, on(1, Message::Stdout((&b"out\n"[..]).into()))),
        ("stderr", Peer::Agent, on(1, Message::Stderr((&b"err\n"[..]).into()))),
        ("stdin_error", Peer::Agent, on(1, Message::StdinError(StdinError { errno: 32 }))),
        (
            "exited",
            Peer::Agent,
            on(
                1,
                Message::Exited(Exited {
                    code: -1,
                    signal: Some(9),
                    core_dumped: true,
                    timed_out: true,
                    user_ns: 1,
                    system_ns: 2,
                    max_rss: 3,
                    wall_ns: 4,
                }),
            ),
        ),
        (
            "failed",
            Peer::Agent,
            on(
                1,
                Message::Failed(Failure {
                    kind: FailureKind::NotFound,
                    stage: Stage::Execve,
                    errno: 2,
                    path: b"nope".to_vec(),
                    message: "no such program".into(),
                }),
            ),
        ),
        ("end", Peer::Agent, on(1, Message::End(End { writer_left: true, total: 8 }))),
        (
            "sessions",
            Peer::Agent,
            on(
                3,
                Message::Sessions(Sessions {
                    sessions: vec![SessionInfo {
                        session,
                        pid: 2,
                        argv: vec![b"sh".to_vec().into()],
                        tty: true,
                        exited: Some(Exited::default()),
                        age_ns: 9,
                        total: 10,
                        followers: 1,
                    }],
                }),
            ),
        ),
        ("fs_data", Peer::Agent, on(9, Message::Fs(FsMessage::Data((&b"\0\xff"[..]).into())))),
        ("fs_eof", Peer::Host, on(9, Message::Fs(FsMessage::Eof))),
        (
            "fs_opened",
            Peer::Agent,
            on(9, Message::Fs(FsMessage::Opened(FsOpened { stat: Some(stat()) }))),
        ),
        (
            "fs_failed",
            Peer::Agent,
            on(
                9,
                Message::Fs(FsMessage::Failed(FsError {
                    kind: FsErrorKind::PathNotFound,
                    errno: 2,
                    operation: "open".into(),
                    path: b"/a/\xff".to_vec(),
                    message: "no such file or directory".into(),
                })),
            ),
        ),
        (
            "verdict",
            Peer::Agent,
            on(
                4,
                Message::Verdict(Verdict {
                    refusal: Some(Refusal::NoSuchProcess),
                    errno: 3,
                    message: "gone".into(),
                }),
            ),
        ),
    ]
}

fn stat() -> FsStat {
    FsStat {
        kind: FsFileKind::File,
        size: 1 << 40,
        mode: 0o4755,
        uid: 1000,
        gid: 100,
        accessed: FsTime { seconds: -1, nanos: 999_999_999 },
        modified: FsTime { seconds: 1, nanos: 0 },
        changed: FsTime { seconds: 2, nanos: 1 },
        created: Some(FsTime { seconds: 3, nanos: 2 }),
        links: 2,
        inode: 7,
        device: 8,
        allocated: 4096,
    }
}

/// One request for each operation, and each reply.
fn fs_samples() -> Vec<(String, Peer, Frame)> {
    let path = || b"/a/\xff".to_vec();
    let attributes = FsAttributes {
        mode: Some(0o640),
        uid: Some(1),
        gid: Some(2),
        accessed: Some(FsTime { seconds: 1, nanos: 2 }),
        modified: Some(FsTime { seconds: 3, nanos: 4 }),
        size: Some(5),
    };
    let write = FsWrite {
        path: path(),
        start: FsWriteStart::At(9),
        mode: Some(0o600),
        uid: Some(1),
        gid: Some(2),
        exclusive: true,
        existing: true,
        parents: true,
        sync: true,
        special: true,
    };
    let open = FsOpen {
        path: path(),
        read: true,
        write: true,
        append: true,
        create: true,
        exclusive: true,
        truncate: true,
        directory: true,
        no_follow: true,
        mode: Some(0o600),
        special: true,
    };
    let copy_in = FsCopyIn {
        path: path(),
        keep_owner: true,
        uid: Some(1),
        gid: Some(2),
        no_replace: true,
        sync: true,
    };
    let copy_out = FsCopyOut { path: path(), name: b"a".to_vec(), follow: true };
    let operations = vec![
        ("read", FsOp::Read { path: path(), offset: 1, length: Some(2), special: true }),
        ("write", FsOp::Write(write)),
        ("write_least", FsOp::Write(FsWrite { path: path(), ..FsWrite::default() })),
        (
            "write_append",
            FsOp::Write(FsWrite { start: FsWriteStart::Append, ..FsWrite::default() }),
        ),
        ("open", FsOp::Open(open)),
        ("read_at", FsOp::ReadAt { handle: 1, offset: 2, length: Some(3) }),
        ("write_at", FsOp::WriteAt { handle: 1, offset: 2 }),
        ("close_handle", FsOp::CloseHandle { handle: 1, sync: true }),
        ("list", FsOp::List { path: path() }),
        ("read_dir", FsOp::ReadDir { handle: 1, limit: Some(2) }),
        ("stat", FsOp::Stat { path: path(), follow: true }),
        ("stat_handle", FsOp::StatHandle { handle: 1 }),
        ("set_stat", FsOp::SetStat { path: path(), follow: true, attributes }),
        ("set_stat_handle", FsOp::SetStatHandle { handle: 1, attributes: Default::default() }),
        ("mkdir", FsOp::Mkdir { path: path(), parents: true, mode: Some(0o700) }),
        ("remove", FsOp::Remove { path: path() }),
        ("remove_dir", FsOp::RemoveDir { path: path(), recursive: true }),
        ("rename", FsOp::Rename { from: path(), to: b"/b".to_vec(), no_replace: true }),
        ("copy", FsOp::Copy { from: path(), to: b"/b".to_vec(), recursive: true }),
        ("symlink", FsOp::Symlink { target: b"../x".to_vec(), path: path() }),
        ("read_link", FsOp::ReadLink { path: path() }),
        ("real_path", FsOp::RealPath { path: path() }),
        ("exists", FsOp::Exists { path: path() }),
        ("copy_in", FsOp::CopyIn(copy_in)),
        ("copy_out", FsOp::CopyOut(copy_out)),
        ("watch", FsOp::Watch { path: path(), recursive: true }),
        ("unknown", FsOp::Unknown),
    ];
    let done = FsDone {
        bytes: 1,
        entries: 2,
        skipped: vec![FsSkipped { path: b"a/\xff".to_vec(), why: "FIFO".into() }],
        skipped_total: 3,
    };
    let replies = vec![
        ("done", FsReply::Done(done)),
        ("attributes", FsReply::Stat(stat())),
        ("path", FsReply::Path(path())),
        ("handle", FsReply::Handle(1)),
        ("exists", FsReply::Exists(true)),
    ];
    let frame = |message| Frame { channel: 9, message: Message::Fs(message) };
    let requests = operations.into_iter().map(|(name, op)| {
        let request = FsRequest { user: Some("1000:1000".into()), window: 1 << 20, op };
        (format!("fs_{name}"), Peer::Host, frame(FsMessage::Request(request)))
    });
    let replies = replies.into_iter().map(|(name, reply)| {
        (format!("fs_reply_{name}"), Peer::Agent, frame(FsMessage::Reply(reply)))
    });
    requests.chain(replies).collect()
}

fn all_samples() -> Vec<(String, Peer, Frame)> {
    let samples = samples().into_iter().map(|(name, peer, frame)| (name.to_owned(), peer, frame));
    samples.chain(fs_samples()).collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (i, byte) in bytes.iter().enumerate() {
        let gap = if i == 0 {
            ""
        } else if i % 16 == 0 {
            "\n"
        } else {
            " "
        };
        write!(text, "{gap}{byte:02x}").unwrap();
    }
    text + "\n"
}

fn unhex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

/// `MSB_WRITE_GOLDEN=1` writes missing files; it never replaces one.
#[test]
fn frames_of_generation_1_match_their_recordings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1");
    for (name, peer, frame) in all_samples() {
        let path = folder.join(format!("{name}.hex"));
        let mut encoded = BytesMut::new();
        assert!(encode(&frame, &mut encoded), "{name}");
        if std::env::var_os("MSB_WRITE_GOLDEN").is_some() && !path.exists() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, hex(&encoded)).unwrap();
        }
        let recorded =
            unhex(&std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {e}")));
        assert_eq!(encoded, recorded, "the encoding of {name} has changed");

        let mut decoder = Decoder::new(peer);
        if !matches!(frame.message, Message::Hello(_)) {
            let mut hello = BytesMut::new();
            assert!(encode(
                &Frame { channel: 0, message: Message::Hello(Hello::ours(None)) },
                &mut hello
            ));
            decoder.next(&mut hello).unwrap().unwrap();
        }
        let mut buffer = BytesMut::from(&recorded[..]);
        assert_eq!(decoder.next(&mut buffer), Ok(Some(frame)), "{name}");
        assert!(buffer.is_empty(), "{name}");
    }
}

#[test]
fn every_kind_has_a_recorded_frame() {
    let recorded: Vec<u8> = all_samples()
        .iter()
        .map(|(_, _, frame)| {
            let mut out = BytesMut::new();
            assert!(encode(frame, &mut out));
            out[4]
        })
        .collect();
    for kind in Kind::ALL {
        assert!(recorded.contains(&(*kind as u8)), "{kind:?}");
    }
}

/// The payloads of data frames that hold lists.
#[test]
fn lists_of_generation_1_match_their_recordings() {
    let entries = encode_entries(&[FsEntry { name: b"\xff".to_vec(), stat: stat() }]);
    let events = encode_events(&[FsEvent {
        kind: FsEventKind::MovedTo,
        path: b"/a".to_vec(),
        directory: true,
        cookie: 9,
    }]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/v1");
    for (name, payload) in [("fs_entries", entries), ("fs_events", events)] {
        let path = folder.join(format!("{name}.hex"));
        if std::env::var_os("MSB_WRITE_GOLDEN").is_some() && !path.exists() {
            std::fs::write(&path, hex(&payload)).unwrap();
        }
        assert_eq!(payload, unhex(&std::fs::read_to_string(&path).unwrap()), "{name}");
    }
}

/// An operation that this code does not know is answered, and does not end the connection.
#[test]
fn k1_operation_of_a_newer_host_is_decoded_as_unknown() {
    let known = FsRequest { user: None, window: 0, op: FsOp::Exists { path: b"/a".to_vec() } };
    let mut out = BytesMut::new();
    let message = Message::Hello(Hello::ours(None));
    assert!(encode(&Frame { channel: 0, message }, &mut out));
    let at = out.len();
    let message = Message::Fs(FsMessage::Request(known));
    assert!(encode(&Frame { channel: 1, message }, &mut out));
    // The number of the operation: 20 becomes 23 and 24, of which the second needs one byte more.
    let position = at + out[at..].iter().position(|byte| *byte == 20).unwrap();
    let decode = |number: &[u8]| {
        let mut bytes = BytesMut::from(&out[..position]);
        bytes.extend_from_slice(number);
        bytes.extend_from_slice(&out[position + 1..]);
        bytes[at] += number.len() as u8 - 1;
        let mut decoder = Decoder::new(Peer::Host);
        decoder.next(&mut bytes).unwrap().unwrap();
        decoder.next(&mut bytes)
    };
    let Ok(Some(Frame { message: Message::Fs(FsMessage::Request(request)), .. })) =
        decode(&[24, 24])
    else {
        panic!("a request");
    };
    assert_eq!(request.op, FsOp::Unknown);
    assert!(matches!(decode(&[23]), Ok(Some(_))), "a known operation");
}
