//! The dependencies: licences, bans, sources, and known vulnerabilities (deny.toml).

use crate::run::{is_installed, note, root, variable};
use anyhow::Result;
use xshell::{Shell, cmd};

/// Never fetches the advisory database, and reports if there is none.
pub(crate) fn test(sh: &Shell) -> Result<()> {
    let tools = root().join("target/tools");
    sh.set_var("PATH", format!("{}:{}/bin", sh.var("PATH")?, tools.display()));
    if !is_installed(sh, "cargo-deny") {
        note("installing cargo-deny (some minutes)");
        cmd!(sh, "cargo install cargo-deny --locked --quiet --root {tools}").quiet().run()?;
    }
    let checks = ["--allow", "license-not-encountered", "bans", "licenses", "sources"];
    cmd!(sh, "cargo deny --log-level error check {checks...}").quiet().run()?;
    let home = variable(sh, "CARGO_HOME", &format!("{}/.cargo", sh.var("HOME")?));
    let databases = format!("{home}/advisory-dbs");
    let is_database = |path: &std::path::PathBuf| path.join("crates").is_dir();
    if sh.read_dir(&databases).is_ok_and(|found| found.iter().any(is_database)) {
        cmd!(sh, "cargo deny --log-level error --offline check advisories").quiet().run()?;
    } else {
        note(&format!(
            "NOT CHECKED: known vulnerabilities: no advisory database in {databases}; \
             'cargo deny fetch' downloads it"
        ));
    }
    Ok(())
}
