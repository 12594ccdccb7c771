//! The state of a connection that its two tasks and all callers share.
//!
//! Owns: the stream, the outbox, and the route of each channel. Invariant: frames are sent in lock
//! order: by the holder of the lock if the socket has room, else by the I/O thread; and every open
//! channel is notified of the end exactly once.
//!
//! Lock order: input of a channel, `out`, `table`.

use crate::SIGKILL;
use crate::completion::Reply;
use crate::deadlines::{Deadline, Deadlines, Limits, Times, Wait};
use crate::error::{Error, check_pid};
use crate::frames::{Incoming, gone};
use crate::fs_queue::FsChannel;
use crate::input::Input;
use crate::lost::ExecLost;
use crate::monitor::{Monitor, lock};
use crate::queue::Queue;
use msb_transport::{Outbox, Stream};
use msb_wire::limits::{CHANNELS, ERROR_TEXT, MAX_CONTROL};
use msb_wire::{
    Attached, Frame, Message, Refusal, Scope, SessionId, SessionInfo, SignalRequest, Verdict,
    one_line,
};
use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Requests are refused while this many bytes are queued for sending: the agent has stopped
/// reading.
const OUT_MAX: usize = 8 * MAX_CONTROL;
/// How long the last frames may take to be sent after the connection was dropped.
const LINGER: Duration = Duration::from_secs(5);

/// State shared by the connection and the handle and sink of a command.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: u32,
    pub(crate) session: SessionId,
    pub(crate) link: Arc<Link>,
    pub(crate) queue: Monitor<Queue>,
    pub(crate) input: Monitor<Input>,
    /// How long the command may take.
    pub(crate) times: Times,
    /// The handle, and the sink while it can be written to.
    holders: AtomicUsize,
}

impl Channel {
    /// Creates a channel with one holder, its handle.
    pub(crate) fn new(
        id: u32,
        session: SessionId,
        link: Arc<Link>,
        queue: Queue,
        input: Input,
        times: Times,
    ) -> Self {
        let (queue, input) = (Monitor::new(queue), Monitor::new(input));
        Channel { id, session, link, queue, input, times, holders: AtomicUsize::new(1) }
    }

    /// Handles a message of the agent. Returns whether it was the last; the error names the
    /// violated rule.
    pub(crate) fn on_message(&self, message: Message) -> Result<bool, String> {
        // The input first: a reader that sees the event must find the input broken.
        match message {
            Message::Credit(limit) => self.input.with(|input| input.grant(limit))?,
            Message::Attached(Attached { stdin_open: true, .. }) => self.input.with(Input::open),
            Message::StdinError(_) | Message::Exited(_) | Message::Failed(_) => {
                self.input.with(Input::on_broken);
            }
            _ => {}
        }
        let consequence = self.queue.with(|queue| queue.on_message(message))?;
        if let Some(limit) = consequence.grant {
            self.link.grant(self.id, limit);
        }
        Ok(consequence.last)
    }

    /// Reports that the connection is lost.
    pub(crate) fn on_lost(&self, lost: &ExecLost) {
        self.input.with(|input| input.on_lost(lost));
        self.queue.with(|queue| queue.on_lost(lost));
    }

