//! Promise J2: what a probe finds when it replaces a process of a sandbox.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use support::{LIMIT, Scene, eventually, is_root, processes};

/// Creates a sandbox whose start fails: the body of a process with its own `PATH`.
#[test]
#[ignore = "started by another test"]
fn helper_creates_from_path() {
    let home = msb_state::Home::at(std::env::var_os("TEST_HOME").unwrap().as_ref()).unwrap();
    let image = std::path::PathBuf::from(std::env::var_os("TEST_IMAGE").unwrap());
    let mut config = support::config("a".parse().unwrap(), image);
    config.driver = "qemu".to_owned().into();
    let options = msb_state::CreateOptions::default();
    let pending = msb_state::create(&home, config, options, &support::companions()).unwrap();
    pending.wait().unwrap_err();
}

#[test]
fn j2_probe_replaces_qemu_and_virtiofsd() {
    let scene = Scene::new();
    let programs = scene.scratch.path().join("programs");
    fs::create_dir(&programs).unwrap();
    for name in ["qemu-system-x86_64", "virtiofsd"] {
        fs::copy(env!("CARGO_BIN_EXE_runner-probe"), programs.join(name)).unwrap();
    }
    // A host file beside the image, and a private file in it.
    fs::write(scene.scratch.path().join("beside"), "x").unwrap();
    let secret = scene.image().join("secret");
    fs::write(&secret, "x").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let kernel = scene.scratch.path().join("vmlinuz");
    fs::write(&kernel, "no kernel").unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut creator = Command::new(std::env::current_exe().unwrap());
    creator.args(["--exact", "helper_creates_from_path", "--ignored", "--nocapture"]);
    creator.env("TEST_HOME", scene.home.path()).env("TEST_IMAGE", scene.image());
    creator.env("PATH", format!("{}:{path}", programs.display())).env("MSB_KERNEL", &kernel);
    creator.env("MSB_SECRET", "x");
    let mut creator = creator.spawn().unwrap();
    let dir = scene.dir("a");
    let log = dir.path().join("agent.log");
    let read = || fs::read_to_string(&log).unwrap_or_default();
    eventually("both probes have reported", LIMIT, || read().matches(":end=").count() == 2);
    let text = read();
    let running: Vec<u32> = processes(&dir)
        .iter()
        .filter(|line| line.contains(&format!(": {}", programs.display())))
        .map(|line| {
            line.strip_prefix("/proc/").unwrap().split(':').next().unwrap().parse().unwrap()
        })
        .collect();
    assert_eq!(running.len(), 2, "{:?}", processes(&dir));
    for pid in running {
        check_from_outside(pid);
    }
    // The sockets and the disk; the listening socket.
    check(&text, "qemu-system-x86_64", "[0, 1, 2, 3, 4, 5, 6]", "0", &["/kernel", "/initramfs"]);
    let shown = format!("/{}/secret", dir.id());
    // DAC_READ_SEARCH and FOWNER, as in docs/drivers.md.
    check(&text, "virtiofsd", "[0, 1, 2, 3]", "c", &[&shown, "/proc"]);
    assert!(!text.contains("beside") && !text.contains("MSB_SECRET"), "{text}");
    creator.kill().unwrap();
    creator.wait().unwrap();
    eventually("everything is gone", LIMIT, || processes(&dir).is_empty());
}

#[test]
fn j2_all_tests_pass_for_an_ordinary_user() {
    if is_root() {
        support::run_tests_as_ordinary_user();
    }
}

/// Starts the unpacker with a request to unpack a layer.
fn unpack(layer: &Path, into: &Path) -> Child {
    fs::create_dir(into).unwrap();
    request_unpack(&mut Command::new(env!("CARGO_BIN_EXE_msb-runner")), layer, into)
}

