//! `cargo run -p xtask -- header [--check]`: makes `include/microsandbox.h` from `src/ffi`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The files of `src/ffi` with exports, in the order in which a reader wants them.
const FILES: [&str; 12] = [
    "version", "status", "error", "handle", "log", "sandbox", "list", "exec", "event", "output",
    "sink", "attach",
];
const HEADER: &str = "include/microsandbox.h";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments.as_slice() {
        ["header"] => write_header(),
        ["header", "--check"] => check_header(),
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

fn generate() -> Result<Vec<u8>, String> {
    let root = root();
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml"))?;
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in FILES {
        builder = builder.with_src(root.join(format!("src/ffi/{file}.rs")));
    }
    let bindings = builder.generate().map_err(|error| error.to_string())?;
    let mut header = Vec::new();
    bindings.write(&mut header);
    Ok(header)
}

fn write_header() -> Result<(), String> {
    let path = root().join(HEADER);
    let header = generate()?;
    std::fs::write(&path, header).map_err(|error| format!("{}: {error}", path.display()))
}

fn check_header() -> Result<(), String> {
    let path = root().join(HEADER);
    let committed = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if committed == generate()? {
        return Ok(());
    }
    Err(format!("{HEADER} is not what src/ffi says: run `make header` and look at the difference"))
}
