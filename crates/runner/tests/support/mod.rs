//! What the tests share: a home, an image, and the search for leftovers.

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use msb_state::{
    Companions, Control, CreateOptions, DriverChoice, Home, Info, Name, Outcome, Pending, Ready,
    Reply, Request, SandboxConfig, SandboxDir, create, find_companion, get,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The fixture of a test.
pub(crate) struct Scene {
    pub(crate) scratch: tempfile::TempDir,
    pub(crate) home: Home,
    pub(crate) companions: Companions,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene::with_home("home")
    }

    pub(crate) fn with_home(path: &str) -> Scene {
        let scratch = tempfile::tempdir().unwrap();
        fs::create_dir(scratch.path().join("image")).unwrap();
        let home = Home::at(&scratch.path().join(path)).unwrap();
        Scene { scratch, home, companions: companions() }
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.scratch.path().join("image")
    }

    pub(crate) fn config(&self, name: &str) -> SandboxConfig {
        config(name.parse().unwrap(), self.image())
    }

    pub(crate) fn start(&self, config: SandboxConfig) -> msb_state::Result<Pending> {
        create(&self.home, config, CreateOptions::default(), &self.companions)
    }

    pub(crate) fn create(&self, config: SandboxConfig) -> msb_state::Result<Ready> {
        self.start(config)?.wait()
    }

    pub(crate) fn dir(&self, name: &str) -> SandboxDir {
        self.home.sandbox(&name.parse::<Name>().unwrap())
    }

    pub(crate) fn info(&self, name: &str) -> msb_state::Result<Info> {
        get(&self.home, &name.parse().unwrap(), Some(&self.companions))
    }

    pub(crate) fn end(&self, name: &str, request: &Request) -> Outcome {
        ended(Control::connect(&self.dir(name)).unwrap().request(request, Some(LIMIT)).unwrap())
    }

    /// Waits for the exit of a sandbox, which may have ended already.
    pub(crate) fn wait(&self, name: &str) -> Outcome {
        match Control::connect(&self.dir(name)) {
            Ok(control) => ended(control.request(&Request::Wait, Some(LIMIT)).unwrap()),
            Err(_) => self.info(name).unwrap().outcome.expect("it ended without an outcome"),
        }
    }

    /// Asserts that only the sandbox's directory is left on the host.
    pub(crate) fn assert_nothing_left(&self, name: &str) {
        let dir = self.dir(name);
        let id = dir.id();
        assert!(!dir.run().exists() && fs::symlink_metadata(dir.run()).is_err(), "a link is left");
        assert_eq!(fs::read_dir(self.home.path().join("run")).map_or(0, Iterator::count), 0);
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        assert!(!mounts.contains(id) && !mounts.contains("msb"), "a mount is left: {mounts}");
        assert_eq!(groups(id), Vec::<PathBuf>::new(), "cgroups are left");
        // A runner exits after its last reply.
        eventually("no process is left", Duration::from_secs(2), || processes(&dir).is_empty());
    }
}

/// Longer than anything that does not hang, on a slow machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Returns a configuration with the environment's driver and boot timeout.
pub(crate) fn config(name: Name, image: PathBuf) -> SandboxConfig {
    let mut config = SandboxConfig::new(name, image);
    config.driver = driver();
    config.boot_timeout_ms = msb_state::resolve_boot_timeout(None).unwrap();
    config
}

/// Returns the driver under test: `MSB_DRIVER`, else the one that runs everywhere.
pub(crate) fn driver() -> DriverChoice {
    DriverChoice::resolve(
        std::env::var_os("MSB_DRIVER").is_none().then(|| "container".to_owned().into()),
    )
}

pub(crate) fn companions() -> Companions {
    Companions {
        runner: PathBuf::from(env!("CARGO_BIN_EXE_msb-runner")),
        agent: find_companion("msb-agent", "MSB_AGENT", None)
            .expect("build the agent first: make agent"),
    }
}