fn request_unpack(command: &mut Command, layer: &Path, into: &Path) -> Child {
    let mut child =
        command.arg("image-files").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (layer, into) = (layer.display(), into.display());
    let request =
        format!(r#"{{"unpack":{{"layers":[["{layer}",null]],"into":"{into}","directories":[]}}}}"#);
    writeln!(child.stdin.as_mut().unwrap(), "{request}").unwrap();
    child
}

#[test]
fn j2_image_is_unpacked_in_a_jail() {
    let scratch = tempfile::tempdir().unwrap();
    let layer = scratch.path().join("layer.tar");
    // A sparse file, which takes some seconds to read.
    let file = fs::File::create(scratch.path().join("big")).unwrap();
    file.set_len(3 << 30).unwrap();
    let mut tar = Command::new("sh");
    let header = r#"tar -cf - -C "$0" big | head -c 512 > "$0/layer.tar""#;
    assert!(tar.args(["-c", header]).arg(scratch.path()).status().unwrap().success());
    let file = fs::File::options().write(true).open(&layer).unwrap();
    file.set_len((3 << 30) + 2048).unwrap();
    fs::write(scratch.path().join("beside"), "x").unwrap();
    let into = scratch.path().join("into");
    let mut child = unpack(&layer, &into);
    let mut found = None;
    eventually("the unpacker is in its jail", LIMIT, || {
        found = unpacker(&into);
        found.is_some()
    });
    let pid = found.unwrap();
    check_from_outside(pid);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for key in ["CapEff", "CapPrm", "CapBnd"] {
        // CHOWN, DAC_OVERRIDE, FOWNER, FSETID and SETFCAP.
        assert!(status.contains(&format!("{key}:\t000000008000001b")), "{status}");
    }
    if is_root() {
        let root = std::path::PathBuf::from(format!("/proc/{pid}/root"));
        let inside = root.join(scratch.path().strip_prefix("/").unwrap());
        let names = |path: &Path| {
            let entries = fs::read_dir(path).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&inside), ["into", "layer.tar"]);
        let top = scratch.path().components().nth(1).unwrap().as_os_str();
        let mut expected = [top, "proc".as_ref()];
        expected.sort();
        assert_eq!(names(&root), expected);
    }
    // The unpacker ends with its input.
    drop(child.stdin.take());
    child.wait().unwrap();
    eventually("the unpacker is gone", LIMIT, || unpacker(&into).is_none());
}

/// Returns the unpacker of a directory, once it is in its jail.
fn unpacker(into: &Path) -> Option<u32> {
    fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        let status = read("status");
        let is_ours = read("cmdline").contains("image-unpack")
            && (!is_root() || read("mountinfo").contains(&*into.to_string_lossy()));
        // The seccomp filter is its last wall; a zombie has none.
        let is_jailed = status.contains("Seccomp:\t2") && !status.contains("State:\tZ");
        (is_ours && is_jailed).then(|| entry.file_name().to_string_lossy().parse().ok()).flatten()
    })
}

/// Creates a layer with `a/b/file`, which has another owner and group.
fn layer_with_owners(scratch: &Path) -> PathBuf {
    fs::write(scratch.join("file"), "x").unwrap();
    let layer = scratch.join("layer.tar");
    let mut tar = Command::new("tar");
    tar.args(["--owner=7", "--group=9", "--numeric-owner", "--mode=4751", "-cf"]).arg(&layer);
    tar.arg("-C").arg(scratch).args(["--transform=s,^,a/b/,", "file"]);
    assert!(tar.status().unwrap().success());
    layer
}

fn finish(mut unpacker: Child) -> Output {
    // Closing it would end the unpacker.
    let input = unpacker.stdin.take();
    let output = unpacker.wait_with_output().unwrap();
    drop(input);
    output
}

