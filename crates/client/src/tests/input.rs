//! Standard input, and a socket that is full.

use crate::error::Error;
use crate::exec::{ExecCore, StdinSource};
use crate::queue::Event;
use crate::testing::{block_on, is_readable, next, opened, poll_once, request, rest};
use bytes::Bytes;
use msb_wire::limits::{MAX_DATA, OUTPUT_WINDOW, STDIN_WINDOW};
use msb_wire::{Frame, Message, Scope, SendCredit, StdinError, Verdict, cost};
use std::sync::Arc;
use std::thread;

fn output(events: &[Event]) -> Vec<u8> {
    let data = |event: &Event| match event {
        Event::Output(_, data) => data.to_vec(),
        _ => Vec::new(),
    };
    events.iter().flat_map(data).collect()
}

#[test]
fn c1_sink_is_taken_once_and_only_with_a_pipe() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Pipe);
    agent.started(channel);
    agent.exited(channel, 0);
    agent.end(channel);
    rest(&core);
    assert!(core.take_sink().is_some(), "also after the command has ended");
    assert!(core.take_sink().is_none());
    let (_connection, _agent, core, _) = opened(StdinSource::Null);
    assert!(core.take_sink().is_none());
    let (_connection, _agent, core, _) = opened(StdinSource::Bytes(Bytes::from_static(b"x")));
    assert!(core.take_sink().is_none());
}

#[test]
fn c1_sink_and_handle_outlive_each_other() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Pipe);
    agent.started(channel);
    let sink = core.take_sink().unwrap();
    drop(core);
    // The events are not read, and yet the command does not block.
    let mut credit = SendCredit::new(OUTPUT_WINDOW);
    for _ in 0..3 * OUTPUT_WINDOW / cost(MAX_DATA) {
        while !credit.spend(MAX_DATA) {
            let Message::Credit(limit) = agent.recv().message else { panic!() };
            credit.raise(limit);
        }
        agent.out(channel, &[0; MAX_DATA]);
    }
    block_on(sink.write_all(b"still")).unwrap();
    assert_eq!(agent.recv_but_credit().message, Message::Stdin(Bytes::from_static(b"still")));
    drop(sink);
    assert_eq!(agent.recv_but_credit().message, Message::StdinEof);
    assert_eq!(agent.recv_but_credit(), Frame { channel, message: Message::Close });

    let (_connection, mut agent, core, channel) = opened(StdinSource::Pipe);
    drop(core.take_sink().unwrap());
    assert_eq!(agent.recv().message, Message::StdinEof);
    agent.started(channel);
    assert!(matches!(next(&core), Some(Event::Started { .. })));
}

#[test]
fn c1_dropping_a_handle_leaves_untaken_input_open() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Pipe);
    drop(core);
    assert_eq!(agent.recv(), Frame { channel, message: Message::Close });
}

#[test]
fn c2_writes_stop_at_the_credit_and_go_on_with_more() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Pipe);
    let sink = core.take_sink().unwrap();
    let data: Vec<u8> = (0..=250).cycle().take(2_000_000).collect();
    assert_eq!(sink.try_write(b"").unwrap().unwrap(), 0);
    let first = sink.try_write(&data).unwrap().unwrap();
    assert!(first as u64 <= STDIN_WINDOW && first as u64 > STDIN_WINDOW - cost(MAX_DATA));
    assert!(sink.try_write(&data).is_none());
    assert!(sink.write_until(&data, Some(std::time::Instant::now())).is_none());
    assert!(!is_readable(sink.fd().unwrap()));
    let mut rest = Box::pin(sink.write_all(&data[first..]));
    assert!(poll_once(&mut rest).is_pending());
    let expected = data.clone();
    let reader = thread::spawn(move || {
        let (mut got, mut used) = (Vec::new(), 0);
        while got.len() < expected.len() {
            let Message::Stdin(piece) = agent.recv().message else { panic!() };
            assert!(piece.len() <= MAX_DATA);
            used += cost(piece.len());
            got.extend_from_slice(&piece);
            agent.send(channel, Message::Credit(used + STDIN_WINDOW));
        }
        assert!(got == expected);
        agent
    });
    block_on(rest).unwrap();
    let mut agent = reader.join().unwrap();
    sink.close();
    sink.close();
    assert_eq!(agent.recv().message, Message::StdinEof);
    assert!(matches!(sink.try_write(b"x").unwrap().unwrap_err(), Error::InputClosed));
    drop(core);
    assert_eq!(agent.recv().message, Message::Close);
}

