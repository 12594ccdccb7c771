//! The drivers beside plain processes: `cargo run -p xtask -- bench [ROW...] [DRIVER...]`, which sets
//! the environment. A row that is named runs alone; drivers that are named run alone beside
//! `container`. MSB_BENCH_TURNS caps the turns of each row.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, and panics on errors"
)]

mod host;
mod memory;
mod table;

use host::Runc;
use memory::Processes;
use microsandbox::{ExecEvent, ExecOptionsBuilder, Sandbox};
use std::path::{Path, PathBuf};
use std::thread;
use table::{Variant, block_on, compare, print, seconds};

const MIB: usize = 1 << 20;
const BULK: usize = 64 * MIB;
const PIECE: usize = 65536;
const MANY: usize = 100;

struct Driver {
    name: String,
    is_emulated: bool,
}

struct Bench {
    words: Vec<String>,
    rootfs: PathBuf,
    busybox: PathBuf,
    drivers: Vec<Driver>,
}

fn main() {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let rootfs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/rootfs");
    let bench =
        Bench { drivers: drivers(&words), words, busybox: rootfs.join("bin/busybox"), rootfs };
    bench.cold();
    bench.many();
    bench.running();
}

/// `container`, and the drivers that are usable and wanted. Prints the others.
fn drivers(words: &[String]) -> Vec<Driver> {
    let reports = block_on(microsandbox::doctor()).unwrap().drivers;
    let is_named = |name: &String| words.contains(name);
    let any_named = reports.iter().any(|report| is_named(&report.driver));
    let mut drivers = Vec::new();
    println!();
    for report in reports {
        let name = report.driver;
        if name != "container" && any_named && !is_named(&name) {
            continue;
        }
        if report.usable {
            println!("- `{name}`: {}, {}", report.isolation, report.why);
            let is_emulated = report.isolation.to_string() == "emulated";
            drivers.push(Driver { name, is_emulated });
        } else {
            println!("- `{name}`: SKIPPED: {}", report.why);
        }
    }
    // The one that the others are compared with where no plain process is.
    drivers.sort_by_key(|driver| driver.name != "container");
    drivers
}

impl Bench {
    /// Whether a row is to run: one that is named, or all.
    fn wants(&self, row: &str) -> bool {
        let is_row = |word: &String| self.drivers.iter().all(|driver| driver.name != *word);
        !self.words.iter().any(is_row) || self.words.iter().any(|word| word == row)
    }

    fn create(&self, name: &str, driver: &str) -> Sandbox {
        let builder = Sandbox::builder(name).image(&self.rootfs).driver(driver).replace();
        block_on(builder.create()).unwrap()
    }

