//! The library of a language against the conformance cases: see conformance/README.md.

use crate::run::{self, BUILT, judge};
use crate::{c, go, node, python};
use anyhow::{Result, bail};
use xshell::Shell;

/// Judges a language; the options are the judge's.
pub(crate) fn test(sh: &Shell, language: &str, options: &[&str]) -> Result<()> {
    run::build(sh)?;
    let testee = match language {
        "rust" => vec![format!("{BUILT}/conformance-testee")],
        "c" => c::testee(sh)?,
        "go" => go::testee(sh)?,
        "python" => python::testee(sh, "testee.py"),
        "python-sync" => python::testee(sh, "testee_sync.py"),
        "node" => node::testee(sh)?,
        _ => bail!("no testee for {language}"),
    };
    run::run("0", judge(sh, &testee, options))
}
