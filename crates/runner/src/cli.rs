//! The runner's command line.

use crate::drivers::{cache_of, drivers};
use crate::inherited::Inherited;
use crate::namespaces::{Side, enter};
use crate::process::{is_root, runtime, start_trace};
use crate::{cleanup, copy, image, run, sys, terminal, vmm};
use clap::{Parser, Subcommand};
use msb_driver::{Users, choose};
use msb_state::{DriverReport, HostReport, SandboxConfig, SandboxDir, WallReport};
use rustix::process::{
    Signal, getpid, getppid, set_child_subreaper, set_parent_process_death_signal,
};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The program that starts one sandbox and watches it. The library calls it; people need not.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start a sandbox and supervise it.
    Run {
        /// The sandbox's directory.
        #[arg(long)]
        dir: PathBuf,
        /// The agent's binary.
        #[arg(long)]
        agent: PathBuf,
        /// End when the process of the inherited descriptor ends.
        #[arg(long)]
        attached: bool,
    },
    /// Clean up a sandbox whose runner was killed.
    Sweep {
        /// The sandbox's directory.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Print the usable drivers and jail walls, as JSON.
    Probe {
        /// The directory of the state.
        #[arg(long)]
        home: PathBuf,
        /// The agent's binary.
        #[arg(long)]
        agent: PathBuf,
    },
    /// Print why the sandbox on standard input cannot start, without its image; as JSON.
    Check {
        /// The directory of the state.
        #[arg(long)]
        home: PathBuf,
        /// The agent's binary.
        #[arg(long)]
        agent: PathBuf,
    },
    /// Carry out the request on standard input on the image store, and print its events.
    Image {
        /// The directory of the state.
        #[arg(long)]
        home: PathBuf,
        /// Descriptor 4 is the archive to import from or to export to.
        #[arg(long)]
        archive: bool,
    },
    /// Unpack or remove an image's files, as the request on standard input says.
    ImageFiles,
    /// Unpack an image in the jail that the parent describes.
    ImageUnpack {
        /// Set the owners of files.
        #[arg(long)]
        range: bool,
    },
    /// Unpack the archive on descriptor 3, as the order on standard input says.
    Copy,
    /// Unpack a copy in the jail that the parent describes.
    CopyUnpack {
        /// The order, as JSON.
        order: String,
    },
    /// Become the VMM of one sandbox.
    Vmm(vmm::Arguments),
    /// Run a program in the jail that the parent describes on descriptor 60.
    Jail {
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Restore a terminal when the program that has attached it ends.
    Terminal,
    /// Run a program that is killed when its parent ends.
    Bound {
        /// The parent's process id.
        parent: i32,
        /// The program and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
}

/// Runs the task of the arguments.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let result = match arguments.task {
        Task::Run { dir, agent, attached } => start(&dir, &agent, attached),
        Task::Sweep { dir } => sweep(&dir),
        Task::Probe { home, agent } => probe(&home, agent),
        Task::Check { home, agent } => check(&home, &agent),
        Task::Image { home, archive } => image::work(&home, archive),
        Task::ImageFiles => image::files(),
        Task::ImageUnpack { range } => image::unpack(range),
        Task::Copy => copy::receive(),
        Task::CopyUnpack { order } => copy::unpack(&order),
        Task::Vmm(arguments) => vmm::run(arguments),
        Task::Jail { command } => Err(msb_jail::launch(&command).to_string()),
        Task::Terminal => terminal::guard(),
        Task::Bound { parent, command } => bound(parent, &command),
    };
    conclude(result)
}

/// Returns the exit code of a task; prints its error to standard error.
pub(crate) fn conclude(result: Result<ExitCode, String>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            // The library keeps this in the sandbox's log.
            let _ = writeln!(io::stderr(), "msb-runner: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(dir: &Path, agent: &Path, attached: bool) -> Result<ExitCode, String> {
    sys::close_from(if attached { 6 } else { 5 }).map_err(|error| error.to_string())?;
    sys::reset_signals();
    let dir = SandboxDir::open(dir).map_err(|error| error.to_string())?;
    let inherited = Inherited::take(&dir, attached).map_err(|error| error.to_string())?;
    run::run(dir, agent.to_path_buf(), inherited)
}

fn sweep(dir: &Path) -> Result<ExitCode, String> {
    sys::close_from(4).map_err(|error| error.to_string())?;
    sys::reset_signals();
    start_trace();
    let dir = SandboxDir::open(dir).map_err(|error| error.to_string())?;
    let users = if is_root() { Users::Host } else { Users::RootOnly };
    let drivers = drivers(&cache_of(&dir), Path::new(""), users);
    let clean = cleanup::clean(&drivers, &dir, None);
    runtime()?.block_on(clean).map_err(|failure| failure.to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn probe(home: &Path, agent: PathBuf) -> Result<ExitCode, String> {
    sys::close_from(3).map_err(|error| error.to_string())?;
    sys::reset_signals();
    let users = match enter(true).map_err(|failure| failure.to_string())? {
        Side::Outside(code) => return Ok(code),
        Side::Inside(users) => users,
    };
    // Before the runtime: each is tried in a forked process.
    let walls = msb_jail::walls(home).into_iter().map(|wall| WallReport {
        name: wall.name.to_owned(),
        missing: wall.missing,
        remedy: wall.remedy,
    });
    let walls = walls.collect();
    adopt_orphans()?;
    let drivers = drivers(&home.join("cache"), &agent, users);
    let drivers = runtime()?.block_on(async {
        let mut reports = Vec::new();
        for driver in &drivers {
            let probe = driver.probe(true).await;
            let (name, isolation) = (driver.name().to_owned(), driver.isolation());
            reports.push(DriverReport { name, isolation, probe, unbounded: driver.unbounded() });
        }
        reports
    });
    let text =
        serde_json::to_string(&HostReport { drivers, walls }).map_err(|error| error.to_string())?;
    writeln!(io::stdout(), "{text}").map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Tries the driver that the configuration on standard input asks for.
fn check(home: &Path, agent: &Path) -> Result<ExitCode, String> {
    sys::close_from(3).map_err(|error| error.to_string())?;
    sys::reset_signals();
    let users = match enter(true).map_err(|failure| failure.to_string())? {
        Side::Outside(code) => return Ok(code),
        Side::Inside(users) => users,
    };
    let config: SandboxConfig = serde_json::from_reader(io::stdin())
        .map_err(|error| format!("cannot read a configuration: {error}"))?;
    adopt_orphans()?;
    let drivers = drivers(&home.join("cache"), agent, users);
    let chosen = runtime()?.block_on(choose(&config.driver, &drivers));
    let failure = chosen.and_then(|driver| driver.check(&config)).err();
    let text = serde_json::to_string(&failure).map_err(|error| error.to_string())?;
    writeln!(io::stdout(), "{text}").map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Makes the processes that an OCI runtime leaves children of this process.
fn adopt_orphans() -> Result<(), String> {
    set_child_subreaper(Some(getpid()))
        .map_err(|error| format!("cannot become a subreaper: {error}"))
}

fn bound(parent: i32, command: &[OsString]) -> Result<ExitCode, String> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| error.to_string())?;
    // If the parent ended before the line above, no signal comes.
    if getppid().is_none_or(|pid| pid.as_raw_nonzero().get() != parent) {
        return Err("the parent is gone".to_owned());
    }
    let [program, arguments @ ..] = command else { return Err("no program given".to_owned()) };
    let error = Command::new(program).args(arguments).exec();
    Err(format!("cannot run {}: {error}", program.display()))
}
