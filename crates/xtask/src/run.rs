//! What the parts share: commands with their limits and output, the environment of tests, and what is
//! made once and kept below `target`.

use anyhow::{Context, Result, bail, ensure};
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use xshell::{Cmd, Shell, cmd};

/// Where `build` builds the library and the programs.
pub(crate) const BUILT: &str = "target/debug";

/// How C is compiled.
pub(crate) const STRICT: [&str; 8] =
    ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g", "-Iinclude"];

/// The directory of the workspace, which is that of every command.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_path_buf()
}

/// What runs commands.
pub(crate) fn shell() -> Result<Shell> {
    let sh = Shell::new()?;
    sh.change_dir(root());
    Ok(sh)
}

/// Replaces this process by one without what `cargo run` adds to its environment: with the variables
/// of a package, Cargo compiles others anew that read them; and a program would find a library in a
/// directory of `LD_LIBRARY_PATH` before its own.
pub(crate) fn leave_cargo() -> Result<()> {
    let added: Vec<_> = env::vars_os().map(|(name, _)| name).filter(is_of_package).collect();
    if added.is_empty() {
        return Ok(());
    }
    let mut again = Command::new(env::current_exe()?);
    again.args(env::args_os().skip(1));
    for name in added {
        again.env_remove(name);
    }
    if let Some(paths) = env::var_os("LD_LIBRARY_PATH") {
        let others = env::split_paths(&paths).filter(|path| !path.starts_with(root()));
        again.env("LD_LIBRARY_PATH", env::join_paths(others)?);
    }
    Err(again.exec().into())
}

fn is_of_package(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "OUT_DIR"
}

pub(crate) fn say(text: &str) {
    println!("== {text}");
}

/// Says a detail, such as a result.
pub(crate) fn note(text: &str) {
    println!("   {text}");
}

/// The value of a variable of the environment of commands.
pub(crate) fn variable(sh: &Shell, name: &str, default: &str) -> String {
    sh.var(name).ok().filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
}

pub(crate) fn is_installed(sh: &Shell, program: &str) -> bool {
    is_success(cmd!(sh, "which {program}"))
}

pub(crate) fn is_success(command: Cmd<'_>) -> bool {
    command.quiet().ignore_stdout().ignore_stderr().run().is_ok()
}

/// Runs a command, and ends it after so many seconds.
pub(crate) fn run(seconds: &str, command: Cmd<'_>) -> Result<()> {
    let what = command.to_string();
    ensure!(limited(seconds, command).status()?.success(), "failed: {what}");
    Ok(())
}

/// Runs a command and returns its output, or prints the whole output if the command fails.
pub(crate) fn quiet(command: Cmd<'_>) -> Result<String> {
    start("600", command)?.finish()
}

