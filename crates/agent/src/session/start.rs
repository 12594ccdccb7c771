//! Creates the process of a session. Each failure has its stage.

use super::state::Session;
use super::streams::{AgentEnds, Streams};
use crate::accounts::{Account, AccountError};
use crate::cgroup::Cgroup;
use crate::environment;
use crate::program;
use crate::resources::Resources;
use crate::sys::{self, Plan, Report};
use msb_wire::{Exec, Failure, FailureKind, Rlimit, Stage, classify};
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;

const EINVAL: i32 = 22;

/// A process that has not executed its program yet.
#[derive(Debug)]
pub(crate) struct PendingChild {
    ends: AgentEnds,
    report: AsyncFd<OwnedFd>,
    program: Vec<u8>,
    cwd: Vec<u8>,
}

/// Creates the process. [`PendingChild::wait_exec`] reports whether its program runs.
pub(crate) fn start(
    exec: &Exec,
    account: Account,
    resources: &Rc<Resources>,
) -> Result<(Rc<Session>, PendingChild), Failure> {
    let (context, program) = ExecContext::new(exec, &account)?;
    let streams = open_streams(exec, &account, resources)?;
    let cgroup = Cgroup::create(exec.session);
    let [stdin, stdout, stderr] = &streams.child;
    let plan = Plan {
        candidates: context.candidates,
        argv: context.argv,
        env: context.env,
        cwd: context.cwd,
        uid: account.uid,
        gid: account.gid,
        groups: account.groups,
        rlimits: limits(&exec.rlimits),
        stdio: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        terminal: exec.tty.is_some(),
        cgroup: cgroup.as_ref().map(Cgroup::directory),
        own_cgroup_namespace: cgroup.is_some() && resources.can_commands_mount(),
    };
    // Taken before the fork: the child may run first.
    let started_at = std::time::Instant::now();
    let (pid, report) = sys::spawn(&plan)
        .map_err(|(stage, errno)| failure(stage, errno, program.clone(), describe(errno)))?;
    let report = sys::watch(report).map_err(|error| {
        // No session will own this child.
        let _ = sys::kill_process(pid, 9);
        let errno = error.raw_os_error().unwrap_or(0);
        failure(Stage::Pipe, errno, program.clone(), describe(errno))
    })?;
    let session = Rc::new(Session::new(exec, pid, cgroup, Rc::clone(resources), started_at));
    session.terminal.replace(streams.terminal);
    Ok((session, PendingChild { ends: streams.agent, report, program, cwd: exec.cwd.clone() }))
}

/// Returns the requested limits, after the limit on descriptors that the agent was started with.
/// Core dumps are off unless requested: the host's kernel may run a program for each dump.
fn limits(requested: &[Rlimit]) -> Vec<Rlimit> {
    const RLIMIT_CORE: u8 = 4;
    const RLIMIT_NOFILE: u8 = 7;
    let sets_core = requested.iter().any(|limit| limit.resource == RLIMIT_CORE);
    let core = (!sets_core).then_some(Rlimit { resource: RLIMIT_CORE, soft: 0, hard: 0 });
    let inherited = sys::descriptor_limit().map(|limit| Rlimit {
        resource: RLIMIT_NOFILE,
        soft: limit.current.unwrap_or(u64::MAX),
        hard: limit.maximum.unwrap_or(u64::MAX),
    });
    inherited.into_iter().chain(core).chain(requested.iter().copied()).collect()
}

fn open_streams(exec: &Exec, account: &Account, resources: &Resources) -> Result<Streams, Failure> {
    match exec.tty {
        Some(size) => {
            Streams::terminal(size, exec.modes.as_ref(), account, resources).map_err(|errno| {
                failure(Stage::OpenPty, errno, b"/dev/ptmx".to_vec(), describe(errno))
            })
        }
        None => Streams::pipes(exec.stdin, account, resources)
            .map_err(|errno| failure(Stage::Pipe, errno, Vec::new(), describe(errno))),
    }
}

/// What a program is executed with, as C strings.
struct ExecContext {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
}

impl ExecContext {
    fn new(exec: &Exec, account: &Account) -> Result<(ExecContext, Vec<u8>), Failure> {
        let Some(program) = exec.argv.first().map(|program| program.to_vec()) else {
            return Err(failure(Stage::Execve, EINVAL, Vec::new(), "no program named".into()));
        };
        let text = |bytes: Vec<u8>| {
            CString::new(bytes).map_err(|_| {
                let why = "a NUL byte in program, arguments, environment or directory";
                failure(Stage::Execve, EINVAL, program.clone(), why.into())
            })
        };
        let sent: Vec<Vec<u8>> = exec.env.iter().map(|entry| entry.to_vec()).collect();
        let env = environment::complete(&sent, account, exec.tty.is_some());
        let path = environment::get(&env, b"PATH").unwrap_or(environment::DEFAULT_PATH);
        let all = |texts: Vec<Vec<u8>>| texts.into_iter().map(text).collect::<Result<Vec<_>, _>>();
        let context = ExecContext {
            candidates: all(program::candidates(&program, path))?,
            argv: all(exec.argv.iter().map(|argument| argument.to_vec()).collect())?,
            cwd: text(if exec.cwd.is_empty() { b"/".to_vec() } else { exec.cwd.clone() })?,
            env: all(env)?,
        };
        Ok((context, program))
    }
}

impl PendingChild {
    /// Waits until the program runs, or returns why it cannot.
    pub(super) async fn wait_exec(self) -> Result<AgentEnds, Failure> {
        match self.read_report().await {
            None => Ok(self.ends),
            Some(report) => Err(self.failure(report)),
        }
    }

    async fn read_report(&self) -> Option<Report> {
        let mut bytes = [0; Report::LEN];
        loop {
            let mut guard = self.report.readable().await.ok()?;
            match rustix::io::read(self.report.get_ref(), &mut bytes) {
                Ok(count) => return Report::from_bytes(bytes.get(..count)?),
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    fn failure(&self, report: Report) -> Failure {
        let path = match report.stage {
            Stage::Chdir => self.cwd.clone(),
            _ => self.program.clone(),
        };
        let exists = report.exists;
        let mut failed = failure(report.stage, report.errno, path, describe(report.errno));
        failed.kind = classify(report.stage, report.errno, exists);
        if report.stage == Stage::Execve && report.errno == 2 && exists {
            failed.message = "the interpreter that the file names does not exist".into();
        }
        failed
    }
}

fn describe(errno: i32) -> String {
    // Without "(os error 2)": the number has its own field.
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn failure(stage: Stage, errno: i32, path: Vec<u8>, message: String) -> Failure {
    Failure { kind: classify(stage, errno, false), stage, errno, path, message }
}

/// Returns the failure to look up a user.
pub(crate) fn unknown_user(exec: &Exec, error: &AccountError) -> Failure {
    let (errno, path) = match error {
        AccountError::Unreadable { path, errno, .. } => (*errno, (*path).to_owned()),
        _ => (0, exec.user.clone().unwrap_or_default()),
    };
    failure(Stage::ResolveUser, errno, path.into_bytes(), error.to_string())
}

/// Returns the failure of a session that the agent refuses.
pub(crate) fn not_admitted(why: &str) -> Failure {
    let mut failed = failure(Stage::Admit, 0, Vec::new(), why.to_owned());
    failed.kind = FailureKind::ResourceLimit;
    failed
}
