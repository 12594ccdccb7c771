//! Operations on files, with an agent that follows a script.

use crate::connection::Connection;
use crate::error::Error;
use crate::fs::{FsCore, FsRefusal};
use crate::fs_queue::FsFailure;
use crate::testing::{Agent, block_on, connect, is_readable, limits, poll_once, runtime};
use bytes::Bytes;
use msb_wire::limits::{CHANNELS, COPY_BELOW, FS_WINDOW, MAX_DATA, OUTPUT_WINDOW};
use msb_wire::{
    FEATURE_FS, FEATURES, FsDone, FsError, FsErrorKind, FsMessage, FsOp, FsOpened, FsReply, FsStat,
    FsWrite, Hello, Message, SendCredit, cost,
};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

fn read_op() -> FsOp {
    FsOp::Read { path: b"/a".to_vec(), offset: 0, length: None, special: false }
}

fn write_op() -> FsOp {
    FsOp::Write(FsWrite { path: b"/a".to_vec(), ..FsWrite::default() })
}

fn stat_op() -> FsOp {
    FsOp::Stat { path: b"/a".to_vec(), follow: true }
}

/// Starts an operation, and returns the channel that the agent sees.
fn begun(op: FsOp) -> (Arc<Connection>, Agent, FsCore, u32) {
    let (connection, mut agent) = connect();
    let core = FsCore::start(&connection, None, op.clone()).unwrap();
    let frame = agent.recv();
    let Message::Fs(FsMessage::Request(request)) = frame.message else { panic!("no request") };
    assert_eq!(request.op, op);
    (connection, agent, core, frame.channel)
}

fn fs(message: FsMessage) -> Message {
    Message::Fs(message)
}

fn data(size: usize) -> Message {
    fs(FsMessage::Data(Bytes::from(vec![7; size])))
}

fn opened() -> Message {
    fs(FsMessage::Opened(FsOpened { stat: Some(FsStat::default()) }))
}

fn done() -> Message {
    fs(FsMessage::Reply(FsReply::Done(FsDone::default())))
}

fn failed(errno: i32) -> Message {
    fs(FsMessage::Failed(FsError {
        kind: FsErrorKind::of(errno),
        errno,
        operation: "open".to_owned(),
        path: b"/a".to_vec(),
        message: String::new(),
    }))
}

fn lost(failure: &FsFailure) -> &str {
    let FsFailure::Lost(lost) = failure else { panic!("{failure:?}") };
    &lost.message
}

#[test]
fn k1_an_old_agent_is_asked_nothing() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let pending = Connection::establish(ours, limits(), runtime()).unwrap();
    let mut agent = Agent::new(theirs);
    let hello = Hello { features: FEATURES & !FEATURE_FS, ..Hello::ours(Some([1; 16])) };
    agent.send(0, Message::Hello(hello));
    let connection = block_on(pending).unwrap();
    let refusal = FsCore::start(&connection, None, stat_op()).unwrap_err();
    assert!(matches!(refusal, FsRefusal::Unsupported), "{refusal:?}");
    drop(connection);
    assert!(matches!(agent.recv().message, Message::Hello(_)));
    assert!(agent.try_recv().is_none());
}

#[test]
fn k1_a_path_that_fits_no_frame_is_too_long() {
    let (connection, _agent) = connect();
    let op = FsOp::Remove { path: vec![b'/'; MAX_DATA + 1] };
    let refusal = FsCore::start(&connection, None, op).unwrap_err();
    let FsRefusal::TooLong(error) = refusal else { panic!("{refusal:?}") };
    assert_eq!((error.errno, error.operation.as_str()), (36, "remove"));
    assert!(FsCore::start(&connection, None, stat_op()).is_ok());
}

#[test]
fn k3_data_comes_in_order_then_one_end() {
    let (_connection, mut agent, core, channel) = begun(read_op());
    agent.send(channel, opened());
    agent.send(channel, data(3));
    agent.send(channel, data(COPY_BELOW));
    agent.send(channel, done());
    assert_eq!(block_on(core.opened()).unwrap().stat, Some(FsStat::default()));
    assert_eq!(block_on(core.data()).unwrap().unwrap().len(), 3);
    assert_eq!(block_on(core.data()).unwrap().unwrap().len(), COPY_BELOW);
    for _ in 0..2 {
        assert_eq!(block_on(core.data()).unwrap(), None);
        assert!(matches!(block_on(core.result()), Ok(FsReply::Done(_))));
    }
}

#[test]
fn k3_a_cancelled_wait_loses_no_data() {
    let (_connection, mut agent, core, channel) = begun(read_op());
    agent.send(channel, opened());
    block_on(core.opened()).unwrap();
    assert!(!is_readable(core.fd().unwrap()));
    assert!(core.data_until(Some(Instant::now())).is_none());
    assert!(poll_once(&mut Box::pin(core.data())).is_pending());
    agent.send(channel, data(1));
    agent.send(channel, failed(5));
    assert_eq!(block_on(core.data()).unwrap().unwrap().len(), 1);
    let failure = block_on(core.data()).unwrap_err();
    assert!(matches!(failure, FsFailure::Failed(FsError { errno: 5, .. })), "{failure:?}");
    assert!(is_readable(core.fd().unwrap()));
}

