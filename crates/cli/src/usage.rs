//! Parses the command line; help, version and mistakes are printed here.

use crate::args::Cli;
use crate::failure::Failure;
use crate::output;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

/// Parses this process's arguments, or returns the result of printing help or version.
pub(crate) fn parse() -> Result<Cli, Result<u8, Failure>> {
    Cli::try_parse().map_err(|error| answer(&error))
}

fn answer(error: &clap::Error) -> Result<u8, Failure> {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => output::print(text).map(|()| 0),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            Err(Failure::new("no command given; see: msb --help"))
        }
        _ => Err(Failure::new(one_line(&text, &command_given()))),
    }
}

/// Returns the command in this process's arguments, for mistakes whose text does not name it.
fn command_given() -> String {
    let known = Cli::command();
    let given = std::env::args_os().skip(1).find(|word| known.find_subcommand(word).is_some());
    given.map_or_else(|| "msb".to_owned(), |command| format!("msb {}", command.display()))
}

/// Returns the paragraphs of clap's text about the mistake on one line, then which help to read.
fn one_line(text: &str, command: &str) -> String {
    let about = text.split("\n\n").take_while(|part| !part.starts_with("Usage:"));
    let mut parts: Vec<String> = about
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|part| !part.is_empty() && !part.starts_with("For more information"))
        .collect();
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or(command);
    let words = usage.split(' ').take_while(|word| word.bytes().all(|b| b.is_ascii_lowercase()));
    parts.push(format!("see: {} --help", words.collect::<Vec<_>>().join(" ")));
    let line = parts.join("; ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_mistake_is_one_line() {
        let text = "error: the following required arguments were not provided:\n  <NAME>\n\n\
            Usage: msb start <NAME>\n\nFor more information, try '--help'.\n";
        let expected =
            "the following required arguments were not provided: <NAME>; see: msb start --help";
        assert_eq!(one_line(text, "msb"), expected);
        let text =
            "error: invalid value 'x' for '--cpus <N>': not a number\n\nFor more information\n";
        let expected = "invalid value 'x' for '--cpus <N>': not a number; see: msb run --help";
        assert_eq!(one_line(text, "msb run"), expected);
    }
}
