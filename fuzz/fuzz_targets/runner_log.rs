#![no_main]
#![allow(dead_code, reason = "the modules of a program, of which one function is driven")]

#[path = "../../crates/runner/src/console.rs"]
mod console;
#[path = "../../crates/runner/src/control.rs"]
mod control;
#[path = "../../crates/runner/src/fuzzing.rs"]
mod fuzzing;
#[path = "../../crates/runner/src/log.rs"]
mod log;

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzing::runner_log(data));
