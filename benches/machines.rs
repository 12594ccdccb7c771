//! `make bench`: the cost of a virtual machine compared with a container.
//!
//! Requires the release build of `make build`, a root filesystem in `target/rootfs`, and a guest
//! kernel at `MSB_KERNEL` or `MSB_LIBKRUNFW`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, and panics on errors"
)]

mod common;

use common::{Variant, block_on, compare, median};
use microsandbox::Sandbox;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

const STARTS: usize = 5;
const TURNS: usize = 200;
const STREAM_TURNS: usize = 3;
const STREAM_BYTES: usize = 32 << 20;

fn create(rootfs: &Path, driver: &str) -> Sandbox {
    let name = format!("bench-{driver}");
    let builder = Sandbox::builder(name).image(rootfs).driver(driver).replace();
    block_on(builder.create()).unwrap()
}

fn run_true(sandbox: &Sandbox) {
    let output = block_on(sandbox.exec("/bin/true", [] as [&str; 0])).unwrap();
    assert!(output.status().success);
}

fn stream(sandbox: &Sandbox) {
    let count = format!("count={}", STREAM_BYTES / 65536);
    let script = ["if=/dev/zero", "bs=65536", &count];
    let output = block_on(sandbox.exec("dd", script)).unwrap();
    assert_eq!(output.stdout_bytes().len(), STREAM_BYTES);
}

/// Returns the proportional set size of a sandbox's processes, in KiB.
fn resident(name: &str) -> u64 {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut waiting = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        children.entry(parent.unwrap().trim().parse().unwrap()).or_default().push(pid);
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        if words.contains("msb-runner") && words.contains(name) {
            waiting.push(pid);
        }
    }
    let mut total = 0;
    let mut seen = std::collections::HashSet::new();
    while let Some(pid) = waiting.pop() {
        if !seen.insert(pid) {
            continue;
        }
        waiting.extend(children.get(&pid).into_iter().flatten());
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let pss = pss.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        total += pss.unwrap_or(0);
    }
    total
}

fn main() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let rootfs = root.join("target/rootfs");
    common::in_an_environment_of_its_own(&root, &[]);
    let mut drivers = vec!["container".to_owned()];
    for report in block_on(microsandbox::doctor()).unwrap().drivers {
        match report.driver.as_str() {
            "container" => {}
            driver if report.usable => {
                println!("{driver}: {}, {}", report.isolation, report.why);
                drivers.push(report.driver);
            }
            driver => println!("{driver}: not measured: {}", report.why),
        }
    }

    println!("Create, run one command, kill ({STARTS} turns):");
    let mut variants: Vec<Variant<'_>> = Vec::new();
    for driver in &drivers {
        variants.push((
            driver,
            Box::new(|| {
                let sandbox = create(&rootfs, driver);
                run_true(&sandbox);
                block_on(sandbox.kill()).unwrap();
            }),
        ));
    }
    compare(STARTS, 0.0, "us", &mut variants);
    drop(variants);

    let sandboxes: Vec<_> = drivers.iter().map(|driver| create(&rootfs, driver)).collect();
    sandboxes.iter().for_each(run_true);
    println!("Memory of an idle sandbox with all its processes:");
    let base = resident("bench-container") as f64;
    for name in &drivers {
        let own: Vec<_> = (0..3).map(|_| resident(&format!("bench-{name}")) as f64).collect();
        let own = median(own);
        println!("  {name:<44} {own:>10.0} KiB   {:>6.2} x", own / base);
    }

    println!("One command, start to end ({TURNS} turns):");
    let all = || sandboxes.iter().zip(&drivers);
    let mut variants: Vec<Variant<'_>> = all()
        .map(|(sandbox, name)| -> Variant<'_> { (name, Box::new(|| run_true(sandbox))) })
        .collect();
    compare(TURNS, 0.0, "us", &mut variants);
    drop(variants);

    println!("Collected output, {} MiB ({STREAM_TURNS} turns):", STREAM_BYTES >> 20);
    let mut variants: Vec<Variant<'_>> = all()
        .map(|(sandbox, name)| -> Variant<'_> { (name, Box::new(|| stream(sandbox))) })
        .collect();
    compare(STREAM_TURNS, (STREAM_BYTES >> 20) as f64, "MiB/s", &mut variants);
    drop(variants);
    sandboxes.iter().for_each(|sandbox| block_on(sandbox.kill()).unwrap());
}