#[test]
fn j2_unpacker_without_idmapped_mounts_has_the_other_walls() {
    if !is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let layer = layer_with_owners(scratch.path());
    let at = |name: &str| {
        let path = scratch.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    // overlayfs has no idmapped mounts. The mount disappears with the process.
    let (lower, upper, work) = (at("lower"), at("upper"), at("work"));
    fs::create_dir(lower.join("into")).unwrap();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    let merged = at("merged");
    let into = merged.join("into");
    let on_overlay = |required: &str| {
        let mut command = Command::new("unshare");
        let script = r#"mount -t overlay -o "$0" overlay "$1" && exec "$2" "$3""#;
        command.args(["--mount", "sh", "-c", script, &options]).arg(&merged);
        command.arg(env!("CARGO_BIN_EXE_msb-runner")).env("MSB_REQUIRE_JAIL", required);
        finish(request_unpack(&mut command, &layer, &into))
    };
    let refused = on_overlay("1");
    let text = String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success() && text.contains("idmapped mounts"), "{refused:?}");
    assert!(!upper.join("into/a").exists());
    let done = on_overlay("0");
    assert!(done.status.success(), "{done:?}");
    check_owners(&upper.join("into"));
}

#[test]
fn j2_jail_keeps_the_owners_of_an_image() {
    let scratch = tempfile::tempdir().unwrap();
    let layer = layer_with_owners(scratch.path());
    let into = scratch.path().join("into");
    let output = finish(unpack(&layer, &into));
    assert!(output.status.success(), "{output:?}");
    check_owners(&into);
}

fn check_owners(into: &Path) {
    use std::os::unix::fs::MetadataExt;
    let found = fs::symlink_metadata(into.join("a/b/file")).unwrap();
    assert_eq!((found.mode() & 0o7777, found.len()), (0o4751, 1));
    let parent = fs::symlink_metadata(into.join("a")).unwrap();
    if is_root() {
        assert_eq!((found.uid(), found.gid()), (7, 9));
        assert_eq!((parent.uid(), parent.gid()), (0, 0));
    }
}

fn check_from_outside(pid: u32) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let get = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap().trim().to_owned()
    };
    assert!(get("Uid").split_whitespace().all(|id| id != "0"), "{status}");
    assert_eq!((get("NoNewPrivs").as_str(), get("Seccomp").as_str()), ("1", "2"), "{status}");
    for name in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{name}")).ok();
        // An ordinary user cannot read the namespaces of processes with other ids.
        if is_root() {
            assert_ne!(of(&pid.to_string()), of("self"), "{name}");
        }
    }
}

fn check(text: &str, program: &str, descriptors: &str, capabilities: &str, held: &[&str]) {
    let prefix = format!("{program}:");
    let output: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(&prefix)).collect();
    let get = |key: &str| {
        let found = output.iter().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {key} in {output:?}"))
    };
    assert_eq!(get("pid"), "1");
    // An ordinary user without subordinate ids has one id, the image's owner.
    if is_root() || program.starts_with("qemu") {
        assert_ne!(get("uid"), "0");
    }
    assert_eq!(get("descriptors"), descriptors, "{program}");
    assert_eq!(get("caps"), capabilities, "{program}");
    assert_eq!(get("environment"), r#"["LD_LIBRARY_PATH"]"#);
    assert!(get("write").starts_with("Err") && get("socket").starts_with("Err"), "{output:?}");
    let files: Vec<&str> = output.iter().filter_map(|line| line.strip_prefix("file=")).collect();
    for file in held {
        assert!(files.contains(file), "{program} has no {file}: {files:?}");
    }
    let expected = |file: &&str| {
        let is_part = file.contains(".so") || file.ends_with(program) || file.starts_with("/dev/");
        let path = Path::new(file);
        let is_firmware = path.starts_with("/usr/share") && program.starts_with("qemu");
        is_part || is_firmware || held.contains(file)
    };
    let more: Vec<&&str> = files.iter().filter(|file| !expected(file)).collect();
    assert!(more.is_empty(), "{program} finds {more:?}");
}
