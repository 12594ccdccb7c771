//! The trace: messages of the library itself, and its only callback.
//!
//! Messages pass through a bounded queue to a library thread, so that no caller waits for the
//! host's function, and no lock is held while it runs.

use super::boundary::boundary;
use super::error::{ErrorOut, msb_error};
use super::failure::{Failure, wrong};
use super::status::{MSB_E_BUSY, MSB_E_INVALID, MSB_E_UNSUPPORTED, MSB_OK, msb_status};
use super::sync::lock;
use crossbeam_channel::{Receiver, Sender, bounded};
use microsandbox::escape;
use microsandbox::pull::{spawn_thread, start_io};
use std::ffi::{CString, c_char, c_void};
use std::fmt::{Debug, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, ThreadId};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// A failure that no call reports.
pub const MSB_TRACE_ERROR: u32 = 1;
/// A degraded condition; the library continues.
pub const MSB_TRACE_WARN: u32 = 2;
/// Life cycle of sandboxes only.
pub const MSB_TRACE_INFO: u32 = 3;
/// Steps of the protocol.
pub const MSB_TRACE_DEBUG: u32 = 4;
/// All messages.
pub const MSB_TRACE_TRACE: u32 = 5;

/// Receives a message of the library. `level` is one of `MSB_TRACE_*`; `target`, a part of the
/// library, and `message`, one line of UTF-8, are lent.
pub type msb_trace_fn = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        level: u32,
        target: *const c_char,
        message: *const c_char,
    ),
>;

/// Called when `user_data` is no longer used.
pub type msb_drop_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Maximum number of queued messages; further ones are counted and dropped.
const QUEUE: usize = 1024;

/// Sends messages of the library, up to `level`, to `trace`, on a library thread and one at a time;
/// NULL, the default, discards them. `trace` must not call any `msb_*` function. It may block:
/// messages that exceed the queue are counted and dropped. Input, output, arguments and environment
/// of commands never appear; `msb_log_open` reads the recorded output of a sandbox. `user_data` is
/// lent until `drop` is called.
/// When this returns, the previous function has received every message from before this call, is
/// not running and will not be called again, and its `drop`, which may be NULL, was called. If this
/// fails, `user_data` stays the caller's.
///
/// `MSB_OK`. `MSB_E_INVALID`: no such level. `MSB_E_BUSY`: another thread is in this call.
/// `MSB_E_UNSUPPORTED`: called by `trace` itself; or the host is a Rust program with its own
/// subscriber of the `tracing` crate.
#[unsafe(no_mangle)]
#[must_use]
pub unsafe extern "C" fn msb_trace_set(
    level: u32,
    trace: msb_trace_fn,
    user_data: *mut c_void,
    drop: msb_drop_fn,
    err: *mut msb_error,
) -> msb_status {
    // SAFETY: NULL or valid for this call, by the contract of every export (src/lib.rs).
    let err = unsafe { ErrorOut::new(err) };
    boundary(err, || {
        if trace.is_some() && !(MSB_TRACE_ERROR..=MSB_TRACE_TRACE).contains(&level) {
            return Err(wrong(MSB_E_INVALID, format!("{level} is not a trace level")));
        }
        // Also records the process that the threads belong to.
        start_io()?;
        if *lock(&TRACE_THREAD) == Some(thread::current().id()) {
            return Err(wrong(MSB_E_UNSUPPORTED, "the trace function itself sets the trace"));
        }
        // Held while the old thread ends: a second caller fails instead of waiting.
        let Ok(mut current) = TRACER.try_lock() else {
            return Err(wrong(MSB_E_BUSY, "another thread sets the trace"));
        };
        if let Some(tracer) = current.take() {
            tracer.end();
        }
        if let Some(function) = trace {
            subscribe()?;
            *current = Some(Tracer::start(level, Host { function, user_data, drop })?);
        }
        Ok(MSB_OK)
    })
}

static TRACER: Mutex<Option<Tracer>> = Mutex::new(None);
/// The queue; separate from the tracer, so that no message waits for a tracer that is ending.
static QUEUE_IN: Mutex<Option<Sender<Record>>> = Mutex::new(None);
static TRACE_THREAD: Mutex<Option<ThreadId>> = Mutex::new(None);
static LEVEL: AtomicU32 = AtomicU32::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct Record {
    level: u32,
    target: &'static str,
    message: String,
}

