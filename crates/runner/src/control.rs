//! The control socket: one line of JSON in, one out, for the sandbox's own user.

use msb_state::{Reply, Request};
use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

/// Longest request, in bytes.
const MAX_LINE: u64 = 64 * 1024;
/// Connections at once (a count); more have to wait. Those that wait for the end do not count:
/// there can be many, for long, and nobody who wants the end is to wait for them.
const CONNECTIONS: usize = 64;
/// Connections that wait for the end (a count); more are refused.
const WAITERS: usize = 512;
/// Requests that wait for the runner's attention (a count).
const REQUESTS: usize = 16;
/// How long a caller may take to send a request, or to take its answer. One that is silent would
/// hold a connection that another wants.
const CALLER_LIMIT: Duration = Duration::from_secs(10);

/// A request and where its answer goes.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) request: Request,
    pub(crate) answer: Answer,
}

/// Where the answer to a request goes.
#[derive(Debug)]
pub(crate) struct Answer(oneshot::Sender<Reply>);

impl Answer {
    /// Answers. A caller that is gone is nobody's trouble.
    pub(crate) fn send(self, reply: Reply) {
        let _ = self.0.send(reply);
    }

    /// Whether the caller is still there.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.0.is_closed()
    }
}

/// The control socket's requests.
#[derive(Debug)]
pub(crate) struct Control {
    requests: mpsc::Receiver<Asked>,
    writing: mpsc::Receiver<()>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Control {
    /// Listens from now on.
    pub(crate) fn listen(listener: StdListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let (request_sender, requests) = mpsc::channel(REQUESTS);
        let (alive, writing) = mpsc::channel(1);
        let accepting = tokio::spawn(accept(listener, request_sender, alive));
        Ok(Control { requests, writing, accepting })
    }

    /// The next request. Cancel-safe: a request that is not returned stays queued.
    pub(crate) async fn next(&mut self) -> Asked {
        match self.requests.recv().await {
            Some(asked) => asked,
            // The accepting task has ended; there will be no more requests.
            None => std::future::pending().await,
        }
    }

    /// Takes no more requests, and waits until every answer that was given has been written.
    pub(crate) async fn finish(self) {
        let Control { mut requests, mut writing, accepting } = self;
        accepting.abort();
        requests.close();
        while let Ok(asked) = requests.try_recv() {
            drop(asked);
        }
        // Nothing is ever sent: it ends when the last connection that awaits an answer has.
        let _ = writing.recv().await;
    }
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Asked>, alive: mpsc::Sender<()>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let waiters = Arc::new(Semaphore::new(WAITERS));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a control connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // The directory is closed to others already; this is the second line.
        let ours = rustix::process::geteuid().as_raw();
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == ours) {
            tracing::warn!("a control connection of another user was refused");
            continue;
        }
        let caller = Caller {
            stream: BufReader::new(stream),
            permit,
            waiters: Arc::clone(&waiters),
            requests: requests.clone(),
            alive: alive.downgrade(),
        };
        tokio::spawn(async move {
            if let Err(error) = caller.serve().await {
                tracing::debug!(%error, "a control connection failed");
            }
        });
    }
}

/// Serves one connection, whoever is at its other end.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) async fn serve(stream: UnixStream, requests: mpsc::Sender<Asked>) -> io::Result<()> {
    let free = Arc::new(Semaphore::new(1));
    let permit = Arc::clone(&free).try_acquire_owned().map_err(io::Error::other)?;
    let (alive, _writing) = mpsc::channel(1);
    let (stream, waiters) = (BufReader::new(stream), Arc::new(Semaphore::new(WAITERS)));
    Caller { stream, permit, waiters, requests, alive: alive.downgrade() }.serve().await
}

/// A connection.
struct Caller {
    stream: BufReader<UnixStream>,
    /// What it counts as: one of the connections, or one that waits for the end.
    permit: OwnedSemaphorePermit,
    waiters: Arc<Semaphore>,
    requests: mpsc::Sender<Asked>,
    alive: mpsc::WeakSender<()>,
}

