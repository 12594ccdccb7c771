//! Promises B3, D3, J8 and J10 with a fake agent, whose answers each test defines.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bytes::BytesMut;
use msb_wire::{
    Decoder, Exited, Failure, FailureKind, Frame, Hello, Message, Peer, SessionId, SessionInfo,
    Sessions, Stage, Started, Verdict, encode,
};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;
use support::{Msb, Outcome, signal, wait};

/// How long a test waits for what has to come, so that one that waits in vain fails by itself.
const PATIENCE: Duration = Duration::from_secs(100);

/// Returns the answers to a message of the host, on the same channel.
type Answer = fn(&Message) -> Vec<Message>;

/// With a sandbox `w` whose agent gives these answers on every new connection.
fn with_agent(answer: Answer) -> Msb {
    with_watched_agent(answer).0
}

/// As `with_agent`; also returns what tells that a request has come.
fn with_watched_agent(answer: Answer) -> (Msb, Receiver<()>) {
    let (requested, requests) = mpsc::channel();
    let msb = Msb::with_sandbox();
    let run = msb.home.path().join("sandboxes/w/run");
    let address = run.join("agent.sock");
    std::fs::rename(&address, run.join("real.sock")).unwrap();
    let listener = UnixListener::bind(&address).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, requested) = (stream.unwrap(), requested.clone());
            std::thread::spawn(move || serve(stream, answer, &requested));
        }
    });
    (msb, requests)
}

fn serve(mut stream: UnixStream, answer: Answer, requested: &Sender<()>) {
    let (mut decoder, mut buffer) = (Decoder::new(Peer::Host), BytesMut::new());
    let mut chunk = vec![0; 65_536];
    loop {
        while let Some(Frame { channel, message }) = decoder.next(&mut buffer).unwrap() {
            let answers = match message {
                Message::Hello(_) => vec![Message::Hello(Hello::ours(Some([1; 16])))],
                Message::Ping(number) => vec![Message::Pong(number)],
                other => {
                    // Most tests do not wait for it.
                    let _ = requested.send(());
                    answer(&other)
                }
            };
            let mut out = BytesMut::new();
            for message in answers {
                assert!(encode(&Frame { channel, message }, &mut out));
            }
            if stream.write_all(&out).is_err() {
                return;
            }
        }
        match stream.read(&mut chunk) {
            Ok(length @ 1..) => buffer.extend_from_slice(&chunk[..length]),
            _ => return,
        }
    }
}

#[test]
fn j10_sockets_are_for_their_user_alone() {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    let msb = Msb::with_sandbox();
    let run = msb.home.path().join("sandboxes/w/run");
    let mode = |path: &std::path::Path| {
        let meta = std::fs::metadata(path).unwrap();
        (meta.permissions().mode() & 0o777, meta.file_type().is_socket())
    };
    assert_eq!(mode(&run), (0o700, false));
    assert_eq!(mode(&msb.home.path().join("sandboxes/w")), (0o700, false));
    for socket in ["agent.sock", "runner.sock"] {
        assert_eq!(mode(&run.join(socket)), (0o600, true), "{socket}");
    }
}

fn is_exec(message: &Message) -> bool {
    matches!(message, Message::Exec(_))
}

/// Waits for a call that an agent does not answer; fails if it does not end by itself.
fn ends(child: Child) -> Outcome {
    let (sender, outcome) = mpsc::channel();
    std::thread::spawn(move || sender.send(wait(child)));
    outcome.recv_timeout(PATIENCE).expect("msb waits for ever")
}

/// Answers the start of a command, and nothing else.
fn only_starts(message: &Message) -> Vec<Message> {
    match is_exec(message) {
        true => vec![Message::Started(Started { pid: 7 })],
        false => Vec::new(),
    }
}

/// Answers everything, but no command ever ends.
fn never_ends(message: &Message) -> Vec<Message> {
    match message {
        Message::Signal(_) => vec![Message::Verdict(Verdict::default())],
        message => only_starts(message),
    }
}

#[test]
fn d3_timeout_ends_msb_with_an_agent_that_does_not_get_on() {
    let agents: [(Answer, &str); 3] = [
        (|_| Vec::new(), "the agent did not answer within 11 s"),
        (only_starts, "the agent did not answer within 14 s"),
        (never_ends, "the agent did not answer within 14 s"),
    ];
    // All at once, since each takes its time.
    let calls = agents.map(|(answer, expected)| {
        let msb = with_agent(answer);
        let child = msb.spawn(&["exec", "--timeout", "1s", "w", "true"]);
        (msb, child, expected)
    });
    for (_msb, child, expected) in calls {
        let outcome = ends(child);
        assert_eq!(outcome.code, 125, "{outcome:?}");
        assert!(outcome.err.contains(expected), "{}", outcome.err);
        assert_eq!(outcome.err.matches('\n').count(), 1, "{}", outcome.err);
    }
}

