//! Events, endings, and signals.

use crate::connection::Connection;
use crate::error::Error;
use crate::exec::{ExecCore, StdinSource};
use crate::exec::{Next, Received};
use crate::queue::Event;
use crate::testing::{
    Agent, PATIENCE, block_on, connect, is_readable, limits, next, opened, poll_once, request,
    rest, runtime,
};
use bytes::Bytes;
use msb_wire::limits::{MAX_DATA, OUTPUT_WINDOW};
use msb_wire::{
    End, FailureKind, Frame, Hello, Message, OutputStream, Scope, SendCredit, SessionId,
    SessionInfo, Sessions, Verdict, cost,
};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Instant;

fn is_lost(event: Option<&Event>) -> bool {
    matches!(event, Some(Event::Lost(_)))
}

fn output(events: &[Event]) -> Vec<u8> {
    let data = |event: &Event| match event {
        Event::Output(_, data) => data.to_vec(),
        _ => Vec::new(),
    };
    events.iter().flat_map(data).collect()
}

#[test]
fn b1_events_from_start_to_end_then_none() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    agent.out(channel, b"one");
    agent.send(channel, Message::Stderr(Bytes::from_static(b"two")));
    agent.exited(channel, 3);
    agent.send(channel, Message::End(End { writer_left: true, total: 6 }));
    let events = rest(&core);
    let [Event::Started { pid: 42 }, one, two, Event::Exited(exited)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(*one, Event::Output(OutputStream::Stdout, Bytes::from_static(b"one")));
    assert_eq!(*two, Event::Output(OutputStream::Stderr, Bytes::from_static(b"two")));
    assert_eq!(exited.code, 3);
    for _ in 0..3 {
        let Next::End(end) = core.try_next().unwrap() else { panic!("more after the end") };
        assert!(end.writer_left && !end.cut);
    }
}

#[test]
fn b1_events_out_of_order_lose_the_connection() {
    let (connection, mut agent, core, channel) = opened(StdinSource::Null);
    let other = ExecCore::start(&connection, request(StdinSource::Null)).unwrap();
    let second = agent.recv().channel;
    agent.started(second);
    agent.out(channel, b"before the start");
    let events = rest(&core);
    let [Event::Lost(lost)] = events.as_slice() else { panic!("{events:?}") };
    assert!(lost.message.contains("before the start"), "{lost}");
    assert!(matches!(rest(&other).as_slice(), [Event::Started { .. }, Event::Lost(_)]));
    assert!(matches!(agent.recv().message, Message::Error(_)), "the agent gets the reason");
    assert!(agent.try_recv().is_none(), "the connection is closed");
    let late = ExecCore::start(&connection, request(StdinSource::Null)).unwrap_err();
    assert!(matches!(late, Error::LostBefore(lost) if !lost.sandbox_gone));
}

#[test]
fn b7_a_cut_within_a_frame_is_one_loss_and_no_exit() {
    let (connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    agent.out(channel, b"whole");
    agent.break_off(channel);
    let events = rest(&core);
    assert_eq!(output(&events), b"whole");
    let losses = events.iter().filter(|event| is_lost(Some(event))).count();
    assert_eq!((losses, is_lost(events.last())), (1, true));
    let late = ExecCore::start(&connection, request(StdinSource::Null)).unwrap_err();
    assert!(matches!(late, Error::LostBefore(lost) if lost.sandbox_gone));
    assert_eq!(next(&core), None);
}

#[test]
fn i_garbage_from_the_agent_is_a_typed_loss() {
    for garbage in [&b"\0\0\0\0\xff\0\0\0\0\0\0\0"[..], &[0xff; 64], &[0x20; 64]] {
        let (_connection, mut agent, core, _) = opened(StdinSource::Null);
        agent.send_raw(garbage);
        let events = rest(&core);
        let [Event::Lost(lost)] = events.as_slice() else { panic!("{events:?}") };
        assert!(!lost.sandbox_gone && lost.message.contains("protocol"), "{lost}");
    }
}

#[test]
fn i_a_frame_on_a_channel_that_was_never_opened_is_a_loss() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.out(channel + 1, b"x");
    assert!(is_lost(next(&core).as_ref()));
}

#[test]
fn i_a_wrong_answer_fails_request_and_connection() {
    let (connection, mut agent, core, _) = opened(StdinSource::Null);
    let pending = connection.sessions().unwrap();
    let channel = agent.recv().channel;
    agent.started(channel);
    assert!(matches!(block_on(pending).unwrap_err(), Error::Lost(_)));
    assert!(is_lost(next(&core).as_ref()));
}