impl Caller {
    async fn serve(mut self) -> io::Result<()> {
        loop {
            let mut line = Vec::new();
            let mut bounded = (&mut self.stream).take(MAX_LINE);
            let length = timeout(CALLER_LIMIT, bounded.read_until(b'\n', &mut line)).await??;
            if length == 0 {
                return Ok(());
            }
            // Held until the answer is written, so that the runner does not end before.
            let Some(_writing) = self.alive.upgrade() else { return Ok(()) };
            let (reply, goes_on) = match serde_json::from_slice(&line) {
                Ok(request) => match self.ask(request).await {
                    Some(reply) => (reply, true),
                    None => return Ok(()),
                },
                Err(_) if length as u64 == MAX_LINE => {
                    let message = format!("a request is longer than {MAX_LINE} bytes");
                    (Reply::Refused { message }, false)
                }
                Err(error) => {
                    (Reply::Refused { message: format!("not a request: {error}") }, false)
                }
            };
            let mut bytes = serde_json::to_vec(&reply)?;
            bytes.push(b'\n');
            timeout(CALLER_LIMIT, self.stream.write_all(&bytes)).await??;
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// `None` when there will be no answer, or nobody who wants it.
    async fn ask(&mut self, request: Request) -> Option<Reply> {
        let place = || Arc::clone(&self.waiters).try_acquire_owned();
        match request {
            Request::Wait => match place() {
                Ok(permit) => self.permit = permit,
                Err(_) => {
                    let message = format!("{WAITERS} callers wait for its end already");
                    return Some(Reply::Refused { message });
                }
            },
            // These wait for it as well, and are never refused.
            Request::Stop { .. } | Request::Kill => {
                if let Ok(permit) = place() {
                    self.permit = permit;
                }
            }
            _ => {}
        }
        let (sender, answer) = oneshot::channel();
        self.requests.send(Asked { request, answer: Answer(sender) }).await.ok()?;
        tokio::select! {
            reply = answer => reply.ok(),
            () = hung_up(&mut self.stream) => None,
        }
    }
}

/// Waits until the caller hangs up. What it sends before that stays to be read.
async fn hung_up(stream: &mut BufReader<UnixStream>) {
    if stream.fill_buf().await.is_ok_and(|bytes| !bytes.is_empty()) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a caller that sends these bytes, and then nothing, is answered; and how it ended.
    async fn answered(sent: Vec<u8>) -> (Vec<Reply>, io::Result<()>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (requests, mut asked) = mpsc::channel(REQUESTS);
        let serving = tokio::spawn(serve(ours, requests));
        tokio::spawn(async move {
            while let Some(Asked { answer, .. }) = asked.recv().await {
                answer.send(Reply::Refused { message: "asked".to_owned() });
            }
        });
        // It may have had enough before all is sent.
        let _ = theirs.write_all(&sent).await;
        let ended = serving.await.unwrap();
        let mut text = Vec::new();
        // Unread bytes make the end a reset.
        let _ = theirs.read_to_end(&mut text).await;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        (lines.map(|line| serde_json::from_slice(line).unwrap()).collect(), ended)
    }

    fn message(reply: &Reply) -> &str {
        let Reply::Refused { message } = reply else { panic!("{reply:?}") };
        message
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn i1_garbage_on_the_control_socket_ends_it_with_a_reason() {
        let garbage = b"\x00\xff{]\n{\"op\":\"info\"}\n".to_vec();
        let (replies, ended) = answered(garbage).await;
        assert!(ended.is_ok());
        let [reply] = replies.as_slice() else { panic!("{replies:?}") };
        assert!(message(reply).starts_with("not a request: "), "{reply:?}");
        let (replies, ended) = answered(vec![b'x'; 60_000]).await;
        assert!(replies.is_empty() && ended.is_err(), "half a request is not waited for");
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let serving = tokio::spawn(serve(ours, mpsc::channel(1).0));
        let long = vec![b'x'; 65_536];
        theirs.write_all(&long).await.unwrap();
        serving.await.unwrap().unwrap();
        let mut text = String::new();
        theirs.read_to_string(&mut text).await.unwrap();
        assert!(text.contains("longer than 65536 bytes"), "{text}");
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn j4_silent_caller_of_the_control_socket_is_let_go() {
        let begun = tokio::time::Instant::now();
        let (replies, ended) = answered(b"{\"op\":\"info\"}\n".to_vec()).await;
        assert_eq!(message(&replies[0]), "asked");
        assert!(ended.is_err() && begun.elapsed() < 2 * CALLER_LIMIT, "{:?}", begun.elapsed());
        let (replies, ended) = answered(Vec::new()).await;
        assert!(replies.is_empty() && ended.is_err());
    }
}
