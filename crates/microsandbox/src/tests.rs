//! Commands of a scripted agent, seen through the API.

use crate::error::{Error, ErrorKind};
use crate::exec::ExecHandle;
use crate::pull::Exec;
use crate::record::{ExecRecord, Settings};
use bytes::Bytes;
use msb_client::testing::{
    block_on, connect, failure, limits, opened, poll_once, request, runtime,
};
use msb_client::{Connection, ExecCore, StdinSource};
use msb_wire::{
    Attached, Exited, FailureKind, Frame, Message, Refusal, Scope, SessionId, SignalRequest, Stage,
    Verdict,
};
use std::os::unix::net::UnixStream;
use std::time::Duration;

fn handle(core: ExecCore) -> ExecHandle {
    ExecHandle::new(Exec::new(core, ExecRecord::new(Settings::default())))
}

#[test]
fn b1_a_start_failure_is_the_only_event_and_a_typed_error() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.send(channel, Message::Failed(failure()));
    let mut handle = handle(core);
    for _ in 0..2 {
        let Err(Error::ExecFailed(failed)) = block_on(handle.collect()) else { panic!() };
        assert_eq!((failed.errno, failed.errno_name.as_str()), (2, "ENOENT"));
        assert_eq!((failed.kind, failed.stage), (FailureKind::NotFound, Stage::Execve));
    }
    assert_eq!(block_on(handle.recv()), None);
}

#[test]
fn b7_the_collected_call_of_a_lost_command_fails_as_lost() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    agent.out(channel, b"some");
    drop(agent);
    let mut handle = handle(core);
    assert_eq!(block_on(handle.wait()).unwrap_err().kind(), ErrorKind::StreamLost);
    assert_eq!(block_on(handle.collect()).unwrap_err().kind(), ErrorKind::StreamLost);
}

#[test]
fn b7_loss_after_the_exit_keeps_the_exit() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    agent.exited(channel, 0);
    drop(agent);
    let output = block_on(handle(core).collect()).unwrap();
    assert!(output.status().success && output.writer_left());
}

#[test]
fn b7_collect_until_eof_fails_if_output_may_be_missing() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    agent.exited(channel, 0);
    drop(agent);
    let settings = Settings { wait_for_eof: true, ..Settings::default() };
    let error = block_on(ExecHandle::new(Exec::new(core, ExecRecord::new(settings))).collect())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StreamLost);
}

#[test]
fn d4_cancelled_exec_kills_its_command() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    let mut handle = handle(core).kill_on_drop();
    let mut collect = Box::pin(handle.collect());
    assert!(poll_once(&mut collect).is_pending());
    drop(collect);
    drop(handle);
    let Message::Signal(signal) = agent.recv().message else { panic!() };
    let session = SessionId::from_bytes([7; 16]);
    assert_eq!(signal, SignalRequest { session, signal: 9, scope: Scope::Everything });
    assert_eq!(agent.recv(), Frame { channel, message: Message::Close });
}

#[test]
fn d4_completed_exec_kills_nothing() {
    let (connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    agent.exited(channel, 0);
    agent.end(channel);
    block_on(handle(core).kill_on_drop().collect()).unwrap();
    let _other = ExecCore::start(&connection, request(StdinSource::Null)).unwrap();
    assert!(matches!(agent.recv().message, Message::Exec(_)));
}

#[test]
fn b10_a_cancelled_collect_keeps_its_output() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    let mut handle = handle(core);
    agent.started(channel);
    for (data, taken) in [(b"one", 3), (b"two", 6), (b"tri", 9)] {
        agent.out(channel, data);
        // Cancelled repeatedly, also after it has taken bytes.
        while handle.position() < taken {
            assert!(poll_once(&mut Box::pin(handle.collect())).is_pending());
        }
    }
    agent.exited(channel, 0);
    agent.end(channel);
    let output = block_on(handle.collect()).unwrap();
    assert_eq!(output.stdout().unwrap(), "onetwotri");
}

#[test]
fn b10_events_after_wait_can_still_be_received() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    let mut handle = handle(core);
    agent.started(channel);
    agent.out(channel, b"thrown away");
    agent.exited(channel, 5);
    for _ in 0..2 {
        assert_eq!(block_on(handle.wait()).unwrap().code, 5);
    }
    agent.out(channel, b"from another");
    agent.end(channel);
    let output = block_on(handle.collect()).unwrap();
    assert_eq!((output.status().code, output.stdout().unwrap().as_str()), (5, "from another"));
}