    /// Adds a holder, which keeps the channel open.
    pub(crate) fn add_holder(&self) {
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops one holder. The last one closes the channel, unless the stream has ended already.
    pub(crate) fn remove_holder(&self) {
        let last = self.holders.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && !self.queue.with(|queue| queue.is_over()) {
            self.link.close(self.id);
        }
    }

    fn release(&self, cost: u64) {
        if let Some(limit) = self.queue.with(|queue| queue.release(cost)) {
            self.link.grant(self.id, limit);
        }
    }
}

/// The credit of one event. Dropping it returns the credit, from any thread, in any order, and also
/// after the exec was closed.
#[derive(Debug)]
pub struct Credit(Option<(Arc<Channel>, u64)>);

impl Credit {
    pub(crate) fn new(channel: &Arc<Channel>, cost: u64) -> Self {
        Credit((cost > 0).then(|| (Arc::clone(channel), cost)))
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some((channel, cost)) = self.0.take() {
            channel.release(cost);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Link {
    stream: Stream,
    /// Runs the tasks of the connection.
    pub(crate) runtime: Handle,
    pid: u32,
    limits: Limits,
    out: Mutex<Out>,
    table: Mutex<Table>,
    /// The socket is full: the writing task continues.
    full: Notify,
    /// The writing task has emptied the outbox.
    drained: Notify,
    /// The connection was dropped.
    abandoned: Notify,
    /// A deadline precedes the one that the timer waits for.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Out {
    outbox: Outbox,
    /// The socket is full; the writing task flushes once it is writable.
    stuck: bool,
    /// An error of the socket that a caller could not report as the end of the connection.
    error: Option<io::Error>,
}

#[derive(Debug)]
struct Table {
    routes: HashMap<u32, Route>,
    deadlines: Deadlines,
    next: u32,
    lost: Option<ExecLost>,
}

/// The answer to a join.
#[derive(Debug, Clone, Copy, Default)]
pub struct Joined {
    /// The position at which the output begins.
    pub from: u64,
    /// How many bytes before it were requested and are no longer buffered.
    pub missed: u64,
    /// Whether the session has a terminal.
    pub tty: bool,
}

/// The owner of a channel.
#[derive(Debug)]
pub(crate) enum Route {
    Exec(Arc<Channel>),
    /// As `Exec`, until the agent confirms that the session exists.
    Join(Arc<Channel>, Reply<Joined>),
    /// With the session that is to end once the agent agrees.
    Verdict(Reply<()>, Option<SessionId>),
    Sessions(Reply<Vec<SessionInfo>>),
    /// A ping with the channel's number, on which nothing is sent.
    Ping(Reply<()>),
    Fs(Arc<FsChannel>),
}

impl Link {
    pub(crate) fn new(stream: Stream, runtime: Handle, limits: Limits) -> Self {
        let (routes, deadlines) = (HashMap::new(), Deadlines::default());
        Link {
            stream,
            runtime,
            pid: std::process::id(),
            out: Mutex::default(),
            limits,
            table: Mutex::new(Table { routes, deadlines, next: 1, lost: None }),
            full: Notify::new(),
            drained: Notify::new(),
            abandoned: Notify::new(),
            sooner: Notify::new(),
        }
    }

    /// Returns why the connection was lost, if it was.
    pub(crate) fn lost(&self) -> Option<ExecLost> {
        lock(&self.table).lost.clone()
    }

    /// Returns whether the agent's side has closed the connection.
    pub(crate) fn is_hung_up(&self) -> bool {
        self.stream.is_hung_up()
    }

    /// Queues frames, and sends them at once if the outbox was empty.
    pub(crate) fn submit<R>(&self, push: impl FnOnce(&mut Outbox) -> R) -> Result<R, Error> {
        check_pid(self.pid)?;
        let mut out = lock(&self.out);
        if let Some(lost) = self.lost() {
            return Err(Error::Lost(lost));
        }
        let result = push(&mut out.outbox);
        self.flush(&mut out);
        Ok(result)
    }

    /// Sends a message on an open channel.
    pub(crate) fn send(&self, channel: u32, message: Message) -> Result<(), Error> {
        match self.submit(|outbox| outbox.push(&Frame { channel, message }))? {
            true => Ok(()),
            false => Err(Error::internal("a message was longer than its kind may be")),
        }
    }

    /// Sets how much the agent may send on a channel.
    pub(crate) fn grant(&self, channel: u32, limit: u64) {
        // Fails only when the connection is lost.
        let _ = self.send(channel, Message::Credit(limit));
    }

    /// Opens a channel with its first message. Returns `Ok(None)`, and opens none, if the message
    /// exceeds a frame.
    pub(crate) fn open<R>(
        &self,
        message: Message,
        route: impl FnOnce(u32) -> (Route, R),
    ) -> Result<Option<R>, Error> {
        self.request(|channel| Frame { channel, message }, route)
    }

    /// Sends a ping.
    pub(crate) fn ping(&self, reply: Reply<()>) -> Result<(), Error> {
        let frame = |ping: u32| Frame { channel: 0, message: Message::Ping(ping.into()) };
        self.request(frame, |_| (Route::Ping(reply), ())).map(drop)
    }

    fn request<R>(
        &self,
        frame: impl FnOnce(u32) -> Frame,
        route: impl FnOnce(u32) -> (Route, R),
    ) -> Result<Option<R>, Error> {
        check_pid(self.pid)?;
        let mut out = lock(&self.out);
        let (channel, result) = self.reserve(&out, route)?;
        // The number is used up before the frame is written: the answer may arrive at once.
        if out.outbox.push(&frame(channel)) {
            self.flush(&mut out);
            return Ok(Some(result));
        }
        drop(out);
        let unused = lock(&self.table).remove(channel);
        drop(unused);
        Ok(None)
    }

    fn reserve<R>(
        &self,
        out: &Out,
        route: impl FnOnce(u32) -> (Route, R),
    ) -> Result<(u32, R), Error> {
        let mut table = lock(&self.table);
        if let Some(lost) = &table.lost {
            return Err(Error::LostBefore(lost.clone()));
        }
        let limit = |what| Err(Error::LimitReached(what));
        if table.routes.len() >= CHANNELS {
            return limit("too many commands and requests are open on this connection");
        }
        if out.outbox.len() > OUT_MAX {
            return limit("too much waits to be sent; the agent does not read");
        }
        let channel = table.next;
        let Some(next) = channel.checked_add(1) else {
            return limit("the channel numbers of this connection are used up");
        };
        table.next = next;
        let (route, result) = route(channel);
        let (wait, limit) = self.first_wait(&route);
        table.routes.insert(channel, route);
        if table.deadlines.set(channel, wait, limit, Instant::now()) {
            self.sooner.notify_one();
        }
        Ok((channel, result))
    }

    /// Returns what the agent has to do first about a request, and the limit for it.
    fn first_wait(&self, route: &Route) -> (Wait, Duration) {
        match route {
            Route::Exec(channel) => {
                let timed =
                    channel.times.timeout.map(|time| time.saturating_add(self.limits.grace));
                (Wait::Start, timed.map_or(self.limits.start, |timed| timed.min(self.limits.start)))
            }
            // It takes as long as the data.
            Route::Fs(channel) if !channel.is_prompt => (Wait::Answer, Duration::MAX),
            _ => (Wait::Answer, self.limits.answer),
        }
    }

    /// Closes a channel unless it has ended.
    pub(crate) fn close(&self, channel: u32) {
        let route = lock(&self.table).remove(channel);
        if route.is_some() {
            // Fails only when the connection is lost.
            let _ = self.send(channel, Message::Close);
        }
    }

    fn flush(&self, out: &mut Out) {
        if out.stuck || out.error.is_some() {
            return;
        }
        match out.outbox.flush(&self.stream) {
            Ok(true) => return,
            Ok(false) => out.stuck = true,
            Err(error) => out.error = Some(error),
        }
        // Only the I/O thread can wait until the socket is writable.
        self.full.notify_one();
    }

    /// Ends the tasks once the outbox is empty.
    pub(crate) fn abandon(&self) {
        self.abandoned.notify_one();
    }

    /// Waits until the connection was dropped and its last frames were sent, or cannot be.
    async fn abandonment(&self) {
        self.abandoned.notified().await;
        let written = async {
            while lock(&self.out).stuck {
                self.drained.notified().await;
            }
        };
        if tokio::time::timeout(LINGER, written).await.is_err() {
            tracing::warn!("the last frames for a sandbox could not be written");
        }
    }

    /// Flushes the outbox whenever the socket is writable again.
    async fn write(&self) -> Result<Infallible, ExecLost> {
        loop {
            self.full.notified().await;
            while !self.unstick()? {
                if let Err(error) = self.stream.writable().await {
                    return Err(gone("cannot wait for room in it", &error));
                }
            }
            self.drained.notify_one();
        }
    }

    /// Flushes again; returns whether the outbox is empty.
    fn unstick(&self) -> Result<bool, ExecLost> {
        let mut out = lock(&self.out);
        out.stuck = false;
        self.flush(&mut out);
        match out.error.take() {
            Some(error) => Err(gone("cannot write to it", &error)),
            None => Ok(!out.stuck),
        }
    }

    async fn read(&self, mut incoming: Incoming) -> ExecLost {
        let mut reason = None;
        loop {
            match incoming.receive(&self.stream).await {
                Ok(Frame { channel: 0, message: Message::Bye }) => {
                    reason = Some(ExecLost::gone("the sandbox was stopped", None));
                }
                Ok(frame) => {
                    if let Err(lost) = self.dispatch(frame) {
                        return lost;
                    }
                }
                Err(lost) if lost.sandbox_gone => return reason.unwrap_or(lost),
                Err(lost) => return lost,
            }
        }
    }

    fn dispatch(&self, frame: Frame) -> Result<(), ExecLost> {
        let Frame { channel: number, message } = frame;
        match message {
            Message::Error(text) => {
                let text = one_line(&text, ERROR_TEXT);
                Err(ExecLost::broken(format!("the agent closed the connection: {text}")))
            }
            Message::Pong(ping) => {
                self.pong(ping);
                Ok(())
            }
            message => {
                let broken = |rule: String| {
                    ExecLost::broken(format!("the agent broke the protocol: {rule}"))
                };
                self.deliver(number, message).map_err(broken)
            }
        }
    }

    /// Completes a ping; ignores an unexpected pong.
    fn pong(&self, ping: u64) {
        let mut table = lock(&self.table);
        let number = u32::try_from(ping).unwrap_or(0);
        if let Some(Route::Ping(_)) = table.routes.get(&number)
            && let Some(Route::Ping(reply)) = table.remove(number)
        {
            drop(table);
            reply.complete(Ok(()));
        }
    }

    fn deliver(&self, number: u32, message: Message) -> Result<(), String> {
        let mut table = lock(&self.table);
        let channel = match table.routes.get(&number) {
            Some(Route::Exec(channel)) => Arc::clone(channel),
            Some(Route::Fs(channel)) => {
                let channel = Arc::clone(channel);
                drop(table);
                return self.deliver_fs(number, &channel, message);
            }
            // Closed or refused by this side: late frames are ignored.
            None if number < table.next => return Ok(()),
            None => return Err("a frame on a channel that was never opened".to_owned()),
            Some(_) => {
                let route = table.remove(number);
                // Under one lock, so that a concurrent close finds the channel.
                if let (Some(Route::Join(channel, _)), Message::Attached(_)) = (&route, &message) {
                    table.routes.insert(number, Route::Exec(Arc::clone(channel)));
                }
                if let (Some(Route::Verdict(_, Some(killed))), Message::Verdict(verdict)) =
                    (&route, &message)
                    && verdict.refusal.is_none()
                    && table.expect_end(*killed, self.limits.answer)
                {
                    self.sooner.notify_one();
                }
                drop(table);
                return route.map_or(Ok(()), |route| answer(route, message));
            }
        };
        drop(table);
        let times = channel.times;
        let next = match message {
            Message::Started(_) => Some((Wait::Exit, times.timeout)),
            Message::Exited(_) => Some((Wait::End, times.drain)),
            _ => None,
        };
        if channel.on_message(message)? {
            let ended = lock(&self.table).remove(number);
            drop(ended);
        } else if let Some((wait, time)) = next {
            self.set_deadline(number, wait, time);
        }
        Ok(())
    }

    /// Delivers a message about files.
    fn deliver_fs(&self, number: u32, channel: &FsChannel, message: Message) -> Result<(), String> {
        let consequence = channel.on_message(message)?;
        let mut table = lock(&self.table);
        if consequence.last {
            let ended = table.remove(number);
            drop(table);
            drop(ended);
        } else if consequence.began {
            table.deadlines.clear(number);
        }
        Ok(())
    }

    /// Sets what is next of a command, which may take `time` itself; `None`: as long as it likes.
    fn set_deadline(&self, channel: u32, wait: Wait, time: Option<Duration>) {
        let mut table = lock(&self.table);
        if wait == Wait::Exit && table.deadlines.wait(channel) == Some(Wait::Kill) {
            // It was killed before it started, and is to end all the same.
            return;
        }
        match time {
            // It may have been closed meanwhile.
            Some(time) if table.routes.contains_key(&channel) => {
                let limit = time.saturating_add(self.limits.grace);
                if table.deadlines.set(channel, wait, limit, Instant::now()) {
                    self.sooner.notify_one();
                }
            }
            _ => table.deadlines.clear(channel),
        }
    }

    /// Kills or abandons sessions whose deadline expires.
    async fn watch(&self) -> Infallible {
        loop {
            let next = lock(&self.table).deadlines.arm();
            let expired = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.sooner.notified() => {}
                () = expired => self.expire(),
            }
        }
    }

    fn expire(&self) {
        loop {
            let now = Instant::now();
            let mut table = lock(&self.table);
            let Some((number, deadline)) = table.deadlines.due(now) else { return };
            let Some(Route::Exec(channel)) = table.routes.get(&number) else {
                let route = table.remove(number);
                drop(table);
                self.fail_unanswered(number, route, &deadline);
                continue;
            };
            let channel = Arc::clone(channel);
            drop(table);
            let behind = channel.queue.with(|queue| queue.behind());
            let mut table = lock(&self.table);
            if let Some(received) = behind
                && table.deadlines.excuse(number, deadline, received, now)
            {
                continue;
            }
            if deadline.wait == Wait::Exit {
                table.deadlines.killed(number, deadline, now);
                drop(table);
                self.kill(&channel);
                continue;
            }
            let route = table.remove(number);
            drop(table);
            if deadline.wait == Wait::Start {
                // The command may still start, with no handle left.
                self.kill(&channel);
            }
            self.fail_unanswered(number, route, &deadline);
        }
    }

    /// Requests SIGKILL for all processes of a command, and ignores the answer.
    fn kill(&self, channel: &Channel) {
        let request =
            SignalRequest { session: channel.session, signal: SIGKILL, scope: Scope::Everything };
        // Fails when the agent has stopped reading; the session is abandoned in any case.
        let _ =
            self.open(Message::Signal(request), |_| (Route::Verdict(Reply::ignored(), None), ()));
    }

    fn fail_unanswered(&self, number: u32, route: Option<Route>, deadline: &Deadline) {
        let Some(route) = route else { return };
        tracing::warn!(channel = number, wait = ?deadline.wait, "the agent did not answer");
        // Later frames are ignored. Fails only when the connection is lost.
        let _ = self.send(number, Message::Close);
        route.lose(&ExecLost::unanswered(deadline.limit));
    }

    /// Runs the connection to its end, then notifies every channel.
    pub(crate) async fn run(&self, incoming: Incoming) {
        let lost = tokio::select! {
            // The reader first: received frames are handled before a deadline is checked.
            biased;
            lost = self.read(incoming) => lost,
            Err(lost) = self.write() => lost,
            () = self.abandonment() => ExecLost::gone("it was closed", None),
            never = self.watch() => match never {},
        };
        tracing::debug!(reason = %lost.message, "connection ended");
        if !lost.sandbox_gone {
            let message = Message::Error(lost.message.clone());
            // The connection ends in any case; this only reports the reason to the agent.
            let _ = self.send(0, message);
        }
        let routes = {
            let mut table = lock(&self.table);
            table.lost = Some(lost.clone());
            table.deadlines = Deadlines::default();
            std::mem::take(&mut table.routes)
        };
        lock(&self.out).outbox = Outbox::new();
        self.stream.shutdown();
        routes.into_values().for_each(|route| route.lose(&lost));
    }
}

impl Table {
    /// Removes a channel.
    fn remove(&mut self, channel: u32) -> Option<Route> {
        self.deadlines.clear(channel);
        self.routes.remove(&channel)
    }

    /// The agent has killed a session. Returns whether the timer has to be set again.
    #[must_use]
    fn expect_end(&mut self, killed: SessionId, limit: Duration) -> bool {
        let Table { routes, deadlines, .. } = self;
        let (now, mut sooner) = (Instant::now(), false);
        for (number, route) in routes {
            if matches!(route, Route::Exec(channel) if channel.session == killed) {
                sooner |= deadlines.set_kill(*number, limit, now);
            }
        }
        sooner
    }
}

impl Route {
    /// Notifies the owner that the connection is lost.
    fn lose(self, lost: &ExecLost) {
        match self {
            Route::Exec(channel) => channel.on_lost(lost),
            Route::Join(_, reply) => reply.complete(Err(Error::Lost(lost.clone()))),
            Route::Verdict(reply, _) | Route::Ping(reply) => {
                reply.complete(Err(Error::Lost(lost.clone())));
            }
            Route::Sessions(reply) => reply.complete(Err(Error::Lost(lost.clone()))),
            Route::Fs(channel) => channel.on_lost(lost),
        }
    }
}

/// Completes a request with its answer.
fn answer(route: Route, message: Message) -> Result<(), String> {
    match (route, message) {
        (Route::Exec(channel), message) => return channel.on_message(message).map(drop),
        (Route::Fs(channel), message) => return channel.on_message(message).map(drop),
        (Route::Join(channel, reply), Message::Attached(attached)) => {
            let Attached { from, missed, tty, .. } = attached;
            channel.on_message(Message::Attached(attached))?;
            reply.complete(Ok(Joined { from, missed, tty }));
        }
        // The command was joined before it started, and failed to start.
        (Route::Join(channel, reply), Message::Failed(failure)) => {
            channel.on_message(Message::Failed(failure))?;
            reply.complete(Ok(Joined::default()));
        }
        (Route::Join(_, reply), Message::Verdict(verdict)) => {
            let empty = || Error::internal("the agent agreed to let a session be joined, no more");
            reply.complete(Err(judged(verdict).err().unwrap_or_else(empty)));
        }
        (Route::Verdict(reply, _), Message::Verdict(mut verdict)) => {
            // Who asks has a handle on the session, so it did exist: it never started, or ended so
            // long ago that the agent has forgotten it.
            if verdict.refusal == Some(Refusal::NoSuchSession) {
                verdict.refusal = Some(Refusal::NoSuchProcess);
                verdict.message.clear();
            }
            reply.complete(judged(verdict));
        }
        (Route::Sessions(reply), Message::Sessions(list)) => reply.complete(Ok(list.sessions)),
        (Route::Sessions(reply), Message::Verdict(verdict)) => {
            let refused = judged(verdict).err();
            let empty = || Error::internal("the agent agreed to list its sessions, and did not");
            reply.complete(Err(refused.unwrap_or_else(empty)));
        }
        (Route::Join(_, reply), _) => return wrong(reply),
        (Route::Verdict(reply, _) | Route::Ping(reply), _) => return wrong(reply),
        (Route::Sessions(reply), _) => return wrong(reply),
    }
    Ok(())
}

fn wrong<T>(reply: Reply<T>) -> Result<(), String> {
    let rule = "an answer that does not belong to the request";
    reply.complete(Err(Error::Lost(ExecLost::broken(rule))));
    Err(rule.to_owned())
}

fn judged(verdict: Verdict) -> Result<(), Error> {
    let Some(refusal) = verdict.refusal else { return Ok(()) };
    let otherwise = match refusal {
        Refusal::NoSuchSession => "no such session is known",
        Refusal::NoSuchProcess => "the process is gone",
        Refusal::Invalid => "the request is invalid",
        Refusal::NotATerminal => "the session has no terminal",
        Refusal::TooMany => "a bound of the agent is reached",
        Refusal::System => "the system in the sandbox refused it",
    };
    let message = Some(verdict.message).filter(|text| !text.is_empty());
    let context = message
        .map_or_else(|| otherwise.to_owned(), |text| one_line(&text, ERROR_TEXT).into_owned());
    Err(Error::Refused { refusal, errno: verdict.errno, context })
}
