//! The C harness and the examples under valgrind and the sanitizers. Each says what it skips, and why.

use crate::c::{self, OUT};
use crate::run::{self, cargo, is_installed, is_success, note, root, start};
use anyhow::{Context as _, Result, bail, ensure};
use std::path::PathBuf;
use xshell::{Cmd, Shell, cmd};

/// The compiler of the distribution, which has the source of its standard library.
const RUSTC: &str = "/usr/bin/rustc";
const HOST: &str = env!("HOST");

pub(crate) fn valgrind(sh: &Shell) -> Result<()> {
    let rootfs = prepare(sh, 16)?;
    let leaks = "--leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite";
    let others = "--quiet --track-fds=yes --error-exitcode=9 --child-silent-after-fork=yes";
    let options: &Vec<&str> = &leaks.split(' ').chain(others.split(' ')).collect();
    let stream =
        cmd!(sh, "bindings-test/c/run-stream {OUT} {rootfs} valgrind {options...} {OUT}/stream");
    let stream = start("0", stream)?.end()?;
    // It knows pidfd_open(2) since about 3.20, which a sandbox needs that is not detached.
    let stream = if stream.1.contains("unhandled amd64-linux syscall: 434") {
        note("SKIPPED: attached sandboxes, and the example: this valgrind has no pidfd_open");
        sh.set_var("MSB_TEST_DETACHED", "1");
        Ok(())
    } else {
        judge(sh, "valgrind-stream", stream)
    };
    stream.and(logged(sh, "valgrind", cmd!(sh, "valgrind {options...} {OUT}/harness")))
}

pub(crate) fn asan(sh: &Shell) -> Result<()> {
    let rootfs = prepare(sh, 2)?;
    let programs = &format!("{OUT}/asan");
    sh.create_dir(programs)?;
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"];
    if let Err(why) = build_with_rust(sh, programs, &flags) {
        note(&format!("SKIPPED: the sanitizers inside the Rust code: {why:#}"));
        c::compile(sh, "cc", &flags, programs, &c::LINK)?;
    }
    let options =
        "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1:exitcode=9";
    sh.set_var("ASAN_OPTIONS", options);
    sh.set_var("UBSAN_OPTIONS", "print_stacktrace=1");
    let stream = cmd!(sh, "bindings-test/c/run-stream {OUT} {rootfs} {programs}/stream");
    let stream = logged(sh, "asan-stream", stream);
    let examples = cmd!(sh, "bindings-test/c/run-examples {programs} {rootfs}");
    let examples = logged(sh, "asan-examples", examples);
    stream.and(examples).and(logged(sh, "asan", cmd!(sh, "{programs}/harness")))
}

fn build_with_rust(sh: &Shell, programs: &str, flags: &[&str]) -> Result<()> {
    ensure!(is_success(cmd!(sh, "cargo +nightly --version")), "no nightly toolchain");
    ensure!(is_installed(sh, "clang"), "no clang");
    let target = ["--target", HOST, "--target-dir", "target/asan"];
    let build = cmd!(sh, "cargo +nightly build --quiet -p libmicrosandbox --lib {target...}");
    let build = build.env("RUSTFLAGS", "-Zsanitizer=address -Zexternal-clangrt");
    logged(sh, "asan-build", build)?;
    let library = format!("target/asan/{HOST}/debug/libmicrosandbox.a");
    c::compile(sh, "clang", flags, programs, &[&library, "-lpthread", "-ldl", "-lm"])?;
    note("the Rust code has the sanitizers too");
    Ok(())
}

pub(crate) fn tsan(sh: &Shell) -> Result<()> {
    prepare(sh, 4)?;
    let programs = &format!("{OUT}/tsan");
    sh.create_dir(programs)?;
    if let Err(why) = build_tsan(sh, programs) {
        note(&format!("SKIPPED: {why:#}"));
        return Ok(());
    }
    let suppressed = root().join("bindings-test/tsan.supp");
    let options = format!("exitcode=9:suppressions={}", suppressed.display());
    logged(sh, "tsan", cmd!(sh, "{programs}/harness").env("TSAN_OPTIONS", options))
}

/// Needs an instrumented standard library, which is built by the distribution's compiler with the
/// clang of the same LLVM.
fn build_tsan(sh: &Shell, programs: &str) -> Result<()> {
    let clang = tsan_clang(sh, programs).or_else(|_| {
        cmd!(sh, "scripts/setup tsan").quiet().run()?;
        tsan_clang(sh, programs)
    })?;
    let linker = format!("-Clinker={clang} -Clink-arg=-fsanitize=thread");
    let (cargo, target) = (cargo(), ["--target", HOST, "--target-dir", "target/tsan"]);
    let build = cmd!(sh, "{cargo} build --quiet -Zbuild-std -p libmicrosandbox --lib {target...}")
        .env("RUSTC", RUSTC)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", format!("-Zsanitizer=thread -Zexternal-clangrt {linker}"));
    logged(sh, "tsan-build", build)?;
    let library = format!("target/tsan/{HOST}/debug/libmicrosandbox.a");
    let library = [&*library, "-lpthread", "-ldl", "-lm"];
    c::compile(sh, &clang, &["-fsanitize=thread"], programs, &library)
}

/// The clang of the same LLVM as that of the distribution's compiler.
fn tsan_clang(sh: &Shell, programs: &str) -> Result<String> {
    ensure!(sh.path_exists("/usr/lib/rustlib/src"), "no rust-web-src");
    let version = cmd!(sh, "{RUSTC} -vV").quiet().read()?;
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let llvm = llvm.and_then(|llvm| llvm.split('.').next()).context("it does not say its LLVM")?;
    let clang = format!("clang-{llvm}");
    let program = "int main(void) { return 0; }";
    let probe = cmd!(sh, "{clang} -fsanitize=thread -x c -o {programs}/probe -").stdin(program);
    ensure!(is_success(probe), "no {clang} with its sanitizers");
    Ok(clang)
}

/// Builds the library, the harness and the examples, and sets their environment.
fn prepare(sh: &Shell, scale: u32) -> Result<PathBuf> {
    run::build(sh)?;
    sh.create_dir(OUT)?;
    let rootfs = c::build(sh)?;
    sh.set_var("MSB_RUNNER", root().join("target/debug/msb-runner"));
    sh.set_var("MSB_AGENT", root().join("target/static/msb-agent"));
    sh.set_var("MSB_TEST_ROOTFS", &rootfs);
    sh.set_var("MSB_TEST_SCALE", scale.to_string());
    note(&format!("SKIPPED: 1/{scale} of the data, no limits on time and memory"));
    Ok(rootfs)
}

/// Runs a command, and keeps its output in a log.
fn logged(sh: &Shell, name: &str, command: Cmd<'_>) -> Result<()> {
    judge(sh, name, start("1800", command)?.end()?)
}

/// Shows what matters of an output.
fn judge(sh: &Shell, name: &str, (succeeded, output): (bool, String)) -> Result<()> {
    let log = format!("{OUT}/{name}.log");
    sh.write_file(&log, &output)?;
    if !succeeded {
        eprintln!("{name}:");
        let lines = output.lines().filter(|line| !line.starts_with("ok "));
        lines.take(100).for_each(|line| eprintln!("{line}"));
        bail!("{name} has findings; see {log}");
    }
    let shown = [" passed, ", "     skipped:", "FILE DESCRIPTORS"];
    let shown = output.lines().filter(|line| shown.iter().any(|part| line.contains(part)));
    shown.for_each(note);
    note(&format!("{name}: no findings"));
    Ok(())
}
