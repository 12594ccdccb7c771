//! The Go SDK: its own tests under the race detector, the conformance cases, its examples, and a
//! build that holds the library itself; and go-smoke, the smallest cgo program.

use crate::run::{self, BUILT, judge, note, quiet, root, start};
use anyhow::{Result, ensure};
use std::time::Instant;
use xshell::{Shell, cmd};

/// Sets what a build with cgo finds the library by, as an installation has it. The program finds the
/// library where it was built.
pub(crate) fn set_environment(sh: &Shell, built: &str, flags: &str) -> Result<()> {
    let root = root();
    let (root, folder) = (root.display(), format!("{built}/pkgconfig"));
    let described = format!(
        "Name: microsandbox\nDescription: what was built last\nVersion: 0\nCflags: -I{root}/include\n\
         Libs: -L{root}/{built} -lmicrosandbox -Wl,-rpath,{root}/{built}\n"
    );
    sh.write_file(format!("{folder}/microsandbox.pc"), described)?;
    sh.set_var("PKG_CONFIG_PATH", format!("{root}/{folder}"));
    // Go notices by it that the header has changed.
    let sum = cmd!(sh, "cksum include/microsandbox.h").quiet().read()?;
    let sum = sum.split(' ').next().unwrap_or_default();
    sh.set_var("CGO_CFLAGS", format!("{flags} -DMSB_HEADER_SUM={sum}"));
    // Nothing is to be downloaded.
    for (name, value) in [("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("GOFLAGS", "-p=2")] {
        sh.set_var(name, value);
    }
    Ok(())
}

/// Builds the testee of the conformance cases.
pub(crate) fn testee(sh: &Shell) -> Result<Vec<String>> {
    set_environment(sh, BUILT, "-O1 -g")?;
    let testee = root().join("target/test-go/testee").to_string_lossy().into_owned();
    let _there = sh.push_dir("conformance/testees/go");
    lint(sh)?;
    quiet(cmd!(sh, "go build -o {testee} ."))?;
    Ok(vec![testee])
}

fn lint(sh: &Shell) -> Result<()> {
    let unformatted = cmd!(sh, "gofmt -l .").quiet().read()?;
    ensure!(unformatted.is_empty(), "gofmt would change {unformatted}");
    quiet(cmd!(sh, "go vet ./...")).map(drop)
}

pub(crate) fn test(sh: &Shell) -> Result<()> {
    run::build(sh)?;
    let begun = Instant::now();
    let rootfs = run::rootfs(sh, "target/test-go/rootfs", None)?;
    let _home = run::for_sandboxes(sh, &rootfs)?;
    set_environment(sh, BUILT, "-O1 -g")?;
    for folder in ["sdk/go", "benches/go", "go-smoke"] {
        let _there = sh.push_dir(folder);
        lint(sh)?;
    }
    let mut output = {
        let _there = sh.push_dir("go-smoke");
        quiet(cmd!(sh, "go test -count=1 -v ."))?
    };
    // The cases wait more than they work, so the tests run beside them.
    let cases = start("600", judge(sh, &testee(sh)?, &[]))?;
    {
        let _there = sh.push_dir("sdk/go");
        output += &quiet(cmd!(sh, "go test -race -count=1 -timeout 280s -v ."))?;
    }
    let cases = cases.finish()?;
    examples(sh)?;
    let tests = output.lines().filter(|line| line.trim_start().starts_with("--- PASS")).count();
    let (cases, seconds) = (run::last(&cases), begun.elapsed().as_secs());
    note(&format!("go: {cases}; {tests} tests; {seconds} s"));
    Ok(())
}

fn examples(sh: &Shell) -> Result<()> {
    let (root, rootfs) = (root(), sh.var("MSB_TEST_ROOTFS")?);
    let (root, out) = (root.display().to_string(), root.join("target/test-go"));
    let _there = sh.push_dir("sdk/go");
    quiet(cmd!(sh, "go build -o {out}/ ./examples/..."))?;
    let collect = cmd!(sh, "{out}/collect {rootfs} 'echo hello; exit 3'").quiet().ignore_status();
    let collect = collect.output()?;
    ensure!(
        collect.stdout == b"hello\n" && collect.status.code() == Some(3),
        "examples/collect does not show hello and 3: {collect:?}"
    );
    let many = cmd!(sh, "{out}/many {rootfs} 20").quiet().read()?;
    ensure!(many == "190000 bytes, sum of the exit codes 19", "examples/many miscounts: {many}");

    // A program that holds the library itself: it is given the programs, and needs no shared library.
    let flags = format!("{} -I{root}/include", sh.var("CGO_CFLAGS")?);
    quiet(
        cmd!(
            sh,
            "go build -tags msb_static -ldflags='-s -w' -o {out}/collect-static ./examples/collect"
        )
        .env("CGO_CFLAGS", flags)
        .env("CGO_LDFLAGS", format!("-L{root}/{BUILT}"))
        .env("PKG_CONFIG_PATH", "/nonexistent"),
    )?;
    let needed = cmd!(sh, "ldd {out}/collect-static").quiet().read()?;
    ensure!(!needed.contains("microsandbox"), "a build with msb_static needs the shared library");
    let output = cmd!(sh, "{out}/collect-static {rootfs} 'echo static'")
        .env("MSB_RUNNER", format!("{root}/{BUILT}/msb-runner"))
        .env("MSB_AGENT", format!("{root}/target/static/msb-agent"));
    ensure!(output.quiet().read()? == "static", "a build with msb_static fails");
    Ok(())
}
