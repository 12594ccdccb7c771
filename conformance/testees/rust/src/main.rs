//! Executes the requests of the conformance judge with the Rust SDK, and reports the results.
//!
//! The protocol is in `conformance/README.md`. Every request runs in a task of its own.

#![forbid(unsafe_code)]

use microsandbox::{
    Error, ExecControl, ExecEvent, ExecFailed, ExecHandle, ExecOptionsBuilder, ExecOutput,
    ExecSink, ExitStatus, ReattachFrom, Sandbox,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::future::Future;
use std::io::{self, BufRead, Write};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::Mutex as AsyncMutex;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A request or a reply: fields, and the bytes that they refer to.
struct Message {
    line: Value,
    parts: Vec<Vec<u8>>,
}

impl Message {
    fn read(from: &mut impl BufRead) -> Result<Option<Message>, Failure> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line: Value = serde_json::from_str(&line)?;
        let mut parts = Vec::new();
        for length in line["parts"].as_array().into_iter().flatten().filter_map(Value::as_u64) {
            let mut part = vec![0; usize::try_from(length)?];
            from.read_exact(&mut part)?;
            parts.push(part);
        }
        Ok(Some(Message { line, parts }))
    }

    fn number(&self, field: &str) -> Option<u64> {
        self.line[field].as_u64()
    }

    fn word(&self, field: &str) -> &str {
        self.line[field].as_str().unwrap_or_default()
    }

    fn list(&self, field: &str) -> impl Iterator<Item = &Value> {
        self.line[field].as_array().into_iter().flatten()
    }

    /// Returns the part with this number.
    fn part(&self, number: &Value) -> Option<&Vec<u8>> {
        self.parts.get(usize::try_from(number.as_u64()?).ok()?)
    }

    fn bytes(&self, field: &str) -> Option<Vec<u8>> {
        self.part(&self.line[field]).cloned()
    }

    fn text(&self, field: &str) -> Option<String> {
        String::from_utf8(self.bytes(field)?).ok()
    }

    fn milliseconds(&self, field: &str) -> Option<Duration> {
        self.number(field).map(Duration::from_millis)
    }
}

/// The result of a request, and its bytes.
type Done = (Value, Vec<Vec<u8>>);

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
    while let Some(request) = Message::read(&mut input)? {
        let testee = Arc::clone(&testee);
        runtime.spawn(async move {
            let (done, parts) = testee.act(&request).await.unwrap_or_else(failed);
            reply(&request, json!({ "done": done }), &parts);
        });
    }
    runtime.shutdown_background();
    Ok(())
}

/// Writes one reply, uninterrupted.
fn reply(request: &Message, mut line: Value, parts: &[Vec<u8>]) {
    line["id"] = request.line["id"].clone();
    line["parts"] = parts.iter().map(Vec::len).collect();
    let mut output = io::stdout().lock();
    let mut write = || {
        writeln!(output, "{line}")?;
        parts.iter().try_for_each(|part| output.write_all(part))?;
        output.flush()
    };
    // The judge has exited; the end of the input follows.
    let _ = write();
}

fn failed(failure: Failure) -> Done {
    match failure.downcast::<Error>().map(|error| *error) {
        Ok(Error::ExecFailed(failed)) => exec_failed(failed),
        Ok(Error::ExecTimeout { output, .. }) => collected(&output, true),
        Ok(error) => {
            let line = json!({ "error": { "kind": error.kind().name(), "message": 0 } });
            (line, vec![error.to_string().into_bytes()])
        }
        Err(other) => {
            let line = json!({ "error": { "kind": "testee", "message": 0 } });
            (line, vec![other.to_string().into_bytes()])
        }
    }
}

fn exec_failed(failed: ExecFailed) -> Done {
    let line = json!({ "failed": {
        "kind": failed.kind.name(), "stage": failed.stage.name(), "errno": failed.errno,
        "errno_name": failed.errno_name, "message": 0, "path": 1,
    } });
    (line, vec![failed.message.into_bytes(), failed.path])
}

fn exited(status: &ExitStatus) -> Value {
    let usage = status.usage.unwrap_or_default();
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    json!({
        "code": status.code, "signal": status.signal.unwrap_or(0), "core": status.core_dumped,
        "timed_out": status.timed_out, "success": status.success,
        "cpu_us": micros(usage.user_time + usage.system_time),
        "wall_us": micros(usage.wall_time), "max_rss": usage.max_rss,
    })
}