/// In the group of the terminal, so that Ctrl-C ends it too.
fn limited(seconds: &str, command: Cmd<'_>) -> Command {
    let inner = Command::from(command);
    let mut outer = Command::new("timeout");
    outer.args(["--foreground", "-k", "5", seconds]).arg(inner.get_program());
    outer.args(inner.get_args());
    inner.get_current_dir().map(|directory| outer.current_dir(directory));
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// A command that runs, and where its output goes.
pub(crate) struct Running {
    what: String,
    child: Child,
    output: File,
}

/// Starts a command, which is ended after so many seconds.
pub(crate) fn start(seconds: &str, command: Cmd<'_>) -> Result<Running> {
    let (what, output) = (command.to_string(), tempfile::tempfile()?);
    let mut command = limited(seconds, command);
    let child = command.stdout(output.try_clone()?).stderr(output.try_clone()?).spawn()?;
    Ok(Running { what, child, output })
}

impl Running {
    /// Waits until the command ends, and returns its output or prints it, as `quiet` does.
    pub(crate) fn finish(self) -> Result<String> {
        let what = self.what.clone();
        let (succeeded, output) = self.end()?;
        if !succeeded {
            eprint!("{output}");
            bail!("failed: {what}");
        }
        Ok(output)
    }

    /// Waits until the command ends, and returns whether it succeeded and its output.
    pub(crate) fn end(mut self) -> Result<(bool, String)> {
        let status = self.child.wait()?;
        let mut output = Vec::new();
        self.output.rewind()?;
        self.output.read_to_end(&mut output)?;
        Ok((status.success(), String::from_utf8_lossy(&output).into_owned()))
    }
}

impl Drop for Running {
    /// What it uses is removed afterwards, also when another command has failed.
    fn drop(&mut self) {
        let _ = self.child.wait();
    }
}

/// The program that runs this one.
pub(crate) fn cargo() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

/// Builds the library and the programs.
pub(crate) fn build(sh: &Shell) -> Result<()> {
    let cargo = cargo();
    cmd!(sh, "{cargo} build --quiet --workspace").quiet().run()?;
    let agent = "target/static/msb-agent";
    ensure!(sh.path_exists(agent), "{agent} is missing: make agent builds it");
    Ok(cmd!(sh, "ln -sf libmicrosandbox.so {BUILT}/libmicrosandbox.so.0").quiet().run()?)
}

/// The version of the C ABI that the header states.
pub(crate) fn abi_version(sh: &Shell) -> Result<String> {
    let header = sh.read_file("include/microsandbox.h")?;
    let version = header.lines().find_map(|line| line.strip_prefix("#define MSB_ABI_VERSION "));
    Ok(version.context("the header states no MSB_ABI_VERSION")?.to_owned())
}

/// Compares two lists, and names the lines that differ.
pub(crate) fn same(what: &str, expected: &str, actual: &str) -> Result<()> {
    let lacks = |text: &str, line: &str| !text.lines().any(|other| other == line);
    let missing: Vec<&str> = expected.lines().filter(|line| lacks(actual, line)).collect();
    let extra: Vec<&str> = actual.lines().filter(|line| lacks(expected, line)).collect();
    ensure!(expected == actual, "{what}: missing {missing:?}, not expected {extra:?}");
    Ok(())
}

/// The last line of an output.
pub(crate) fn last(output: &str) -> &str {
    output.lines().next_back().unwrap_or_default()
}

/// The files of a directory whose names end in `end`, sorted.
pub(crate) fn files(sh: &Shell, directory: &str, end: &str) -> Result<Vec<PathBuf>> {
    let mut files = sh.read_dir(directory)?;
    files.retain(|file| file.to_string_lossy().ends_with(end));
    Ok(files)
}

/// The path of something below `target` that is made, and made again when `inputs` have changed.
pub(crate) fn made(
    sh: &Shell,
    path: &str,
    inputs: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let (stamp, path) = (format!("{path}.inputs"), root().join(path));
    if sh.read_file(&stamp).is_ok_and(|old| old == inputs) {
        return Ok(path);
    }
    sh.remove_path(&stamp)?;
    sh.remove_path(&path)?;
    make(&path)?;
    sh.write_file(&stamp, inputs)?;
    Ok(path)
}

/// The root filesystem of the conformance cases, to which `more`, a script, adds.
pub(crate) fn rootfs(sh: &Shell, path: &str, more: Option<&str>) -> Result<PathBuf> {
    let makers: Vec<&str> = ["conformance/make-rootfs"].into_iter().chain(more).collect();
    let makers = &makers;
    let inputs = cmd!(sh, "cat {makers...} conformance/guest/helper.c").quiet().read()?;
    made(sh, path, &inputs, |path| {
        makers.iter().try_for_each(|maker| quiet(cmd!(sh, "{maker} {path}")).map(drop))
    })
}

/// The command that judges a testee, which is one too, by the conformance cases.
pub(crate) fn judge<'a>(sh: &'a Shell, testee: &[String], options: &[&str]) -> Cmd<'a> {
    cmd!(sh, "{BUILT}/conformance-judge {options...} --testee {testee...}")
}

/// A state directory, removed with this.
pub(crate) struct Home(PathBuf);

/// Sets the environment of tests of sandboxes, with a state directory of their own.
pub(crate) fn for_sandboxes(sh: &Shell, rootfs: &Path) -> Result<Home> {
    // Short, because socket paths are limited.
    let home = Home(tempfile::Builder::new().prefix("msb-").tempdir_in("/tmp")?.keep());
    sh.set_var("MSB_HOME", &home.0);
    sh.set_var("MSB_DRIVER", "container");
    sh.set_var("MSB_TEST_ROOTFS", rootfs);
    Ok(home)
}

impl Drop for Home {
    /// Leaves out what a sandbox may have left mounted there.
    fn drop(&mut self) {
        let _ = Command::new("rm").args(["-rf", "--one-file-system"]).arg(&self.0).status();
    }
}