#[test]
fn i_an_agent_without_version_or_greeting_is_refused() {
    let establish = |speak: fn(&mut Agent)| {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let pending = Connection::establish(ours, limits(), runtime()).unwrap();
        let mut agent = Agent::new(theirs);
        speak(&mut agent);
        let result = pending.wait(None).unwrap().map(drop);
        drop(agent);
        result.unwrap_err()
    };
    let error = establish(|agent| {
        let hello = Hello { min_version: 8, max_version: 9, ..Hello::ours(None) };
        agent.send(0, Message::Hello(hello));
    });
    assert!(matches!(error, Error::Handshake(_)));
    assert!(error.to_string().contains("8-9"), "{error}");
    let error = establish(|agent| agent.send(0, Message::Error("full".into())));
    assert!(error.to_string().contains("full"), "{error}");
    let error = establish(|agent| agent.send(0, Message::Bye));
    assert!(matches!(error, Error::Handshake(_)));
    let error = establish(|agent| {
        let (other, _) = UnixStream::pair().unwrap();
        *agent = Agent::new(other);
    });
    assert!(matches!(error, Error::Handshake(lost) if lost.sandbox_gone));
}

#[test]
fn b5_random_cancels_over_a_million_lines_leave_no_gap() {
    const LINES: u64 = 1_000_000;
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    let writer = thread::spawn(move || {
        agent.started(channel);
        let (mut credit, mut pending) = (SendCredit::new(OUTPUT_WINDOW), Vec::new());
        for line in 0..LINES {
            pending.extend_from_slice(format!("{line}\n").as_bytes());
            // Varying lengths, so that lines are cut everywhere.
            let size = usize::try_from(1 + line * 7919 % 20_011).unwrap();
            while pending.len() >= size || line + 1 == LINES && !pending.is_empty() {
                let size = size.min(pending.len());
                while !credit.spend(size) {
                    let Message::Credit(limit) = agent.recv().message else { panic!() };
                    credit.raise(limit);
                }
                agent.out(channel, &pending[..size]);
                pending.drain(..size);
            }
        }
        agent.exited(channel, 0);
        agent.end(channel);
        agent
    });
    let (mut expected, mut partial, mut endings, mut random) = (0u64, Vec::new(), 0, 1u64);
    loop {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut future = Box::pin(core.next());
        let result = match poll_once(&mut future) {
            Poll::Ready(result) => result,
            // Cancelled while the event may be in flight or awaited.
            Poll::Pending if random >> 63 == 0 => continue,
            Poll::Pending => block_on(future),
        };
        let Received { event, credit } = match result.unwrap() {
            Next::Event(received) => received,
            Next::End(_) => break,
            Next::Nothing => panic!(),
        };
        match event {
            Event::Output(_, data) => {
                for byte in data {
                    if byte == b'\n' {
                        let line = std::str::from_utf8(&partial).unwrap().parse::<u64>().unwrap();
                        assert_eq!(line, expected);
                        expected += 1;
                        partial.clear();
                    } else {
                        partial.push(byte);
                    }
                }
            }
            Event::Exited(_) => endings += 1,
            Event::Started { .. } => {}
            other => panic!("{other:?}"),
        }
        drop(credit);
    }
    assert_eq!((expected, endings), (LINES, 1));
    drop(writer.join().unwrap());
}

#[test]
fn b5_timed_out_wait_loses_no_event() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    let now = || Some(Instant::now());
    assert!(matches!(core.turn().unwrap().next(now()).unwrap(), Next::Nothing));
    assert!(matches!(core.try_next().unwrap(), Next::Nothing));
    agent.started(channel);
    agent.out(channel, b"x");
    assert!(matches!(next(&core), Some(Event::Started { .. })));
    assert_eq!(output(&[next(&core).unwrap()]), b"x");
}

