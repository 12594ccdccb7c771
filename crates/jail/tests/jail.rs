//! What a probe finds in a jail, as root and as an ordinary user.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use msb_jail::{
    Bind, Ids, Jail, LOG_VARIABLE, Map, Proc, Program, ProgramFiles, READ_ALL, Slot, Source,
    Started,
};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

const PROBE: &str = env!("CARGO_BIN_EXE_jail-probe");
const NAMESPACES: [&str; 7] = ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"];

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns ids that this test's user can map; an ordinary user's launcher is root of a user
/// namespace.
fn ids(slot: Option<&Slot>) -> Ids {
    slot.map_or_else(
        || {
            let map = vec![Map { inside: 1000, outside: 0, count: 1 }];
            Ids { users: map.clone(), groups: map, user: 1000, group: 1000 }
        },
        Ids::single,
    )
}

fn slot() -> Option<Slot> {
    is_root().then(|| Slot::take(u64::from(std::process::id())).unwrap())
}

/// Returns a jail with a probe.
fn jail(ids: Ids) -> Jail {
    let files = ProgramFiles::of(Path::new(PROBE), None).unwrap();
    let mut jail = Jail::new(ids, Program::Emulator);
    jail.binds.extend(files.binds());
    jail.environment.push(files.environment());
    jail.devices.push("/dev/null".into());
    jail
}

struct Probe {
    started: Started,
    lines: Vec<String>,
    _input: ChildStdin,
}

impl Probe {
    fn get(&self, key: &str) -> &str {
        let line = self.lines.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("no {key} in {:?}", self.lines))
    }

    fn files(&self) -> Vec<&str> {
        self.lines.iter().filter_map(|line| line.strip_prefix("file=")).collect()
    }

    fn status(&self, key: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.started.pid)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap().trim().to_owned()
    }
}

/// Returns a launcher: root, of a user namespace for an ordinary user.
fn launcher(arguments: &[&str]) -> Command {
    let mut command = if is_root() {
        Command::new(PROBE)
    } else {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", PROBE]);
        command
    };
    command.args(arguments);
    command
}

fn run(jail: &Jail, mut command: Command, passed: Vec<(OwnedFd, i32)>) -> Probe {
    let (input, theirs) = std::io::pipe().unwrap();
    let (output, stdout) = std::io::pipe().unwrap();
    command.stdin(input).stdout(stdout).stderr(Stdio::inherit());
    let started = jail.start(command, passed).unwrap().wait().unwrap();
    let lines = BufReader::new(output).lines().map(Result::unwrap);
    let lines = lines.take_while(|line| line != "end=").collect();
    Probe { started, lines, _input: OwnedFd::from(theirs).into() }
}

fn reap(pid: u32) -> rustix::process::WaitStatus {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed());
    let options = rustix::process::WaitOptions::empty();
    rustix::process::waitpid(pid, options).unwrap().unwrap().1
}

