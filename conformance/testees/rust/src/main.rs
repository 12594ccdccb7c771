//! Executes the requests of the conformance judge with the Rust SDK, and reports the results.
//!
//! The protocol is in `conformance/README.md`. Every request runs in a task of its own.

#![forbid(unsafe_code)]

use microsandbox::{
    Error, ExecControl, ExecEvent, ExecHandle, ExecOptionsBuilder, ExecOutput, ExecSink,
    ExitStatus, ReattachFrom, Sandbox,
};
use std::collections::HashMap;
use std::future::Future;
use std::io::{self, BufRead, Write};
use std::pin::pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;

type Failure = Box<dyn std::error::Error + Send + Sync>;
/// The fields of a message.
type Fields = Vec<Vec<u8>>;

/// Makes fields of values that have a text.
macro_rules! fields {
    ($($value:expr),*) => { vec![$($value.to_string().into_bytes()),*] };
}

fn read(from: &mut impl BufRead) -> Result<Fields, Failure> {
    let (mut lengths, mut fields) = (String::new(), Vec::new());
    from.read_line(&mut lengths)?;
    for length in lengths.split_whitespace() {
        let mut field = vec![0; length.parse()?];
        from.read_exact(&mut field)?;
        fields.push(field);
    }
    Ok(fields)
}

/// Its id, its action, and then names and values.
struct Request(Fields);

impl Request {
    fn all(&self, name: &str) -> impl Iterator<Item = &Vec<u8>> {
        let pairs = self.0[2..].chunks(2);
        pairs.filter(move |pair| pair[0] == name.as_bytes()).map(|pair| &pair[1])
    }

    fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.all(name).next().cloned()
    }

    fn text(&self, name: &str) -> Option<String> {
        String::from_utf8(self.bytes(name)?).ok()
    }

    fn value<T: FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    fn id(&self) -> u64 {
        String::from_utf8_lossy(&self.0[0]).parse().unwrap_or_default()
    }

    /// Writes one reply, uninterrupted.
    fn reply(&self, mut fields: Fields) {
        fields.insert(0, self.0[0].clone());
        let lengths: Vec<String> = fields.iter().map(|field| field.len().to_string()).collect();
        let mut output = io::stdout().lock();
        let mut write = || {
            writeln!(output, "{}", lengths.join(" "))?;
            fields.iter().try_for_each(|field| output.write_all(field))?;
            output.flush()
        };
        // The judge has exited; the end of the input follows.
        let _ = write();
    }

    /// Reports an event, and returns whether it is the one that the judge waits for.
    fn report(&self, event: Option<ExecEvent>) -> bool {
        let (kind, data) = match event {
            None => ("end", None),
            Some(ExecEvent::Started { .. }) => ("started", None),
            Some(ExecEvent::Stdout(data)) => ("stdout", Some(data.to_vec())),
            Some(ExecEvent::Stderr(data)) => ("stderr", Some(data.to_vec())),
            Some(ExecEvent::StdinError(_)) => ("stdin_error", None),
            Some(ExecEvent::Exited { .. }) => ("exited", None),
            Some(ExecEvent::Failed(_)) => ("failed", None),
            Some(_) => ("lost", None),
        };
        self.reply([fields!["event", kind], data.into_iter().collect()].concat());
        kind == "end" || self.text("until").is_some_and(|until| until == "any" || until == kind)
    }

    fn options(&self, mut o: ExecOptionsBuilder) -> ExecOptionsBuilder {
        let milliseconds = |name| self.value(name).map(Duration::from_millis).into_iter();
        let (env, limits): (Vec<_>, Vec<_>) =
            (self.all("env").collect(), self.all("rlimit").collect());
        o = self.all("arg").fold(o, |o, arg| o.arg_bytes(arg.clone()));
        o = env.chunks(2).fold(o, |o, pair| o.env_bytes(pair[0].clone(), pair[1].clone()));
        o = self.bytes("cwd").into_iter().fold(o, ExecOptionsBuilder::cwd_bytes);
        o = self.text("user").into_iter().fold(o, ExecOptionsBuilder::user);
        o = self.bytes("stdin").into_iter().fold(o, ExecOptionsBuilder::stdin_bytes);
        o = milliseconds("timeout_ms").fold(o, ExecOptionsBuilder::timeout);
        o = milliseconds("drain_ms").fold(o, ExecOptionsBuilder::drain);
        o = self.value("max_output").into_iter().fold(o, ExecOptionsBuilder::max_output);
        o = self.bytes("stdin_pipe").into_iter().fold(o, |o, _| o.stdin_pipe());
        if let (Some(rows), Some(cols)) = (self.value("rows"), self.value("cols")) {
            o = o.tty_size(rows, cols);
        }
        for limit in limits.chunks(4) {
            let text = |at: usize| String::from_utf8_lossy(limit[at]);
            let bound = |at| text(at).parse().unwrap_or(u64::MAX); // -1 is infinity
            if let Ok(resource) = text(0).parse() {
                o = o.rlimit_range(resource, bound(2), bound(3));
            }
        }
        o.tty(self.bytes("tty").is_some()).wait_for_eof(self.bytes("wait_for_eof").is_some())
    }
}

