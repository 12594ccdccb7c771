//! `msb completion` and `msb manual`: what is generated from the definition of the command line,
//! docs/cli.md included.

use crate::args::Cli;
use crate::failure::Failure;
use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::fmt::Write;
use std::io;
use std::path::Path;

/// Returns a shell's completion script.
pub(crate) fn completion(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "msb", &mut script);
    script
}

/// Writes a man page for msb and one for each command.
pub(crate) fn write_pages(directory: &Path) -> Result<u8, Failure> {
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| write_page(&definition(), directory))
        .map_err(|error| format!("cannot write man pages to {}: {error}", directory.display()));
    written.map(|()| 0).map_err(Failure::new)
}

fn write_page(command: &Command, directory: &Path) -> io::Result<()> {
    Man::new(command.clone())
        .source(concat!("msb ", env!("CARGO_PKG_VERSION")))
        .manual("libmicrosandbox")
        .generate_to(directory)?;
    visible(command).try_for_each(|command| write_page(command, directory))
}

/// Returns the reference of all commands and their options, in Markdown.
pub(crate) fn markdown() -> String {
    let root = definition();
    let global = root.get_arguments().filter(|arg| is_shown(arg));
    format!("### Global options\n\n{}{}", options(global), commands(&root))
}

/// Returns the command line's definition without `help`, which is no command of its own.
fn definition() -> Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    // Fills in what is derived, such as the usage.
    command.build();
    command
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

fn commands(parent: &Command) -> String {
    let section = |command| match Command::has_subcommands(command) {
        true => commands(command),
        false => section(command),
    };
    visible(parent).map(section).collect()
}

fn section(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut text = format!("### {name}\n\n{about}.\n\n```text\n{usage}\n```\n\n");
    let aliases: Vec<&str> = command.get_visible_aliases().collect();
    if !aliases.is_empty() {
        let _ = write!(text, "Alias: `msb {}`.\n\n", aliases.join("`, `msb "));
    }
    let own = |arg: &&Arg| is_shown(arg) && !arg.is_global_set();
    text + &options(command.get_arguments().filter(own))
}

fn is_shown(arg: &Arg) -> bool {
    !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str())
}

fn options<'a>(all: impl Iterator<Item = &'a Arg>) -> String {
    let mut text = String::new();
    for arg in all {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let takes_values = arg.get_action().takes_values();
        let default = arg.get_default_values().first().map(|value| value.to_string_lossy());
        let default = default.filter(|value| takes_values && !value.is_empty());
        let default = default.map(|value| format!("; default: {value}")).unwrap_or_default();
        let _ = writeln!(text, "- `{}`: {help}{default}", term(arg));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

/// Returns how an argument is written on the command line.
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
