//! The sessions of this agent: running ones, and ended ones that are kept.

use crate::client::Client;
use crate::fs::{Files, Root};
use crate::resources::Resources;
use crate::session::{self, Session};
use crate::sys::{self, Reaped};
use msb_wire::limits::{ENDED_REPLAY, ENDED_SESSION_SECONDS, ENDED_SESSIONS, SESSIONS, TEXT};
use msb_wire::{
    Attach, Exec, Failure, Message, Opened, Refusal, ResizeRequest, SessionId, Sessions, Shutdown,
    SignalRequest, Verdict,
};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::sleep;

/// How long a request to attach waits for a session that is not known yet.
const ATTACH_WAIT: Duration = Duration::from_secs(1);

/// Failed starts that are kept (a count).
const FAILED_STARTS: usize = 64;

/// The sessions of an agent.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) boot_id: [u8; 16],
    resources: Rc<Resources>,
    tables: RefCell<Tables>,
    /// Clients that follow every session.
    watchers: RefCell<Vec<Rc<Client>>>,
    shutdown: Cell<Option<Grace>>,
    /// Signalled when a shutdown is requested or a session ends.
    pub(crate) notify: Notify,
    /// Sessions whose start was received and is not decided yet.
    starting: RefCell<Vec<SessionId>>,
    /// Signalled when a session becomes known, or a start is decided.
    started: Notify,
    /// Signalled when a session ends and leaves background processes.
    pub(crate) left_background: Notify,
    files: OnceCell<Rc<Files>>,
}

/// How sessions are asked to end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grace {
    pub(crate) time: Duration,
    /// The first signal, if it is not SIGTERM for every process.
    pub(crate) signal: Option<i32>,
}

#[derive(Debug, Default)]
struct Tables {
    by_id: HashMap<SessionId, Rc<Session>>,
    by_pid: HashMap<i32, Rc<Session>>,
    running: VecDeque<SessionId>,
    ended: VecDeque<(Instant, SessionId)>,
    /// Ended sessions with background processes.
    background: Vec<Rc<Session>>,
    /// Sessions whose start failed: a request to attach may arrive after the failure.
    failed: VecDeque<(Instant, SessionId, Failure)>,
}

impl Registry {
    pub(crate) fn new(boot_id: [u8; 16], resources: Resources) -> Rc<Registry> {
        Rc::new(Registry {
            boot_id,
            resources: Rc::new(resources),
            tables: RefCell::default(),
            watchers: RefCell::default(),
            shutdown: Cell::new(None),
            notify: Notify::new(),
            starting: RefCell::default(),
            started: Notify::new(),
            left_background: Notify::new(),
            files: OnceCell::new(),
        })
    }

    /// Serves operations on files from now on.
    pub(crate) fn serve_files(&self, root: Root) -> io::Result<()> {
        let files = Files::start(root, Rc::clone(&self.resources))?;
        // Called once.
        let _ = self.files.set(files);
        Ok(())
    }

    /// Returns what operations on files share, if they are served.
    pub(crate) fn files(&self) -> Option<&Rc<Files>> {
        self.files.get()
    }

