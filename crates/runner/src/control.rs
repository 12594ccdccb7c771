//! The control socket, for the sandbox's own user: one JSON request a line, one JSON reply a line.

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
/// Most concurrent connections; more have to wait. Connections that wait for the exit do not count:
/// they are many and last long, and must not delay a request to stop.
const CONNECTIONS: usize = 64;
/// Most connections that wait for the exit; more are refused.
const WAITERS: usize = 512;
/// Capacity of the queue of requests.
const REQUESTS: usize = 16;
/// Time limit for a client to send a request, or to read the reply: a silent one would hold a
/// connection that another needs.
const CLIENT_LIMIT: Duration = Duration::from_secs(10);

/// A request and its pending reply.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) request: Request,
    pub(crate) reply: PendingReply,
}

/// The sending half of a reply.
#[derive(Debug)]
pub(crate) struct PendingReply(oneshot::Sender<Reply>);

impl PendingReply {
    /// Sends the reply, if the client is still connected.
    pub(crate) fn send(self, reply: Reply) {
        let _ = self.0.send(reply);
    }

    /// Returns whether the client is still connected.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.0.is_closed()
    }
}

/// The listening control socket.
#[derive(Debug)]
pub(crate) struct Control {
    requests: mpsc::Receiver<Received>,
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

    /// Returns the next request. Cancel-safe: a request that is not returned stays queued.
    pub(crate) async fn next(&mut self) -> Received {
        match self.requests.recv().await {
            Some(received) => received,
            // The accept task has ended; no more requests come.
            None => std::future::pending().await,
        }
    }

    /// Refuses further requests and waits until every reply has been written.
    pub(crate) async fn finish(self) {
        let Control { mut requests, mut writing, accepting } = self;
        accepting.abort();
        requests.close();
        while let Ok(received) = requests.try_recv() {
            drop(received);
        }
        // Nothing is ever sent: the channel closes with the last connection that has a request.
        let _ = writing.recv().await;
    }
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Received>, alive: mpsc::Sender<()>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    let waiters = Arc::new(Semaphore::new(WAITERS));
    loop {
        let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Defence in depth: other users cannot enter the directory either.
        let ours = rustix::process::geteuid().as_raw();
        if !stream.peer_cred().is_ok_and(|peer| peer.uid() == ours) {
            tracing::warn!("refused a control connection of another user");
            continue;
        }
        let client = Client {
            stream: BufReader::new(stream),
            permit,
            waiters: Arc::clone(&waiters),
            requests: requests.clone(),
            alive: alive.downgrade(),
        };
        tokio::spawn(async move {
            if let Err(error) = client.serve().await {
                tracing::debug!(%error, "a control connection failed");
            }
        });
    }
}

/// Serves one connection without checking its peer.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) async fn serve(stream: UnixStream, requests: mpsc::Sender<Received>) -> io::Result<()> {
    let free = Arc::new(Semaphore::new(1));
    let permit = Arc::clone(&free).try_acquire_owned().map_err(io::Error::other)?;
    let (alive, _writing) = mpsc::channel(1);
    let (stream, waiters) = (BufReader::new(stream), Arc::new(Semaphore::new(WAITERS)));
    Client { stream, permit, waiters, requests, alive: alive.downgrade() }.serve().await
}

/// A client's connection.
struct Client {
    stream: BufReader<UnixStream>,
    /// Counts it as a connection, or as one that waits for the exit.
    permit: OwnedSemaphorePermit,
    waiters: Arc<Semaphore>,
    requests: mpsc::Sender<Received>,
    alive: mpsc::WeakSender<()>,
}

impl Client {
    async fn serve(mut self) -> io::Result<()> {
        loop {
            let mut line = Vec::new();
            let mut bounded = (&mut self.stream).take(MAX_LINE);
            let length = timeout(CLIENT_LIMIT, bounded.read_until(b'\n', &mut line)).await??;
            if length == 0 {
                return Ok(());
            }
            // Held until the reply is written: the runner waits for that.
            let Some(_writing) = self.alive.upgrade() else { return Ok(()) };
            let (reply, keep_open) = match serde_json::from_slice(&line) {
                Ok(request) => match self.handle(request).await {
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
            timeout(CLIENT_LIMIT, self.stream.write_all(&bytes)).await??;
            if !keep_open {
                return Ok(());
            }
        }
    }

    /// Returns the reply; `None` if there is none, or the client hung up.
    async fn handle(&mut self, request: Request) -> Option<Reply> {
        let permit = || Arc::clone(&self.waiters).try_acquire_owned();
        match request {
            Request::Wait => match permit() {
                Ok(permit) => self.permit = permit,
                Err(_) => {
                    let message = format!("{WAITERS} clients wait for the exit already");
                    return Some(Reply::Refused { message });
                }
            },
            // These wait for the exit as well, and are never refused.
            Request::Stop { .. } | Request::Kill => {
                if let Ok(permit) = permit() {
                    self.permit = permit;
                }
            }
            _ => {}
        }
        let (sender, reply) = oneshot::channel();
        self.requests.send(Received { request, reply: PendingReply(sender) }).await.ok()?;
        tokio::select! {
            reply = reply => reply.ok(),
            () = hung_up(&mut self.stream) => None,
        }
    }
}

/// Waits until the client hangs up. What it sends before stays buffered.
async fn hung_up(stream: &mut BufReader<UnixStream>) {
    if stream.fill_buf().await.is_ok_and(|bytes| !bytes.is_empty()) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends bytes and then nothing; returns the replies and the connection's result.
    async fn replies_to(sent: Vec<u8>) -> (Vec<Reply>, io::Result<()>) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (requests, mut received) = mpsc::channel(REQUESTS);
        let serving = tokio::spawn(serve(ours, requests));
        tokio::spawn(async move {
            while let Some(Received { reply, .. }) = received.recv().await {
                reply.send(Reply::Refused { message: "asked".to_owned() });
            }
        });
        // The server may close the connection before all is sent.
        let _ = theirs.write_all(&sent).await;
        let ended = serving.await.unwrap();
        let mut text = Vec::new();
        // Unread bytes turn the close into a reset.
        let _ = theirs.read_to_end(&mut text).await;
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        (lines.map(|line| serde_json::from_slice(line).unwrap()).collect(), ended)
    }

    fn message(reply: &Reply) -> &str {
        let Reply::Refused { message } = reply else { panic!("{reply:?}") };
        message
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn i1_garbage_on_the_control_socket_closes_it_with_a_reason() {
        let garbage = b"\x00\xff{]\n{\"op\":\"info\"}\n".to_vec();
        let (replies, ended) = replies_to(garbage).await;
        assert!(ended.is_ok());
        let [reply] = replies.as_slice() else { panic!("{replies:?}") };
        assert!(message(reply).starts_with("not a request: "), "{reply:?}");
        let (replies, ended) = replies_to(vec![b'x'; 60_000]).await;
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
    async fn j4_silent_client_of_the_control_socket_is_dropped() {
        let begun = tokio::time::Instant::now();
        let (replies, ended) = replies_to(b"{\"op\":\"info\"}\n".to_vec()).await;
        assert_eq!(message(&replies[0]), "asked");
        assert!(ended.is_err() && begun.elapsed() < 2 * CLIENT_LIMIT, "{:?}", begun.elapsed());
        let (replies, ended) = replies_to(Vec::new()).await;
        assert!(replies.is_empty() && ended.is_err());
    }
}
