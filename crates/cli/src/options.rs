//! Options that several tasks share.

use crate::attach;
use crate::failure::Failure;
use crate::image;
use crate::values::{self, Label, Limit, Variable};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use microsandbox::{Cpus, PullPolicy, Security};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What a sandbox is made of.
#[derive(Debug, Args)]
#[command(next_help_heading = "The sandbox")]
pub(crate) struct Machine {
    /// What isolates it; without it, and without MSB_DRIVER, the first with hardware isolation
    #[arg(long)]
    pub(crate) driver: Option<String>,
    /// When to ask the registry for the image: always, missing (unless it is here) or never
    #[arg(long, value_name = "WHEN", value_parser = image::policy, default_value = "missing")]
    pub(crate) pull: PullPolicy,
    /// How many processors it may use, such as 2 or 0.5; more than 0 and at most 4096
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) cpus: Option<Cpus>,
    /// How much memory it may use: 512 and 512M are MiB, 1G is 1024 of them; without it 2G or half
    /// of the host's, whichever is less
    #[arg(short, long, value_name = "SIZE", value_parser = values::memory)]
    pub(crate) memory: Option<u32>,
    /// How many processes and threads it may have at once, at least 8; 4096 without it
    #[arg(long, value_name = "N")]
    pub(crate) pids_limit: Option<u32>,
    /// How large the files that it writes may grow: 512 and 512M are MiB, 1G is 1024 of them; 32G
    /// without it
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    pub(crate) disk: Option<u64>,
    /// What commands in a virtual machine may do: default (all that root may in a kernel of its
    /// own) or restricted (what a container's may)
    #[arg(long, value_name = "WHICH", default_value = "default")]
    pub(crate) security: Security,
    /// Refuse to start where a wall of the jail cannot be had, as MSB_REQUIRE_JAIL=1 does for all;
    /// msb doctor lists the walls
    #[arg(long)]
    pub(crate) require_jail: bool,
    /// Its host name
    #[arg(long)]
    pub(crate) hostname: Option<String>,
    /// Its shell, for -t without a command; /bin/sh without it
    #[arg(long, value_name = "PATH")]
    pub(crate) shell: Option<String>,
    /// A note of your own; may be given again
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    pub(crate) labels: Vec<Label>,
    /// Keep what its sessions put out, for msb logs
    #[arg(long)]
    pub(crate) log: bool,
    /// How long its start may take, such as 30s or 2m; without it MSB_BOOT_TIMEOUT, in seconds
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) boot_timeout: Option<Duration>,
    /// End it after this time
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) max_duration: Option<Duration>,
    /// End it when nothing has run in it for this time
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) idle_timeout: Option<Duration>,
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
    /// Set the variables of a file, one KEY=VALUE a line; -e comes after it; may be given again
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Vec<PathBuf>,
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
    /// Pass standard input on; without this, only from a terminal and with the output on one
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Run it on this terminal; without a command, the sandbox's shell
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Let it run on in the background, and print the name (run) or the session's id (exec); with -t
    /// on a terminal of its own, for msb attach
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// The keys that leave it running, such as ctrl-p,ctrl-q; ctrl-] without this
    #[arg(long, value_name = "KEYS", requires = "tty")]
    pub(crate) detach_keys: Option<String>,
    /// Kill it after this time, such as 500ms, 30s or 5m
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Limit a resource, such as nofile=1024 or nofile=1024:2048; may be given again
    #[arg(long = "rlimit", alias = "ulimit", value_name = "NAME=SOFT[:HARD]",
        value_parser = values::rlimit)]
    pub(crate) rlimits: Vec<Limit>,
    /// Print its output as it comes, which happens anyway
    #[arg(long)]
    pub(crate) stream: bool,
}

impl How {
    /// Whether it is run on this process's terminal. Without one there is nothing to run it on, and
    /// nothing is to be made for it.
    pub(crate) fn on_terminal(&self) -> Result<bool, Failure> {
        match (self.tty, self.detach) {
            (true, false) => attach::need_terminal().map(|()| true),
            (false, true) if self.interactive => Err(Failure::own(
                "-i has no input to pass on to what -d leaves in the background; -t gives it a \
                 terminal for msb attach",
            )),
            _ => Ok(false),
        }
    }
}

impl Context {
    /// The variables that have a value, in the order in which later ones win.
    pub(crate) fn variables(&mut self) -> Result<Vec<(OsString, OsString)>, Failure> {
        let mut all = Vec::new();
        for path in &self.env_file {
            let about = |message| Failure::own(format!("env file {}: {message}", path.display()));
            let text = std::fs::read(path).map_err(|error| about(error.to_string()))?;
            all.extend(values::env_file(&text).map_err(about)?);
        }
        all.append(&mut self.env);
        let set = |variable: Variable| Some((variable.key, variable.value?));
        Ok(all.into_iter().filter_map(set).collect())
    }
}