    /// Starts a command. Waits only for the lookup of its user.
    pub(crate) async fn exec(self: &Rc<Self>, client: &Rc<Client>, channel: u32, exec: Exec) {
        let times = session::Times::new(&exec);
        let account = self.resources.account(exec.user.as_deref()).await;
        if let Err(failure) = self.admit(&exec) {
            return client.send(channel, Message::Failed(failure));
        }
        let mut followers = self.announce(&exec);
        followers.push((Rc::clone(client), channel, exec.window));
        let started = account
            .map_err(|error| session::unknown_user(&exec, &error))
            .and_then(|account| session::start(&exec, account, &self.resources));
        let (session, child) = match started {
            Ok(started) => started,
            Err(failure) => {
                for (client, channel, _) in followers {
                    client.send(channel, Message::Failed(failure.clone()));
                }
                return self.start_failed(exec.session, failure);
            }
        };
        for (client, channel, window) in followers {
            session.follow_from_start(client.channel(channel), window);
            client.bind(channel, &session);
        }
        let mut tables = self.tables.borrow_mut();
        tables.by_id.insert(session.id, Rc::clone(&session));
        tables.by_pid.insert(session.pid, Rc::clone(&session));
        tables.running.push_back(session.id);
        drop(tables);
        self.started.notify_waiters();
        let registry = Rc::clone(self);
        tokio::task::spawn_local(async move {
            match session::run(Rc::clone(&session), child, times).await {
                Ok(()) => registry.session_ended(&session),
                Err(failure) => {
                    session.fail(&failure);
                    registry.forget(&session);
                    registry.start_failed(session.id, failure);
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
        if !self.watchers.borrow().iter().all(|watcher| watcher.can_announce()) {
            // Otherwise the client would miss a session, or its queue would grow without bound.
            return Err(session::not_admitted("a client that follows all sessions is too slow"));
        }
        Ok(())
    }

    /// Announces every session that starts from now on to a client.
    pub(crate) fn add_watcher(&self, client: &Rc<Client>) {
        self.watchers.borrow_mut().push(Rc::clone(client));
    }

    /// Removes a client whose connection has ended.
    pub(crate) fn remove_watcher(&self, client: &Rc<Client>) {
        self.watchers.borrow_mut().retain(|watcher| !Rc::ptr_eq(watcher, client));
    }

    /// Announces a session to the clients that follow all, and returns their channels and windows.
    fn announce(&self, exec: &Exec) -> Vec<(Rc<Client>, u32, u64)> {
        let watchers = self.watchers.borrow();
        let announced = watchers.iter().filter_map(|watcher| {
            let argv = session::shown_argv(exec).into_iter().map(Into::into).collect();
            let opened = Opened { session: exec.session, argv, tty: exec.tty.is_some() };
            let (channel, window) = watcher.announce(opened)?;
            Some((Rc::clone(watcher), channel, window))
        });
        announced.collect()
    }

    /// Records that a start was received.
    pub(crate) fn start_begins(&self, id: SessionId) {
        self.starting.borrow_mut().push(id);
    }

    /// Records that a start is decided.
    pub(crate) fn start_ends(&self, id: SessionId) {
        let mut starting = self.starting.borrow_mut();
        if let Some(at) = starting.iter().position(|other| *other == id) {
            starting.swap_remove(at);
        }
        drop(starting);
        self.started.notify_waiters();
    }

    /// Waits for a session that is not known yet: until its start is decided, or briefly for that
    /// start. A host shares an id as soon as it has sent the start, which may arrive on another
    /// connection after the request to attach.
    pub(crate) async fn wait_for_session(&self, id: SessionId) {
        let mut grace = pin!(sleep(ATTACH_WAIT));
        let is_starting = || self.starting.borrow().contains(&id);
        let mut is_last_look = false;
        loop {
            // Created before the lookup, so that no start in between is missed.
            let started = self.started.notified();
            if self.find(id).is_some() || self.failure(id).is_some() || is_last_look {
                return;
            }
            tokio::select! {
                () = started => {}
                // A start that was received has a limit of its own.
                () = &mut grace, if !is_starting() => {
                    // On a busy machine the start has come as well, and waits for its turn.
                    tokio::task::yield_now().await;
                    is_last_look = !is_starting();
                }
            }
        }
    }

    /// Attaches a channel to a session.
    pub(crate) fn attach(&self, client: &Rc<Client>, channel: u32, attach: &Attach) {
        self.purge();
        match self.find(attach.session) {
            Some(session) => {
                client.bind(channel, &session);
                session.follow(client.channel(channel), attach.from, attach.window);
            }
            None => {
                let failed = self.failure(attach.session).map(Message::Failed);
                let answer = failed.unwrap_or_else(|| Message::Verdict(unknown_session()));
                client.send(channel, answer);
            }
        }
    }

    /// Signals a session.
    pub(crate) fn signal(&self, request: &SignalRequest) -> Verdict {
        match self.find(request.session) {
            Some(session) => session.signal(request.signal, request.scope),
            None => unknown_session(),
        }
    }

    /// Changes the size of a session's terminal.
    pub(crate) fn resize(&self, request: &ResizeRequest) -> Verdict {
        match self.find(request.session) {
            Some(session) => session.resize(request.size),
            None => unknown_session(),
        }
    }

    /// Lists all known sessions.
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

    fn failure(&self, id: SessionId) -> Option<Failure> {
        let tables = self.tables.borrow();
        tables.failed.iter().find(|(_, failed, _)| *failed == id).map(|(.., why)| why.clone())
    }

    /// Keeps the failure of a start for clients that attach shortly afterwards.
    fn start_failed(&self, id: SessionId, mut failure: Failure) {
        failure.path.truncate(TEXT);
        let mut tables = self.tables.borrow_mut();
        tables.failed.push_back((Instant::now(), id, failure));
        if tables.failed.len() > FAILED_STARTS {
            tables.failed.pop_front();
        }
        drop(tables);
        self.started.notify_waiters();
    }

    /// Handles a reaped child: a session's process, or an orphan.
    pub(crate) fn child_exited(&self, reaped: &Reaped) {
        let session = self.tables.borrow_mut().by_pid.remove(&reaped.pid);
        if let Some(session) = session {
            session.process_exited(reaped);
        }
    }

    /// Removes the cgroups of ended sessions whose last process has exited. Returns whether there
    /// is one without processes that is still busy.
    pub(crate) fn release_cgroups(&self) -> bool {
        let mut tables = self.tables.borrow_mut();
        tables.background.retain(|session| !session.release_cgroup());
        tables.background.iter().any(|session| session.cgroup_has_no_members())
    }

    fn forget(&self, session: &Rc<Session>) {
        let mut tables = self.tables.borrow_mut();
        tables.by_id.remove(&session.id);
        tables.running.retain(|id| *id != session.id);
        drop(tables);
        self.notify.notify_one();
    }

    fn session_ended(&self, session: &Rc<Session>) {
        let has_background = !session.release_cgroup();
        let mut tables = self.tables.borrow_mut();
        tables.running.retain(|id| *id != session.id);
        tables.ended.push_back((Instant::now(), session.id));
        if has_background {
            tables.background.push(Rc::clone(session));
            self.left_background.notify_one();
        }
        drop(tables);
        self.purge();
        self.notify.notify_one();
    }

    /// Drops ended sessions beyond the limits of time, number and size, the oldest first.
    fn purge(&self) {
        let mut tables = self.tables.borrow_mut();
        let Tables { by_id, ended, failed, .. } = &mut *tables;
        let lifetime = Duration::from_secs(ENDED_SESSION_SECONDS);
        failed.retain(|(at, ..)| at.elapsed() <= lifetime);
        while ended
            .front()
            .is_some_and(|(at, _)| ended.len() > ENDED_SESSIONS || at.elapsed() > lifetime)
        {
            // A background process may keep the session itself alive.
            if let Some(session) = ended.pop_front().and_then(|(_, id)| by_id.remove(&id)) {
                session.drop_replay();
            }
        }
        let sessions: Vec<&Rc<Session>> =
            ended.iter().filter_map(|(_, id)| by_id.get(id)).collect();
        let mut total: usize = sessions.iter().map(|session| session.replay_len()).sum();
        for session in sessions {
            if total <= ENDED_REPLAY {
                break;
            }
            let size = session.replay_len();
            session.drop_replay();
            total -= size - session.replay_len();
        }
    }

    /// Records a request to shut down; `server` executes it.
    pub(crate) fn request_shutdown(&self, request: &Shutdown) {
        if self.shutdown.get().is_none() {
            let time = Duration::from_nanos(request.grace_ns);
            self.shutdown.set(Some(Grace { time, signal: request.signal }));
            self.notify.notify_one();
        }
    }

    /// Returns how a requested shutdown asks sessions to end.
    pub(crate) fn shutdown_grace(&self) -> Option<Grace> {
        self.shutdown.get()
    }

    /// Returns whether no session runs.
    pub(crate) fn is_idle(&self) -> bool {
        self.tables.borrow().running.is_empty()
    }

    /// Signals every process of every session.
    pub(crate) fn signal_all(&self, signal: i32) {
        if sys::kill_all(signal).is_ok() {
            return;
        }
        for session in self.running() {
            // Refused only if the session has no process left.
            let _ = session.signal(signal, msb_wire::Scope::Everything);
        }
    }

    /// Signals the process of every running session.
    pub(crate) fn signal_sessions(&self, signal: i32) {
        self.running().iter().for_each(|session| session.signal_process(signal));
    }

    fn running(&self) -> Vec<Rc<Session>> {
        let tables = self.tables.borrow();
        tables.running.iter().filter_map(|id| tables.by_id.get(id)).cloned().collect()
    }
}

fn unknown_session() -> Verdict {
    Verdict::refused(Refusal::NoSuchSession, 0, "no session with this id is known")
}
