//! The judge of the conformance cases: it reads them, drives a testee over a pipe, and decides.
//!
//! `conformance/README.md` describes the cases and the protocol. A testee carries out requests and
//! reports the results; it does not know what is expected.

#![forbid(unsafe_code)]

mod bytes;
mod command;
mod format;
mod outcome;
mod protocol;
mod received;
mod rootfs;
mod run;
mod suite;
mod testee;
#[cfg(test)]
mod tests;
mod time;

pub use suite::{Report, judge};
