//! From a request to a process: everything that can be refused, each refusal with its stage.

use super::Session;
use crate::accounts::{Account, AccountError};
use crate::cgroup::Cgroup;
use crate::environment;
use crate::program;
use crate::resources::Resources;
use crate::sys::{self, Plan, Report};
use msb_wire::{Exec, Failure, Rlimit, Stage, StdinMode, TtySize, classify};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;

const EINVAL: i32 = 22;

/// Our ends of a process's standard streams.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) outputs: [Option<Rc<AsyncFd<OwnedFd>>>; 2],
    pub(super) stdin: Option<Rc<AsyncFd<OwnedFd>>>,
}

/// A process that has not executed its program yet.
#[derive(Debug)]
pub(crate) struct PendingChild {
    pub(super) ends: Ends,
    pub(super) report: AsyncFd<OwnedFd>,
    pub(super) program: Vec<u8>,
    pub(super) cwd: Vec<u8>,
}

/// Makes the process. It may still turn out that its program cannot be run.
pub(crate) fn start(
    exec: &Exec,
    account: Account,
    resources: &Rc<Resources>,
) -> Result<(Rc<Session>, PendingChild), Failure> {
    let (plan, program) = Prepared::new(exec, &account)?;
    let ends = Streams::open(exec, &account, resources)?;
    let cgroup = Cgroup::create(exec.session);
    let [stdin, stdout, stderr] = &ends.theirs;
    let plan = Plan {
        candidates: plan.candidates,
        argv: plan.argv,
        env: plan.env,
        cwd: plan.cwd,
        uid: account.uid,
        gid: account.gid,
        groups: account.groups,
        rlimits: limits(&exec.rlimits),
        stdio: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        terminal: exec.tty.is_some(),
        cgroup: cgroup.as_ref().map(Cgroup::directory),
        own_cgroup_namespace: cgroup.is_some() && resources.commands_mount(),
    };
    // Before the fork: the child may be far ahead when the agent gets its processor back.
    let began = std::time::Instant::now();
    let (pid, report) = sys::spawn(&plan)
        .map_err(|(stage, errno)| failure(stage, errno, program.clone(), describe(errno)))?;
    let report = sys::watch(report).map_err(|error| {
        // Nobody will hear of this child: it is not to run.
        let _ = sys::kill_process(pid, 9);
        let errno = error.raw_os_error().unwrap_or(0);
        failure(Stage::Pipe, errno, program.clone(), describe(errno))
    })?;
    let session = Rc::new(Session::new(exec, pid, cgroup, Rc::clone(resources), began));
    session.terminal.replace(ends.terminal);
    Ok((session, PendingChild { ends: ends.ours, report, program, cwd: exec.cwd.clone() }))
}

/// The limits asked for, behind the one on descriptors that the agent raised for itself. Nobody dumps
/// core unless that is asked for: the host may have its kernel run a program for each dump.
fn limits(wanted: &[Rlimit]) -> Vec<Rlimit> {
    const RLIMIT_CORE: u8 = 4;
    const RLIMIT_NOFILE: u8 = 7;
    let asked = wanted.iter().any(|limit| limit.resource == RLIMIT_CORE);
    let core = (!asked).then_some(Rlimit { resource: RLIMIT_CORE, soft: 0, hard: 0 });
    let inherited = sys::descriptor_limit().map(|limit| Rlimit {
        resource: RLIMIT_NOFILE,
        soft: limit.current.unwrap_or(u64::MAX),
        hard: limit.maximum.unwrap_or(u64::MAX),
    });
    inherited.into_iter().chain(core).chain(wanted.iter().copied()).collect()
}

struct Prepared {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
}

impl Prepared {
    fn new(exec: &Exec, account: &Account) -> Result<(Prepared, Vec<u8>), Failure> {
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
        let prepared = Prepared {
            candidates: all(program::candidates(&program, path))?,
            argv: all(exec.argv.iter().map(|argument| argument.to_vec()).collect())?,
            cwd: text(if exec.cwd.is_empty() { b"/".to_vec() } else { exec.cwd.clone() })?,
            env: all(env)?,
        };
        Ok((prepared, program))
    }
}

struct Streams {
    theirs: [OwnedFd; 3],
    ours: Ends,
    terminal: Option<Rc<AsyncFd<OwnedFd>>>,
}

impl Streams {
    fn open(exec: &Exec, account: &Account, resources: &Resources) -> Result<Streams, Failure> {
        match exec.tty {
            Some(size) => Streams::terminal(size, account, resources).map_err(|errno| {
                failure(Stage::OpenPty, errno, b"/dev/ptmx".to_vec(), describe(errno))
            }),
            None => Streams::pipes(exec.stdin, account, resources)
                .map_err(|errno| failure(Stage::Pipe, errno, Vec::new(), describe(errno))),
        }
    }