#[test]
fn b6_credit_goes_back_when_events_are_released_and_not_before() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    assert!(matches!(next(&core), Some(Event::Started { .. })));
    let mut credit = SendCredit::new(OUTPUT_WINDOW);
    while credit.spend(MAX_DATA) {
        agent.out(channel, &[7; MAX_DATA]);
    }
    let frames = OUTPUT_WINDOW / cost(MAX_DATA);
    let mut held = Vec::new();
    for _ in 0..frames {
        let Next::Event(received) = core.turn().unwrap().next(None).unwrap() else { panic!() };
        held.push(received.credit);
    }
    // Nothing was granted for events that are held: the next frame belongs to this request.
    let signal = core.signal::<Error>(15, Scope::Group).unwrap();
    let frame = agent.recv();
    assert!(matches!(frame.message, Message::Signal(_)), "{frame:?}");
    agent.send(frame.channel, Message::Verdict(Verdict::default()));
    block_on(signal).unwrap();
    // From other threads, in another order.
    held.reverse();
    thread::scope(|scope| held.into_iter().for_each(|one| drop(scope.spawn(|| drop(one)))));
    while credit.room() < MAX_DATA {
        let Message::Credit(limit) = agent.recv().message else { panic!() };
        credit.raise(limit);
    }
    agent.exited(channel, 0);
    agent.end(channel);
    assert!(matches!(rest(&core).as_slice(), [Event::Exited(_)]));
}

#[test]
fn b6_sending_beyond_the_credit_loses_the_connection() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    for _ in 0..=OUTPUT_WINDOW / cost(MAX_DATA) {
        agent.out(channel, &[7; MAX_DATA]);
    }
    let (mut held, mut events) = (Vec::new(), Vec::new());
    let deadline = Some(Instant::now() + PATIENCE);
    while let Next::Event(received) = core.turn().unwrap().next(deadline).unwrap() {
        held.push(received.credit);
        events.push(received.event);
    }
    let Some(Event::Lost(lost)) = events.last() else { panic!() };
    assert!(lost.message.contains("credit"), "{lost}");
    assert!(output(&events).len() < usize::try_from(OUTPUT_WINDOW).unwrap());
}

#[test]
fn credit_released_after_close_is_harmless() {
    let (connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    agent.out(channel, b"kept");
    next(&core);
    let Next::Event(kept) = core.turn().unwrap().next(None).unwrap() else { panic!() };
    drop(core);
    drop(connection);
    assert_eq!(agent.recv().message, Message::Close);
    assert!(agent.try_recv().is_none());
    let Event::Output(_, data) = &kept.event else { panic!() };
    assert_eq!(data.as_ref(), b"kept");
    drop(kept);
}

#[test]
fn b9_a_second_reader_is_busy_and_control_still_works() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    let mut first = Box::pin(core.next());
    assert!(poll_once(&mut first).is_pending());
    assert!(matches!(core.try_next().unwrap_err(), Error::Busy));
    let at_once = core.turn().map(drop);
    assert!(matches!(at_once.unwrap_err(), Error::Busy));
    let second = poll_once(&mut Box::pin(core.next()));
    assert!(matches!(second, Poll::Ready(Err(Error::Busy))));
    let signal = core.signal::<Error>(15, Scope::Group).unwrap();
    let frame = agent.recv();
    agent.send(frame.channel, Message::Verdict(Verdict::default()));
    block_on(signal).unwrap();
    drop(first);
    agent.started(channel);
    assert!(matches!(next(&core), Some(Event::Started { .. })));
}

#[test]
fn descriptor_is_readable_exactly_while_an_event_waits() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    assert!(!is_readable(core.fd().unwrap()));
    agent.started(channel);
    let fd = core.fd().unwrap();
    rustix::event::poll(&mut [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)], None)
        .unwrap();
    assert!(matches!(core.try_next().unwrap(), Next::Event(_)));
    assert!(!is_readable(core.fd().unwrap()));
    agent.exited(channel, 0);
    agent.end(channel);
    assert_eq!(rest(&core).len(), 1);
    assert!(is_readable(core.fd().unwrap()), "the end never says that there is nothing yet");
}

#[test]
fn d1_closing_wakes_a_sleeper_and_a_task() {
    let (_connection, _agent, core, _) = opened(StdinSource::Null);
    let core = Arc::new(core);
    let sleeper = Arc::clone(&core);
    let begun = Instant::now();
    let sleeper = thread::spawn(move || {
        sleeper.turn().and_then(|turn| turn.next(Some(begun + PATIENCE))).map(drop)
    });
    while core.try_next().is_ok() {
        thread::yield_now();
    }
    core.close();
    core.close();
    assert!(matches!(sleeper.join().unwrap().unwrap_err(), Error::Closed));
    assert!(begun.elapsed() < PATIENCE, "it was not woken before its deadline");
    let (_connection, _agent, core, _) = opened(StdinSource::Null);
    let mut task = Box::pin(core.next());
    assert!(poll_once(&mut task).is_pending());
    core.close();
    assert!(matches!(block_on(task).unwrap_err(), Error::Closed));
}

