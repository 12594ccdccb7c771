//! `cargo run -p xtask -- abi [--check]`: makes every file that repeats a part of the C ABI from its
//! definition in `src`, or fails when one of them is not what `src` says.

/// The C library, whose structs are looked at.
#[path = "../../../src/lib.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, reason = "it is a library")]
mod ffi;
mod go;
mod header;
mod kinds;
mod layout;
mod model;
mod node;
mod options;
mod python;

use model::Abi;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

type Maker = fn(&Abi) -> Result<String, String>;

/// What is made, and by what.
const MADE: [(&str, Maker); 9] = [
    ("include/microsandbox.h", header::generate),
    ("bindings-test/abi/layout.c", layout::generate),
    ("bindings-test/abi/symbols.txt", symbols),
    ("sdk/python/src/microsandbox/_abi.py", python::generate),
    ("sdk/node/src/abi.ts", node::generate),
    ("sdk/node/native/options.c", options::addon),
    ("sdk/go/internal/ffi/status.go", go::statuses),
    ("sdk/go/internal/ffi/options.go", options::go),
    ("sdk/go/kinds.go", go::kinds),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["abi"] => each(write),
        ["abi", "--check"] => each(check),
        _ => Err("usage: xtask abi [--check]".to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => fail(&why),
    }
}

#[allow(clippy::print_stderr, reason = "this is a command")]
fn fail(why: &str) -> ExitCode {
    eprintln!("xtask: {why}");
    ExitCode::FAILURE
}

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_path_buf()
}

/// Makes each file and gives it to `with`.
fn each(with: fn(&str, &str) -> Result<(), String>) -> Result<(), String> {
    let abi = Abi::read(&root().join("src"))?;
    MADE.iter().try_for_each(|(file, make)| with(file, &make(&abi)?))
}

/// The names that the library exports, sorted as `LC_ALL=C sort` does.
fn symbols(abi: &Abi) -> Result<String, String> {
    let mut names: Vec<&str> = abi.functions.iter().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    Ok(names.join("\n") + "\n")
}

fn write(file: &str, content: &str) -> Result<(), String> {
    let path = root().join(file);
    std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))
}

fn check(file: &str, content: &str) -> Result<(), String> {
    let path = root().join(file);
    let committed =
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if committed == content {
        return Ok(());
    }
    Err(format!("{file} is not what src says: run `make abi` and look at the difference"))
}
