//! `cargo run -p xtask -- PART`: what builds, tests and measures the project. `make` calls each part.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command")]

mod abi;
mod bench;
mod c;
mod check;
mod conformance;
mod deny;
/// The C library, whose structs are looked at.
#[path = "../../../src/lib.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, reason = "it is a library")]
mod ffi;
mod fuzz;
mod go;
mod node;
mod python;
mod run;
mod sanitizers;
mod vm;

use anyhow::{Result, bail};
use std::process::ExitCode;

const USAGE: &str = "usage: cargo run -p xtask -- PART, which is one of
abi [--check]
bench [ROW OR DRIVER...]
check [PART...]
conformance rust|c|go|python|python-sync|node [--trace]
deny
fuzz
test-c [PART OF A TEST'S NAME...]
test-go
test-node
test-python [PYTEST'S ARGUMENT...]
test-vm qemu|krun [kills]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match part(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why:#}");
            ExitCode::FAILURE
        }
    }
}

fn part(arguments: &[&str]) -> Result<()> {
    run::leave_cargo()?;
    let sh = run::shell()?;
    match arguments {
        ["abi"] => abi::make(false),
        ["abi", "--check"] => abi::make(true),
        ["bench", words @ ..] => bench::test(&sh, words),
        ["check", parts @ ..] => check::test(parts),
        ["conformance", language, options @ ..] => conformance::test(&sh, language, options),
        ["deny"] => deny::test(&sh),
        ["fuzz"] => fuzz::test(&sh),
        ["test-c", names @ ..] => c::test(&sh, names),
        ["test-go"] => go::test(&sh),
        ["test-node"] => node::test(&sh),
        ["test-python", arguments @ ..] => python::test(&sh, arguments),
        ["test-vm", driver] => vm::test(&sh, driver, false),
        ["test-vm", driver, "kills"] => vm::test(&sh, driver, true),
        _ => bail!(USAGE),
    }
}
