//! Sample values for tests and fuzzers.

use crate::sys::Reaped;
use msb_wire::{Exec, SessionId, StdinMode, TtySize};
use std::time::Duration;

/// Returns a process that exited with code 0.
pub(crate) fn reaped() -> Reaped {
    Reaped {
        pid: 1,
        code: Some(0),
        signal: None,
        core_dumped: false,
        user: Duration::ZERO,
        system: Duration::ZERO,
        max_rss: 0,
    }
}

/// Returns a request. Bits of `options`: a pipe for input, a terminal, the largest window.
pub(crate) fn exec(guest: usize, options: u8) -> Exec {
    Exec {
        session: SessionId::from_bytes([if guest == 0 { 1 } else { 2 }; 16]),
        argv: vec![b"true".to_vec().into()],
        env: Vec::new(),
        cwd: b"/".to_vec(),
        user: None,
        stdin: if options & 1 == 0 { StdinMode::Null } else { StdinMode::Pipe },
        tty: (options & 2 != 0).then_some(TtySize { rows: 24, cols: 80 }),
        timeout_ns: None,
        rlimits: Vec::new(),
        drain_ns: None,
        wait_for_eof: false,
        window: if options & 4 == 0 { 0 } else { u64::MAX },
        modes: None,
    }
}