fn collected(output: &ExecOutput, raised: bool) -> Done {
    let mut line = exited(&output.status());
    line["raised"] = raised.into();
    line["output"] = json!({
        "stdout": 0, "stderr": 1, "stdout_total": output.stdout_total(),
        "stderr_total": output.stderr_total(), "truncated": output.truncated(),
        "writer_left": output.writer_left(),
    });
    (
        json!({ "exited": line }),
        vec![output.stdout_bytes().to_vec(), output.stderr_bytes().to_vec()],
    )
}

fn options(request: &Message, mut o: ExecOptionsBuilder) -> ExecOptionsBuilder {
    let part = |number: &Value| request.part(number).cloned().unwrap_or_default();
    o = request.list("args").fold(o, |o, arg| o.arg_bytes(part(arg)));
    o = request.list("env").fold(o, |o, pair| o.env_bytes(part(&pair[0]), part(&pair[1])));
    o = request.bytes("cwd").into_iter().fold(o, ExecOptionsBuilder::cwd_bytes);
    o = request.text("user").into_iter().fold(o, ExecOptionsBuilder::user);
    o = request.bytes("stdin").into_iter().fold(o, ExecOptionsBuilder::stdin_bytes);
    o = request.milliseconds("timeout_ms").into_iter().fold(o, ExecOptionsBuilder::timeout);
    o = request.milliseconds("drain_ms").into_iter().fold(o, ExecOptionsBuilder::drain);
    o = request.number("max_output").into_iter().fold(o, ExecOptionsBuilder::max_output);
    if request.line["stdin_pipe"] == true {
        o = o.stdin_pipe();
    }
    let size = |field| request.number(field).and_then(|size| u16::try_from(size).ok());
    if let (Some(rows), Some(cols)) = (size("rows"), size("cols")) {
        o = o.tty_size(rows, cols);
    }
    for limit in request.list("rlimits") {
        let bound = |at: usize| limit[at].as_str().and_then(|text| text.parse().ok());
        if let Ok(resource) = limit[0].as_str().unwrap_or_default().parse() {
            let (soft, hard) = (bound(2), bound(3)); // infinity is none
            o = o.rlimit_range(resource, soft.unwrap_or(u64::MAX), hard.unwrap_or(u64::MAX));
        }
    }
    o.tty(request.line["tty"] == true).wait_for_eof(request.line["wait_for_eof"] == true)
}

impl Testee {
    async fn act(&self, request: &Message) -> Result<Done, Failure> {
        let ok = || Ok(("ok".into(), Vec::new()));
        let action = request.word("do");
        match action {
            "hello" => return Ok((json!({ "hello": {} }), Vec::new())),
            "create" => {
                self.create(request).await?;
                return ok();
            }
            "remove" | "run" | "start" | "reattach" | "listed" => {
                return self.in_sandbox(action, request).await;
            }
            _ => {}
        }
        let id = request.number("exec").unwrap_or_default();
        let exec = lock(&self.execs).get(&id).cloned().ok_or("no such exec")?;
        let size = |field| u16::try_from(request.number(field).unwrap_or_default());
        match action {
            "forget" => drop(lock(&self.execs).remove(&id)),
            "kill" => exec.control.kill().await?,
            "signal" => {
                let signal = request.line["signal"].as_i64().unwrap_or_default();
                exec.control.signal(i32::try_from(signal)?).await?;
            }
            "resize" => exec.control.resize(size("rows")?, size("cols")?).await?,
            "write" => exec.sink()?.write(request.bytes("data").unwrap_or_default()).await?,
            "close_stdin" => exec.sink()?.close().await?,
            "close" => *exec.handle.lock().await = None,
            _ => {
                let mut handle = exec.handle.lock().await;
                return exec.follow(handle.as_mut().ok_or("it is closed")?, action, request).await;
            }
        }
        ok()
    }

    async fn create(&self, request: &Message) -> Result<(), Failure> {
        let text = |field| request.text(field).into_iter();
        let driver = std::env::var("MSB_DRIVER").into_iter();
        let mut builder = Sandbox::builder(request.text("name").unwrap_or_default());
        builder = text("image").fold(builder, |builder, image| builder.image(image));
        builder = driver.fold(builder, |builder, driver| builder.driver(driver));
        builder = text("workdir").fold(builder, |builder, workdir| builder.workdir(workdir));
        builder = text("shell").fold(builder, |builder, shell| builder.shell(shell));
        builder = text("user").fold(builder, |builder, user| builder.user(user));
        for pair in request.list("env") {
            let text = |number| request.part(number).cloned().unwrap_or_default();
            builder =
                builder.env(String::from_utf8(text(&pair[0]))?, String::from_utf8(text(&pair[1]))?);
        }
        let sandbox = builder.create().await?;
        lock(&self.sandboxes).insert(request.number("id").unwrap_or_default(), sandbox);
        Ok(())
    }

