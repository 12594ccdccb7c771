//! Every file that repeats a part of the C ABI, made from its definition in `src`.

mod go;
mod header;
mod kinds;
mod layout;
mod model;
mod node;
mod options;
mod python;

use crate::run::root;
use anyhow::{Context, Error, Result, ensure};
use model::Abi;
use std::fs;

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

/// Makes each file, or fails if one of them is not what `src` says.
pub(crate) fn make(only_check: bool) -> Result<()> {
    let abi = Abi::read(&root().join("src")).map_err(Error::msg)?;
    for (file, maker) in MADE {
        let (path, content) = (root().join(file), maker(&abi).map_err(Error::msg)?);
        if !only_check {
            fs::write(&path, content).context(file)?;
            continue;
        }
        let is_current = fs::read_to_string(&path).context(file)? == content;
        ensure!(
            is_current,
            "{file} is not what src says: run `make abi` and look at the difference"
        );
    }
    Ok(())
}

/// The names that the library exports, sorted as `LC_ALL=C sort` does.
fn symbols(abi: &Abi) -> Result<String, String> {
    let mut names: Vec<&str> = abi.functions.iter().map(|one| one.name.as_str()).collect();
    names.sort_unstable();
    Ok(names.join("\n") + "\n")
}