#[test]
fn d3_a_timeout_is_an_error_that_carries_the_output_so_far() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    agent.out(channel, b"so far");
    let killed = Exited { code: -1, signal: Some(9), timed_out: true, ..Exited::default() };
    agent.send(channel, Message::Exited(killed));
    agent.end(channel);
    let limit = Duration::from_millis(5);
    let settings = Settings { timeout: Some(limit), ..Settings::default() };
    let error = block_on(ExecHandle::new(Exec::new(core, ExecRecord::new(settings))).collect())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ExecTimeout);
    let Error::ExecTimeout { timeout, output } = error else { panic!() };
    assert_eq!((timeout, output.stdout().unwrap().as_str()), (limit, "so far"));
    assert_eq!(output.status().signal, Some(9));
}

#[test]
fn a4_output_is_cut_at_the_limit_and_the_total_reported() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
    agent.started(channel);
    for _ in 0..4 {
        agent.out(channel, &[b'x'; 300]);
    }
    agent.send(channel, Message::Stderr(Bytes::from_static(b"short")));
    agent.exited(channel, 0);
    agent.end(channel);
    let settings = Settings { max_output: Some(1000), ..Settings::default() };
    let output =
        block_on(ExecHandle::new(Exec::new(core, ExecRecord::new(settings))).collect()).unwrap();
    assert_eq!((output.stdout_bytes().len(), output.stdout_total()), (1000, 1200));
    assert_eq!((output.stderr_bytes().len(), output.stderr_total()), (5, 5));
    assert!(output.truncated());
}

#[test]
fn d2_signals_are_answered_by_typed_verdicts() {
    let (connection, mut agent, core, channel) = opened(StdinSource::Null);
    let exec = Exec::new(core, ExecRecord::new(Settings::default()));
    for (refusal, kind) in [
        (Refusal::NoSuchProcess, ErrorKind::NoSuchProcess),
        (Refusal::NoSuchSession, ErrorKind::NoSuchProcess),
        (Refusal::Invalid, ErrorKind::InvalidArgument),
        (Refusal::NotATerminal, ErrorKind::NotATerminal),
        (Refusal::TooMany, ErrorKind::LimitReached),
        (Refusal::System, ErrorKind::Io),
    ] {
        let pending = exec.signal(15, Scope::Group).unwrap();
        let on = agent.recv().channel;
        let verdict = Verdict { refusal: Some(refusal), errno: 3, message: String::new() };
        agent.send(on, Message::Verdict(verdict));
        let error = block_on(pending).unwrap_err();
        assert_eq!((error.kind(), error.os_error()), (kind, Some(3)));
    }
    for bad in [0, -1, 65] {
        let error = exec.signal(bad, Scope::Group).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    let error = exec.resize(10, 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotATerminal, "refused without a request");
    let pending = exec.signal(15, Scope::Group).unwrap();
    drop(agent);
    assert_eq!(block_on(pending).unwrap_err().kind(), ErrorKind::StreamLost);
    assert!(connection.lost().is_some() && channel > 0);
}

#[test]
fn d5_a_joined_session_starts_there_and_positions_go_on() {
    let (connection, mut agent) = connect();
    let session = SessionId::from_bytes([3; 16]);
    let (core, answer) = ExecCore::join(&connection, session, Some(10)).unwrap();
    let channel = agent.recv().channel;
    let attached = Attached { pid: 42, from: 100, missed: 90, stdin_open: true, tty: true };
    agent.send(channel, Message::Attached(attached));
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
fn a2_arguments_beyond_a_frame_fail_with_e2big() {
    let (connection, _agent) = connect();
    let mut large = request(StdinSource::Null);
    large.exec.argv.push(vec![b'x'; 9 << 20].into());
    let mut failed = handle(ExecCore::start(&connection, large).unwrap());
    let Err(Error::ExecFailed(failure)) = block_on(failed.collect()) else { panic!() };
    assert_eq!((failure.kind, failure.errno_name.as_str()), (FailureKind::BadArgs, "E2BIG"));
}

#[test]
fn d3_lost_connections_have_the_kind_of_their_cause() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let pending = Connection::establish(ours, limits(), runtime()).unwrap();
    let error = Error::from(block_on(pending).map(drop).unwrap_err());
    assert_eq!(error.kind(), ErrorKind::SandboxNotRunning);
    for (garbage, before, during) in [
        (false, ErrorKind::SandboxNotRunning, ErrorKind::StreamLost),
        (true, ErrorKind::StreamLost, ErrorKind::StreamLost),
    ] {
        let (connection, mut agent) = connect();
        let pending = connection.sessions().unwrap();
        if garbage {
            agent.send_raw(&[0xff; 64]);
        }
        drop(agent);
        assert_eq!(Error::from(block_on(pending).unwrap_err()).kind(), during);
        let refused = connection.sessions().map(drop).unwrap_err();
        assert_eq!(Error::from(refused).kind(), before);
    }
}
