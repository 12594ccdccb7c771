//! The C library: the header, the exports, the harness in bindings-test/c, the examples and the
//! bindings.

use crate::run::{
    self, BUILT, STRICT, abi_version, is_installed, note, quiet, root, same, say, variable,
};
use anyhow::{Result, ensure};
use std::path::PathBuf;
use xshell::{Shell, cmd};

/// Where the programs are built.
pub(crate) const OUT: &str = "target/test-c";

/// How programs in `OUT`, or in a folder there, are linked.
pub(crate) const LINK: [&str; 4] = [
    "-Ltarget/debug",
    "-lmicrosandbox",
    "-lpthread",
    "-Wl,-rpath,$ORIGIN/../debug:$ORIGIN/../../debug",
];

/// Tests of the harness run if their names contain one of `names`.
pub(crate) fn test(sh: &Shell, names: &[&str]) -> Result<()> {
    run::build(sh)?;
    sh.create_dir(OUT)?;
    check_header(sh)?;
    check_exports(sh)?;
    say("building the harness");
    let rootfs = build(sh)?;
    say("the examples");
    cmd!(sh, "bindings-test/c/run-stream {OUT} {rootfs} {OUT}/stream").quiet().run()?;
    cmd!(sh, "bindings-test/c/run-examples {OUT} {rootfs}").quiet().run()?;
    say("the bindings of docs/bindings.md");
    cmd!(sh, "bindings-test/c/run-bindings {OUT} {rootfs} {BUILT}").quiet().run()?;
    say("the harness");
    sh.set_var("MSB_TEST_ROOTFS", rootfs);
    run::run(&variable(sh, "MSB_TEST_LIMIT", "300"), cmd!(sh, "{OUT}/harness {names...}"))
}

/// Builds the testee of the conformance cases.
pub(crate) fn testee(sh: &Shell) -> Result<Vec<String>> {
    sh.create_dir(OUT)?;
    let (source, testee) = ("conformance/testees/c/testee.c", format!("{OUT}/testee"));
    quiet(cmd!(sh, "cc {STRICT...} -D_GNU_SOURCE {source} -o {testee} {LINK...}"))?;
    Ok(vec![testee])
}

/// Compiles the header alone and twice in every language, and the layout of its structs.
fn check_header(sh: &Shell) -> Result<()> {
    say("the header alone and twice, in every language, and the layout of its structs");
    let (mut compiled, mut missing) = (String::new(), String::new());
    for (compiler, language, standards) in [
        ("gcc", "c", ["c99", "c11", "c2x"].as_slice()),
        ("clang", "c", &["c99", "c11", "c2x"]),
        ("g++", "c++", &["c++11", "c++20"]),
        ("clang++", "c++", &["c++11", "c++20"]),
    ] {
        if !is_installed(sh, compiler) {
            missing += &format!(" {compiler}");
            continue;
        }
        for standard in standards {
            for file in ["bindings-test/c/header.c", "bindings-test/abi/layout.c"] {
                let warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];
                quiet(cmd!(
                    sh,
                    "{compiler} -x {language} -std={standard} {warnings...} -Iinclude -fsyntax-only {file}"
                ))?;
            }
            compiled += &format!(" {compiler}/{standard}");
        }
    }
    println!("  {compiled}");
    if !missing.is_empty() {
        note(&format!("not installed:{missing}"));
    }
    Ok(())
}

fn check_exports(sh: &Shell) -> Result<()> {
    say("exported symbols");
    let library = format!("{BUILT}/libmicrosandbox.so");
    let symbols = cmd!(sh, "nm -D --defined-only {library}").quiet().read()?;
    let symbols = symbols.lines().filter_map(|line| line.split(' ').nth(2));
    let mut exports: Vec<&str> = symbols.filter(|name| name.starts_with("msb_")).collect();
    exports.sort_unstable();
    let expected = sh.read_file("bindings-test/abi/symbols.txt")?;
    same("exports", &expected, &(exports.join("\n") + "\n"))?;
    let soname = format!("libmicrosandbox.so.{}", abi_version(sh)?);
    let dynamic = cmd!(sh, "readelf -d {library}").quiet().read()?;
    ensure!(dynamic.contains(&format!("[{soname}]")), "the soname is not {soname}:\n{dynamic}");
    note(&format!("{} functions, {soname}", exports.len()));
    Ok(())
}

/// Builds the harness, the examples and their root filesystem.
pub(crate) fn build(sh: &Shell) -> Result<PathBuf> {
    let rootfs = root().join(OUT).join("rootfs");
    quiet(cmd!(sh, "bindings-test/c/make-rootfs {rootfs}"))?;
    compile(sh, "cc", &[], OUT, &LINK)?;
    Ok(rootfs)
}

/// Compiles the harness and the examples.
pub(crate) fn compile(
    sh: &Shell,
    compiler: &str,
    flags: &[&str],
    to: &str,
    library: &[&str],
) -> Result<()> {
    sh.create_dir(to)?;
    let mut programs = vec![("harness".to_owned(), run::files(sh, "bindings-test/c", ".c")?)];
    programs.extend(examples(sh)?.into_iter().map(|(name, source)| (name, vec![source])));
    for (name, sources) in programs {
        let more = (name == "harness").then_some("-D_GNU_SOURCE");
        let command = cmd!(sh, "{compiler} {STRICT...} {flags...} {more...} -o {to}/{name}");
        quiet(command.args(sources).args(library))?;
    }
    Ok(())
}

/// The examples by their names, with the one in the comment at the top of the header.
pub(crate) fn examples(sh: &Shell) -> Result<Vec<(String, PathBuf)>> {
    let header = sh.read_file("include/microsandbox.h")?;
    let example = header.lines().skip_while(|line| *line != " * EXAMPLE");
    let example = example.take_while(|line| *line != " *     }");
    let mut code: String = example
        .filter_map(|line| line.strip_prefix(" *     "))
        .map(|line| format!("{line}\n"))
        .collect();
    code += "}\n";
    let of_header = root().join(OUT).join("header-example.c");
    sh.write_file(&of_header, code)?;
    let mut sources = run::files(sh, "examples/c", ".c")?;
    sources.push(of_header);
    let name =
        |source: &PathBuf| source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(sources.into_iter().map(|source| (name(&source), source)).collect())
}
