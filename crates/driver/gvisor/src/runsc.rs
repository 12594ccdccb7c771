//! The program `runsc`: where it is, its jail, and how it is called.

use msb_driver::{Users, on_path};
use msb_jail::{Bind, Group, Ids, Jail, JailError, Limits, Proc, ProgramFiles, Source, Starting};
use msb_state::{Failure, check_trusted};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The variable that names the program.
pub(crate) const VARIABLE: &str = "MSB_RUNSC";
/// The program's name in `PATH`.
const NAME: &str = "runsc";
/// The descriptor of the agent's socket, outside and inside of the sandbox.
pub(crate) const SOCKET: i32 = 3;
/// The path of the sandbox's working directory in the jail. `runsc` mounts a file system of its own
/// over it before it starts the sandbox.
const WORK: &str = "/tmp";
/// The path of the root filesystem in the jail.
pub(crate) const ROOT: &str = "/root";
/// The path of the program in the jail: its own may be below one of the others.
const PROGRAM: &str = "/runsc";
/// The path of the agent's binary in the jail.
pub(crate) const AGENT: &str = "/agent";
/// The directory of the OCI configuration in the working directory.
pub(crate) const BUNDLE: &str = "bundle";
/// The file with the errors of `runsc` in the working directory.
pub(crate) const LOG: &str = "log";

/// Capabilities in the jail's user namespace, which map no id of the host: mounts, namespaces and
/// ids for the sandbox's processes, and the files of every owner in the root filesystem.
const CAPABILITIES: [u32; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 18, 19, 21, 31];
/// Limit of the gofer's descriptors, of which a guest holds one for each file that is open.
const DESCRIPTORS: u64 = 1_000_000;

/// Finds the program: the path in `MSB_RUNSC`, else the one that `msb setup gvisor` built in `home`,
/// else the one in `PATH`. The error says what is missing.
pub(crate) fn find(home: &Path) -> Result<PathBuf, Failure> {
    let named = std::env::var_os(VARIABLE);
    let program = search(named, home, || on_path(NAME, &["/usr/local/bin", "/usr/bin"]))?;
    let program = program.canonicalize().map_err(|e| Failure::boot_io("resolve", &program, e))?;
    check_trusted(&program).map_err(|error| Failure::no_driver(error.to_string()))?;
    Ok(program)
}

fn search(
    named: Option<OsString>,
    home: &Path,
    in_path: impl FnOnce() -> Option<PathBuf>,
) -> Result<PathBuf, Failure> {
    if let Some(named) = named.filter(|named| !named.is_empty()).map(PathBuf::from) {
        if !named.is_file() {
            let text = format!("{} of {VARIABLE} is not a file", named.display());
            return Err(Failure::no_driver(text).hint(format!("set {VARIABLE} to runsc")));
        }
        return Ok(named);
    }
    let built = home.join("gvisor").join(NAME);
    if built.is_file() {
        return Ok(built);
    }
    in_path().ok_or_else(|| Failure::no_driver("runsc is not installed").hint("msb setup gvisor"))
}

/// What one sandbox's `runsc` runs with.
#[derive(Debug)]
pub(crate) struct Runsc<'a> {
    pub(crate) program: &'a Path,
    /// A program, with arguments, that runs the command that follows in a jail.
    pub(crate) launcher: &'a [PathBuf],
    pub(crate) cache: &'a Path,
    pub(crate) users: Users,
    pub(crate) rootfs: &'a Path,
    pub(crate) agent: &'a Path,
    /// A directory that the root of the jail owns, with the bundle in it.
    pub(crate) work: &'a Path,
    pub(crate) id: &'a str,
    pub(crate) require_jail: bool,
    /// The cgroup of its processes.
    pub(crate) group: Option<&'a Group>,
}