pub(crate) fn ended(reply: Reply) -> Outcome {
    match reply {
        Reply::Ended { outcome } => outcome,
        other => panic!("the runner answered {other:?}"),
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns the cgroups of a sandbox.
pub(crate) fn groups(id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((directory, depth)) = waiting.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(id) {
                    found.push(entry.path());
                } else if depth < 2 {
                    waiting.push((entry.path(), depth + 1));
                }
            }
        }
    }
    found
}

/// Returns a sandbox's processes: runners, runtimes and the container's.
pub(crate) fn processes(dir: &SandboxDir) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let path = entry.path();
        let read = |name: &str| {
            let bytes = fs::read(path.join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        if path.file_name().unwrap().to_string_lossy().parse::<u32>().is_err() {
            continue;
        }
        let stat = read("stat");
        let is_zombie = stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('Z'));
        let (line, group) = (read("cmdline"), read("cgroup"));
        let state = dir.path().to_string_lossy();
        let home = dir.path().ancestors().nth(2).unwrap().to_string_lossy();
        let mounts = read("mountinfo");
        // virtiofsd's root is the sandbox's directory.
        let root = fs::read_link(path.join("root")).unwrap_or_default();
        let ours = line.contains(&*state)
            || line.contains(dir.id())
            || group.contains(dir.id())
            || root.starts_with(dir.path());
        // An ordinary user has no cgroups and cannot read the agent's files in /proc.
        let agent = !is_root() && line.starts_with("/.msb/agent") && is_own(&read("status"));
        // A container that is being created, for a probe as well.
        let init = line.trim_end().ends_with("runc init")
            && (read("environ").contains(&*home) || (!is_root() && is_own(&read("status"))));
        let sees = agent || init || mounts.contains(&format!("{state}/rootfs"));
        if (ours || sees) && !is_zombie {
            found.push(format!("{}: {line}", path.display()));
        }
    }
    found
}

fn is_own(status: &str) -> bool {
    let ours = rustix::process::geteuid().as_raw();
    status.lines().any(|line| line.split_whitespace().take(2).eq(["Uid:", &ours.to_string()]))
}

/// Polls a condition without an event until it holds; panics on timeout.
pub(crate) fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
    start.elapsed()
}

/// Returns a directory's content with all metadata that a write would change.
pub(crate) fn snapshot(root: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut waiting = vec![root.to_path_buf()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        found.push(format!(
            "{} {:o} {} {} {} {}.{}",
            path.display(),
            meta.permissions().mode(),
            meta.uid(),
            meta.len(),
            meta.ino(),
            meta.ctime(),
            meta.ctime_nsec()
        ));
        if meta.is_dir() {
            waiting.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}

/// Runs this program's tests as an ordinary user.
#[allow(clippy::print_stderr, reason = "why they did not run")]
pub(crate) fn run_tests_as_ordinary_user() {
    use std::os::unix::fs::chown;
    const USER: u32 = 61_234;
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let own = scratch.path().join("own");
    fs::create_dir(&own).unwrap();
    chown(&own, Some(USER), Some(USER)).unwrap();
    let groups = match kvm_group() {
        Ok(None) => "--clear-groups".to_owned(),
        Ok(Some(group)) => format!("--groups={group}"),
        Err(why) => {
            eprintln!("SKIPPED: {why}");
            return;
        }
    };
    let user = USER.to_string();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, &groups, "--"]);
    command.arg(std::env::current_exe().unwrap()).arg("--test-threads=1");
    command.env("HOME", &own).env("TMPDIR", &own).env_remove("XDG_RUNTIME_DIR").current_dir("/");
    let output = command.output().expect("setpriv is needed for this test");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
}

/// Returns the group that an ordinary user needs for the driver under test, if any.
fn kvm_group() -> Result<Option<u32>, &'static str> {
    use std::os::unix::fs::MetadataExt;
    if std::env::var_os("MSB_DRIVER").is_none_or(|name| name != "krun") {
        return Ok(None);
    }
    let device = fs::metadata("/dev/kvm").map_err(|_| "there is no /dev/kvm")?;
    match device.mode() {
        mode if mode & 0o006 == 0o006 => Ok(None),
        mode if mode & 0o060 == 0o060 => Ok(Some(device.gid())),
        _ => Err("/dev/kvm is root's alone here"),
    }
}