/// A command. Requests that do not read it do not wait for the reader.
struct Exec {
    handle: AsyncMutex<Option<ExecHandle>>,
    control: ExecControl,
    sink: Mutex<Option<Arc<ExecSink>>>,
}

#[derive(Default)]
struct Testee {
    sandboxes: Mutex<HashMap<u64, Sandbox>>,
    execs: Mutex<HashMap<u64, Arc<Exec>>>,
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let testee = Arc::new(Testee::default());
    let mut input = io::stdin().lock();
    loop {
        let request = Request(read(&mut input)?);
        if request.0.is_empty() {
            break;
        }
        let testee = Arc::clone(&testee);
        runtime.spawn(async move {
            request.reply(testee.act(&request).await.unwrap_or_else(failed));
        });
    }
    runtime.shutdown_background();
    Ok(())
}

fn failed(failure: Failure) -> Fields {
    match failure.downcast::<Error>().map(|error| *error) {
        Ok(Error::ExecFailed(it)) => {
            let mut fields = fields!["failed", it.kind.name(), it.stage.name(), it.errno];
            fields.extend([it.errno_name.into(), it.message.into_bytes(), it.path]);
            fields
        }
        Ok(Error::ExecTimeout { output, .. }) => collected(&output, true),
        Ok(error) => fields!["error", error.kind().name(), error],
        Err(other) => fields!["error", "testee", other],
    }
}

fn exited(word: &str, status: &ExitStatus) -> Fields {
    let (usage, signal) = (status.usage.unwrap_or_default(), status.signal.unwrap_or(0));
    let (cpu, wall) = (usage.user_time + usage.system_time, usage.wall_time);
    let mut fields = fields![word, status.code, signal, status.core_dumped, status.timed_out];
    fields.extend(fields![status.success, cpu.as_micros(), wall.as_micros(), usage.max_rss]);
    fields
}

fn collected(output: &ExecOutput, raised: bool) -> Fields {
    let mut fields = exited("collected", &output.status());
    fields.extend(fields![raised]);
    fields.extend([output.stdout_bytes().to_vec(), output.stderr_bytes().to_vec()]);
    fields.extend(fields![output.stdout_total(), output.stderr_total()]);
    fields.extend(fields![output.truncated(), output.writer_left()]);
    fields
}

impl Testee {
    async fn act(&self, request: &Request) -> Result<Fields, Failure> {
        let action = String::from_utf8_lossy(&request.0[1]).into_owned();
        if let Some(id) = request.value("sandbox") {
            return self.in_sandbox(&action, request, id).await;
        }
        let Some(id) = request.value("exec") else {
            return if action == "hello" {
                Ok(fields!["hello", "utf8"])
            } else {
                self.create(request).await
            };
        };
        let exec = lock(&self.execs).get(&id).cloned().ok_or("no such exec")?;
        let size = |name| request.value(name).ok_or("no size");
        match action.as_str() {
            "forget" => drop(lock(&self.execs).remove(&id)),
            "kill" => exec.control.kill().await?,
            "signal" => exec.control.signal(request.value("signal").ok_or("no signal")?).await?,
            "resize" => exec.control.resize(size("rows")?, size("cols")?).await?,
            "write" => exec.sink()?.write(request.bytes("data").unwrap_or_default()).await?,
            "close_stdin" => exec.sink()?.close().await?,
            "close" => *exec.handle.lock().await = None,
            _ => {
                let mut handle = exec.handle.lock().await;
                return exec.follow(handle.as_mut().ok_or("it is closed")?, &action, request).await;
            }
        }
        Ok(fields!["ok"])
    }

