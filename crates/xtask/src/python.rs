//! The Python package: linters, the conformance cases and its tests.

use crate::run::{self, judge, note, quiet, root, start};
use anyhow::Result;
use std::path::PathBuf;
use xshell::{Shell, cmd};

pub(crate) fn set_environment(sh: &Shell, built: &str) {
    sh.set_var("MSB_LIBRARY", root().join(built).join("libmicrosandbox.so.0"));
    sh.set_var("PYTHONPATH", root().join("sdk/python/src"));
    sh.set_var("PYTHONDONTWRITEBYTECODE", "1");
}

/// A testee of the conformance cases.
pub(crate) fn testee(sh: &Shell, program: &str) -> Vec<String> {
    set_environment(sh, run::BUILT);
    vec!["python3".to_owned(), format!("conformance/testees/python/{program}")]
}

/// An environment with these packages.
pub(crate) fn venv(sh: &Shell, path: &str, packages: &[&str]) -> Result<PathBuf> {
    let inputs = format!("{} {packages:?}", cmd!(sh, "python3 --version").quiet().read()?);
    run::made(sh, path, &inputs, |path| {
        note(&format!("installing {}", packages.join(" ")));
        quiet(cmd!(sh, "python3 -m venv {path}"))?;
        quiet(cmd!(sh, "{path}/bin/pip install --disable-pip-version-check {packages...}"))?;
        Ok(())
    })
}

/// Arguments go to pytest, which then runs alone.
pub(crate) fn test(sh: &Shell, arguments: &[&str]) -> Result<()> {
    run::build(sh)?;
    let requirements = sh.read_file("sdk/python/requirements-test.txt")?;
    let packages: Vec<&str> = requirements.lines().filter(|line| !line.starts_with('#')).collect();
    let tools = venv(sh, "target/test-python/tools", &packages)?;
    sh.set_var("PATH", format!("{}/bin:{}", tools.display(), sh.var("PATH")?));
    let guide = "sdk/python/tests/guide-rootfs";
    let rootfs = run::rootfs(sh, "target/test-python/rootfs", Some(guide))?;
    let _home = run::for_sandboxes(sh, &rootfs)?;
    set_environment(sh, run::BUILT);
    if arguments.is_empty() {
        lint(sh)?;
        // They wait more than they work.
        let blocking = start("600", judge(sh, &testee(sh, "testee_sync.py"), &[]))?;
        let asyncio = start("600", judge(sh, &testee(sh, "testee.py"), &[]))?;
        note(&format!("asyncio: {}", run::last(&asyncio.finish()?)));
        note(&format!("blocking: {}", run::last(&blocking.finish()?)));
    }
    let _there = sh.push_dir("sdk/python");
    run::run("1200", cmd!(sh, "python -m pytest -q -p no:cacheprovider {arguments...}"))
}

fn lint(sh: &Shell) -> Result<()> {
    let testees = root().join("conformance/testees/python");
    let cache = root().join("target/test-python/mypy");
    let types = format!("{}:{}", sh.var("PYTHONPATH")?, testees.display());
    let _there = sh.push_dir("sdk/python");
    quiet(cmd!(sh, "ruff check --no-cache . {testees}"))?;
    quiet(cmd!(sh, "ruff format --no-cache --check . {testees}"))?;
    quiet(cmd!(sh, "python generate_sync.py --check"))?;
    quiet(cmd!(sh, "mypy --cache-dir {cache}"))?;
    quiet(cmd!(sh, "mypy --cache-dir {cache} {testees}").env("MYPYPATH", types))?;
    quiet(cmd!(sh, "pyright"))?;
    note("ruff, mypy --strict and pyright: clean; the sync twin is current");
    Ok(())
}
