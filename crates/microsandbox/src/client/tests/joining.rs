//! Following an existing session.

use crate::client::connection::Connection;
use crate::client::testing::{Agent, block_on, connect, poll_once, rest};
use crate::client::{Event, ExecCore, Joined, Pending};
use crate::error::ErrorKind;
use crate::exec::ExecHandle;
use crate::pull::Exec;
use crate::reattach::ReattachFrom;
use msb_wire::limits::OUTPUT_WINDOW;
use msb_wire::{
    Attach, Attached, Failure, FailureKind, Message, Refusal, SessionId, Stage, Verdict,
};
use std::sync::Arc;

const SESSION: SessionId = SessionId::from_bytes([3; 16]);

/// Starts to join a session, and returns the channel on which the agent has to answer.
fn joining(
    connection: &Arc<Connection>,
    agent: &mut Agent,
    from: ReattachFrom,
) -> (ExecCore, Pending<Joined>, u32) {
    let (core, answer) = ExecCore::join(connection, SESSION, from.position()).unwrap();
    let frame = agent.recv();
    let expected = Attach { session: SESSION, from: from.position(), window: OUTPUT_WINDOW };
    assert_eq!(frame.message, Message::Attach(expected));
    (core, answer, frame.channel)
}

fn attached(stdin_open: bool) -> Message {
    Message::Attached(Attached { pid: 42, from: 100, missed: 90, stdin_open, tty: true })
}

#[test]
fn d5_a_joined_session_starts_there_and_positions_go_on() {
    let (connection, mut agent) = connect();
    let (core, answer, channel) = joining(&connection, &mut agent, ReattachFrom::Position(10));
    agent.send(channel, attached(true));
    agent.out(channel, b"abc");
    agent.exited(channel, 5);
    agent.end(channel);
    let mut handle = ExecHandle::new(Exec::joined(core, &block_on(answer).unwrap()));
    assert_eq!((handle.position(), handle.missed()), (100, 90));
    assert!(handle.take_stdin().is_some() && handle.take_stdin().is_none());
    let output = block_on(handle.collect()).unwrap();
    assert_eq!((output.stdout_bytes().as_ref(), output.status().code), (b"abc".as_slice(), 5));
    assert_eq!((handle.position(), handle.missed()), (103, 90));
}

#[test]
fn d5_a_session_whose_input_is_closed_has_no_sink() {
    let (connection, mut agent) = connect();
    let (core, answer, channel) = joining(&connection, &mut agent, ReattachFrom::Now);
    agent.send(channel, attached(false));
    let mut handle = ExecHandle::new(Exec::joined(core, &block_on(answer).unwrap()));
    assert!(handle.take_stdin().is_none());
}

#[test]
fn d5_an_unknown_session_is_a_typed_error_of_the_call() {
    let (connection, mut agent) = connect();
    let (core, answer, channel) = joining(&connection, &mut agent, ReattachFrom::Start);
    let refusal = Some(Refusal::NoSuchSession);
    agent.send(channel, Message::Verdict(Verdict { refusal, ..Verdict::default() }));
    assert_eq!(block_on(answer).unwrap_err().kind(), ErrorKind::NoSuchSession);
    drop(core);
    let (_core, _answer, next) = joining(&connection, &mut agent, ReattachFrom::Start);
    assert_eq!(next, channel + 1, "no frame was sent for the rejected channel");
}

#[test]
fn d5_early_joiners_see_the_failed_start() {
    let (connection, mut agent) = connect();
    let (core, answer, channel) = joining(&connection, &mut agent, ReattachFrom::Start);
    agent.send(
        channel,
        Message::Failed(Failure {
            kind: FailureKind::NotFound,
            stage: Stage::Execve,
            errno: 2,
            path: b"nope".to_vec(),
            message: String::new(),
        }),
    );
    block_on(answer).unwrap();
    assert!(matches!(rest(&core).as_slice(), [Event::Failed(_)]));
}

#[test]
fn d5_a_loss_before_the_answer_is_an_error_of_the_call() {
    let (connection, mut agent) = connect();
    let (_core, answer, _) = joining(&connection, &mut agent, ReattachFrom::Start);
    drop(agent);
    assert_eq!(block_on(answer).unwrap_err().kind(), ErrorKind::StreamLost);
}

#[test]
fn d5_join_cancelled_before_the_answer_closes_the_channel() {
    let (connection, mut agent) = connect();
    let (core, mut answer, channel) = joining(&connection, &mut agent, ReattachFrom::Start);
    assert!(poll_once(&mut answer).is_pending());
    drop(core);
    let frame = agent.recv();
    assert_eq!((frame.channel, frame.message), (channel, Message::Close));
    // Late frames are ignored and violate no rule.
    agent.send(channel, attached(true));
    agent.out(channel, b"late");
    let (_core, _answer, _) = joining(&connection, &mut agent, ReattachFrom::Start);
}

#[test]
fn d5_unexpected_answer_ends_the_connection() {
    let (connection, mut agent) = connect();
    let (_core, answer, channel) = joining(&connection, &mut agent, ReattachFrom::Start);
    agent.started(channel);
    assert!(block_on(answer).is_err());
    assert!(matches!(agent.recv().message, Message::Error(_)));
}

#[test]
fn h2_sink_that_leaves_input_open_sends_no_eof() {
    let (connection, mut agent) = connect();
    let (core, answer, channel) = joining(&connection, &mut agent, ReattachFrom::Now);
    agent.send(channel, attached(true));
    block_on(answer).unwrap();
    let sink = core.take_sink().unwrap().leaving_input_open();
    assert_eq!(sink.try_write(b"typed").unwrap().unwrap(), 5);
    drop(sink);
    drop(core);
    assert!(matches!(agent.recv_but_credit().message, Message::Stdin(_)));
    assert_eq!(agent.recv_but_credit().message, Message::Close);
}