#[test]
fn k3_an_agent_gets_credit_only_for_what_was_taken() {
    let (_connection, mut agent, core, channel) = begun(read_op());
    agent.send(channel, opened());
    block_on(core.opened()).unwrap();
    let (mut credit, mut untaken) = (SendCredit::new(OUTPUT_WINDOW), 0);
    for _ in 0..5 * OUTPUT_WINDOW / cost(MAX_DATA) {
        while !credit.spend(MAX_DATA) {
            for _ in 0..std::mem::take(&mut untaken) {
                block_on(core.data()).unwrap().unwrap();
            }
            let Message::Credit(limit) = agent.recv().message else { panic!() };
            credit.raise(limit);
        }
        agent.send(channel, data(MAX_DATA));
        untaken += 1;
    }
    agent.send(channel, done());
    while block_on(core.data()).unwrap().is_some() {}
}

#[test]
fn k3_data_beyond_the_credit_ends_the_connection() {
    let (connection, mut agent, core, channel) = begun(read_op());
    agent.send(channel, opened());
    for _ in 0..=OUTPUT_WINDOW / cost(MAX_DATA) {
        agent.try_send(channel, data(MAX_DATA));
    }
    let failure = block_on(core.result()).unwrap_err();
    assert!(lost(&failure).contains("protocol"), "{failure:?}");
    assert!(connection.lost().is_some());
}

#[test]
fn k3_answers_out_of_order_end_the_connection() {
    let table: [(FsOp, Vec<Message>); 7] = [
        (read_op(), vec![data(1)]),
        (read_op(), vec![done()]),
        (read_op(), vec![opened(), opened()]),
        (stat_op(), vec![data(1)]),
        (stat_op(), vec![done()]),
        (write_op(), vec![done()]),
        (stat_op(), vec![Message::Stdout(Bytes::from_static(b"x"))]),
    ];
    for (op, answers) in table {
        let name = op.name();
        let (_connection, mut agent, core, channel) = begun(op);
        for answer in answers {
            agent.try_send(channel, answer);
        }
        let failure = block_on(core.result()).unwrap_err();
        assert!(lost(&failure).contains("protocol"), "{name}: {failure:?}");
    }
}

#[test]
fn k3_a_write_waits_for_credit_and_ends_once() {
    let (connection, mut agent, core, channel) = begun(write_op());
    let mut rest = Bytes::from(vec![1; 2 * 1024 * 1024]);
    let total = rest.len();
    {
        let mut write = Box::pin(core.write(&mut rest));
        assert!(poll_once(&mut write).is_pending());
    }
    assert!(rest.len() > total / 3, "more than the window was sent");
    assert!(!is_readable(core.fd().unwrap()));
    let writer = std::thread::spawn(move || {
        block_on(core.write(&mut rest)).unwrap();
        core.finish();
        core.finish();
        let result = block_on(core.result());
        (core, result)
    });
    let (mut received, mut spent) = (0, 0);
    loop {
        match agent.recv().message {
            Message::Fs(FsMessage::Data(data)) => {
                received += data.len();
                spent += cost(data.len());
                agent.send(channel, Message::Credit(spent + FS_WINDOW));
            }
            Message::Fs(FsMessage::Eof) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(received, total);
    agent.send(channel, done());
    let (core, result) = writer.join().unwrap();
    assert!(matches!(result, Ok(FsReply::Done(_))));
    drop((core, connection));
    let other = agent.try_recv();
    assert!(other.is_none(), "after its end: {other:?}");
}

#[test]
fn k2_a_write_that_fails_reports_the_agents_reason() {
    let (_connection, mut agent, core, channel) = begun(write_op());
    agent.send(channel, failed(28));
    let failure = block_on(core.result()).unwrap_err();
    assert!(matches!(failure, FsFailure::Failed(FsError { errno: 28, .. })), "{failure:?}");
    let mut more = Bytes::from_static(b"more");
    let failure = block_on(core.write(&mut more)).unwrap_err();
    assert!(matches!(failure, FsFailure::Failed(FsError { errno: 28, .. })), "{failure:?}");
}

#[test]
fn k3_dropping_the_handle_gives_the_operation_up() {
    for op in [read_op(), write_op(), stat_op()] {
        let (connection, mut agent, core, channel) = begun(op);
        drop(core);
        let frame = agent.recv();
        assert_eq!((frame.channel, frame.message), (channel, Message::Close));
        // What was on its way is ignored.
        agent.send(channel, failed(2));
        let next = FsCore::start(&connection, None, stat_op()).unwrap();
        let channel = agent.recv().channel;
        agent.send(channel, fs(FsMessage::Reply(FsReply::Stat(FsStat::default()))));
        assert!(matches!(block_on(next.result()), Ok(FsReply::Stat(_))));
    }
}

#[test]
fn k3_close_wakes_who_waits() {
    let (_connection, _agent, core, _) = begun(stat_op());
    let core = Arc::new(core);
    let waiter = Arc::clone(&core);
    let waiter = std::thread::spawn(move || waiter.result_until(None));
    core.close();
    assert!(matches!(waiter.join().unwrap(), Some(Err(FsFailure::Closed))));
}

#[test]
fn k1_the_end_of_the_sandbox_ends_every_operation() {
    let (connection, mut agent) = connect();
    let cores: Vec<FsCore> = [read_op(), write_op(), stat_op()]
        .into_iter()
        .map(|op| FsCore::start(&connection, None, op).unwrap())
        .collect();
    assert!(cores.len() < CHANNELS);
    for _ in &cores {
        agent.recv();
    }
    drop(agent);
    for core in &cores {
        lost(&block_on(core.result()).unwrap_err());
    }
    let refusal = FsCore::start(&connection, None, stat_op()).unwrap_err();
    let FsRefusal::Connection(error) = refusal else { panic!("{refusal:?}") };
    assert!(matches!(error, Error::LostBefore(lost) if lost.sandbox_gone));
}