#[test]
fn d1_dropping_a_handle_detaches_and_never_kills() {
    let (connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    drop(core);
    assert_eq!(agent.recv(), Frame { channel, message: Message::Close });
    // Frames in flight are ignored, and the connection continues.
    agent.out(channel, b"late");
    agent.exited(channel, 0);
    agent.end(channel);
    let other = ExecCore::start(&connection, request(StdinSource::Null)).unwrap();
    let frame = agent.recv();
    assert!(matches!(frame.message, Message::Exec(_)) && frame.channel > channel, "{frame:?}");
    agent.started(frame.channel);
    assert!(matches!(next(&other), Some(Event::Started { .. })));
}

#[test]
fn d1_dropping_a_handle_after_the_end_sends_nothing() {
    let (connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    agent.exited(channel, 0);
    agent.end(channel);
    rest(&core);
    drop(core);
    let _other = ExecCore::start(&connection, request(StdinSource::Null)).unwrap();
    assert!(matches!(agent.recv().message, Message::Exec(_)));
}

#[test]
fn b8_terminal_is_resized_and_zero_sizes_are_refused() {
    let (connection, mut agent) = connect();
    let mut with_tty = request(StdinSource::Pipe);
    with_tty.exec.tty = Some(msb_wire::TtySize { rows: 24, cols: 80 });
    let core = ExecCore::start(&connection, with_tty).unwrap();
    assert!(matches!(agent.recv().message, Message::Exec(_)));
    assert!(matches!(core.resize::<Error>(0, 1).unwrap_err(), Error::Invalid(_)));
    let pending = core.resize::<Error>(50, 132).unwrap();
    let frame = agent.recv();
    let Message::Resize(resize) = frame.message else { panic!() };
    assert_eq!((resize.size.rows, resize.size.cols), (50, 132));
    agent.send(frame.channel, Message::Verdict(Verdict::default()));
    block_on(pending).unwrap();
}

#[test]
fn d5_sessions_are_listed() {
    let (connection, mut agent) = connect();
    let pending = connection.sessions().unwrap();
    let frame = agent.recv();
    assert_eq!(frame.message, Message::List);
    let info = SessionInfo {
        session: SessionId::from_bytes([9; 16]),
        pid: 5,
        argv: Vec::new(),
        tty: false,
        exited: None,
        age_ns: 1,
        total: 2,
        followers: 0,
    };
    agent.send(frame.channel, Message::Sessions(Sessions { sessions: vec![info.clone()] }));
    assert_eq!(block_on(pending).unwrap(), [info]);
}

#[test]
fn d3_ping_is_answered_by_its_own_pong_only() {
    let (connection, mut agent) = connect();
    let listed = connection.sessions().unwrap();
    let list = agent.recv().channel;
    let pending = connection.ping().unwrap();
    let Frame { channel: 0, message: Message::Ping(ping) } = agent.recv() else { panic!() };
    for other in [0, list.into(), ping + 1, u64::MAX] {
        agent.send(0, Message::Pong(other));
    }
    agent.send(list, Message::Sessions(Sessions { sessions: Vec::new() }));
    assert!(block_on(listed).unwrap().is_empty());
    assert!(pending.wait(Some(Instant::now())).is_none());
    agent.send(0, Message::Pong(ping));
    block_on(pending).unwrap();
    let pending = connection.ping().unwrap();
    drop(agent);
    let error = block_on(pending).unwrap_err();
    assert!(matches!(&error, Error::Lost(lost) if lost.sandbox_gone) && !error.is_timeout());
}

#[test]
fn a2_arguments_beyond_a_frame_fail_with_e2big() {
    let (connection, mut agent) = connect();
    let mut large = request(StdinSource::Null);
    large.exec.argv.push(vec![b'x'; 9 << 20].into());
    let failed = ExecCore::start(&connection, large).unwrap();
    let Some(Event::Failed(failure)) = next(&failed) else { panic!() };
    assert_eq!((failure.kind, failure.errno), (FailureKind::BadArgs, 7));
    let _next = ExecCore::start(&connection, request(StdinSource::Null)).unwrap();
    assert!(matches!(agent.recv().message, Message::Exec(_)), "the connection goes on");
}
