//! The cases of `conformance/`, which every language runs: see `conformance/README.md`.
//!
//! `MSB_CONFORMANCE=text` runs only cases whose name, file, promises or refs contain the text;
//! `MSB_TEST_TIME_SCALE=number` stretches every time on a slow machine.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed helper is a failed test")]

#[path = "conformance/bytes.rs"]
mod bytes;
mod common;
#[path = "conformance/format.rs"]
mod format;
#[path = "conformance/guest.rs"]
mod guest;
#[path = "conformance/outcome.rs"]
mod outcome;
#[path = "conformance/run.rs"]
mod run;
#[path = "conformance/seen.rs"]
mod seen;
#[path = "conformance/tests.rs"]
mod tests;

use format::{Case, CaseFile, Requirement, Tty};
use microsandbox::Sandbox;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Cases that run at the same time.
const AT_ONCE: usize = 4;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// The cases of one file, terminal variants included.
fn load(file: &str) -> Vec<Case> {
    let path = folder().join("cases").join(file).with_extension("json");
    let text = std::fs::read_to_string(&path).unwrap();
    let file: CaseFile =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for case in &file.cases {
        case.check().unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    }
    file.cases.into_iter().flat_map(variants).collect()
}

fn variants(case: Case) -> Vec<Case> {
    let mut all = vec![case];
    if let Some(case) = all.first().filter(|case| case.also_tty).cloned() {
        let tty = Some(Tty { rows: None, cols: None });
        all.push(Case { name: format!("{}, on a terminal", case.name), tty, ..case });
    }
    all
}

/// Whether the case is asked for and can be run here.
fn wanted(file: &str, case: &Case) -> bool {
    let root = rustix::process::geteuid().is_root();
    let possible = |needed: &Requirement| match needed {
        Requirement::Root => root,
    };
    let named = std::env::var("MSB_CONFORMANCE").is_ok_and(|text| {
        let about = [file, &case.name].into_iter().map(str::to_owned);
        let mut about = about.chain(case.promises.iter().chain(&case.refs).cloned());
        !about.any(|about| about.contains(&text))
    });
    case.requires.iter().all(possible) && !named
}

/// A path in the sandbox that no other run has.
fn own_path() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("/tmp/case-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a case as often as it says, and tells what was wrong.
fn run_case(case: &Case, sandbox: &Sandbox) -> Vec<String> {
    for _ in 0..case.times.unwrap_or(1) {
        let own_path = own_path();
        let (mut problems, outcome) = run::once(case, sandbox, &own_path);
        if let Some(mut outcome) = outcome {
            if case.also_tty && case.tty.is_some() {
                outcome::as_if_piped(&mut outcome, case.mode);
            }
            problems.extend(outcome::problems(case, &outcome, &own_path));
        }
        if !problems.is_empty() {
            return problems;
        }
    }
    Vec::new()
}

/// Runs all cases of a file.
#[allow(clippy::print_stderr, reason = "the cases that failed, and how many did not")]
fn conforms(file: &str) {
    // Several at once, but not several files' worth of them.
    static ONE_FILE: Mutex<()> = Mutex::new(());
    let _one = ONE_FILE.lock().unwrap_or_else(PoisonError::into_inner);
    let cases = load(file);
    let (chosen, skipped): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|case| wanted(file, case));
    let next = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let problems = run_case(case, &guest::sandbox(&case.sandbox));
                    if !problems.is_empty() {
                        failed.fetch_add(1, Ordering::Relaxed);
                        eprintln!("{file}: {}: {}", case.name, problems.join("; "));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    let (ran, skipped) = (chosen.len(), skipped.len());
    eprintln!("{file}: {} of {ran} cases passed, {skipped} skipped", ran - failed);
    assert_eq!(failed, 0, "{failed} of {ran} cases failed");
}

#[test]
fn a_running_conforms() {
    conforms("a-running");
}

#[test]
fn b_streaming_conforms() {
    conforms("b-streaming");
}

#[test]
fn c_stdin_conforms() {
    conforms("c-stdin");
}

#[test]
fn d_ending_conforms() {
    conforms("d-ending");
}

#[test]
fn e_failures_conform() {
    conforms("e-failures");
}

#[test]
fn every_case_has_a_name_of_its_own_and_every_file_is_run() {
    const FILES: [&str; 5] = ["a-running", "b-streaming", "c-stdin", "d-ending", "e-failures"];
    let mut names = HashSet::new();
    for case in FILES.into_iter().flat_map(load) {
        assert!(names.insert(case.name.clone()), "two cases are called {:?}", case.name);
        assert!(guest::profiles().contains_key(&case.sandbox), "no sandbox {:?}", case.sandbox);
    }
    let mut files: Vec<String> = std::fs::read_dir(folder().join("cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    assert_eq!(files, FILES);
}