#[test]
fn j2_probe_finds_every_wall() {
    let slot = slot();
    let jail = jail(ids(slot.as_ref()));
    let probe = run(&jail, launcher(&["launch", PROBE]), Vec::new());
    assert_eq!(probe.started.missing, Vec::<String>::new());
    assert_eq!(
        (probe.get("pid"), probe.get("uid"), probe.get("gid"), probe.get("caps")),
        ("1", "1000", "1000", "0")
    );
    assert_eq!(probe.get("descriptors"), "[0, 1, 2]");
    assert_eq!(probe.get("environment"), r#"["LD_LIBRARY_PATH"]"#);
    assert_eq!(probe.get("host"), r#""jail""#);
    assert_eq!(probe.get("null"), "Ok(())");
    assert!(probe.get("write").contains("Err"), "{}", probe.get("write"));
    assert!(probe.get("tcp").contains("Err"), "{}", probe.get("tcp"));
    let mut held: Vec<&str> = jail.binds.iter().map(|b| b.target.to_str().unwrap()).collect();
    held.push("/dev/null");
    held.sort_unstable();
    held.dedup();
    assert_eq!(probe.files(), held);
    for key in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(probe.status(key), "0000000000000000", "{key}");
    }
    assert_eq!((probe.status("NoNewPrivs").as_str(), probe.status("Seccomp").as_str()), ("1", "2"));
    let ids = probe.status("Uid");
    assert!(ids.split_whitespace().all(|id| id != "0"), "{ids}");
    if let Some(slot) = &slot {
        let own = (slot.start() + 65_535).to_string();
        assert!(ids.split_whitespace().all(|id| id == own), "{ids}");
        assert_eq!(probe.status("Groups"), "");
    }
    for name in NAMESPACES {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap();
        assert_ne!(of(&probe.started.pid.to_string()), of("self"), "{name}");
    }
    drop(probe);
}

#[test]
fn j2_only_named_descriptors_stay_open() {
    let slot = slot();
    let mut jail = jail(ids(slot.as_ref()));
    jail.descriptors = vec![7, 9];
    let file = || OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let passed = vec![(file(), 7), (file(), 8), (file(), 9), (file(), 200)];
    let probe = run(&jail, launcher(&["launch", PROBE]), passed);
    assert_eq!(probe.get("descriptors"), "[0, 1, 2, 7, 9]");
}

#[test]
fn j2_process_enters_a_jail_by_itself() {
    let slot = slot();
    let mut jail = jail(ids(slot.as_ref()));
    jail.program = Some(Program::Vmm);
    jail.proc = Proc::Own;
    let probe = run(&jail, launcher(&["enter"]), Vec::new());
    assert_eq!((probe.get("pid"), probe.get("uid"), probe.get("caps")), ("1", "1000", "0"));
    assert!(probe.files().contains(&"/proc"));
    assert_eq!(probe.status("Seccomp"), "2");
}

#[test]
fn j2_unlisted_system_call_kills() {
    let slot = slot();
    let jail = jail(ids(slot.as_ref()));
    let mut command = launcher(&["launch", PROBE, "forbidden"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let started = jail.start(command, Vec::new()).unwrap().wait().unwrap();
    assert_eq!(reap(started.pid).terminating_signal(), Some(libc::SIGSYS));
}

#[test]
fn j2_unlisted_system_call_is_logged_on_request() {
    let slot = slot();
    let jail = jail(ids(slot.as_ref()));
    let mut command = launcher(&["launch", PROBE, "forbidden"]);
    command.env(LOG_VARIABLE, "1").stdin(Stdio::null()).stdout(Stdio::null());
    let started = jail.start(command, Vec::new()).unwrap().wait().unwrap();
    assert_eq!(reap(started.pid).exit_status(), Some(0));
}

#[test]
fn j2_jail_dies_with_its_parent() {
    let slot = slot();
    let jail = jail(ids(slot.as_ref()));
    // The signal comes when the starting thread ends.
    let (pid, input) = std::thread::scope(|scope| {
        let start = || {
            let probe = run(&jail, launcher(&["launch", PROBE]), Vec::new());
            (probe.started.pid, probe._input)
        };
        scope.spawn(start).join().unwrap()
    });
    assert_eq!(reap(pid).terminating_signal(), Some(libc::SIGKILL));
    drop(input);
}

#[test]
fn j2_failed_jail_reports_the_reason() {
    let slot = slot();
    let mut jail = jail(ids(slot.as_ref()));
    jail.binds.push(Bind::read(Path::new("/nonexistent/file")));
    let error = jail.start(launcher(&["launch", PROBE]), Vec::new()).unwrap().wait().unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("cannot bind /nonexistent/file: "), "{text}");
    jail.binds.pop();
    let command = launcher(&["launch", "/nonexistent/program"]);
    let error = jail.start(command, Vec::new()).unwrap().wait().unwrap_err().to_string();
    assert!(error.starts_with("cannot run /nonexistent/program: "), "{error}");
}

#[test]
fn j2_file_server_sees_the_owners_of_an_image() {
    if !is_root() {
        // An ordinary user's files are not mapped.
        return;
    }
    let slot = slot().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("secret");
    fs::write(&file, "content").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&file, Some(7), Some(9)).unwrap();
    let mut jail = Jail::new(Ids::all(&slot), Program::FileServer);
    jail.unmapped = Some(Ids::unmapped(&slot));
    jail.capabilities = vec![READ_ALL];
    let source = Source::Path(scratch.path().into());
    jail.binds.push(Bind { idmapped: true, ..Bind::at(source, Path::new("/image")) });
    let files = ProgramFiles::of(Path::new("/usr/bin/stat"), None).unwrap();
    jail.binds.extend(files.binds());
    jail.environment.push(files.environment());
    let (text, missing) = run_with(&jail, "/usr/bin/stat", &["-c", "%u:%g %a", "/image/secret"]);
    assert_eq!((text.as_str(), missing.len()), ("7:9 600\n", 0), "{missing:?}");
    let cat = ProgramFiles::of(Path::new("/bin/cat"), None).unwrap();
    jail.binds.extend(cat.binds());
    let (text, _) = run_with(&jail, "/bin/cat", &["/image/secret"]);
    assert_eq!(text, "content");
}

#[test]
fn j2_unmappable_owners_appear_unchanged() {
    if !is_root() {
        // An ordinary user's launcher maps no owners.
        return;
    }
    let slot = slot().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for name in ["image", "lower", "upper", "work"] {
        fs::create_dir(scratch.path().join(name)).unwrap();
    }
    let file = scratch.path().join("lower/secret");
    fs::write(&file, "content").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&file, Some(70_000), Some(9)).unwrap();
    let mut jail = Jail::new(Ids::all(&slot), Program::FileServer);
    jail.unmapped = Some(Ids::unmapped(&slot));
    jail.capabilities = vec![READ_ALL];
    let source = Source::Path(scratch.path().join("image").into());
    jail.binds.push(Bind { idmapped: true, ..Bind::at(source, Path::new("/image")) });
    let files = ProgramFiles::of(Path::new("/usr/bin/stat"), None).unwrap();
    jail.binds.extend(files.binds());
    jail.environment.push(files.environment());
    // overlayfs has no idmapped mounts.
    let mut command = Command::new("unshare");
    let mount = "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay image && \
                 exec \"$0\" \"$@\"";
    command.args(["--mount", "sh", "-c", mount, PROBE, "launch", "/usr/bin/stat"]);
    command.args(["-c", "%u:%g %a", "/image/secret"]).current_dir(scratch.path());
    let (mut output, stdout) = std::io::pipe().unwrap();
    command.stdin(Stdio::null()).stdout(stdout);
    let started = jail.start(command, Vec::new()).unwrap().wait().unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    reap(started.pid);
    assert_eq!(text, "70000:9 600\n");
    assert!(started.missing[0].starts_with("idmapped mounts: "), "{:?}", started.missing);
}

