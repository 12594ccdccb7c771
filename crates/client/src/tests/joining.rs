//! Following an existing session.

use crate::connection::Connection;
use crate::error::Error;
use crate::testing::{Agent, block_on, connect, failure, poll_once, rest};
use crate::{Event, ExecCore, Joined, Pending};
use msb_wire::limits::OUTPUT_WINDOW;
use msb_wire::{Attach, Attached, Message, Refusal, SessionId, Verdict};
use std::sync::Arc;

const SESSION: SessionId = SessionId::from_bytes([3; 16]);

/// Starts to join a session, and returns the channel on which the agent has to answer.
fn joining(
    connection: &Arc<Connection>,
    agent: &mut Agent,
    from: Option<u64>,
) -> (ExecCore, Pending<Joined>, u32) {
    let (core, answer) = ExecCore::join(connection, SESSION, from).unwrap();
    let frame = agent.recv();
    let expected = Attach { session: SESSION, from, window: OUTPUT_WINDOW };
    assert_eq!(frame.message, Message::Attach(expected));
    (core, answer, frame.channel)
}

fn attached(stdin_open: bool) -> Message {
    Message::Attached(Attached { pid: 42, from: 100, missed: 90, stdin_open, tty: true })
}

#[test]
fn d5_an_unknown_session_is_a_typed_error_of_the_call() {
    let (connection, mut agent) = connect();
    let (core, answer, channel) = joining(&connection, &mut agent, Some(0));
    let refusal = Some(Refusal::NoSuchSession);
    agent.send(channel, Message::Verdict(Verdict { refusal, ..Verdict::default() }));
    assert!(matches!(
        block_on(answer).unwrap_err(),
        Error::Refused { refusal: Refusal::NoSuchSession, .. }
    ));
    drop(core);
    let (_core, _answer, next) = joining(&connection, &mut agent, Some(0));
    assert_eq!(next, channel + 1, "no frame was sent for the rejected channel");
}

#[test]
fn d5_a_loss_before_the_answer_is_an_error_of_the_call() {
    let (connection, mut agent) = connect();
    let (_core, answer, _) = joining(&connection, &mut agent, Some(0));
    drop(agent);
    assert!(matches!(block_on(answer).unwrap_err(), Error::Lost(_)));
}

#[test]
fn d5_join_cancelled_before_the_answer_closes_the_channel() {
    let (connection, mut agent) = connect();
    let (core, mut answer, channel) = joining(&connection, &mut agent, Some(0));
    assert!(poll_once(&mut answer).is_pending());
    drop(core);
    let frame = agent.recv();
    assert_eq!((frame.channel, frame.message), (channel, Message::Close));
    // Late frames are ignored and violate no rule.
    agent.send(channel, attached(true));
    agent.out(channel, b"late");
    let (_core, _answer, _) = joining(&connection, &mut agent, Some(0));
}

#[test]
fn d5_unexpected_answer_ends_the_connection() {
    let (connection, mut agent) = connect();
    let (_core, answer, channel) = joining(&connection, &mut agent, Some(0));
    agent.started(channel);
    assert!(block_on(answer).is_err());
    assert!(matches!(agent.recv().message, Message::Error(_)));
}

#[test]
fn h2_sink_that_leaves_input_open_sends_no_eof() {
    let (connection, mut agent) = connect();
    let (core, answer, channel) = joining(&connection, &mut agent, None);
    agent.send(channel, attached(true));
    block_on(answer).unwrap();
    let sink = core.take_sink().unwrap().leaving_input_open();
    assert_eq!(sink.try_write(b"typed").unwrap().unwrap(), 5);
    drop(sink);
    drop(core);
    assert!(matches!(agent.recv_but_credit().message, Message::Stdin(_)));
    assert_eq!(agent.recv_but_credit().message, Message::Close);
}

#[test]
fn d5_early_joiners_see_the_failed_start() {
    let (connection, mut agent) = connect();
    let (core, answer, channel) = joining(&connection, &mut agent, Some(0));
    agent.send(channel, Message::Failed(failure()));
    block_on(answer).unwrap();
    assert!(matches!(rest(&core).as_slice(), [Event::Failed(_)]));
}

#[test]
fn d5_a_session_whose_input_is_closed_has_no_sink() {
    for (open, from) in [(true, Some(10)), (false, None)] {
        let (connection, mut agent) = connect();
        let (core, answer, channel) = joining(&connection, &mut agent, from);
        agent.send(channel, attached(open));
        let joined = block_on(answer).unwrap();
        assert_eq!((joined.from, joined.missed, joined.tty), (100, 90, true));
        assert_eq!(core.take_sink().is_some(), open);
        assert!(core.take_sink().is_none());
    }
}
