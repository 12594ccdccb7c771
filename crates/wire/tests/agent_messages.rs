//! The host's decoder validates numbers and truncates texts of an agent.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use bytes::BytesMut;
use minicbor::bytes::ByteVec;
use msb_wire::limits::{
    AGENT_CHANNELS, ARGV_SHOWN, ENDED_SESSIONS, FS_SKIPPED, FS_SKIPPED_PATH, SESSIONS, TEXT,
};
use msb_wire::*;

/// Decodes an agent's message as the host does.
fn read(message: Message) -> Result<Message, WireError> {
    let (mut decoder, mut buffer) = (Decoder::new(Peer::Agent), BytesMut::new());
    let hello = Message::Hello(Hello::ours(None));
    assert!(encode(&Frame { channel: 0, message: hello }, &mut buffer));
    let channel = match message {
        Message::Error(_) => 0,
        _ => AGENT_CHANNELS,
    };
    assert!(encode(&Frame { channel, message }, &mut buffer));
    decoder.next(&mut buffer).unwrap().unwrap();
    decoder.next(&mut buffer).map(|frame| frame.unwrap().message)
}

fn exited(code: i32, signal: Option<u8>) -> Message {
    Message::Exited(Exited { code, signal, ..Exited::default() })
}

fn listed(argv: Vec<ByteVec>, pid: u32, exited: Option<Exited>) -> SessionInfo {
    let session = SessionId::from_bytes([1; 16]);
    SessionInfo { session, pid, argv, tty: false, exited, age_ns: 0, total: 0, followers: 0 }
}

#[test]
fn b3_exit_code_out_of_range_is_refused() {
    for (code, signal) in [(0, None), (255, None), (-1, Some(1)), (-1, Some(64))] {
        assert!(read(exited(code, signal)).is_ok(), "{code} {signal:?}");
    }
    let wrong = [
        (256, None),
        (-1, None),
        (i32::MIN, None),
        (-2, Some(9)),
        (3, Some(9)),
        (-1, Some(0)),
        (-1, Some(65)),
    ];
    for (code, signal) in wrong {
        let error = read(exited(code, signal)).unwrap_err();
        assert!(matches!(error, WireError::OutOfRange { .. }), "{code} {signal:?}: {error}");
    }
    let text = read(exited(i32::MIN, None)).unwrap_err().to_string();
    assert_eq!(text, "frame Exited with the exit code -2147483648, which is out of range");
}

#[test]
fn j4_numbers_of_the_agent_out_of_range_are_refused() {
    let attached = |pid, from, missed| {
        Message::Attached(Attached { pid, from, missed, stdin_open: false, tty: false })
    };
    let verdict = |errno| Message::Verdict(Verdict { errno, ..Verdict::default() });
    let list = |session| Message::Sessions(Sessions { sessions: vec![session] });
    let bad_exit = Exited { code: 999, ..Exited::default() };
    let wrong = [
        Message::Started(Started { pid: 0 }),
        Message::Started(Started { pid: u32::MAX }),
        Message::StdinError(StdinError { errno: -1 }),
        Message::StdinError(StdinError { errno: 4096 }),
        attached(0, 0, 0),
        attached(1, u64::MAX, 0),
        attached(1, 5, 6),
        verdict(i32::MIN),
        list(listed(Vec::new(), 0, None)),
        list(listed(Vec::new(), 1, Some(bad_exit))),
    ];
    for message in wrong {
        let error = read(message.clone()).unwrap_err();
        assert!(matches!(error, WireError::OutOfRange { .. }), "{message:?}: {error}");
    }
    assert!(read(attached(1, 6, 6)).is_ok() && read(verdict(4095)).is_ok());
}

#[test]
fn j4_arguments_and_lists_of_the_agent_are_bounded() {
    let opened = |argv| {
        let session = SessionId::from_bytes([1; 16]);
        read(Message::Opened(Opened { session, argv, tty: false }))
    };
    assert!(opened(vec![vec![0; ARGV_SHOWN - 1].into()]).is_ok());
    assert!(opened(vec![Vec::new().into(); ARGV_SHOWN]).is_ok());
    assert!(opened(vec![vec![0; ARGV_SHOWN].into()]).is_err());
    assert!(opened(vec![Vec::new().into(); ARGV_SHOWN + 1]).is_err());
    let list = |count| {
        read(Message::Sessions(Sessions { sessions: vec![listed(Vec::new(), 1, None); count] }))
    };
    assert!(list(SESSIONS + ENDED_SESSIONS).is_ok());
    assert!(list(SESSIONS + ENDED_SESSIONS + 1).is_err());
}

#[test]
fn j4_numbers_of_the_agent_about_files_are_checked() {
    let failed = |errno| {
        let (operation, path, message) = ("open".to_owned(), b"/a".to_vec(), String::new());
        let kind = FsErrorKind::Filesystem;
        read(Message::Fs(FsMessage::Failed(FsError { kind, errno, operation, path, message })))
    };
    let late = FsTime { seconds: 0, nanos: 1_000_000_000 };
    let stats = [
        FsStat { accessed: late, ..FsStat::default() },
        FsStat { mode: u32::MAX, ..FsStat::default() },
        FsStat { size: u64::MAX, ..FsStat::default() },
    ];
    for stat in stats {
        for message in [
            FsMessage::Reply(FsReply::Stat(stat)),
            FsMessage::Opened(FsOpened { stat: Some(stat) }),
        ] {
            let error = read(Message::Fs(message)).unwrap_err();
            assert!(matches!(error, WireError::OutOfRange { .. }), "{error}");
        }
    }
    for errno in [-1, 4096] {
        assert!(matches!(failed(errno).unwrap_err(), WireError::OutOfRange { .. }), "{errno}");
    }
    assert!(failed(0).is_ok() && failed(4095).is_ok());
}

#[test]
fn j4_skipped_files_of_the_agent_are_bounded() {
    let done = |count| {
        let skipped = FsSkipped { path: vec![b'x'; 600], why: "x".repeat(300) };
        let done = FsDone { skipped: vec![skipped; count], ..FsDone::default() };
        read(Message::Fs(FsMessage::Reply(FsReply::Done(done))))
    };
    let Ok(Message::Fs(FsMessage::Reply(FsReply::Done(most)))) = done(FS_SKIPPED) else { panic!() };
    assert_eq!((most.skipped.len(), most.skipped[0].path.len()), (FS_SKIPPED, FS_SKIPPED_PATH));
    assert!(done(FS_SKIPPED + 1).is_err());
}

#[test]
fn j8_texts_of_the_agent_are_truncated() {
    let long = "\u{e9}".repeat(TEXT);
    let failure = Failure {
        kind: FailureKind::Other,
        stage: Stage::Fork,
        errno: 1,
        path: vec![b'x'; 2 * TEXT],
        message: long.clone(),
    };
    let Ok(Message::Failed(failure)) = read(Message::Failed(failure)) else { panic!() };
    assert_eq!((failure.path.len(), failure.message.len()), (TEXT, TEXT));
    let refusal = Some(Refusal::System);
    let verdict = Verdict { refusal, errno: 1, message: format!("x{long}") };
    let Ok(Message::Verdict(verdict)) = read(Message::Verdict(verdict)) else { panic!() };
    assert_eq!(verdict.message.len(), TEXT - 1, "not in the middle of a character");
    let Ok(Message::Error(text)) = read(Message::Error(long)) else { panic!() };
    assert_eq!(text.len(), TEXT);
}
