//! The sessions of this agent: running, and ended ones that are remembered.

use crate::connection::Connection;
use crate::resources::Resources;
use crate::session::{self, Session, refuse};
use crate::sys::{self, Reaped};
use msb_wire::limits::{ENDED_REPLAY, ENDED_SESSION_SECONDS, ENDED_SESSIONS, SESSIONS};
use msb_wire::{
    Attach, Exec, Failure, Message, Opened, Refusal, ResizeRequest, SessionId, Sessions, Shutdown,
    SignalRequest, Verdict,
};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a request to attach to a session that is not known waits for it.
const ARRIVAL: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) boot_id: [u8; 16],
    resources: Rc<Resources>,
    tables: RefCell<Tables>,
    /// Connections that follow every session.
    watchers: RefCell<Vec<Rc<Connection>>>,
    scratch: RefCell<Vec<u8>>,
    shutdown: Cell<Option<Duration>>,
    /// A shutdown was asked for, or a session ended while one goes on.
    pub(crate) stirred: Notify,
    /// A session is known from now on.
    arrived: Notify,
    /// A session has ended and left a cgroup.
    pub(crate) lingers: Notify,
}

#[derive(Debug, Default)]
struct Tables {
    by_id: HashMap<SessionId, Rc<Session>>,
    by_pid: HashMap<i32, Rc<Session>>,
    running: VecDeque<SessionId>,
    ended: VecDeque<(Instant, SessionId)>,
    /// Sessions whose processes live on after their end.
    lingering: Vec<Rc<Session>>,
}

impl Registry {
    pub(crate) fn new(boot_id: [u8; 16], resources: Resources) -> Rc<Registry> {
        Rc::new(Registry {
            boot_id,
            resources: Rc::new(resources),
            tables: RefCell::default(),
            watchers: RefCell::default(),
            scratch: RefCell::default(),
            shutdown: Cell::new(None),
            stirred: Notify::new(),
            arrived: Notify::new(),
            lingers: Notify::new(),
        })
    }

    /// Lends the buffer that all reads share: one thread, and no await while it is lent.
    pub(crate) fn with_scratch<T>(&self, f: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        f(&mut self.scratch.borrow_mut())
    }

