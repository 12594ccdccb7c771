//! An agent that does not answer, and one that sends invalid messages.

use crate::connection::Connection;
use crate::deadlines::Limits;
use crate::error::Error;
use crate::exec::Next;
use crate::exec::{ExecCore, StdinSource};
use crate::origin::Origin;
use crate::queue::Event;
use crate::testing::{Agent, connect, limits, opened, request, rest};
use bytes::Bytes;
use msb_wire::{Exited, Message, OutputStream, Scope, StdinError, TtySize, Verdict};
use std::future::Future;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

/// Creates a connection in the test's own runtime, and so on its clock.
async fn connect_here(limits: Limits) -> (Arc<Connection>, Agent) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut agent = Agent::new(theirs);
    agent.say_hello();
    let pending = Connection::establish(ours, limits, &Handle::current()).unwrap();
    let connection = pending.await.unwrap();
    assert!(matches!(agent.recv().message, Message::Hello(_)));
    (connection, agent)
}

async fn event(core: &ExecCore) -> Option<Event> {
    match core.next().await.unwrap() {
        Next::Event(received) => Some(received.event),
        _ => None,
    }
}

fn timed(seconds: u64) -> crate::exec::ExecRequest {
    let mut request = request(StdinSource::Null);
    request.exec.timeout_ns = Some(seconds * 1_000_000_000);
    request
}

async fn is_lost(core: &ExecCore) -> Duration {
    let begun = Instant::now();
    let Some(Event::Lost(lost)) = event(core).await else { panic!("it is not lost") };
    assert!(!lost.sandbox_gone && lost.origin == Origin::Host);
    assert!(lost.message.starts_with("the agent did not answer within "), "{}", lost.message);
    begun.elapsed()
}

