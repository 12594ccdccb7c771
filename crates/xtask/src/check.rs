//! The deep run: what `make test` leaves out, since it takes long.

use crate::run::{self, cargo, is_success, note, say};
use crate::{deny, fuzz, go, node, python, sanitizers, vm};
use anyhow::{Result, ensure};
use std::time::Instant;
use xshell::{Shell, cmd};

struct Part {
    name: &'static str,
    what: &'static str,
    run: fn(&Shell) -> Result<()>,
}

const fn part(name: &'static str, what: &'static str, run: fn(&Shell) -> Result<()>) -> Part {
    Part { name, what, run }
}

const PARTS: [Part; 18] = [
    part("deny", "dependencies: licences, bans, sources, known vulnerabilities", deny::test),
    part("valgrind", "memory, definite leaks, descriptors", sanitizers::valgrind),
    part("asan", "address, undefined behaviour and leak sanitizers", sanitizers::asan),
    part("tsan", "the thread sanitizer, in C and Rust", sanitizers::tsan),
    part("install", "the installation, of the release build", |sh| {
        Ok(cmd!(sh, "scripts/test-install").env("BUILD", "target/release").quiet().run()?)
    }),
    part("python", "the Python package, the long form", |sh| {
        sh.set_var("MSB_TEST_LONG", "1");
        python::test(sh, &[])
    }),
    part("wheel", "the wheel of the Python package", |sh| {
        Ok(cmd!(sh, "scripts/wheel").quiet().run()?)
    }),
    part("kills", "a hundred kills at random moments", |sh| {
        tests(sh, "MSB_TEST_KILLS=100", "-p msb-runner --test killing g_random")
    }),
    part("gvisor-kills", "kills of sandboxes on gVisor at random moments", |sh| {
        let _kills = sh.push_env("MSB_TEST_KILLS", "30");
        Ok(cmd!(sh, "scripts/test-gvisor kills").quiet().run()?)
    }),
    part("archives", "mutated archives, read beside GNU tar", |sh| {
        tests(sh, "MSB_TEST_MUTATIONS=20000", "-p msb-image-pull g_mutated")
    }),
    part("hung", "an agent that hangs", |sh| {
        tests(sh, "", "-p msb-runner --test killing hung -- --ignored")
    }),
    part("machines", "kills of machines, and agents that hang in one", |sh| {
        sh.set_var("MSB_TEST_KILLS", "30");
        vm::test(sh, "qemu", true)
    }),
    part("gvisor", "gVisor: faults, msb, the conformance cases in every language", |sh| {
        Ok(cmd!(sh, "scripts/test-gvisor deep").quiet().run()?)
    }),
    part("image", "an image of a gigabyte", |sh| {
        tests(sh, "MSB_TEST_LONG=1", "-p msb-cli --test image g_gigabyte_image")
    }),
    part("go", "256 MiB on both outputs, in Go", |sh| {
        sh.set_var("MSB_TEST_MIB", "256");
        go::test(sh)
    }),
    part("soak", "100,000 commands, 1,000 at once, a reader that stops for a minute", |sh| {
        let options = "--ignored --nocapture --test-threads=1";
        tests(sh, "", &format!("-p libmicrosandbox --test soak -- {options}"))
    }),
    part("node", "the package for Node: a million events, many commands", |sh| {
        sh.set_var("MSB_TEST_NODE_LONG", "1");
        node::test(sh)
    }),
    part("fuzz", "each fuzz target", |sh| {
        if is_success(cmd!(sh, "cargo +nightly fuzz --version")) {
            return fuzz::test(sh);
        }
        note("SKIPPED: they need nightly and cargo-fuzz");
        Ok(())
    }),
];

/// Runs the parts of these names, or all, also after one has failed.
pub(crate) fn test(names: &[&str]) -> Result<()> {
    let unknown = names.iter().find(|name| PARTS.iter().all(|part| part.name != **name));
    let known = PARTS.map(|part| part.name);
    ensure!(unknown.is_none(), "no part is {unknown:?}, only {known:?}");
    let mut failed = Vec::new();
    for Part { name, what, run } in PARTS {
        if !names.is_empty() && !names.contains(&name) {
            continue;
        }
        say(&format!("{name}: {what}"));
        let begun = Instant::now();
        let ended = run(&run::shell()?).map_err(|why| {
            eprintln!("xtask: {name}: {why:#}");
            failed.push(name);
        });
        let ended = if ended.is_ok() { "passed" } else { "FAILED" };
        note(&format!("{name}: {ended} in {} s", begun.elapsed().as_secs()));
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(" "));
    say("no findings");
    Ok(())
}

/// Runs tests in Rust, with a variable of the environment.
fn tests(sh: &Shell, variable: &str, arguments: &str) -> Result<()> {
    let (cargo, arguments) = (cargo(), arguments.split_whitespace());
    let variable = variable.split_once('=');
    Ok(cmd!(sh, "{cargo} test --quiet {arguments...}").envs(variable).quiet().run()?)
}