fn run_with(jail: &Jail, program: &str, arguments: &[&str]) -> (String, Vec<String>) {
    let (mut output, stdout) = std::io::pipe().unwrap();
    let mut command = launcher(&["launch", program]);
    command.args(arguments).stdin(Stdio::null()).stdout(stdout);
    let started = jail.start(command, Vec::new()).unwrap().wait().unwrap();
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    reap(started.pid);
    (text, started.missing)
}

#[test]
fn j2_every_wall_is_tried() {
    // In a separate process: `walls` forks, and this one has threads.
    let output = launcher(&["walls"]).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = text.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let expected = [
        "user namespace",
        "pivot_root",
        "seccomp",
        "Landlock",
        "cgroup v2",
        "quotas",
        "idmapped mounts",
    ];
    assert_eq!(names, expected);
    // The other tests create jails without a missing wall.
    for wall in ["user namespace", "pivot_root", "seccomp", "Landlock"] {
        assert!(text.contains(&format!("{wall}=yes")), "{text}");
    }
    for line in text.lines().filter(|line| !line.ends_with("=yes")) {
        assert!(line.contains("; "), "no remedy: {line}");
    }
}

#[test]
fn j2_missing_required_wall_is_named() {
    let slot = slot();
    let mut jail = jail(ids(slot.as_ref()));
    let without = |jail: &Jail| {
        let mut command = Command::new("unshare");
        let limit = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" \"$@\"";
        command.args(["--user", "--map-root-user", "--mount", "--keep-caps"]);
        command.args(["sh", "-c", limit, PROBE, "launch", PROBE, "forbidden"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        jail.start(command, Vec::new()).unwrap().wait()
    };
    // That namespace maps one id.
    let map = vec![Map { inside: 1000, outside: 0, count: 1 }];
    jail.ids = Ids { users: map.clone(), groups: map, user: 1000, group: 1000 };
    let started = without(&jail).unwrap();
    reap(started.pid);
    assert!(started.missing[0].starts_with("user namespace: "), "{:?}", started.missing);
    jail.require = true;
    let error = without(&jail).unwrap_err().to_string();
    assert!(error.starts_with("cannot enter the jail: user namespace: "), "{error}");
    assert!(error.contains("max_user_namespaces"), "{error}");
}

#[test]
fn j2_all_tests_pass_for_an_ordinary_user() {
    if !is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=61234", "--regid=61234", "--clear-groups", "--"]);
    command.arg(std::env::current_exe().unwrap()).env("TMPDIR", scratch.path()).current_dir("/");
    let output = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
}
