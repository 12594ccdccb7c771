//! What is generated from the definition of the command line: completions, man pages and the
//! reference in docs/cli.md.

use crate::args::Arguments;
use crate::failure::Failure;
use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::fmt::Write;
use std::io;
use std::path::Path;

/// The script for a shell, which it reads when it starts or when it is asked to complete.
pub(crate) fn completion(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "msb", &mut script);
    script
}

/// Writes a man page for msb and one for each task, in section 1.
pub(crate) fn pages(directory: &Path) -> Result<u8, Failure> {
    let failed = |error| {
        Failure::own(format!("cannot write the man pages into {}: {error}", directory.display()))
    };
    std::fs::create_dir_all(directory).map_err(failed)?;
    page(&definition(), directory).map_err(failed)?;
    Ok(0)
}

fn page(command: &Command, directory: &Path) -> io::Result<()> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let mut text = Vec::new();
    Man::new(command.clone())
        .title(name)
        .date("")
        .source(concat!("msb ", env!("CARGO_PKG_VERSION")))
        .manual("libmicrosandbox")
        .render(&mut text)?;
    std::fs::write(directory.join(format!("{name}.1")), text)?;
    let mut tasks = command.get_subcommands().filter(|task| !task.is_hide_set());
    tasks.try_for_each(|task| page(task, directory))
}

/// The reference of all tasks and their options.
pub(crate) fn markdown() -> String {
    let mut text = String::new();
    let root = definition();
    options(&mut text, "Options of every task", root.get_arguments().filter(|arg| shown(arg)));
    tasks(&mut text, &root);
    text
}

/// The definition as it is for people. `help` is one more task, and not a page of its own.
fn definition() -> Command {
    let mut command = Arguments::command().disable_help_subcommand(true);
    // Fills in what is derived, such as the usage.
    command.build();
    command
}

fn tasks(text: &mut String, command: &Command) {
    for task in command.get_subcommands().filter(|task| !task.is_hide_set()) {
        if task.has_subcommands() {
            tasks(text, task);
        } else {
            one(text, task);
        }
    }
}

fn one(text: &mut String, task: &Command) {
    let name = task.get_display_name().unwrap_or_default().replace('-', " ");
    let usage = task.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let about = task.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = write!(text, "### {name}\n\n{about}.\n\n```text\n{usage}\n```\n\n");
    let aliases: Vec<&str> = task.get_visible_aliases().collect();
    if !aliases.is_empty() {
        let _ = write!(text, "Also `msb {}`.\n\n", aliases.join("`, `msb "));
    }
    let own: Vec<&Arg> =
        task.get_arguments().filter(|arg| shown(arg) && !arg.is_global_set()).collect();
    options(text, "", own.iter().copied());
}

fn shown(arg: &Arg) -> bool {
    !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str())
}

fn options<'a>(text: &mut String, heading: &str, all: impl Iterator<Item = &'a Arg>) {
    if !heading.is_empty() {
        let _ = write!(text, "### {heading}\n\n");
    }
    let mut any = false;
    for arg in all {
        any = true;
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let default: Vec<String> = arg
            .get_default_values()
            .iter()
            .filter(|_| arg.get_action().takes_values())
            .map(|value| format!("; {} without it", value.to_string_lossy()))
            .collect();
        let _ = writeln!(text, "- `{}`: {help}{}", term(arg), default.concat());
    }
    if any {
        text.push('\n');
    }
}

/// How it is written on the command line.
fn term(arg: &Arg) -> String {
    let names: Vec<&str> =
        arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
    let value = names.join(" ");
    if arg.is_positional() {
        return value;
    }
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let mut term = [short, long].into_iter().flatten().collect::<Vec<_>>().join(", ");
    if arg.get_action().takes_values() {
        term.push(' ');
        term.push_str(&value);
    }
    term
}
