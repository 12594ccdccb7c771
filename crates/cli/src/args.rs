//! The command line.

use crate::image;
use crate::values::{self, Label, Limit, Variable};
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use microsandbox::PullPolicy;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Run commands in isolated sandboxes.
///
/// Exit codes of run and exec: the program's own; 128+n when signal n killed it; 124 when its time
/// ran out; 125 when msb itself failed; 126 when the program is not executable; 127 when it was
/// not found. With a terminal, 0 also when it was left running.
#[derive(Debug, Parser)]
#[command(name = "msb", version)]
pub(crate) struct Arguments {
    /// Print no names and notes; ls and sessions print names and ids only
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Run a command in a sandbox of its own
    Run(Run),
    /// Run a command in a sandbox that is running
    Exec(Exec),
    /// Take up again, on this terminal, a command that was left running
    Attach {
        /// The sandbox
        name: String,
        /// The session's id, as msb sessions lists it
        session: String,
    },
    /// Create a sandbox and start it; it runs until it is stopped
    Create(Create),
    /// Start a sandbox again, with the files it was left with
    Start {
        /// The sandbox
        name: String,
    },
    /// List the sandboxes
    Ls {
        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// End sandboxes in order: what runs in them is asked to end, then killed
    Stop {
        /// The sandboxes
        #[arg(required = true)]
        names: Vec<String>,
        /// How long what runs in them has to end, such as 500ms, 30s or 5m
        #[arg(long, value_name = "TIME", default_value = "10s", value_parser = values::duration)]
        timeout: Duration,
    },
    /// End sandboxes at once
    Kill {
        /// The sandboxes
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove sandboxes and their files
    Rm {
        /// The sandboxes
        #[arg(required = true)]
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
    /// Tell which drivers can be used here
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
#[command(override_usage = "msb run [OPTIONS] IMAGE [-- CMD [ARGS]...]")]
pub(crate) struct Run {
    /// The image: a name such as python:3.12, or the path (/, ./, ../) of a directory or an archive
    pub(crate) image: PathBuf,
    /// The sandbox's name; one is made up without it
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) context: Context,
    #[command(flatten)]
    pub(crate) how: How,
    /// Remove the sandbox at the end, which happens anyway without --detach
    #[arg(long, conflicts_with = "detach")]
    pub(crate) rm: bool,
    /// The command and its arguments, after --; without one, the image's own
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(override_usage = "msb exec [OPTIONS] NAME [OPTIONS] -- CMD [ARGS]...")]
pub(crate) struct Exec {
    /// The sandbox
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) context: Context,
    #[command(flatten)]
    pub(crate) how: How,
    /// Run it on this terminal; without a command, the sandbox's shell
    #[arg(short, long, conflicts_with_all = ["detach", "timeout"])]
    pub(crate) tty: bool,
    /// The keys that leave it running, such as ctrl-p,ctrl-q; ctrl-] without this
    #[arg(long, value_name = "KEYS", requires = "tty")]
    pub(crate) detach_keys: Option<String>,
    /// The command and its arguments, after --
    #[arg(last = true, required_unless_present = "tty", value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The image: a name such as python:3.12, or the path (/, ./, ../) of a directory or an archive
    pub(crate) image: PathBuf,
    /// The sandbox's name
    #[arg(long)]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) machine: Machine,
    #[command(flatten)]
    pub(crate) context: Context,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The sandbox, running or not
    pub(crate) name: String,
    /// Only this session, by its id
    #[arg(long, value_name = "ID", value_parser = values::session)]
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

/// The script for a shell, which it reads when it starts or when it is asked to complete.
pub(crate) fn completion(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "msb", &mut script);
    script
}

/// What a sandbox is made of.
#[derive(Debug, Args)]
pub(crate) struct Machine {
    /// What isolates it; without it, and without MSB_DRIVER, the first with hardware isolation
    #[arg(long)]
    pub(crate) driver: Option<String>,
    /// When to ask the registry for the image: always, missing (unless it is here) or never
    #[arg(long, value_name = "WHEN", value_parser = image::policy, default_value = "missing")]
    pub(crate) pull: PullPolicy,
    /// How many processors it may use
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// How much memory it may use: 512 and 512M are MiB, 1G is 1024 of them
    #[arg(long, value_name = "SIZE", value_parser = values::memory)]
    pub(crate) memory: Option<u32>,
    /// Its host name
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// How long its start may take, such as 30s or 2m; without it MSB_BOOT_TIMEOUT, in seconds
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) boot_timeout: Option<Duration>,
    /// A note of your own; may be given again
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    pub(crate) labels: Vec<Label>,
    /// Keep what its sessions put out, for msb logs
    #[arg(long)]
    pub(crate) log: bool,
    /// End and remove a sandbox that has the name already
    #[arg(long)]
    pub(crate) replace: bool,
}

/// Where and as whom commands run.
#[derive(Debug, Args)]
pub(crate) struct Context {
    /// Set a variable, or pass on the one of that name; may be given again
    #[arg(short, long, value_name = "KEY[=VALUE]",
        value_parser = OsStringValueParser::new().try_map(values::variable))]
    pub(crate) env: Vec<Variable>,
    /// The working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<OsString>,
    /// The user: name, uid, name:group or uid:gid
    #[arg(short, long)]
    pub(crate) user: Option<String>,
}

/// How one command runs.
#[derive(Debug, Args)]
pub(crate) struct How {
    /// Let it run on in the background, and print the name (run) or the session's id (exec)
    #[arg(short, long, conflicts_with = "interactive")]
    pub(crate) detach: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Kill it after this time, such as 500ms, 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Limit a resource, such as nofile=1024 or nofile=1024:2048; may be given again
    #[arg(long = "rlimit", value_name = "NAME=SOFT[:HARD]", value_parser = values::rlimit)]
    pub(crate) rlimits: Vec<Limit>,
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }

    #[test]
    fn to_remove_at_the_end_and_not_to_wait_for_it_exclude_each_other() {
        let line = "msb run --rm -d ./image -- true";
        assert!(Arguments::try_parse_from(line.split(' ')).is_err());
    }
}
