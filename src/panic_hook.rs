//! Traces panics of the library's own code, instead of printing them.

use std::cell::Cell;
use std::panic;
use std::sync::Once;
use std::thread;

thread_local! {
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// Marks the library's own code on a host thread, whose panics are traced.
#[derive(Debug)]
pub(super) struct Inside;

impl Inside {
    pub(super) fn enter() -> Inside {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let others = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                let own_thread =
                    thread::current().name().is_some_and(|name| name.starts_with("msb-"));
                if own_thread || INSIDE.try_with(Cell::get).is_ok_and(|depth| depth > 0) {
                    tracing::error!(target: "msb::panic", "{info}");
                } else {
                    others(info);
                }
            }));
        });
        INSIDE.with(|depth| depth.set(depth.get() + 1));
        Inside
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|depth| depth.set(depth.get() - 1));
    }
}