impl Runsc<'_> {
    /// Starts the sandbox. `socket` becomes the agent's.
    pub(crate) fn start(
        &self,
        socket: Option<OwnedFd>,
        output: (OwnedFd, OwnedFd),
    ) -> Result<Starting, Failure> {
        let failed = |error: JailError| {
            Failure::boot(format!("cannot start {}: {error}", self.program.display()))
        };
        let mut launcher = self.launcher.iter();
        let first = launcher.next().ok_or_else(|| {
            Failure::boot(format!(
                "cannot run {}: msb-runner was not found",
                self.program.display()
            ))
        })?;
        let mut command = Command::new(first);
        command.args(launcher).arg(PROGRAM).args(self.arguments(socket.is_some()));
        command.current_dir("/").stdin(Stdio::null()).stdout(output.0).stderr(output.1);
        let mut jail = self.jail()?;
        jail.descriptors.extend(socket.as_ref().map(|_| SOCKET));
        let passed = socket.map(|socket| (socket, SOCKET));
        jail.start_in(command, passed.into_iter().collect(), self.group).map_err(failed)
    }

    fn arguments(&self, with_socket: bool) -> Vec<OsString> {
        let work = Path::new(WORK);
        let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let mut arguments = vec![
            option("root", &work.join("state")),
            option("log", &work.join(LOG)),
            "--log-format=json".to_owned(),
            "--platform=systrap".to_owned(),
            "--network=none".to_owned(),
            // The root is an overlay of the sandbox's own.
            "--overlay2=none".to_owned(),
            // The runner limits the jail as a whole.
            "--ignore-cgroups".to_owned(),
            "run".to_owned(),
            option("bundle", &work.join(BUNDLE)),
        ];
        if with_socket {
            arguments.push(format!("--pass-fd={SOCKET}:{SOCKET}"));
        }
        arguments.push(self.id.to_owned());
        arguments.into_iter().map(OsString::from).collect()
    }

    fn jail(&self) -> Result<Jail, Failure> {
        let failed = |error| Failure::boot_io("jail", self.program, error);
        let ids = match self.users {
            Users::Mapped(start) => Ok(Ids::root_of(start)),
            _ => Ids::nested_all().map(Ids::with_own_id),
        };
        // Its own filters are stricter than one for all its processes could be.
        let mut jail = Jail::without_call_list(ids.map_err(failed)?);
        let files = ProgramFiles::of(self.program, Some(self.cache)).map_err(failed)?;
        jail.environment.push(files.environment());
        jail.binds.extend(files.binds().map(|bind| match bind.target == self.program {
            true => Bind { target: PROGRAM.into(), ..bind },
            false => bind,
        }));
        let bind = |path: &Path, target: &str| {
            Bind::at(Source::Path(path.into()), Path::new(OsStr::new(target)))
        };
        jail.binds.push(Bind { writable: true, ..bind(self.work, WORK) });
        // The sandbox's mounts are below it.
        let root = bind(self.rootfs, ROOT);
        jail.binds.push(Bind { writable: true, executable: true, recursive: true, ..root });
        jail.binds.push(Bind { executable: true, ..bind(self.agent, AGENT) });
        jail.devices = vec!["/dev/null".into(), "/dev/urandom".into()];
        // It mounts another one for the sandbox, which the kernel allows below a whole one only.
        jail.proc = Proc::Settings;
        jail.mounts = true;
        jail.capabilities = CAPABILITIES.to_vec();
        jail.limits = Limits { files: Some(DESCRIPTORS), ..Limits::default() };
        jail.require = self.require_jail;
        Ok(jail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn named_program_comes_first_then_built_then_path() {
        let home = tempfile::tempdir().unwrap();
        let named = home.path().join("named");
        let installed = || Some(PathBuf::from("/installed/runsc"));
        let found = |named: Option<&Path>| search(named.map(Into::into), home.path(), installed);

        let missing = search(None, home.path(), || None).unwrap_err();
        assert_eq!(missing.hint.as_deref(), Some("msb setup gvisor"));
        assert_eq!(found(None).unwrap(), Path::new("/installed/runsc"));

        let built = home.path().join("gvisor/runsc");
        fs::create_dir(home.path().join("gvisor")).unwrap();
        fs::write(&built, "").unwrap();
        assert_eq!(found(None).unwrap(), built);
        assert_eq!(found(Some(Path::new(""))).unwrap(), built);

        // A mistake in the variable is told, not passed over.
        let error = found(Some(&named)).unwrap_err().message;
        assert!(error.contains("named of MSB_RUNSC is not a file"), "{error}");
        fs::write(&named, "").unwrap();
        assert_eq!(found(Some(&named)).unwrap(), named);
    }
}
