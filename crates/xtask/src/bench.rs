//! The benchmarks, on the output of `make build`. The results of all go to benches/RESULTS.md; those
//! of some rows, or beside `container` of some drivers, are only printed.

use crate::run::{self, STRICT, root, start};
use crate::{go, python, vm};
use anyhow::{Result, ensure};
use std::fs;
use xshell::{Cmd, Shell, cmd};

const BUILT: &str = "target/release";
/// The measurements from each language, which are a row each.
const LANGUAGES: [&str; 4] = ["C", "Go", "Node", "Python"];
/// The words of benches/drivers: rows and drivers.
const DRIVERS: [&str; 10] =
    ["cold", "many", "memory", "exec", "output", "input", "container", "gvisor", "krun", "qemu"];

pub(crate) fn test(sh: &Shell, words: &[&str]) -> Result<()> {
    let unknown = words.iter().find(|word| !LANGUAGES.contains(word) && !DRIVERS.contains(word));
    ensure!(unknown.is_none(), "no row is {unknown:?}, only {LANGUAGES:?} and {DRIVERS:?}");
    cmd!(sh, "make --no-print-directory build target/rootfs").quiet().run()?;
    let rootfs = root().join("target/rootfs");
    let _home = run::for_sandboxes(sh, &rootfs)?;
    set_environment(sh)?;
    let mut results = head(sh)?;
    let mut show = |text: String| {
        let text = text.replace(&format!("{}/", root().display()), "");
        println!("{text}");
        results += &text;
    };
    for language in LANGUAGES {
        if words.is_empty() || words.contains(&language) {
            let measured = start("0", program(sh, language)?)?.finish()?;
            show(format!("\n## From {language}\n{measured}"));
        }
    }
    let of_drivers: Vec<&str> =
        words.iter().copied().filter(|word| DRIVERS.contains(word)).collect();
    if words.is_empty() || !of_drivers.is_empty() {
        let cargo = run::cargo();
        let bench = cmd!(sh, "{cargo} bench --quiet --bench drivers -- {of_drivers...}");
        show(format!("\n## The drivers, from Rust\n{}", start("0", bench)?.finish()?));
    }
    if words.is_empty() {
        sh.write_file("benches/RESULTS.md", results)?;
    }
    Ok(())
}

fn set_environment(sh: &Shell) -> Result<()> {
    for (name, file) in [
        ("MSB_RUNNER", "target/release/msb-runner"),
        ("MSB_AGENT", "target/static/msb-agent"),
        ("MSB_RUNSC", "target/gvisor/runsc"),
    ] {
        if sh.path_exists(file) && sh.var(name).is_err() {
            sh.set_var(name, root().join(file));
        }
    }
    // A hundred at once, or an emulated machine beside other work, take long.
    sh.set_var("MSB_BOOT_TIMEOUT", "300");
    if sh.var("MSB_KERNEL").is_err() {
        sh.set_var("MSB_KERNEL", vm::kernel(sh, BUILT)?);
    }
    Ok(())
}

fn head(sh: &Shell) -> Result<String> {
    let processors = cmd!(sh, "nproc").quiet().read()?;
    let (info, memory) =
        (fs::read_to_string("/proc/cpuinfo")?, fs::read_to_string("/proc/meminfo")?);
    let model = info.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown");
    let total = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
    let (gib, kernel) =
        (total.unwrap_or(0).div_ceil(1 << 20), cmd!(sh, "uname -r").quiet().read()?);
    let (kernel, load) = (kernel.split('-').next(), fs::read_to_string("/proc/loadavg")?);
    let (kernel, load) = (kernel.unwrap_or_default(), load.split(' ').next().unwrap_or_default());
    Ok(format!(
        "# Benchmark results\n\n\
         Written by `make bench`. Only the ratios mean something: each is against the first line of its\n\
         table, in the same run on the same machine, and the median of the ratios of many turns. In the\n\
         tables of MiB/s and events/s more is better, in the others less.\n\n\
         The machine: {processors} processors ({model}), {gib} GiB, Linux {kernel}, load {load} at the start.\n\
         Where no driver is named, the sandboxes are containers.\n"
    ))
}

/// Builds what measures from a language, and returns the command.
fn program<'a>(sh: &'a Shell, language: &str) -> Result<Cmd<'a>> {
    let compile = |source: &str, program: &str| {
        let link = [&*format!("-L{BUILT}"), "-lmicrosandbox", "-Wl,-rpath,$ORIGIN/release"];
        run::quiet(cmd!(sh, "cc {STRICT...} -D_GNU_SOURCE -O2 {source} -o {program} {link...}"))
    };
    let (root, rootfs) = (root(), root().join("target/rootfs"));
    Ok(match language {
        "C" => {
            compile("benches/c/bench.c", "target/bench")?;
            cmd!(sh, "target/bench {rootfs}")
        }
        "Go" => {
            go::set_environment(sh, BUILT, "-O2")?;
            let program = root.join("target/bench-go");
            let _there = sh.push_dir("benches/go");
            run::quiet(cmd!(sh, "go build -o {program} ."))?;
            cmd!(sh, "{program} {rootfs}")
        }
        "Node" => {
            let (library, out) = (root.join(BUILT), root.join("target/sdk-node-release"));
            run::quiet(cmd!(sh, "sdk/node/build").env("LIBRARY", library).env("OUT", &out))?;
            compile("benches/node/plain.c", "target/bench-node")?;
            sh.set_var("MSB_NODE_ADDON", out.join("microsandbox.node"));
            cmd!(
                sh,
                "node benches/node/bench.mjs sdk/node/dist/index.mjs target/bench-node {rootfs}"
            )
        }
        _ => {
            compile("sdk/python/bench/baseline.c", "target/bench-baseline")?;
            python::set_environment(sh, BUILT);
            cmd!(sh, "python3 sdk/python/bench/bench.py {rootfs} target/bench-baseline")
        }
    })
}