fn is_about(elapsed: Duration, seconds: u64) {
    let range = Duration::from_secs(seconds)..Duration::from_secs(seconds + 3);
    assert!(range.contains(&elapsed), "{elapsed:?} instead of {seconds} s");
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn d3_silent_agent_is_lost_after_the_grace() {
    let (connection, mut agent) = connect_here(limits()).await;
    let core = ExecCore::start(&connection, timed(2)).unwrap();
    is_about(is_lost(&core).await, 12);
    assert!(matches!(agent.recv().message, Message::Exec(_)));
    let Message::Signal(kill) = agent.recv().message else { panic!() };
    assert_eq!((kill.signal, kill.scope), (9, Scope::Everything), "it may still start");
    assert_eq!(agent.recv().message, Message::Close);
    assert!(connection.lost().is_none(), "the others go on");
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn d3_command_that_is_not_ended_is_killed_and_lost() {
    let (connection, mut agent) = connect_here(limits()).await;
    let core = ExecCore::start(&connection, timed(2)).unwrap();
    let channel = agent.recv().channel;
    agent.started(channel);
    assert_eq!(event(&core).await, Some(Event::Started { pid: 42 }));
    is_about(is_lost(&core).await, 2 + 10 + 3);
    assert!(matches!(agent.recv().message, Message::Signal(_)));
    assert_eq!(agent.recv().message, Message::Close);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn d3_flood_beyond_the_timeout_is_lost_too() {
    let (connection, mut agent) = connect_here(limits()).await;
    let core = ExecCore::start(&connection, timed(2)).unwrap();
    let channel = agent.recv().channel;
    agent.started(channel);
    assert_eq!(event(&core).await, Some(Event::Started { pid: 42 }));
    let begun = Instant::now();
    loop {
        // One at a time, so that the credit suffices.
        if agent.try_send(channel, Message::Stdout(Bytes::from(vec![0; 60_000]))) {
            match event(&core).await.unwrap() {
                Event::Output(OutputStream::Stdout, _) => sleep(Duration::from_millis(10)).await,
                Event::Lost(_) => break,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn d3_start_has_a_limit_without_a_timeout() {
    let (connection, mut agent) = connect_here(limits()).await;
    let core = ExecCore::start(&connection, request(StdinSource::Null)).unwrap();
    is_about(is_lost(&core).await, 60);
    assert!(matches!(agent.recv().message, Message::Exec(_)));
    assert!(matches!(agent.recv().message, Message::Signal(_)), "it may still start");
    assert_eq!(agent.recv().message, Message::Close);
}

/// Waits for the answer to one request, whatever it is.
type Asked = std::pin::Pin<Box<dyn Future<Output = Result<(), Error>>>>;

fn ask<T: 'static>(asked: impl Future<Output = Result<T, Error>> + 'static) -> Asked {
    Box::pin(async { asked.await.map(drop) })
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn d3_every_request_has_a_limit() {
    let (connection, _agent) = connect_here(limits()).await;
    let mut started = request(StdinSource::Null);
    started.exec.tty = Some(TtySize { rows: 2, cols: 2 });
    let core = ExecCore::start(&connection, started).unwrap();
    let session = core.session();
    let (_joining, joined) = ExecCore::join(&connection, session, None).unwrap();
    let requests = [
        ("signal", ask(core.signal::<Error>(15, Scope::Group).unwrap())),
        ("kill", ask(core.signal::<Error>(9, Scope::Everything).unwrap())),
        ("resize", ask(core.resize::<Error>(3, 3).unwrap())),
        ("list", ask(connection.sessions().unwrap())),
        ("ping", ask(connection.ping().unwrap())),
        ("attach", ask(joined)),
    ];
    let begun = Instant::now();
    for (name, answer) in requests {
        let error = answer.await.unwrap_err();
        assert!(matches!(error, Error::Lost(_)), "{name}");
        assert!(error.is_timeout(), "{name}: {error}");
        assert!(error.to_string().contains("did not answer within 30 s"), "{name}: {error}");
    }
    is_about(begun.elapsed(), 30);
    assert!(connection.lost().is_none(), "the others go on");
    is_lost(&core).await;
    is_about(begun.elapsed(), 60);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn d3_greeting_has_a_limit() {
    for (boot_timeout, limit) in [(30, 30), (300, 300)] {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let limits = Limits::new(Duration::from_secs(boot_timeout));
        let pending = Connection::establish(ours, limits, &Handle::current()).unwrap();
        let begun = Instant::now();
        let error = pending.await.map(drop).unwrap_err();
        is_about(begun.elapsed(), limit);
        assert!(matches!(error, Error::Lost(_)));
        assert!(error.to_string().contains(&format!("within {limit} s")), "{error}");
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn d3_killed_command_that_does_not_end_is_lost() {
    for (before, scope) in
        [(false, Scope::Everything), (true, Scope::Everything), (true, Scope::Group)]
    {
        let (connection, mut agent) = connect_here(limits()).await;
        let core = ExecCore::start(&connection, request(StdinSource::Null)).unwrap();
        let channel = agent.recv().channel;
        if before {
            agent.started(channel);
            assert_eq!(event(&core).await, Some(Event::Started { pid: 42 }));
        }
        let killed = core.signal::<Error>(9, scope).unwrap();
        let request = agent.recv().channel;
        agent.send(request, Message::Verdict(Verdict::default()));
        killed.await.unwrap();
        if !before {
            agent.started(channel);
            assert_eq!(event(&core).await, Some(Event::Started { pid: 42 }));
        }
        is_about(is_lost(&core).await, 30);
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn d3_refused_or_other_signal_sets_no_limit() {
    let refused =
        Verdict { refusal: Some(msb_wire::Refusal::System), errno: 1, ..Verdict::default() };
    for (signal, verdict) in [(9, refused), (15, Verdict::default())] {
        let (connection, mut agent) = connect_here(limits()).await;
        let core = ExecCore::start(&connection, request(StdinSource::Null)).unwrap();
        let channel = agent.recv().channel;
        agent.started(channel);
        assert_eq!(event(&core).await, Some(Event::Started { pid: 42 }));
        let signalled = core.signal::<Error>(signal, Scope::Everything).unwrap();
        let request = agent.recv().channel;
        agent.send(request, Message::Verdict(verdict));
        assert_eq!(signalled.await.is_ok(), signal == 15);
        sleep(Duration::from_secs(1_000_000)).await;
        agent.exited(channel, 7);
        assert!(matches!(event(&core).await, Some(Event::Exited(_))));
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn d3_kill_leaves_time_to_those_who_write_after_the_exit() {
    let (connection, mut agent) = connect_here(limits()).await;
    let mut started = request(StdinSource::Null);
    started.exec.wait_for_eof = true;
    let core = ExecCore::start(&connection, started).unwrap();
    let channel = agent.recv().channel;
    agent.started(channel);
    assert_eq!(event(&core).await, Some(Event::Started { pid: 42 }));
    let killed = core.signal::<Error>(9, Scope::Group).unwrap();
    let request = agent.recv().channel;
    agent.send(request, Message::Verdict(Verdict::default()));
    killed.await.unwrap();
    agent.exited(channel, 0);
    assert!(matches!(event(&core).await, Some(Event::Exited(_))));
    sleep(Duration::from_secs(1_000_000)).await;
    agent.out(channel, b"late");
    let output = Event::Output(OutputStream::Stdout, Bytes::from_static(b"late"));
    assert_eq!(event(&core).await, Some(output));
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn d3_command_without_a_timeout_runs_for_ever() {
    let (connection, mut agent) = connect_here(limits()).await;
    let core = ExecCore::start(&connection, request(StdinSource::Null)).unwrap();
    let channel = agent.recv().channel;
    agent.started(channel);
    assert_eq!(event(&core).await, Some(Event::Started { pid: 42 }));
    sleep(Duration::from_secs(1_000_000)).await;
    agent.out(channel, b"still here");
    let output = Event::Output(OutputStream::Stdout, Bytes::from_static(b"still here"));
    assert_eq!(event(&core).await, Some(output));
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn d3_output_without_an_end_is_cut_after_the_exit() {
    let (connection, mut agent) = connect_here(limits()).await;
    let core = ExecCore::start(&connection, request(StdinSource::Null)).unwrap();
    let channel = agent.recv().channel;
    agent.started(channel);
    agent.exited(channel, 3);
    assert_eq!(event(&core).await, Some(Event::Started { pid: 42 }));
    let begun = Instant::now();
    assert!(matches!(event(&core).await, Some(Event::Exited(exited)) if exited.code == 3));
    assert_eq!(event(&core).await, None);
    is_about(begun.elapsed(), 10);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn d3_reader_that_is_slow_loses_nothing() {
    let (connection, mut agent) = connect_here(limits()).await;
    let core = ExecCore::start(&connection, timed(2)).unwrap();
    let channel = agent.recv().channel;
    agent.started(channel);
    agent.out(channel, b"unread");
    sleep(Duration::from_secs(500)).await;
    let killed = Exited { code: -1, signal: Some(9), timed_out: true, ..Exited::default() };
    agent.send(channel, Message::Exited(killed));
    agent.end(channel);
    assert_eq!(event(&core).await, Some(Event::Started { pid: 42 }));
    assert!(matches!(event(&core).await, Some(Event::Output(..))));
    assert!(matches!(event(&core).await, Some(Event::Exited(exited)) if exited.timed_out));
}

#[test]
fn b3_exit_code_out_of_range_is_lost() {
    for (code, signal) in [(i32::MIN, None), (256, None), (-1, None), (-1, Some(0))] {
        let (_connection, mut agent, core, channel) = opened(StdinSource::Null);
        agent.started(channel);
        agent.send(channel, Message::Exited(Exited { code, signal, ..Exited::default() }));
        let events = rest(&core);
        let [Event::Started { .. }, Event::Lost(lost)] = events.as_slice() else {
            panic!("{events:?}")
        };
        assert!(lost.message.contains("out of range"), "{}", lost.message);
    }
}

#[test]
fn j4_flood_of_input_errors_is_bounded() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Pipe);
    agent.started(channel);
    for _ in 0..100_000 {
        if !agent.try_send(channel, Message::StdinError(StdinError { errno: 32 })) {
            break;
        }
    }
    let events = rest(&core);
    let [Event::Started { .. }, Event::StdinError(_), Event::Lost(lost)] = events.as_slice() else {
        panic!("{} events", events.len())
    };
    assert!(lost.message.contains("a second input error"), "{}", lost.message);
}

#[test]
fn j4_credit_for_input_beyond_the_window_is_refused() {
    let (_connection, mut agent, core, channel) = opened(StdinSource::Pipe);
    agent.started(channel);
    agent.send(channel, Message::Credit(u64::MAX));
    let events = rest(&core);
    let [Event::Started { .. }, Event::Lost(lost)] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert!(lost.message.contains("credit up to"), "{}", lost.message);
}

#[test]
fn j8_messages_of_the_agent_are_one_short_line() {
    let (connection, mut agent) = connect();
    let pending =
        connection.signal::<Error>(msb_wire::SessionId::from_bytes([1; 16]), 15, Scope::Group);
    let channel = agent.recv().channel;
    let refusal = Some(msb_wire::Refusal::System);
    let message = format!("\x1b[2J\n{}", "x".repeat(60_000));
    agent.send(channel, Message::Verdict(Verdict { refusal, errno: 5, message }));
    let error = crate::testing::block_on(pending.unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("\\u{1b}[2J xxx") && error.len() < 300, "{error}");
}
