//! The command line.

use crate::image;
use crate::options::{Context, How, Machine};
use crate::values;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// What a page of help ends with, where a command's end is msb's own.
const EXIT_CODES: &str = "Exit codes: the command's own; 128+n when signal n killed it; 124 when \
    its time ran out; 125 when msb itself failed; 126 when it is not executable; 127 when it was \
    not found.";

/// Run commands in isolated sandboxes.
///
/// Exit codes of run, exec and attach: the program's own; 128+n when signal n killed it; 124 when
/// its time ran out; 125 when msb itself failed; 126 when the program is not executable; 127 when
/// it was not found. With a terminal, 0 also when it was left running.
#[derive(Debug, Parser)]
#[command(name = "msb", version)]
pub(crate) struct Arguments {
    /// Print no names, notes and progress; ls and sessions print names and ids only
    #[arg(short, long, global = true, display_order = 100)]
    pub(crate) quiet: bool,
    /// Tell what is behind a failure, too
    #[arg(long, global = true, display_order = 101)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run a command in a sandbox of its own
    Run(Run),
    /// Run a command in a sandbox that is running
    Exec(Exec),
    /// Take up again a command that was left running; without a session, open a shell
    Attach(Attach),
    /// Create a sandbox and start it; it runs until it is stopped
    Create(Create),
    /// Start sandboxes again, with the files they were left with
    Start {
        /// The sandboxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// List the sandboxes
    #[command(visible_alias = "ps", alias = "list")]
    Ls {
        // A habit from elsewhere; those that have ended are always among them.
        #[arg(short, long, hide = true)]
        all: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show what is known about a sandbox: its isolation, its bounds, the walls that are missing
    #[command(visible_alias = "inspect")]
    Info {
        /// The sandbox
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// End sandboxes in order: what runs in them is asked to end, then killed
    Stop {
        /// The sandboxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// How long what runs in them has to end, such as 500ms, 30s or 5m
        #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
        timeout: Duration,
    },
    /// End sandboxes at once, or one session
    Kill(Kill),
    /// Remove sandboxes and their files
    #[command(alias = "remove")]
    Rm {
        /// The sandboxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Also those that are running, and without complaint those that do not exist
        #[arg(short, long)]
        force: bool,
    },
    /// List what runs in a sandbox, and what ended a short while ago
    Sessions {
        /// The sandbox
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print what the sessions of a sandbox have put out, if it keeps a log
    Logs(Logs),
    /// Get, list and remove images
    #[command(subcommand)]
    Image(image::Task),
    /// Show which drivers and which walls of the jail can be had here
    Doctor {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Fetch what a driver needs
    #[command(subcommand)]
    Setup(Setup),
    /// Print what makes a shell complete the arguments of msb
    Completion {
        /// The shell
        shell: Shell,
    },
    // For those who install it; scripts/install and docs/cli.md are made with it.
    /// Write the man pages into a directory, or print the reference as Markdown
    #[command(hide = true)]
    Manual {
        /// The directory
        #[arg(required_unless_present = "markdown")]
        directory: Option<PathBuf>,
        /// Print the reference
        #[arg(long, conflicts_with = "directory")]
        markdown: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Setup {
    /// A guest kernel for --driver qemu: Debian's for virtual machines, by apt-get download.
    /// Installs nothing, needs no root
    Kernel {
        /// Where to unpack it; without it where the driver looks. MSB_KERNEL names one elsewhere
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[command(override_usage = "msb run [OPTIONS] IMAGE [OPTIONS] [--] [CMD] [ARGS]...", after_help = EXIT_CODES)]
pub(crate) struct Run {
    /// The image: a name such as python:3.12, or the path (/, ./, ../) of a directory or an archive
    pub(crate) image: PathBuf,
    /// The command and its arguments, without which the image's own runs; behind --, the command
    /// may begin with a dash
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) how: How,
    #[command(flatten)]
    pub(crate) context: Context,
    /// Remove the sandbox at the end, which happens anyway without --detach
    #[arg(long, conflicts_with = "detach")]
    pub(crate) rm: bool,
    /// The sandbox's name; one is made up without it
    #[arg(long, help_heading = "The sandbox")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

#[derive(Debug, Args)]
#[command(override_usage = "msb exec [OPTIONS] NAME [OPTIONS] [--] CMD [ARGS]...", after_help = EXIT_CODES)]
pub(crate) struct Exec {
    /// The sandbox
    pub(crate) name: String,
    /// The command and its arguments; behind --, the command may begin with a dash
    #[arg(trailing_var_arg = true, required_unless_present = "tty", value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) how: How,
    #[command(flatten)]
    pub(crate) context: Context,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Attach {
    /// The sandbox
    pub(crate) name: String,
    /// The session's id, or enough of its beginning, as msb sessions lists it
    #[arg(value_parser = values::session_prefix)]
    pub(crate) session: Option<String>,
    /// The keys that leave it running, such as ctrl-p,ctrl-q; ctrl-] without this
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The sandboxes
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Only this session and all that it started, by its id or enough of its beginning
    #[arg(long, value_name = "ID", value_parser = values::session_prefix)]
    pub(crate) session: Option<String>,
    /// Send this signal to the session's process group instead, such as TERM
    #[arg(short, long, value_name = "SIGNAL", value_parser = values::signal, requires = "session")]
    pub(crate) signal: Option<i32>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The image: a name such as python:3.12, or the path (/, ./, ../) of a directory or an archive
    pub(crate) image: PathBuf,
    #[command(flatten)]
    pub(crate) context: Context,
    /// The sandbox's name; one is made up without it
    #[arg(long, help_heading = "The sandbox")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) machine: Machine,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The sandbox, running or not
    pub(crate) name: String,
    /// Only this session, by its id or enough of its beginning
    #[arg(long, value_name = "ID", value_parser = values::session_prefix)]
    pub(crate) session: Option<String>,
    /// Go on with what is still to come, until the sandbox ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only from this time on: 10m is ten minutes ago, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = values::since)]
    pub(crate) since: Option<SystemTime>,
    /// Print the records, one JSON object a line, with time, session and stream
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn g_options_of_exec_stand_before_or_after_the_name() {
        let parse = |line: &str| {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            let Task::Exec(exec) = arguments.task else { panic!("another task: {line}") };
            exec
        };
        let after = parse("msb exec w -w /app -e A=1 --timeout 30s -- python -e x.py --timeout 1");
        let before = parse("msb exec -w /app -e A=1 --timeout 30s w -- python -e x.py --timeout 1");
        assert_eq!(format!("{after:?}"), format!("{before:?}"));
        assert_eq!(after.command, ["python", "-e", "x.py", "--timeout", "1"]);
        assert_eq!(after.how.timeout, Some(Duration::from_secs(30)));
        // Without --, the first word that is no option is where the command begins.
        let bare = parse("msb exec -w /app w -e A=1 --timeout 30s python -e x.py --timeout 1");
        assert_eq!(format!("{after:?}"), format!("{bare:?}"));
        assert_eq!(parse("msb exec w git log -- -x").command, ["git", "log", "--", "-x"]);
        assert_eq!(parse("msb exec w -- -x -- y").command, ["-x", "--", "y"]);
        let short = parse("msb exec -it w");
        assert!(short.how.interactive && short.how.tty && short.command.is_empty());
    }

    #[test]
    fn g_run_takes_options_before_and_after_the_image_and_none_of_the_commands() {
        let parse = |line: &str| {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            let Task::Run(run) = arguments.task else { panic!("another task: {line}") };
            run
        };
        let before = parse("msb run --rm -it -e A=1 --cpus 0.5 ./image sh -c x -e");
        let after = parse("msb run ./image --rm -it -e A=1 --cpus 0.5 -- sh -c x -e");
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
        assert_eq!(before.command, ["sh", "-c", "x", "-e"]);
    }

    #[test]
    fn g9_bad_values_of_options_are_refused_by_name() {
        let refusal = |option: &str| {
            let line = ["msb", "create"].into_iter().chain(option.split(' ')).chain(["./image"]);
            Arguments::try_parse_from(line).unwrap_err().to_string()
        };
        for (option, named) in [
            ("--cpus 0", "cpus is 0"),
            ("--cpus -1", "cpus is -1"),
            ("--cpus nan", "cpus is NaN"),
            ("--cpus 5000", "cpus is 5000"),
            ("--memory 104857600", "104857600 is a number of MiB"),
            ("--disk 104857600", "104857600 is a number of MiB"),
            ("--pids-limit 0.5", "'0.5'"),
            ("--security strict", "\"restricted\""),
        ] {
            assert!(refusal(option).contains(named), "{option}: {}", refusal(option));
        }
    }

    #[test]
    fn to_remove_at_the_end_and_not_to_wait_for_it_exclude_each_other() {
        let line = "msb run --rm -d ./image -- true";
        assert!(Arguments::try_parse_from(line.split(' ')).is_err());
    }
}
