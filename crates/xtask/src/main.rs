//! `cargo run -p xtask -- header [--check]`: makes `include/microsandbox.h` from `src`, and
//! `bindings-test/abi/layout.c`, which checks that a C compiler sees the same structs.

/// The C library, whose structs are looked at.
#[path = "../../../src/lib.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, reason = "it is a library")]
mod ffi;
mod layout;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The files of `src` with exports, in the order in which a reader wants them.
const FILES: [&str; 16] = [
    "version",
    "status",
    "error",
    "handle",
    "trace",
    "sandbox_options",
    "sandbox",
    "progress",
    "image",
    "list",
    "exec",
    "event",
    "output",
    "sink",
    "log",
    "attach",
];

type Maker = fn() -> Result<Vec<u8>, String>;

/// What is made, and by what.
const MADE: [(&str, Maker); 2] =
    [("include/microsandbox.h", header), ("bindings-test/abi/layout.c", layout::generate)];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["header"] => MADE.iter().try_for_each(|(file, make)| write(file, make()?)),
        ["header", "--check"] => MADE.iter().try_for_each(|(file, make)| check(file, &make()?)),
        _ => Err("usage: xtask header [--check]".to_owned()),
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

fn header() -> Result<Vec<u8>, String> {
    let root = root();
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml"))?;
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in FILES {
        builder = builder.with_src(root.join(format!("src/{file}.rs")));
    }
    let bindings = builder.generate().map_err(|error| error.to_string())?;
    let mut header = Vec::new();
    bindings.write(&mut header);
    Ok(header)
}

fn write(file: &str, content: Vec<u8>) -> Result<(), String> {
    let path = root().join(file);
    std::fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))
}

fn check(file: &str, content: &[u8]) -> Result<(), String> {
    let path = root().join(file);
    let committed = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if committed == content {
        return Ok(());
    }
    Err(format!("{file} is not what src says: run `make header` and look at the difference"))
}
