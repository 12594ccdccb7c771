//! The Node package: its types, its tests, the conformance cases, and an installation of the packages
//! of `sdk/node/pack`.

use crate::run::{self, judge, note, quiet, root, start, variable};
use anyhow::Result;
use std::time::Instant;
use xshell::{Cmd, Shell, cmd};

/// Builds the package, unless MSB_NODE_ADDON names another addon.
fn build(sh: &Shell) -> Result<()> {
    if sh.var("MSB_NODE_ADDON").is_err() {
        quiet(cmd!(sh, "sdk/node/build"))?;
        sh.set_var("MSB_NODE_ADDON", root().join("target/sdk-node/microsandbox.node"));
    }
    Ok(())
}

/// The testee of the conformance cases.
pub(crate) fn testee(sh: &Shell) -> Result<Vec<String>> {
    build(sh)?;
    Ok(["node", "conformance/testees/node/testee.mjs"].map(str::to_owned).to_vec())
}

pub(crate) fn test(sh: &Shell) -> Result<()> {
    run::build(sh)?;
    let begun = Instant::now();
    let seconds = variable(sh, "MSB_TEST_NODE_SECONDS", "600");
    let step = |command: Cmd<'_>| start(&seconds, command)?.finish();
    let rootfs = run::rootfs(sh, "target/sdk-node/rootfs", Some("sdk/node/test/make-rootfs"))?;
    let _home = run::for_sandboxes(sh, &rootfs)?;
    build(sh)?;
    let tests = {
        let _there = sh.push_dir("sdk/node");
        step(cmd!(sh, "node node_modules/typescript/bin/tsc -p test"))?;
        let tests = run::files(sh, "test", ".test.mjs")?;
        step(cmd!(sh, "node --test {tests...}"))?
    };
    let cases = step(judge(sh, &testee(sh)?, &[]))?;
    step(cmd!(sh, "sdk/node/test/install"))?;
    let is_count = |line: &&str| line.starts_with("# pass ") || line.starts_with("ℹ pass ");
    let count = tests.lines().find(is_count).and_then(|line| line.split(' ').next_back());
    let (cases, count) = (run::last(&cases), count.unwrap_or("no"));
    note(&format!("node package: {cases}; {count} tests; {} s", begun.elapsed().as_secs()));
    Ok(())
}
