//! The agent as a whole: accepts connections until a shutdown is requested or the runner exits.

use crate::client::Client;
use crate::connection::Connection;
use crate::dispatch;
use crate::fs::Root;
use crate::machine::{HostLink, Listener, Shutdown};
use crate::reaper;
use crate::registry::Registry;
use crate::resources::Resources;
use crate::sys::{self, Inherited};
use msb_wire::Message;
use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::time::timeout;

const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;
/// Connections at once (a count). The library has one per sandbox object.
const CONNECTIONS: usize = 1024;
/// Time for writing the last frames before the agent exits.
const LAST_FRAMES: Duration = Duration::from_millis(500);

/// Serves a container's socket until a shutdown is requested or the runner exits.
pub fn serve(inherited: Inherited) -> io::Result<()> {
    let agent = Agent::new()?;
    let lifeline = inherited.lifeline;
    agent.run(async { Ok((Listener::unix(inherited.listener)?, None)) }, lifeline)
}

/// Serves a machine until a shutdown is requested or the link to the host ends.
pub fn serve_machine(link: HostLink) -> io::Result<()> {
    let agent = Agent::new()?;
    agent.run(
        async { link.open().await.map(|(listener, shutdown)| (listener, Some(shutdown))) },
        None,
    )
}

struct Agent {
    signals: OwnedFd,
    registry: Rc<Registry>,
    runtime: tokio::runtime::Runtime,
}

impl Agent {
    fn new() -> io::Result<Self> {
        let signals = sys::child_signals()?;
        let mut boot_id = [0; 16];
        rustix::rand::getrandom(&mut boot_id, rustix::rand::GetRandomFlags::empty())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let registry = Registry::new(boot_id, Resources::open()?);
        registry.serve_files(Root::open()?)?;
        Ok(Agent { signals, registry, runtime })
    }

    fn run(
        self,
        open: impl Future<Output = io::Result<(Listener, Option<Shutdown>)>>,
        lifeline: Option<OwnedFd>,
    ) -> io::Result<()> {
        let Agent { signals, registry, runtime } = self;
        let (listener, shutdown) = runtime.block_on(open)?;
        let tasks = tokio::task::LocalSet::new();
        let files = registry.files().cloned();
        let result = tasks.block_on(&runtime, run(listener, lifeline, signals, registry));
        // Closes all connections, so that the relay can send the rest of their data.
        drop(tasks);
        if let Some(files) = files {
            files.finish(LAST_FRAMES);
        }
        if let (Ok(()), Some(shutdown)) = (&result, shutdown) {
            runtime.block_on(shutdown.announce());
        }
        result
    }
}

type Connections = Rc<RefCell<Vec<Weak<Connection>>>>;

async fn run(
    mut listener: Listener,
    lifeline: Option<OwnedFd>,
    signals: OwnedFd,
    registry: Rc<Registry>,
) -> io::Result<()> {
    let connections = Connections::default();
    tokio::select! {
        result = reaper::run(signals, Rc::clone(&registry)) => result,
        result = accept(&mut listener, &registry, &connections) => result,
        result = runner_exit(lifeline) => result,
        () = shut_down(&registry, &connections) => Ok(()),
    }
}

async fn accept(
    listener: &mut Listener,
    registry: &Rc<Registry>,
    connections: &Connections,
) -> io::Result<()> {
    let mut next_id = 0;
    loop {
        let stream = match listener.accept().await {
            Ok(Some(stream)) => stream,
            Ok(None) => return Err(io::Error::other("the link to the host has ended")),
            // Out of descriptors or memory: retry later.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        next_id += 1;
        let connection = Connection::new(next_id, stream);
        if !add(connections, &connection) {
            connection.send(0, Message::Error("too many connections to this sandbox".into()));
            connection.flush().await;
            continue;
        }
        tokio::task::spawn_local(dispatch::serve(Client::new(connection), Rc::clone(registry)));
    }
}

/// Records a connection. Returns false when there are too many.
fn add(connections: &Connections, connection: &Rc<Connection>) -> bool {
    let mut all = connections.borrow_mut();
    all.retain(|other| other.strong_count() > 0);
    let has_room = all.len() < CONNECTIONS;
    if has_room {
        all.push(Rc::downgrade(connection));
    }
    has_room
}

/// Waits until the runner exits and so closes its end of the lifeline.
async fn runner_exit(lifeline: Option<OwnedFd>) -> io::Result<()> {
    let Some(lifeline) = lifeline else {
        return std::future::pending().await;
    };
    rustix::fs::fcntl_setfl(&lifeline, rustix::fs::OFlags::NONBLOCK)?;
    let lifeline = sys::watch(lifeline)?;
    loop {
        let mut guard = lifeline.readable().await?;
        match rustix::io::read(lifeline.get_ref(), &mut [0; 64]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(_) => guard.clear_ready(),
        }
    }
}

/// Waits for a shutdown request, then ends every session: by SIGTERM for every process or by the
/// requested signal for the process of each session, then by SIGKILL.
async fn shut_down(registry: &Rc<Registry>, connections: &Connections) {
    let grace = loop {
        registry.notify.notified().await;
        if let Some(grace) = registry.shutdown_grace() {
            break grace;
        }
    };
    match grace.signal {
        None => registry.signal_all(SIGTERM),
        Some(signal) => registry.signal_sessions(signal),
    }
    if timeout(grace.time, idle(registry)).await.is_err() {
        registry.signal_all(SIGKILL);
        // A process that survives SIGKILL waits in the kernel, until the sandbox ends.
        let _ = timeout(LAST_FRAMES, idle(registry)).await;
    }
    let connections: Vec<_> = connections.borrow().iter().filter_map(Weak::upgrade).collect();
    for connection in connections {
        connection.send(0, Message::Bye);
        let _ = timeout(LAST_FRAMES, connection.flush()).await;
    }
}

async fn idle(registry: &Rc<Registry>) {
    while !registry.is_idle() {
        registry.notify.notified().await;
    }
}