    /// Starts a command. Waits for the user to be looked up, and then for nothing.
    pub(crate) async fn exec(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        channel: u32,
        exec: Exec,
    ) {
        let times = session::Times::new(&exec);
        let account = self.resources.account(exec.user.as_deref()).await;
        if let Err(failure) = self.admit(&exec) {
            return connection.send(channel, Message::Failed(failure));
        }
        let mut followers = self.announce(&exec);
        followers.push((Rc::clone(connection), channel, exec.window));
        let started = account
            .map_err(|error| session::unknown_user(&exec, &error))
            .and_then(|account| session::start(&exec, account, &self.resources));
        let (session, child) = match started {
            Ok(started) => started,
            Err(failure) => {
                for (connection, channel, _) in followers {
                    connection.send(channel, Message::Failed(failure.clone()));
                }
                return;
            }
        };
        for (connection, channel, window) in followers {
            session.follow_from_start(&connection, channel, window);
            connection.channel_opened(channel, &session);
        }
        let mut tables = self.tables.borrow_mut();
        tables.by_id.insert(session.id, Rc::clone(&session));
        tables.by_pid.insert(session.pid, Rc::clone(&session));
        tables.running.push_back(session.id);
        drop(tables);
        self.arrived.notify_waiters();
        let registry = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let ran = session::run(Rc::clone(&session), child, times, Rc::clone(&registry)).await;
            match ran {
                Ok(()) => registry.ended(&session),
                Err(failure) => {
                    session.never_ran(&failure);
                    registry.forget(&session);
                }
            }
        });
    }

    fn admit(&self, exec: &Exec) -> Result<(), Failure> {
        self.purge();
        let tables = self.tables.borrow();
        if self.shutdown.get().is_some() {
            return Err(session::not_admitted("the sandbox is stopping"));
        }
        if tables.running.len() >= SESSIONS {
            return Err(session::not_admitted("too many sessions run in this sandbox"));
        }
        if tables.by_id.contains_key(&exec.session) {
            return Err(session::not_admitted("a session with this id exists"));
        }
        if !self.watchers.borrow().iter().all(|watcher| watcher.may_announce()) {
            // To go on would be to lose what is told about sessions, or to hold it without bound.
            return Err(session::not_admitted("whoever follows all sessions does not keep up"));
        }
        Ok(())
    }

    /// Tells every session that starts from now on to a connection.
    pub(crate) fn watch(&self, connection: &Rc<Connection>) {
        self.watchers.borrow_mut().push(Rc::clone(connection));
    }

    /// Forgets a connection that has ended.
    pub(crate) fn unwatch(&self, connection: u64) {
        self.watchers.borrow_mut().retain(|watcher| watcher.id != connection);
    }

    /// Announces a session to whoever follows all of them.
    fn announce(&self, exec: &Exec) -> Vec<(Rc<Connection>, u32, u64)> {
        let watchers = self.watchers.borrow();
        let announced = watchers.iter().filter_map(|watcher| {
            let argv = session::shown(exec).into_iter().map(Into::into).collect();
            let opened = Opened { session: exec.session, argv, tty: exec.tty.is_some() };
            let (channel, window) = watcher.announce(opened)?;
            Some((Rc::clone(watcher), channel, window))
        });
        announced.collect()
    }

    /// Waits for a session that is not known yet: an id is given to others as soon as its start is
    /// on its way, and that may be on another connection, which is read later than this one.
    pub(crate) async fn arrival(&self, id: SessionId) {
        let known = async {
            loop {
                // Made before the look, so that nothing that comes behind it is missed.
                let arrived = self.arrived.notified();
                if self.find(id).is_some() {
                    return;
                }
                arrived.await;
            }
        };
        // Beyond that the id is taken to be wrong.
        let _ = timeout(ARRIVAL, known).await;
    }

    /// Lets a channel follow a session.
    pub(crate) fn attach(&self, connection: &Rc<Connection>, channel: u32, attach: &Attach) {
        self.purge();
        match self.find(attach.session) {
            Some(session) => {
                connection.channel_opened(channel, &session);
                session.follow(connection, channel, attach.from, attach.window);
            }
            None => connection.send(channel, Message::Verdict(unknown())),
        }
    }

    /// Signals a session.
    pub(crate) fn signal(&self, request: &SignalRequest) -> Verdict {
        match self.find(request.session) {
            Some(session) => session.signal(request.signal, request.scope),
            None => unknown(),
        }
    }

    /// Changes the size of a session's terminal.
    pub(crate) fn resize(&self, request: &ResizeRequest) -> Verdict {
        match self.find(request.session) {
            Some(session) => session.resize(request.size),
            None => unknown(),
        }
    }

    /// All sessions that are known.
    pub(crate) fn list(&self) -> Sessions {
        self.purge();
        let tables = self.tables.borrow();
        let ids = tables.running.iter().chain(tables.ended.iter().map(|(_, id)| id));
        let sessions = ids.filter_map(|id| tables.by_id.get(id)).map(|session| session.info());
        Sessions { sessions: sessions.collect() }
    }

    fn find(&self, id: SessionId) -> Option<Rc<Session>> {
        self.tables.borrow().by_id.get(&id).cloned()
    }

    /// A child was reaped: a session's process, or an orphan.
    pub(crate) fn child_ended(&self, reaped: &Reaped) {
        let session = self.tables.borrow_mut().by_pid.remove(&reaped.pid);
        if let Some(session) = session {
            session.child_ended(reaped);
        }
    }

    /// Drops the cgroups of ended sessions whose last process has ended. True when there are some
    /// that have no process any more and are still busy.
    pub(crate) fn release_cgroups(&self) -> bool {
        let mut tables = self.tables.borrow_mut();
        tables.lingering.retain(|session| !session.release_cgroup());
        tables.lingering.iter().any(|session| session.cgroup_is_emptying())
    }

    fn forget(&self, session: &Rc<Session>) {
        let mut tables = self.tables.borrow_mut();
        tables.by_id.remove(&session.id);
        tables.running.retain(|id| *id != session.id);
        drop(tables);
        self.stirred.notify_one();
    }

    fn ended(&self, session: &Rc<Session>) {
        let lingers = !session.release_cgroup();
        let mut tables = self.tables.borrow_mut();
        tables.running.retain(|id| *id != session.id);
        tables.ended.push_back((Instant::now(), session.id));
        if lingers {
            tables.lingering.push(Rc::clone(session));
            self.lingers.notify_one();
        }
        drop(tables);
        self.purge();
        self.stirred.notify_one();
    }

    /// Drops what is remembered beyond its time, number or size, the oldest first.
    fn purge(&self) {
        let mut tables = self.tables.borrow_mut();
        let Tables { by_id, ended, .. } = &mut *tables;
        let lifetime = Duration::from_secs(ENDED_SESSION_SECONDS);
        while ended
            .front()
            .is_some_and(|(at, _)| ended.len() > ENDED_SESSIONS || at.elapsed() > lifetime)
        {
            // A process that lives on may keep the session itself.
            if let Some(session) = ended.pop_front().and_then(|(_, id)| by_id.remove(&id)) {
                session.forget_output();
            }
        }
        let sessions: Vec<&Rc<Session>> =
            ended.iter().filter_map(|(_, id)| by_id.get(id)).collect();
        let mut kept: usize = sessions.iter().map(|session| session.kept()).sum();
        for session in sessions {
            if kept <= ENDED_REPLAY {
                break;
            }
            let size = session.kept();
            session.forget_output();
            kept -= size - session.kept();
        }
    }

    /// Notes that everything is to end; `serve` does it.
    pub(crate) fn shut_down(&self, request: &Shutdown) {
        if self.shutdown.get().is_none() {
            self.shutdown.set(Some(Duration::from_nanos(request.grace_ns)));
            self.stirred.notify_one();
        }
    }

    /// The grace of a shutdown that was asked for.
    pub(crate) fn shutdown_grace(&self) -> Option<Duration> {
        self.shutdown.get()
    }

    /// Whether no session runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.tables.borrow().running.is_empty()
    }

    /// Signals everything that runs.
    pub(crate) fn signal_all(&self, signal: i32) {
        if sys::kill_all(signal).is_ok() {
            return;
        }
        let sessions: Vec<Rc<Session>> = {
            let tables = self.tables.borrow();
            tables.running.iter().filter_map(|id| tables.by_id.get(id)).cloned().collect()
        };
        for session in sessions {
            // Whoever is gone already needs no signal.
            let _ = session.signal(signal, msb_wire::Scope::Everything);
        }
    }
}

fn unknown() -> Verdict {
    refuse(Refusal::NoSuchSession, 0, "no session with this id is known")
}