/// The host's function and its data.
struct Host {
    function: unsafe extern "C" fn(*mut c_void, u32, *const c_char, *const c_char),
    user_data: *mut c_void,
    drop: msb_drop_fn,
}

// SAFETY: the header requires that all of it may be used on another thread.
unsafe impl Send for Host {}

impl Host {
    fn send(&self, level: u32, target: &str, message: &str) {
        let text = |text: &str| CString::new(text.replace(['\0', '\n', '\r'], " "));
        if let (Ok(target), Ok(message)) = (text(target), text(message)) {
            // SAFETY: the host's function; the texts are valid during the call.
            unsafe { (self.function)(self.user_data, level, target.as_ptr(), message.as_ptr()) };
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            // SAFETY: the host's function; this is the only and last call.
            unsafe { drop(self.user_data) };
        }
    }
}

#[derive(Debug)]
struct Tracer {
    thread: JoinHandle<()>,
}

impl Tracer {
    fn start(level: u32, mut host: Host) -> Result<Tracer, microsandbox::Error> {
        let (sender, receiver) = bounded(QUEUE);
        let (give, given) = bounded::<Host>(1);
        let spawned = spawn_thread("msb-trace", move || {
            *lock(&TRACE_THREAD) = Some(thread::current().id());
            if let Ok(host) = given.recv() {
                deliver(&host, &receiver);
            }
            *lock(&TRACE_THREAD) = None;
        });
        let thread = match spawned {
            Ok(thread) => thread,
            Err(error) => {
                // A failed call does not take ownership of the data.
                host.drop = None;
                return Err(error);
            }
        };
        // Cannot fail: the thread has the receiver.
        let _ = give.send(host);
        *lock(&QUEUE_IN) = Some(sender);
        LEVEL.store(level, Ordering::Release);
        Ok(Tracer { thread })
    }

    /// Delivers the queued messages, and ends the thread.
    fn end(self) {
        LEVEL.store(0, Ordering::Release);
        drop(lock(&QUEUE_IN).take());
        // The hook has traced a panic of the thread.
        let _ = self.thread.join();
    }
}

fn deliver(host: &Host, records: &Receiver<Record>) {
    for record in records {
        send_dropped(host);
        host.send(record.level, record.target, &record.message);
    }
    // The queue is closed: the next function gets only its own losses.
    send_dropped(host);
}

fn send_dropped(host: &Host) {
    let dropped = DROPPED.swap(0, Ordering::AcqRel);
    if dropped > 0 {
        let text = format!("{dropped} messages were dropped: the queue was full");
        host.send(MSB_TRACE_WARN, "msb::trace", &text);
    }
}

/// Subscribes to the library's events, once.
fn subscribe() -> Result<(), Failure> {
    static SUBSCRIBED: Mutex<bool> = Mutex::new(false);
    let mut subscribed = lock(&SUBSCRIBED);
    if !*subscribed {
        let registry = tracing_subscriber::registry().with(Subscription);
        tracing::subscriber::set_global_default(registry).map_err(|_| {
            wrong(MSB_E_UNSUPPORTED, "this program has a subscriber for messages already")
        })?;
        *subscribed = true;
    }
    Ok(())
}

struct Subscription;

impl<S: Subscriber> Layer<S> for Subscription {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = number_of(*event.metadata().level());
        if level > LEVEL.load(Ordering::Acquire) {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let record = Record { level, target: event.metadata().target(), message: line.text() };
        if let Some(queue) = &*lock(&QUEUE_IN)
            && queue.try_send(record).is_err()
        {
            DROPPED.fetch_add(1, Ordering::AcqRel);
        }
    }
}

fn number_of(level: Level) -> u32 {
    match level {
        Level::ERROR => MSB_TRACE_ERROR,
        Level::WARN => MSB_TRACE_WARN,
        Level::INFO => MSB_TRACE_INFO,
        Level::DEBUG => MSB_TRACE_DEBUG,
        Level::TRACE => MSB_TRACE_TRACE,
    }
}

/// A message and its fields in one line.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn text(self) -> String {
        escape(&(self.message + &self.fields)).into_owned()
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a `String` cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
