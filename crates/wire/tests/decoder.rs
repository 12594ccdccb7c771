//! I: for any input, decoding returns a frame, "incomplete", or a typed error.

#![allow(clippy::cast_possible_truncation, clippy::unwrap_used, reason = "a test may panic")]

use bytes::{BufMut, Bytes, BytesMut};
use msb_wire::limits::{COPY_BELOW, MAX_DATA};
use msb_wire::*;
use proptest::prelude::*;

fn after_hello(peer: Peer) -> Decoder {
    let mut decoder = Decoder::new(peer);
    let mut buffer = BytesMut::new();
    let hello = Frame { channel: 0, message: Message::Hello(Hello::ours(None)) };
    assert!(encode(&hello, &mut buffer));
    decoder.next(&mut buffer).unwrap().unwrap();
    decoder
}

fn bytes(frames: &[Frame]) -> BytesMut {
    let mut out = BytesMut::new();
    for frame in frames {
        assert!(encode(frame, &mut out));
    }
    out
}

fn raw(kind: u8, flags: u8, channel: u32, len: u32) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u32_le(len);
    out.put_u8(kind);
    out.put_u8(flags);
    out.put_u16_le(0);
    out.put_u32_le(channel);
    out
}

#[test]
fn frame_before_the_handshake_is_refused() {
    let mut buffer = bytes(&[Frame { channel: 1, message: Message::List }]);
    assert!(matches!(
        Decoder::new(Peer::Host).next(&mut buffer),
        Err(WireError::OutOfState { kind: Kind::List, .. })
    ));
}

#[test]
fn second_hello_is_refused() {
    let hello = Frame { channel: 0, message: Message::Hello(Hello::ours(None)) };
    let mut buffer = bytes(&[hello]);
    assert!(matches!(
        after_hello(Peer::Host).next(&mut buffer),
        Err(WireError::OutOfState { kind: Kind::Hello, .. })
    ));
}

#[test]
fn wrong_sender_or_channel_is_refused() {
    let list = Frame { channel: 1, message: Message::List };
    assert!(after_hello(Peer::Agent).next(&mut bytes(&[list])).is_err());
    let list = Frame { channel: 0, message: Message::List };
    assert!(after_hello(Peer::Host).next(&mut bytes(&[list])).is_err());
    let bye = Frame { channel: 3, message: Message::Bye };
    assert!(after_hello(Peer::Agent).next(&mut bytes(&[bye])).is_err());
}

#[test]
fn invalid_header_is_refused_without_its_payload() {
    assert_eq!(
        after_hello(Peer::Host).next(&mut raw(99, 0, 1, 0)),
        Err(WireError::UnknownKind(99))
    );
    assert_eq!(
        after_hello(Peer::Host).next(&mut raw(Kind::List as u8, 1, 1, 0)),
        Err(WireError::ReservedBits(Kind::List))
    );
    for len in [MAX_DATA as u32 + 1, u32::MAX] {
        assert!(matches!(
            after_hello(Peer::Host).next(&mut raw(Kind::Stdin as u8, 0, 1, len)),
            Err(WireError::TooLong { .. })
        ));
    }
    assert!(matches!(
        Decoder::new(Peer::Host).next(&mut raw(Kind::Hello as u8, 0, 0, 5000)),
        Err(WireError::TooLong { .. })
    ));
}

#[test]
fn agent_announces_sessions_only_on_its_own_channels() {
    let session = SessionId::from_bytes([1; 16]);
    let opened = |channel| Frame {
        channel,
        message: Message::Opened(Opened { session, argv: vec![], tty: false }),
    };
    for channel in [limits::AGENT_CHANNELS, u32::MAX] {
        let got = after_hello(Peer::Agent).next(&mut bytes(&[opened(channel)]));
        assert_eq!(got, Ok(Some(opened(channel))));
    }
    for channel in [0, 1, limits::AGENT_CHANNELS - 1] {
        let got = after_hello(Peer::Agent).next(&mut bytes(&[opened(channel)]));
        assert!(matches!(got, Err(WireError::OutOfState { kind: Kind::Opened, .. })), "{channel}");
    }
    let high = bytes(&[opened(u32::MAX)]);
    assert!(after_hello(Peer::Host).next(&mut high.clone()).is_err());
    let follow = Frame { channel: 1, message: Message::FollowAll(FollowAll { window: 0 }) };
    assert!(after_hello(Peer::Agent).next(&mut bytes(&[follow])).is_err());
}

#[test]
fn unknown_fields_of_a_message_are_skipped() {
    let mut payload = vec![0xa2]; // a map of two: 0 => pid 7, 99 => "later"
    payload.extend([0x00, 0x07, 0x18, 99, 0x65]);
    payload.extend(b"later");
    let mut buffer = raw(Kind::Started as u8, 0, 1, payload.len() as u32);
    buffer.extend_from_slice(&payload);
    assert_eq!(
        after_hello(Peer::Agent).next(&mut buffer),
        Ok(Some(Frame { channel: 1, message: Message::Started(Started { pid: 7 }) }))
    );
}