    async fn create(&self, request: &Request) -> Result<Fields, Failure> {
        let text = |name| request.text(name).into_iter();
        let mut builder = Sandbox::builder(request.text("name").unwrap_or_default());
        builder = text("image").fold(builder, |builder, image| builder.image(image));
        builder = text("workdir").fold(builder, |builder, workdir| builder.workdir(workdir));
        builder = text("shell").fold(builder, |builder, shell| builder.shell(shell));
        builder = text("user").fold(builder, |builder, user| builder.user(user));
        let env: Vec<_> = request.all("env").map(|text| String::from_utf8_lossy(text)).collect();
        builder = env.chunks(2).fold(builder, |builder, pair| builder.env(&*pair[0], &*pair[1]));
        let sandbox = builder.create().await?;
        lock(&self.sandboxes).insert(request.id(), sandbox);
        Ok(fields!["ok"])
    }

    async fn in_sandbox(
        &self,
        action: &str,
        request: &Request,
        id: u64,
    ) -> Result<Fields, Failure> {
        let sandbox = lock(&self.sandboxes).get(&id).cloned().ok_or("no such sandbox")?;
        let session = request.text("session").unwrap_or_default();
        let options = |builder| request.options(builder);
        let (cmd, script) = (request.text("cmd").unwrap_or_default(), request.text("script"));
        let handle = match (action, script) {
            ("remove", _) => {
                lock(&self.sandboxes).remove(&id);
                sandbox.kill().await?;
                Sandbox::remove(sandbox.name()).await?;
                return Ok(fields!["ok"]);
            }
            ("listed", _) => {
                let sessions = sandbox.sessions().await?;
                let found = sessions.iter().find(|found| found.id == session);
                let state = match found.map(|found| found.status) {
                    None => "unknown",
                    Some(None) => "running",
                    Some(Some(_)) => "ended",
                };
                return Ok(fields!["state", state]);
            }
            ("run", None) => return Ok(collected(&sandbox.exec_with(cmd, options).await?, false)),
            ("run", Some(script)) => {
                return Ok(collected(&sandbox.shell_with(script, options).await?, false));
            }
            ("reattach", _) => sandbox.reattach(&session, ReattachFrom::Now).await?,
            (_, None) => sandbox.exec_stream_with(cmd, options).await?,
            (_, Some(script)) => sandbox.shell_stream_with(script, options).await?,
        };
        let (session, control) = (handle.id().to_owned(), handle.control());
        let (handle, sink) = (AsyncMutex::new(Some(handle)), Mutex::default());
        lock(&self.execs).insert(request.id(), Arc::new(Exec { handle, control, sink }));
        Ok(fields!["started", session])
    }
}

impl Exec {
    fn sink(&self) -> Result<Arc<ExecSink>, Failure> {
        Ok(lock(&self.sink).clone().ok_or("the writing end was not taken")?)
    }

    /// Performs a request of the handle's only reader.
    async fn follow(
        &self,
        handle: &mut ExecHandle,
        action: &str,
        request: &Request,
    ) -> Result<Fields, Failure> {
        match action {
            "take_stdin" => {
                let sink = handle.take_stdin().map(Arc::new);
                let there = sink.is_some();
                if there {
                    *lock(&self.sink) = sink;
                }
                Ok(fields!["yes", there])
            }
            "recv" => {
                while !request.report(handle.recv().await) {}
                Ok(fields!["ok"])
            }
            "wait" => Ok(exited("exited", &handle.wait().await?)),
            "collect" => Ok(collected(&handle.collect().await?, false)),
            "give_up" => {
                let mut ended = false;
                for _ in 0..request.value("times").unwrap_or(0) {
                    ended |= match request.text("on").as_deref() {
                        Some("recv") => {
                            poll_once(handle.recv()).map(|it| request.report(it)).is_ready()
                        }
                        Some("wait") => poll_once(handle.wait()).is_ready(),
                        _ => poll_once(handle.collect()).is_ready(),
                    };
                }
                Ok(fields!["yes", ended])
            }
            _ => Err(format!("no such action: {action}").into()),
        }
    }
}

/// Starts a call and cancels it.
fn poll_once<F: Future>(call: F) -> Poll<F::Output> {
    pin!(call).poll(&mut Context::from_waker(Waker::noop()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
