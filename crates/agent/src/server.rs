//! The agent as a whole: accepts connections, and ends when it is told to or left alone.

use crate::connection::Connection;
use crate::machine::{Entrance, Farewell, Way};
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
/// Connections at once (a count). The library keeps one per sandbox object.
const CONNECTIONS: usize = 1024;
/// How long the last frames may take to leave when the agent ends.
const FAREWELL: Duration = Duration::from_millis(500);

/// Serves a container's socket until a shutdown is asked for or the runner is gone.
pub fn serve(inherited: Inherited) -> io::Result<()> {
    let agent = Agent::new()?;
    let leash = inherited.leash;
    agent.run(async { Ok((Entrance::unix(inherited.listener)?, None)) }, leash)
}

/// Serves a machine until a shutdown is asked for, or the host is gone.
pub fn serve_machine(way: Way) -> io::Result<()> {
    let agent = Agent::new()?;
    agent.run(
        async { way.open().await.map(|(entrance, farewell)| (entrance, Some(farewell))) },
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
        Ok(Agent { signals, registry, runtime })
    }

    fn run(
        self,
        open: impl Future<Output = io::Result<(Entrance, Option<Farewell>)>>,
        leash: Option<OwnedFd>,
    ) -> io::Result<()> {
        let Agent { signals, registry, runtime } = self;
        let (entrance, farewell) = runtime.block_on(open)?;
        let tasks = tokio::task::LocalSet::new();
        let result = tasks.block_on(&runtime, run(entrance, leash, signals, registry));
        // With the tasks the connections go, and what is still in them can be sent to its end.
        drop(tasks);
        if let (Ok(()), Some(farewell)) = (&result, farewell) {
            runtime.block_on(farewell.say());
        }
        result
    }
}

type Connections = Rc<RefCell<Vec<Weak<Connection>>>>;

async fn run(
    mut entrance: Entrance,
    leash: Option<OwnedFd>,
    signals: OwnedFd,
    registry: Rc<Registry>,
) -> io::Result<()> {
    let connections = Connections::default();
    tokio::select! {
        result = reaper::run(signals, Rc::clone(&registry)) => result,
        result = accept(&mut entrance, &registry, &connections) => result,
        result = left_alone(leash) => result,
        () = shut_down(&registry, &connections) => Ok(()),
    }
}

async fn accept(
    entrance: &mut Entrance,
    registry: &Rc<Registry>,
    connections: &Connections,
) -> io::Result<()> {
    let mut next_id = 0;
    loop {
        let stream = match entrance.accept().await {
            Ok(Some(stream)) => stream,
            Ok(None) => return Err(io::Error::other("the way to the host has ended")),
            // Out of descriptors or memory: the next caller may have more luck.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        next_id += 1;
        let connection = Connection::new(next_id, stream);
        if !remember(connections, &connection) {
            connection.send(0, Message::Error("too many connections to this sandbox".into()));
            connection.flush_now().await;
            continue;
        }
        tokio::task::spawn_local(connection.run(Rc::clone(registry)));
    }
}

/// False when there are too many already.
fn remember(connections: &Connections, connection: &Rc<Connection>) -> bool {
    let mut all = connections.borrow_mut();
    all.retain(|other| other.strong_count() > 0);
    let room = all.len() < CONNECTIONS;
    if room {
        all.push(Rc::downgrade(connection));
    }
    room
}

/// Ends when the runner does: its end of the pipe is the only one.
async fn left_alone(leash: Option<OwnedFd>) -> io::Result<()> {
    let Some(leash) = leash else {
        return std::future::pending().await;
    };
    rustix::fs::fcntl_setfl(&leash, rustix::fs::OFlags::NONBLOCK)?;
    let leash = sys::watch(leash)?;
    loop {
        let mut guard = leash.readable().await?;
        match rustix::io::read(leash.get_ref(), &mut [0; 64]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(_) => guard.clear_ready(),
        }
    }
}

/// Ends every session when that was asked for: first politely, then not.
async fn shut_down(registry: &Rc<Registry>, connections: &Connections) {
    let grace = loop {
        registry.stirred.notified().await;
        if let Some(grace) = registry.shutdown_grace() {
            break grace;
        }
    };
    registry.signal_all(SIGTERM);
    if timeout(grace, idle(registry)).await.is_err() {
        registry.signal_all(SIGKILL);
        // Whoever survives SIGKILL waits in the kernel, and the sandbox's end takes them along.
        let _ = timeout(FAREWELL, idle(registry)).await;
    }
    let connections: Vec<_> = connections.borrow().iter().filter_map(Weak::upgrade).collect();
    for connection in connections {
        connection.send(0, Message::Bye);
        let _ = timeout(FAREWELL, connection.flush_now()).await;
    }
}

async fn idle(registry: &Rc<Registry>) {
    while !registry.is_idle() {
        registry.stirred.notified().await;
    }
}