    fn pipes(mode: StdinMode, account: &Account, resources: &Resources) -> Result<Streams, i32> {
        let pair = || pipe_with(PipeFlags::CLOEXEC).map_err(Errno::raw_os_error);
        let (stdout, their_stdout) = pair()?;
        let (stderr, their_stderr) = pair()?;
        let (their_stdin, stdin) = match mode {
            StdinMode::Null => (resources.null().map_err(Errno::raw_os_error)?, None),
            StdinMode::Pipe => {
                let (theirs, ours) = pair()?;
                (theirs, Some(watch(ours)?))
            }
        };
        if mode == StdinMode::Pipe {
            give(&their_stdin, account);
        }
        give(&their_stdout, account);
        give(&their_stderr, account);
        Ok(Streams {
            theirs: [their_stdin, their_stdout, their_stderr],
            ours: Ends { outputs: [Some(watch(stdout)?), Some(watch(stderr)?)], stdin },
            terminal: None,
        })
    }

    fn terminal(size: TtySize, account: &Account, resources: &Resources) -> Result<Streams, i32> {
        let number = |errno: Errno| errno.raw_os_error();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = resources.terminal().map_err(number)?;
        rustix::pty::unlockpt(&master).map_err(number)?;
        // By descriptor: the image's /dev/pts need not be the instance that the master is from.
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(number)?;
        set_size(&master, size)?;
        // Refused in a user namespace with one id, where it is not needed either.
        let owner = rustix::fs::Uid::from_raw(account.uid);
        let _ = rustix::fs::fchown(&slave, Some(owner), None);
        let copy = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(number);
        let theirs = [copy(&slave)?, copy(&slave)?, slave];
        let master = watch(master)?;
        Ok(Streams {
            theirs,
            ours: Ends {
                outputs: [Some(Rc::clone(&master)), None],
                stdin: Some(Rc::clone(&master)),
            },
            terminal: Some(master),
        })
    }
}

/// Lets a command open its own end of a pipe again, by `/dev/stdout`: as its user, and also as one
/// that it changes to (`su`). Nobody else can: the way there leads through the process's own
/// directory in `/proc` (proc_pid_fd(5)).
fn give(pipe: &OwnedFd, account: &Account) {
    // Refused in a user namespace with one id, where it is not needed either.
    let _ = rustix::fs::fchown(pipe, Some(rustix::fs::Uid::from_raw(account.uid)), None);
    let _ = rustix::fs::fchmod(pipe, Mode::from_raw_mode(0o666));
}

fn watch(fd: OwnedFd) -> Result<Rc<AsyncFd<OwnedFd>>, i32> {
    let flags = rustix::fs::fcntl_getfl(&fd).map_err(Errno::raw_os_error)?;
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).map_err(Errno::raw_os_error)?;
    sys::watch(fd).map(Rc::new).map_err(|error| error.raw_os_error().unwrap_or(0))
}

/// Sets a terminal's size; the kernel tells the foreground group by SIGWINCH.
pub(super) fn set_size(terminal: &OwnedFd, size: TtySize) -> Result<(), i32> {
    let size = Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(terminal, size).map_err(Errno::raw_os_error)
}

impl PendingChild {
    /// Waits until the program runs, or says why it cannot.
    pub(super) async fn wait_exec(self) -> Result<Ends, Failure> {
        let report = self.report().await;
        match report {
            None => Ok(self.ends),
            Some(report) => Err(self.explain(report)),
        }
    }

    async fn report(&self) -> Option<Report> {
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

    fn explain(&self, report: Report) -> Failure {
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
    // "No such file or directory (os error 2)": the number has a field of its own.
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

fn failure(stage: Stage, errno: i32, path: Vec<u8>, message: String) -> Failure {
    Failure { kind: classify(stage, errno, false), stage, errno, path, message }
}

/// There is no such user.
pub(crate) fn unknown_user(exec: &Exec, error: &AccountError) -> Failure {
    let (errno, path) = match error {
        AccountError::Unreadable { path, errno, .. } => (*errno, (*path).to_owned()),
        _ => (0, exec.user.clone().unwrap_or_default()),
    };
    failure(Stage::ResolveUser, errno, path.into_bytes(), error.to_string())
}

/// The agent will not take the session on.
pub(crate) fn not_admitted(why: &str) -> Failure {
    let mut failed = failure(Stage::Admit, 0, Vec::new(), why.to_owned());
    failed.kind = msb_wire::FailureKind::ResourceLimit;
    failed
}

/// A borrowed descriptor for whoever needs one.
pub(super) fn fd(end: &Rc<AsyncFd<OwnedFd>>) -> BorrowedFd<'_> {
    end.get_ref().as_fd()
}
