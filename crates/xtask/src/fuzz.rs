//! Every fuzz target for MSB_FUZZ_SECONDS (60), with its speed. See fuzz/README.md.

use crate::run::{self, is_success, say, variable};
use anyhow::{Result, ensure};
use std::fs::File;
use xshell::{Shell, cmd};

pub(crate) fn test(sh: &Shell) -> Result<()> {
    let has_nightly = is_success(cmd!(sh, "cargo +nightly --version"));
    ensure!(has_nightly, "needs a nightly toolchain: rustup toolchain install nightly");
    let has_fuzz = is_success(cmd!(sh, "cargo +nightly fuzz --version"));
    ensure!(has_fuzz, "needs cargo-fuzz: cargo install cargo-fuzz");
    say("building the fuzz targets");
    // A separate target directory, because another compiler builds the targets.
    let build = cmd!(sh, "cargo +nightly fuzz build").env_remove("CARGO_TARGET_DIR");
    run::start("0", build)?.finish()?;
    let targets = cmd!(sh, "cargo +nightly fuzz list").quiet().read()?;
    let mut failed = Vec::new();
    for target in targets.lines() {
        if !fuzz(sh, target)? {
            failed.push(target);
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(" "));
    Ok(())
}

/// Returns whether nothing was found.
fn fuzz(sh: &Shell, target: &str) -> Result<bool> {
    let corpus = format!("fuzz/corpus/{target}");
    sh.create_dir(&corpus)?;
    let log = format!("{corpus}.log");
    let time = format!("-max_total_time={}", variable(sh, "MSB_FUZZ_SECONDS", "60"));
    let limits = [&*time, "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"];
    let run =
        cmd!(sh, "cargo +nightly fuzz run {target} {corpus} fuzz/seeds/{target} -- {limits...}");
    let mut run = std::process::Command::from(run.env_remove("CARGO_TARGET_DIR"));
    let output = File::create(run::root().join(&log))?;
    let status = run.stdout(output.try_clone()?).stderr(output).status()?;
    let told = String::from_utf8_lossy(&sh.read_binary_file(&log)?).into_owned();
    if !status.success() {
        eprintln!("{told}{target}: failed, see {log}");
        return Ok(false);
    }
    let stat = |name: &str| {
        let value = told.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("?");
        value.trim().to_owned()
    };
    let runs = stat("stat::number_of_executed_units:");
    let speed = stat("stat::average_exec_per_sec:");
    println!("{target}: no crash in {runs} runs ({speed} a second)");
    Ok(true)
}