#[test]
fn only_a_long_payload_shares_the_buffer() {
    for (len, shared) in [(COPY_BELOW - 1, false), (COPY_BELOW, true)] {
        let frame = Frame { channel: 1, message: Message::Stdout(Bytes::from(vec![1; len])) };
        let mut buffer = bytes(&[frame]);
        let inside = buffer.as_ptr_range();
        let Some(Frame { message: Message::Stdout(data), .. }) =
            after_hello(Peer::Agent).next(&mut buffer).unwrap()
        else {
            panic!("not stdout");
        };
        assert_eq!(inside.contains(&data.as_ptr()), shared, "{len}");
    }
}

#[test]
fn exec_that_is_too_long_is_not_encoded() {
    let exec = Exec {
        session: SessionId::from_bytes([0; 16]),
        argv: vec![vec![b'x'; limits::MAX_CONTROL].into()],
        env: vec![],
        cwd: b"/".to_vec(),
        user: None,
        stdin: StdinMode::Null,
        tty: None,
        timeout_ns: None,
        rlimits: vec![],
        drain_ns: None,
        wait_for_eof: false,
        window: 0,
        modes: None,
    };
    let mut out = BytesMut::from(&b"before"[..]);
    assert!(!encode(&Frame { channel: 1, message: Message::Exec(exec) }, &mut out));
    assert_eq!(out, &b"before"[..]);
}

proptest! {
    #[test]
    fn garbage_neither_panics_nor_grows_the_buffer(
        input in proptest::collection::vec(any::<u8>(), 0..4096), host: bool, hello: bool,
    ) {
        let peer = if host { Peer::Host } else { Peer::Agent };
        let mut decoder = if hello { after_hello(peer) } else { Decoder::new(peer) };
        let mut buffer = BytesMut::from(&input[..]);
        while let Ok(Some(_)) = decoder.next(&mut buffer) {}
        prop_assert!(buffer.capacity() <= limits::MAX_CONTROL + 2 * MAX_DATA);
    }

    #[test]
    fn pieces_do_not_change_the_decoded_frames(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..20),
        cut in 1usize..64,
    ) {
        let frames: Vec<Frame> = chunks
            .iter()
            .enumerate()
            .map(|(i, chunk)| {
                let data = Bytes::from(chunk.clone());
                let message = if i % 2 == 0 { Message::Stdout(data) } else { Message::Stderr(data) };
                Frame { channel: i as u32 + 1, message }
            })
            .collect();
        let mut decoder = after_hello(Peer::Agent);
        let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
        for piece in bytes(&frames).chunks(cut) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.next(&mut buffer).unwrap() {
                got.push(frame);
            }
        }
        prop_assert_eq!(got, frames);
    }

    #[test]
    fn announcements_survive_encoding_and_decoding(
        id: [u8; 16], window: u64, tty: bool, high in limits::AGENT_CHANNELS..,
        argv in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
    ) {
        let argv = argv.into_iter().map(Into::into).collect();
        let opened = Opened { session: SessionId::from_bytes(id), argv, tty };
        let opened = Frame { channel: high, message: Message::Opened(opened) };
        let follow = Frame { channel: 1, message: Message::FollowAll(FollowAll { window }) };
        let sent = bytes(&[opened.clone(), follow.clone()]);
        let mut sent_by_host = sent.clone().split_off(bytes(std::slice::from_ref(&opened)).len());
        prop_assert_eq!(after_hello(Peer::Agent).next(&mut sent.clone()), Ok(Some(opened)));
        prop_assert_eq!(after_hello(Peer::Host).next(&mut sent_by_host), Ok(Some(follow)));
    }

    #[test]
    fn credit_bounds_the_sender_and_never_stalls_a_reader(
        sizes in proptest::collection::vec(0usize..MAX_DATA, 1..300),
        hold in 0usize..8,
    ) {
        let window = limits::OUTPUT_WINDOW_MIN;
        let mut sender = SendCredit::new(window);
        let mut receiver = ReceiveCredit::new(window);
        let mut held = std::collections::VecDeque::new();
        for size in sizes {
            let mut left = size;
            loop {
                let room = sender.room();
                let len = left.min(room);
                if sender.spend(len) {
                    receiver.receive(len).unwrap();
                    prop_assert!(receiver.held() <= window);
                    held.push_back(cost(len));
                    left -= len;
                    if left == 0 { break; }
                } else {
                    prop_assert!(!held.is_empty(), "stalled with nothing held");
                }
                while held.len() > if sender.room() == 0 { 0 } else { hold } {
                    if let Some(limit) = receiver.release(held.pop_front().unwrap()) {
                        sender.raise(limit);
                    }
                }
            }
        }
    }
}