    fn cold(&self) {
        if !self.wants("cold") {
            return;
        }
        let mut variants: Vec<Variant<'_>> = vec![
            self.host("a process", host::run),
            (
                "runc run".to_owned(),
                Box::new(|| {
                    let mut runc = None;
                    let took = seconds(|| {
                        runc = Some(Runc::start(&self.rootfs, "msb-bench-cold"));
                        runc.iter().for_each(Runc::exec);
                    });
                    drop(runc);
                    took
                }),
            ),
        ];
        for Driver { name, .. } in &self.drivers {
            let one = || {
                let mut sandbox = None;
                let took = seconds(|| run_true(sandbox.insert(self.create("bench-cold", name))));
                end(&sandbox.unwrap());
                took
            };
            variants.push((name.clone(), Box::new(one)));
        }
        compare("cold: create, to the end of the first command", 9, 0, &mut variants);
    }

    fn many(&self) {
        if !self.wants("many") {
            return;
        }
        let (mut took, mut size) = (Vec::new(), Vec::new());
        for Driver { name, is_emulated } in &self.drivers {
            if *is_emulated {
                println!("\nmany: `{name}` SKIPPED: {MANY} emulated machines are too many");
                continue;
            }
            let mut sandboxes = Vec::new();
            took.push((name.clone(), seconds(|| sandboxes = self.start_many(name))));
            let processes = Processes::now();
            let sizes = sandboxes.iter().map(|sandbox| processes.memory(sandbox.name()));
            size.push((name.clone(), sizes.sum::<f64>() / MANY as f64));
            sandboxes.iter().for_each(end);
        }
        print(
            &format!("many: {MANY} sandboxes at once, to the end of each one's first command"),
            "s",
            &took,
        );
        print(&format!("many: memory of each of the {MANY} sandboxes"), "MiB", &size);
    }

    fn start_many(&self, driver: &str) -> Vec<Sandbox> {
        thread::scope(|scope| {
            let start = |number| {
                scope.spawn(move || {
                    let sandbox = self.create(&format!("bench-many-{number}-"), driver);
                    run_true(&sandbox);
                    sandbox
                })
            };
            let started: Vec<_> = (0..MANY).map(start).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// The rows that need one sandbox of each driver.
    fn running(&self) {
        if !["memory", "exec", "output", "input"].into_iter().any(|row| self.wants(row)) {
            return;
        }
        let create = |Driver { name, .. }: &Driver| self.create(&format!("bench-{name}-"), name);
        let sandboxes: Vec<Sandbox> = self.drivers.iter().map(create).collect();
        sandboxes.iter().for_each(run_true);
        if self.wants("memory") {
            self.memory(&sandboxes);
        }
        let runc = Runc::start(&self.rootfs, "msb-bench");
        let runc: Variant<'_> = ("runc exec".to_owned(), Box::new(|| seconds(|| runc.exec())));
        let first = vec![self.host("a process", host::run), runc];
        self.compare("exec: a command, to its end", 200, 0, first, &sandboxes, run_true);
        let first = vec![self.host("a pipe", host::read_pipe)];
        self.compare("output: 64 MiB, as events", 7, BULK, first, &sandboxes, read);
        let first = vec![self.host("a pipe", host::write_pipe)];
        self.compare("input: 64 MiB", 7, BULK, first, &sandboxes, write);
        sandboxes.iter().for_each(end);
    }

    fn memory(&self, sandboxes: &[Sandbox]) {
        let processes = Processes::now();
        let size = |sandbox: &Sandbox| processes.memory(sandbox.name());
        let names = self.drivers.iter().map(|driver| driver.name.clone());
        let sizes: Vec<_> = names.zip(sandboxes.iter().map(size)).collect();
        print("memory: an idle sandbox, with all its processes", "MiB", &sizes);
    }

    /// Compares the same in each sandbox with what is done without one.
    fn compare<'a>(
        &'a self,
        title: &str,
        turns: usize,
        bytes: usize,
        mut variants: Vec<Variant<'a>>,
        sandboxes: &'a [Sandbox],
        run: fn(&Sandbox),
    ) {
        if !self.wants(title.split(':').next().unwrap()) {
            return;
        }
        for (driver, sandbox) in self.drivers.iter().zip(sandboxes) {
            variants.push((driver.name.clone(), Box::new(move || seconds(|| run(sandbox)))));
        }
        compare(title, turns, bytes, &mut variants);
    }

    /// What is done without a sandbox.
    fn host<'a>(&'a self, name: &str, run: fn(&Path)) -> Variant<'a> {
        (format!("{name} of the host"), Box::new(move || seconds(|| run(&self.busybox))))
    }
}

fn end(sandbox: &Sandbox) {
    block_on(sandbox.kill()).unwrap();
    block_on(Sandbox::remove(sandbox.name())).unwrap();
}

fn run_true(sandbox: &Sandbox) {
    let output = block_on(sandbox.exec("/bin/true", [] as [&str; 0])).unwrap();
    assert!(output.status().success);
}

fn read(sandbox: &Sandbox) {
    block_on(async {
        let mut handle = sandbox.exec_stream("dd", host::writing()).await.unwrap();
        let (mut total, mut code) = (0, None);
        while let Some(event) = handle.recv().await {
            match event {
                ExecEvent::Stdout(data) => total += data.len(),
                ExecEvent::Exited { code: exited } => code = Some(exited),
                _ => {}
            }
        }
        assert_eq!((total, code), (BULK, Some(0)));
    });
}

fn write(sandbox: &Sandbox) {
    block_on(async {
        let options = |options: ExecOptionsBuilder| options.args(host::READING).stdin_pipe();
        let mut handle = sandbox.exec_stream_with("dd", options).await.unwrap();
        let input = handle.take_stdin().unwrap();
        let piece = vec![0; PIECE];
        for _ in 0..BULK / PIECE {
            input.write(&piece).await.unwrap();
        }
        input.close().await.unwrap();
        assert!(handle.wait().await.unwrap().success);
    });
}