#[test]
fn d3_one_sigterm_ends_msb_with_an_agent_that_does_not_get_on() {
    let agents: [Answer; 3] = [|_| Vec::new(), only_starts, never_ends];
    // All at once, since each takes its time.
    let calls = agents.map(|answer| {
        let (msb, requests) = with_watched_agent(answer);
        let child = msb.spawn(&["exec", "w", "true"]);
        requests.recv_timeout(PATIENCE).unwrap();
        signal(&child, Signal::TERM);
        (msb, child)
    });
    for (_msb, child) in calls {
        let outcome = ends(child);
        assert_eq!(outcome.code, 125, "{outcome:?}");
        let lost = "the connection to the sandbox was lost: the agent did not answer the kill";
        assert!(outcome.err.contains(lost), "{}", outcome.err);
    }
}

#[test]
fn d3_one_sigterm_ends_every_other_wait_for_a_silent_agent() {
    let (msb, requests) = with_watched_agent(|_| Vec::new());
    let id = "07".repeat(16);
    let calls: [&[&str]; 4] = [
        &["exec", "-d", "w", "true"],
        &["sessions", "w"],
        &["attach", "w", &id],
        &["kill", "w", "--session", &id],
    ];
    for call in calls {
        let child = msb.spawn(call);
        requests.recv_timeout(PATIENCE).unwrap();
        signal(&child, Signal::TERM);
        assert_eq!(ends(child).code, 128 + 15, "{call:?}");
    }
}

#[test]
fn d3_stopped_host_does_not_time_out_the_agent() {
    let msb = Msb::with_sandbox();
    let script = "echo begun; sleep 1; echo done";
    let mut child = msb.spawn(&["exec", "--timeout", "3s", "w", "sh", "-c", script]);
    support::wait_for_line(&mut child, "begun");
    signal(&child, Signal::STOP);
    // Longer than the timeout and every grace period.
    std::thread::sleep(Duration::from_secs(20));
    signal(&child, Signal::CONT);
    let outcome = wait(child);
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (0, "done\n", ""));
}

#[test]
fn b3_exit_code_out_of_range_is_125_with_a_text() {
    let msb = with_agent(|message| match is_exec(message) {
        true => vec![
            Message::Started(Started { pid: 7 }),
            Message::Exited(Exited { code: i32::MIN, ..Exited::default() }),
        ],
        false => Vec::new(),
    });
    let error = msb.fails(125, &["exec", "w", "true"]);
    assert!(error.contains("the exit code -2147483648, which is out of range"), "{error}");
}

#[test]
fn b7_only_a_lost_command_has_an_unknown_exit_status() {
    // Nothing that was asked for.
    let msb = with_agent(|_| vec![Message::Started(Started { pid: 7 }); 2]);
    let unknown = "; the command's exit status is unknown";
    for (call, is_command) in [(&["exec", "w", "true"][..], true), (&["sessions", "w"], false)] {
        let error = msb.fails(125, call);
        assert!(error.contains("connection to the sandbox was lost: "), "{error}");
        assert_eq!(error.ends_with(unknown), is_command, "{error}");
    }
}

#[test]
fn j8_guest_text_is_escaped() {
    let msb = with_agent(|message| match message {
        Message::List => vec![Message::Sessions(Sessions {
            sessions: vec![SessionInfo {
                session: SessionId::from_bytes([7; 16]),
                pid: 7,
                argv: vec![
                    b"\x1b]0;title\x07".to_vec().into(),
                    "a\nb\u{9b}2J\u{202e}".as_bytes().to_vec().into(),
                    b"\xff\xed\xa0\x80".to_vec().into(),
                ],
                tty: false,
                exited: None,
                age_ns: 1,
                total: 0,
                followers: 0,
            }],
        })],
        Message::Exec(_) => vec![Message::Failed(Failure {
            kind: FailureKind::NotFound,
            stage: Stage::Execve,
            errno: 2,
            path: b"\x1b[31m\xff".to_vec(),
            message: format!("no\n\u{2028}\u{1b}[0m {}", "x".repeat(50_000)),
        })],
        _ => Vec::new(),
    });
    let is_harmless = |text: &str| {
        let hostile = |c: char| {
            (c.is_control() && c != '\n') || matches!(c, '\u{2028}' | '\u{202e}' | '\u{9b}')
        };
        assert!(!text.chars().any(hostile), "{text:?}");
    };
    let table = msb.ok(&["sessions", "w"]);
    is_harmless(&table);
    assert_eq!(table.matches('\n').count(), 2, "{table}");
    assert!(table.contains(r"\u{1b}]0;title\u{7} a b\u{9b}2J\u{202e}"), "{table}");
    let document = msb.ok(&["sessions", "--json", "w"]);
    is_harmless(&document);
    let value: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(value[0]["command"][1], "a\nb\u{9b}2J\u{202e}");
    let error = msb.fails(127, &["exec", "w", "nosuch"]);
    is_harmless(&error);
    assert!(error.starts_with(r"cannot run \u{1b}[31m\xff: no "), "{error}");
    assert!(error.len() < 500, "{}", error.len());
}
