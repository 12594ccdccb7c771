//! Frames of protocol generation 1, byte for byte. Never edit a file below `golden/v1`: a changed
//! encoding is a new generation.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "a test may panic")]

use bytes::BytesMut;
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
    for (name, peer, frame) in samples() {
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
    let recorded: Vec<u8> = samples()
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