#[test]
fn c2_closing_the_sink_wakes_a_waiting_write() {
    let (_connection, _agent, core, _) = opened(StdinSource::Pipe);
    let sink = Arc::new(core.take_sink().unwrap());
    while sink.try_write(&[0; MAX_DATA]).is_some() {}
    let writer = Arc::clone(&sink);
    let writer = thread::spawn(move || writer.write_until(b"x", None));
    sink.close();
    assert!(matches!(writer.join().unwrap().unwrap().unwrap_err(), Error::InputClosed));
}

#[test]
fn c3_a_closed_stdin_is_a_broken_pipe_and_one_event() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Pipe);
    let sink = core.take_sink().unwrap();
    agent.started(channel);
    agent.send(channel, Message::StdinError(StdinError { errno: 32 }));
    agent.out(channel, b"goes on");
    assert!(matches!(next(&core), Some(Event::Started { .. })));
    assert_eq!(next(&core), Some(Event::StdinError(StdinError { errno: 32 })));
    assert!(matches!(block_on(sink.write_all(b"x")).unwrap_err(), Error::BrokenPipe));
    assert!(is_readable(sink.fd().unwrap()));
    assert_eq!(output(&[next(&core).unwrap()]), b"goes on");
    drop(sink);
    drop(core);
    assert_eq!(agent.recv().message, Message::Close, "and no end of input behind the break");
}

#[test]
fn c3_exit_of_the_command_breaks_a_waiting_write() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Pipe);
    let sink = core.take_sink().unwrap();
    while sink.try_write(&[0; MAX_DATA]).is_some() {}
    let mut write = Box::pin(sink.write_all(b"more"));
    assert!(poll_once(&mut write).is_pending());
    agent.started(channel);
    agent.exited(channel, 0);
    assert!(matches!(block_on(write).unwrap_err(), Error::BrokenPipe));
}

#[test]
fn c4_given_bytes_arrive_whole_and_then_their_end() {
    for size in [0, 1, MAX_DATA + 1, 8 << 20] {
        let data = Bytes::from((0..=252).cycle().take(size).collect::<Vec<u8>>());
        let (_connection, mut agent, core, channel) = opened(StdinSource::Bytes(data.clone()));
        agent.started(channel);
        let (mut got, mut used) = (Vec::new(), 0);
        loop {
            match agent.recv().message {
                Message::Stdin(piece) => {
                    used += cost(piece.len());
                    got.extend_from_slice(&piece);
                    agent.send(channel, Message::Credit(used + STDIN_WINDOW));
                }
                Message::StdinEof => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(got == data, "{size} bytes");
        agent.exited(channel, 0);
        agent.end(channel);
        assert!(matches!(rest(&core).last(), Some(Event::Exited(exited)) if exited.code == 0));
    }
}

#[test]
fn c4_unread_stdin_bytes_are_no_error_of_the_call() {
    let data = Bytes::from(vec![0; 4 << 20]);
    let (_connection, mut agent, core, channel) = opened(StdinSource::Bytes(data));
    agent.started(channel);
    agent.send(channel, Message::StdinError(StdinError { errno: 32 }));
    agent.exited(channel, 0);
    agent.end(channel);
    assert!(matches!(rest(&core).last(), Some(Event::Exited(exited)) if exited.code == 0));
}

#[test]
fn a_socket_that_is_full_delays_frames_and_loses_none() {
    let (connection, mut agent, core, _) = opened(StdinSource::Pipe);
    let sinks: Vec<_> = (0..8)
        .map(|_| {
            let core = ExecCore::start(&connection, request(StdinSource::Pipe)).unwrap();
            let sink = core.take_sink().unwrap();
            let mut sent = 0;
            while let Some(taken) = sink.try_write(&[1; MAX_DATA]) {
                sent += taken.unwrap();
            }
            (core, sink, sent)
        })
        .collect();
    let pending = core.signal::<Error>(15, Scope::Group).unwrap();
    let mut got = 0;
    loop {
        let frame = agent.recv();
        match frame.message {
            Message::Stdin(piece) => got += piece.len(),
            Message::Exec(_) => {}
            Message::Signal(_) => {
                agent.send(frame.channel, Message::Verdict(Verdict::default()));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(got, sinks.iter().map(|(_, _, sent)| sent).sum::<usize>());
    block_on(pending).unwrap();
}

#[test]
fn c2_bytes_written_before_the_last_drop_still_arrive() {
    let (connection, mut agent, core, _) = opened(StdinSource::Pipe);
    let sink = core.take_sink().unwrap();
    let mut sent = 0;
    while let Some(taken) = sink.try_write(&[1; MAX_DATA]) {
        sent += taken.unwrap();
    }
    drop((core, sink, connection));
    let (mut got, mut closed) = (0, false);
    while let Some(frame) = agent.try_recv() {
        match frame.message {
            Message::Stdin(piece) => got += piece.len(),
            Message::StdinEof => {}
            Message::Close => closed = true,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((got, closed), (sent, true));
}
