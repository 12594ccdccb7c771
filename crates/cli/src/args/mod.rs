//! The command line, as clap parses it.

mod files;
mod image;
mod options;
mod volume;

use crate::values;
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use microsandbox::Signal;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

pub(crate) use files::{Copy, End, FileCommand, Files, InSandbox};
pub(crate) use image::Command as ImageCommand;
pub(crate) use options::{ProcessOptions, SandboxOptions, SessionOptions};
pub(crate) use volume::{Command as VolumeCommand, New as NewVolume};

/// The end of the help of commands that exit with a program's exit code.
const EXIT_CODES: &str = "Exit codes: the program's own; 128+n if signal n killed it; 124 on \
    timeout; 125 if msb itself failed; 126 if the program is not executable; 127 if it was not \
    found.";

/// Run commands in isolated sandboxes.
///
/// TIME is a number of seconds, or a number and one of ms, s, m and h: 2, 1.5s, 500ms, 5m. SIZE is a
/// number of MiB (of bytes for --shm-size), or a number and one of b, k, m, g and t: 512, 512m, 1.5g.
///
/// Exit codes of run, exec and attach: the program's own; 128+n if signal n killed it; 124 on
/// timeout; 125 if msb itself failed; 126 if the program is not executable; 127 if it was not
/// found. With a terminal, also 0 if the program was detached from.
#[derive(Debug, Parser)]
#[command(name = "msb", version)]
pub(crate) struct Cli {
    /// Print no names, notes or progress; ls and sessions print only names and ids
    #[arg(short, long, global = true, display_order = 100)]
    pub(crate) quiet: bool,
    /// Also print the causes of a failure
    #[arg(long, global = true, display_order = 101)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a new sandbox
    Run(Run),
    /// Run a command in a running sandbox
    Exec(Exec),
    /// Reattach to a session; without one, open a shell
    Attach(Attach),
    /// Create and start a sandbox that runs until it is stopped
    Create(Create),
    /// Start stopped sandboxes again, with their files
    Start {
        /// Names of the sandboxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
    },
    /// List sandboxes, running or not
    #[command(visible_alias = "ps", alias = "list")]
    Ls {
        // A habit from other tools; stopped sandboxes are always listed.
        #[arg(short, long, hide = true)]
        all: bool,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Show a sandbox's isolation, limits and missing walls
    #[command(visible_alias = "inspect")]
    Info {
        /// Name of the sandbox
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Stop sandboxes: terminate their processes, then kill those that remain
    Stop {
        /// Names of the sandboxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Time that processes have to exit, such as 2 (seconds), 1.5s, 500ms or 5m
        #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
        timeout: Duration,
    },
    /// Kill sandboxes, or one session
    Kill(Kill),
    /// Remove sandboxes and their files
    #[command(alias = "remove")]
    Rm {
        /// Names of the sandboxes
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Also remove running sandboxes, and ignore those that do not exist
        #[arg(short, long)]
        force: bool,
    },
    /// List a sandbox's running and recently ended sessions
    Sessions {
        /// Name of the sandbox
        name: String,
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print the logged output of a sandbox's sessions
    Logs(Logs),
    /// Copy files and directories between sandboxes and this host
    #[command(name = "cp", visible_alias = "copy")]
    Copy(Copy),
    /// List, print and manage files of a sandbox
    #[command(name = "fs")]
    Files(Files),
    /// Manage images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Manage volumes
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Show which drivers and which walls of the jail are available on this host
    Doctor {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Download or build what a driver needs
    #[command(subcommand)]
    Setup(Setup),
    /// Print a shell's completion script
    Completion {
        /// The shell
        shell: Shell,
    },
    // For installation; scripts/install and docs/cli.md are made with it.
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
    /// Build runsc for --driver gvisor from gVisor's Go module, unless MSB_RUNSC or PATH leads to
    /// one. Needs Go 1.24 or newer, installs nothing, needs no root
    Gvisor,
    /// Download a guest kernel for --driver qemu: Debian's for virtual machines, with apt-get
    /// download. Installs nothing, needs no root
    Kernel {
        /// Directory to unpack it into; default: where the driver looks. MSB_KERNEL selects another
        /// kernel
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[command(override_usage = "msb run [OPTIONS] IMAGE [OPTIONS] [--] [CMD] [ARGS]...", after_help = EXIT_CODES)]
pub(crate) struct Run {
    /// Image: a name such as python:3.12, or the path (/, ./, ../) of a directory or archive
    pub(crate) image: PathBuf,
    /// Command and arguments, which follow the entrypoint; default: the image's own. After --, it may
    /// begin with a dash
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) session: SessionOptions,
    #[command(flatten)]
    pub(crate) process: ProcessOptions,
    /// Remove the sandbox when the command ends; always so without --detach
    #[arg(long, conflicts_with = "detach")]
    pub(crate) rm: bool,
    /// Name of the sandbox; default: a random one
    #[arg(long, help_heading = "Sandbox options")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) sandbox: SandboxOptions,
}

#[derive(Debug, Args)]
#[command(override_usage = "msb exec [OPTIONS] NAME [OPTIONS] [--] CMD [ARGS]...", after_help = EXIT_CODES)]
pub(crate) struct Exec {
    /// Name of the sandbox
    pub(crate) name: String,
    /// Command and arguments; after --, it may begin with a dash
    #[arg(trailing_var_arg = true, required_unless_present = "tty", value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) session: SessionOptions,
    #[command(flatten)]
    pub(crate) process: ProcessOptions,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct Attach {
    /// Name of the sandbox
    pub(crate) name: String,
    /// Session id or a unique prefix; see msb sessions
    #[arg(value_parser = values::session_prefix)]
    pub(crate) session: Option<String>,
    /// Keys that detach, such as ctrl-p,ctrl-q; default: ctrl-]
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// Names of the sandboxes
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Kill only this session and all its processes; an id or a unique prefix
    #[arg(long, value_name = "ID", value_parser = values::session_prefix)]
    pub(crate) session: Option<String>,
    /// Send this signal to the session's process group instead, such as TERM
    #[arg(short, long, value_name = "SIGNAL", requires = "session")]
    pub(crate) signal: Option<Signal>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Image: a name such as python:3.12, or the path (/, ./, ../) of a directory or archive
    pub(crate) image: PathBuf,
    #[command(flatten)]
    pub(crate) process: ProcessOptions,
    /// Name of the sandbox; default: a random one
    #[arg(long, help_heading = "Sandbox options")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) sandbox: SandboxOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Name of the sandbox, running or not
    pub(crate) name: String,
    /// Print only this session; an id or a unique prefix
    #[arg(long, value_name = "ID", value_parser = values::session_prefix)]
    pub(crate) session: Option<String>,
    /// Follow the log until the sandbox ends
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Print only what is newer: 10m is ten minutes ago, or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = values::since)]
    pub(crate) since: Option<SystemTime>,
    /// Print the records, one JSON object per line, with time, session and stream
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    fn exec(line: &str) -> Exec {
        let Ok(Command::Exec(exec)) = parse(line) else { panic!("not an exec: {line}") };
        exec
    }

    fn run(line: &str) -> String {
        let Ok(Command::Run(run)) = parse(line) else { panic!("not a run: {line}") };
        assert_eq!(run.command, ["sh", "-c", "x", "-e"]);
        format!("{run:?}")
    }

    #[test]
    fn command_line_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn g_exec_takes_options_before_and_after_the_name() {
        let after = exec("msb exec w -w /app -e A=1 --timeout 30s -- python -e x.py --timeout 1");
        let before = exec("msb exec -w /app -e A=1 --timeout 30s w -- python -e x.py --timeout 1");
        assert_eq!(format!("{after:?}"), format!("{before:?}"));
        assert_eq!(after.command, ["python", "-e", "x.py", "--timeout", "1"]);
        assert_eq!(after.session.timeout, Some(Duration::from_secs(30)));
        // Without --, the first word that is no option begins the command.
        let bare = exec("msb exec -w /app w -e A=1 --timeout 30s python -e x.py --timeout 1");
        assert_eq!(format!("{after:?}"), format!("{bare:?}"));
        assert_eq!(exec("msb exec w git log -- -x").command, ["git", "log", "--", "-x"]);
        assert_eq!(exec("msb exec w -- -x -- y").command, ["-x", "--", "y"]);
        let short = exec("msb exec -it w");
        assert!(short.session.interactive && short.session.tty && short.command.is_empty());
    }

    #[test]
    fn g_run_takes_options_around_the_image_not_in_the_command() {
        let before = run("msb run --rm -it -e A=1 --cpus 0.5 ./image sh -c x -e");
        let after = run("msb run ./image --rm -it -e A=1 --cpus 0.5 -- sh -c x -e");
        assert_eq!(before, after);
    }

    #[test]
    fn g9_bad_option_values_are_named() {
        for (option, named) in [
            ("--cpus 0", "cpus is 0"),
            ("--cpus -1", "cpus is -1"),
            ("--cpus nan", "cpus is NaN"),
            ("--cpus 5000", "cpus is 5000"),
            ("--memory 104857600", "104857600 is a number of MiB"),
            ("--disk 104857600", "104857600 is a number of MiB"),
            ("--shm-size 1e9", "'1e9'"),
            ("--pids-limit 0.5", "'0.5'"),
            ("--security strict", "\"restricted\""),
            ("--stop-signal FOO", "\"FOO\" is no signal"),
            ("--stop-signal 65", "\"65\" is no signal"),
            ("--stop-signal=", "\"\" is no signal"),
        ] {
            let error = parse(&format!("msb create {option} ./image")).unwrap_err().to_string();
            assert!(error.contains(named), "{option}: {error}");
        }
    }

    #[test]
    fn rm_and_detach_conflict() {
        assert!(parse("msb run --rm -d ./image -- true").is_err());
    }
}