    async fn in_sandbox(&self, action: &str, request: &Message) -> Result<Done, Failure> {
        let id = request.number("sandbox").unwrap_or_default();
        let sandbox = lock(&self.sandboxes).get(&id).cloned().ok_or("no such sandbox")?;
        let session = request.word("session");
        let o = |builder| options(request, builder);
        let handle = match action {
            "remove" => {
                lock(&self.sandboxes).remove(&id);
                sandbox.kill().await?;
                Sandbox::remove(sandbox.name()).await?;
                return Ok(("ok".into(), Vec::new()));
            }
            "listed" => {
                let sessions = sandbox.sessions().await?;
                let found = sessions.iter().find(|found| found.id == session);
                let state = match found.map(|found| found.status) {
                    None => "unknown",
                    Some(None) => "running",
                    Some(Some(_)) => "ended",
                };
                return Ok((json!({ "state": state }), Vec::new()));
            }
            "reattach" => sandbox.reattach(session, ReattachFrom::Now).await?,
            _ => {
                let field = if request.line["script"].is_null() { "cmd" } else { "script" };
                let Some(program) = request.text(field) else {
                    return Ok((json!({ "cannot": "utf8" }), Vec::new()));
                };
                match (action, field) {
                    ("run", "cmd") => {
                        return Ok(collected(&sandbox.exec_with(program, o).await?, false));
                    }
                    ("run", _) => {
                        return Ok(collected(&sandbox.shell_with(program, o).await?, false));
                    }
                    (_, "cmd") => sandbox.exec_stream_with(program, o).await?,
                    _ => sandbox.shell_stream_with(program, o).await?,
                }
            }
        };
        let (session, control) = (handle.id(), handle.control());
        let (handle, sink) = (AsyncMutex::new(Some(handle)), Mutex::default());
        let exec = Arc::new(Exec { handle, control, sink });
        lock(&self.execs).insert(request.number("id").unwrap_or_default(), exec);
        Ok((json!({ "started": { "session": session } }), Vec::new()))
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
        request: &Message,
    ) -> Result<Done, Failure> {
        match action {
            "take_stdin" => {
                let sink = handle.take_stdin().map(Arc::new);
                let there = sink.is_some();
                if there {
                    *lock(&self.sink) = sink;
                }
                Ok((json!({ "sink": there }), Vec::new()))
            }
            "recv" => loop {
                let kind = report(request, handle.recv().await);
                if kind == "end" || request.word("until") == "any" || request.word("until") == kind
                {
                    return Ok(("ok".into(), Vec::new()));
                }
            },
            "wait" => Ok((json!({ "exited": exited(&handle.wait().await?) }), Vec::new())),
            "collect" => Ok(collected(&handle.collect().await?, false)),
            "give_up" => {
                let mut ended = false;
                for _ in 0..request.number("times").unwrap_or_default() {
                    ended |= match request.word("on") {
                        "recv" => poll_once(handle.recv()).map(|e| report(request, e)).is_ready(),
                        "wait" => poll_once(handle.wait()).is_ready(),
                        _ => poll_once(handle.collect()).is_ready(),
                    };
                }
                Ok((json!({ "ended": ended }), Vec::new()))
            }
            _ => Err(format!("no such action: {action}").into()),
        }
    }
}

/// Reports an event and returns its kind.
fn report(request: &Message, event: Option<ExecEvent>) -> &'static str {
    let (kind, data) = match event {
        None => ("end", None),
        Some(ExecEvent::Started { .. }) => ("started", None),
        Some(ExecEvent::Stdout(data)) => ("stdout", Some(data)),
        Some(ExecEvent::Stderr(data)) => ("stderr", Some(data)),
        Some(ExecEvent::StdinError(_)) => ("stdin_error", None),
        Some(ExecEvent::Exited { .. }) => ("exited", None),
        Some(ExecEvent::Failed(_)) => ("failed", None),
        Some(_) => ("lost", None),
    };
    match data {
        None => reply(request, json!({ "event": kind }), &[]),
        Some(data) => reply(request, json!({ "event": kind, "data": 0 }), &[data.to_vec()]),
    }
    kind
}

/// Starts a call and cancels it.
fn poll_once<F: Future>(call: F) -> Poll<F::Output> {
    pin!(call).poll(&mut Context::from_waker(Waker::noop()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
