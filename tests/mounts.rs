//! Promises L1 to L4: mounts and volumes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper is a failed test")]

mod common;

use common::{block_on, builder, setup, shell};
use microsandbox::{ErrorKind, MountBuilder, Sandbox, Volume, VolumeKind};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory of the host that is removed at the end.
fn host() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = scratch.path().canonicalize().unwrap();
    (scratch, path)
}

fn mounted(name: &str, target: &str, f: impl FnOnce(MountBuilder) -> MountBuilder) -> Sandbox {
    block_on(builder(name).volume(target, f).create()).unwrap()
}

/// Runs a script and returns its exit status, with everything that it wrote.
fn status(sb: &Sandbox, script: &str) -> (i32, String) {
    let output = block_on(sb.shell(format!("{{ {script}\n}} 2>&1"))).unwrap();
    (output.status().code, output.stdout().unwrap())
}

/// Kills and removes a sandbox: also a stopped one uses its volumes.
fn end(sb: &Sandbox) {
    let _ = block_on(sb.kill());
    block_on(Sandbox::remove(sb.name())).unwrap();
}

fn refusal(result: microsandbox::MicrosandboxResult<Sandbox>, kind: ErrorKind) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    error.to_string()
}

#[test]
fn l1_bound_directory_is_shared_in_both_directions() {
    let (_scratch, path) = host();
    fs::write(path.join("from-host"), "host\n").unwrap();
    let sb = mounted("bind", "/data", |m| m.bind(&path));
    assert_eq!(shell(&sb, "cat /data/from-host"), "host\n");
    shell(&sb, "echo guest > /data/from-guest; mkdir /data/d; chmod 600 /data/from-host");
    assert_eq!(fs::read_to_string(path.join("from-guest")).unwrap(), "guest\n");
    fs::write(path.join("d/later"), "later\n").unwrap();
    assert_eq!(shell(&sb, "cat /data/d/later"), "later\n");
    // What the sandbox makes belongs to the caller.
    let (made, own) =
        (fs::metadata(path.join("from-guest")).unwrap(), fs::metadata(&path).unwrap());
    assert_eq!((made.uid(), made.gid()), (own.uid(), own.gid()));
    assert_eq!(
        shell(&sb, "stat -c %u:%g /data /data/from-host /data/from-guest"),
        "0:0\n0:0\n0:0\n"
    );
    assert_eq!(fs::metadata(path.join("from-host")).unwrap().mode() & 0o777, 0o600);
    block_on(sb.kill()).unwrap();
    assert!(path.join("from-guest").exists(), "the end of the sandbox removes nothing");
}

#[test]
fn l1_bound_file_is_that_file() {
    let (_scratch, path) = host();
    fs::write(path.join("file"), "host\n").unwrap();
    let file = path.join("file");
    let sb = mounted("bind-file", "/etc/deep/app.conf", |m| m.bind(&file));
    assert_eq!(shell(&sb, "cat /etc/deep/app.conf; ls /etc/deep"), "host\napp.conf\n");
    shell(&sb, "echo guest > /etc/deep/app.conf");
    assert_eq!(fs::read_to_string(&file).unwrap(), "guest\n");
    block_on(sb.kill()).unwrap();
}

#[test]
fn l1_read_only_mount_cannot_be_written_or_remounted() {
    let (_scratch, path) = host();
    fs::write(path.join("f"), "x").unwrap();
    fs::create_dir(path.join("d")).unwrap();
    let sb = block_on(
        builder("ro")
            .volume("/data", |m| m.bind(&path).readonly())
            .volume("/one", |m| m.bind(path.join("f")).readonly())
            .create(),
    )
    .unwrap();
    for attempt in [
        "echo y > /data/f",
        "echo y > /data/d/new",
        "rm /data/f",
        "mv /data/f /data/g",
        "chmod 777 /data/f",
        "echo y > /one",
        "mount -o remount,rw /data",
        "mount -o remount,bind,rw /data",
    ] {
        let (code, output) = status(&sb, attempt);
        assert_ne!(code, 0, "{attempt}: {output}");
    }
    let (_, output) = status(&sb, "touch /data/new");
    assert!(output.contains("Read-only file system"), "{output}");
    assert_eq!(fs::read_to_string(path.join("f")).unwrap(), "x");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 2);
    block_on(sb.kill()).unwrap();
}

#[test]
fn l1_noexec_mount_runs_no_program_others_do() {
    let (_scratch, path) = host();
    fs::copy(common::rootfs().join("bin/busybox"), path.join("busybox")).unwrap();
    fs::set_permissions(path.join("busybox"), Permissions::from_mode(0o755)).unwrap();
    let sb = block_on(
        builder("noexec")
            .volume("/no", |m| m.bind(&path).noexec())
            .volume("/yes", |m| m.bind(&path))
            .create(),
    )
    .unwrap();
    let (code, output) = status(&sb, "/no/busybox true");
    assert_eq!(code, 126, "{output}");
    assert!(output.contains("Permission denied"), "{output}");
    assert_eq!(status(&sb, "/yes/busybox true"), (0, String::new()));
    block_on(sb.kill()).unwrap();
}

#[test]
fn l1_no_mount_has_devices_or_set_user_id_programs() {
    let (_scratch, path) = host();
    fs::copy(common::rootfs().join("bin/busybox"), path.join("id")).unwrap();
    fs::set_permissions(path.join("id"), Permissions::from_mode(0o4755)).unwrap();
    if is_root() {
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let null = rustix::fs::makedev(1, 3);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, path.join("null"), kind, mode, null).unwrap();
    }
    let sb = mounted("nosuid", "/data", |m| m.bind(&path));
    let run = block_on(sb.exec_with("/data/id", |o| o.args(["-u"]).user("me"))).unwrap();
    assert_eq!(run.stdout().unwrap(), "1000\n");
    if is_root() {
        let (code, output) = status(&sb, "echo x > /data/null");
        assert_ne!(code, 0, "{output}");
    }
    block_on(sb.kill()).unwrap();
}

#[test]
fn l1_owner_maps_the_callers_files_to_a_user() {
    if !is_root() {
        return;
    }
    let (_scratch, path) = host();
    fs::write(path.join("f"), "x").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    let sb = mounted("owner", "/data", |m| m.bind(&path).owner(1000, 1000));
    assert_eq!(shell(&sb, "stat -c %u:%g /data /data/f"), "1000:1000\n1000:1000\n");
    let script = "echo y >> /data/f && echo z > /data/made && stat -c %u:%g /data/made";
    let run = block_on(sb.exec_with("sh", |o| o.args(["-c", script]).user("me"))).unwrap();
    assert_eq!(run.stdout().unwrap(), "1000:1000\n");
    let made = fs::metadata(path.join("made")).unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0));
    block_on(sb.kill()).unwrap();
}

#[test]
fn l1_source_without_idmapped_mounts_is_refused_by_name() {
    if !is_root() {
        return;
    }
    let creating = builder("unmappable").volume("/data", |m| m.bind("/sys/kernel").readonly());
    let text = refusal(block_on(creating.create()), ErrorKind::InvalidConfig);
    let start = "cannot mount /data: cannot map the owners of /sys/kernel: ";
    assert!(text.starts_with(start) && text.contains("idmapped mounts, such as ext4"), "{text}");
}

#[test]
fn l1_mounts_are_kept_at_stop_and_start() {
    let (_scratch, path) = host();
    let sb = block_on(
        builder("kept")
            .detached(true)
            .volume("/data", |m| m.bind(&path))
            .volume("/scratch", |m| m.tmpfs())
            .create(),
    )
    .unwrap();
    shell(&sb, "echo 1 > /data/n; echo 1 > /scratch/n");
    let info = block_on(sb.info()).unwrap();
    let targets: Vec<String> = info.mounts.iter().map(|mount| mount.target.to_string()).collect();
    assert_eq!(targets, ["/data", "/scratch"]);
    block_on(sb.stop()).unwrap();
    let sb = block_on(Sandbox::start("kept")).unwrap();
    assert_eq!(shell(&sb, "cat /data/n; ls /scratch"), "1\n");
    block_on(sb.stop()).unwrap();
    // A source that is gone is named, and nothing starts.
    fs::remove_dir_all(&path).unwrap();
    let text = refusal(block_on(Sandbox::start("kept")), ErrorKind::InvalidConfig);
    assert!(text.starts_with("cannot mount /data: ") && text.contains("No such file"), "{text}");
    block_on(Sandbox::remove("kept")).unwrap();
}

#[test]
fn l1_bad_mounts_are_refused_before_anything_starts() {
    setup();
    let (_scratch, path) = host();
    let home = PathBuf::from(std::env::var("MSB_HOME").unwrap());
    let fifo = path.join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    type Make<'a> = Box<dyn FnOnce(MountBuilder) -> MountBuilder + 'a>;
    let bind = |path: &Path| -> Make<'_> {
        let path = path.to_path_buf();
        Box::new(move |m| m.bind(path))
    };
    let none = path.join("none");
    let cases: [(&str, Make<'_>, &str); 8] = [
        ("data", bind(&path), "relative"),
        ("/a/../b", bind(&path), "'..'"),
        ("/proc/x", bind(&path), "/proc belongs to the sandbox's kernel"),
        ("/data", bind(&none), "none: No such file or directory"),
        ("/data", bind(&fifo), "fifo is not a directory or a regular file"),
        ("/data", bind(&home), "is in the state directory"),
        ("/data", Box::new(|m| m.tmpfs().size(1 << 40)), "more than the memory"),
        ("/data", Box::new(|m| m.named("../x")), "the name of a volume starts with '.'"),
    ];
    for (target, make, reason) in cases {
        let name = "bad-mount";
        let text = refusal(
            block_on(builder(name).volume(target, make).create()),
            ErrorKind::InvalidConfig,
        );
        assert!(text.starts_with(&format!("cannot mount {target}: ")), "{text}");
        assert!(text.contains(reason) && !text.contains('\n'), "{text}");
        assert!(!home.join("sandboxes").join(name).exists(), "{reason}");
    }
    let twice = builder("bad-mount").volume("/d", |m| m.tmpfs()).volume("/d/", |m| m.tmpfs());
    let text = refusal(block_on(twice.create()), ErrorKind::InvalidConfig);
    assert!(text.contains("another mount has this path"), "{text}");
}

#[test]
fn l2_volume_outlives_sandboxes_and_is_shared() {
    setup();
    let name = "shared-volume";
    let _ = block_on(Volume::remove(name));
    let missing = block_on(builder("no-volume").volume("/v", |m| m.named("nowhere")).create());
    let text = refusal(missing, ErrorKind::VolumeNotFound);
    assert_eq!(text, "volume nowhere does not exist; create it first");
    let made = block_on(Volume::builder(name).quota(64).label("team", "a").create()).unwrap();
    assert_eq!((made.name(), made.kind()), (name, VolumeKind::Directory));
    let error = block_on(Volume::builder(name).create()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::VolumeAlreadyExists);

    let one = mounted("vol-one", "/v", |m| m.named(name));
    let other = mounted("vol-other", "/w", |m| m.named(name).readonly());
    shell(&one, "echo 1 > /v/f");
    assert_eq!(shell(&other, "cat /w/f"), "1\n");
    let error = block_on(Volume::remove(name)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::VolumeInUse);
    let text = error.to_string();
    assert!(text.contains("sandboxes vol-one, vol-other"), "{text}");
    end(&one);
    block_on(other.kill()).unwrap();
    let error = block_on(Volume::remove(name)).unwrap_err();
    assert!(error.to_string().contains("in use by sandbox vol-other;"), "{error}");
    end(&other);

    let again = mounted("vol-again", "/v", |m| m.named(name));
    assert_eq!(shell(&again, "cat /v/f"), "1\n");
    end(&again);
    let handle = block_on(Volume::get(name)).unwrap();
    assert!(handle.used_bytes() > 0 && handle.sandboxes().is_empty());
    assert_eq!((handle.quota_mib(), handle.labels()[0].1.as_str()), (Some(64), "a"));
    let listed = block_on(Volume::list()).unwrap();
    assert!(listed.iter().any(|volume| volume.name() == name));
    block_on(handle.remove()).unwrap();
    assert_eq!(block_on(Volume::get(name)).unwrap_err().kind(), ErrorKind::VolumeNotFound);
}

#[test]
fn l2_two_sandboxes_write_one_volume_at_once() {
    setup();
    let name = "written-twice";
    let _ = block_on(Volume::remove(name));
    let boxes: Vec<Sandbox> = ["tw-a", "tw-b"]
        .map(|sb| mounted(sb, "/v", |m| m.named_with(name, |v| v.ensure_exists())))
        .into();
    let script = "for n in $(seq 200); do echo $HOSTNAME$n >> /v/log; echo $n > /v/$1-$n; done";
    let runs: Vec<_> = ["a", "b"]
        .iter()
        .zip(&boxes)
        .map(|(id, sb)| sb.exec_with("sh", |o| o.args(["-c", script, "sh", id])))
        .collect();
    for run in runs {
        assert!(block_on(run).unwrap().status().success);
    }
    assert_eq!(shell(&boxes[0], "wc -l < /v/log; ls /v | wc -l"), "400\n401\n");
    boxes.iter().for_each(end);
    block_on(Volume::remove(name)).unwrap();
}

#[test]
fn l3_tmpfs_has_its_size_and_begins_empty() {
    let sb = block_on(
        builder("tmpfs")
            .volume("/scratch", |m| m.tmpfs().size(8))
            .volume("/default", |m| m.tmpfs())
            .create(),
    )
    .unwrap();
    assert_eq!(shell(&sb, "ls -A /scratch; stat -c %a /scratch"), "1777\n");
    let (code, output) = status(&sb, "dd if=/dev/zero of=/scratch/big bs=1M count=9");
    assert!(code != 0 && output.contains("No space left"), "{output}");
    shell(&sb, "rm /scratch/big; dd if=/dev/zero of=/scratch/fits bs=1M count=7");
    let run = block_on(sb.exec_with("sh", |o| o.args(["-c", "echo 1 > /default/f"]).user("me")));
    assert!(run.unwrap().status().success);
    block_on(sb.kill()).unwrap();
}

#[test]
fn l3_disk_has_its_size_and_is_kept() {
    if !is_root() {
        return;
    }
    let sb = block_on(
        builder("disk").detached(true).volume("/disk", |m| m.own_disk().size(32)).create(),
    )
    .unwrap();
    assert_eq!(shell(&sb, "ls -A /disk; stat -c %u:%g /disk"), "0:0\n");
    let (code, output) = status(&sb, "dd if=/dev/zero of=/disk/big bs=1M count=40");
    assert!(code != 0 && output.contains("No space left"), "{output}");
    shell(&sb, "rm /disk/big; echo kept > /disk/f");
    block_on(sb.stop()).unwrap();
    let sb = block_on(Sandbox::start("disk")).unwrap();
    assert_eq!(shell(&sb, "cat /disk/f"), "kept\n");
    block_on(sb.stop()).unwrap();
    block_on(Sandbox::remove("disk")).unwrap();
}

#[test]
fn l3_disk_volume_is_for_one_sandbox_after_the_other() {
    if !is_root() {
        return;
    }
    setup();
    let _ = block_on(Volume::remove("disk-volume"));
    let made = block_on(Volume::builder("disk-volume").disk().size(32).create()).unwrap();
    assert_eq!(made.capacity_bytes(), Some(32 << 20));
    for turn in ["", "0\n", "0\n1\n"] {
        let name = format!("disk-vol-{}", turn.len());
        let sb = mounted(&name, "/d", |m| m.named("disk-volume"));
        let count = turn.lines().count();
        assert_eq!(shell(&sb, &format!("cat /d/f 2>/dev/null; echo {count} >> /d/f")), turn);
        block_on(sb.stop()).unwrap();
        end(&sb);
    }
    block_on(Volume::remove("disk-volume")).unwrap();
}

#[test]
fn l4_parents_come_before_children_whatever_the_order() {
    let (_scratch, path) = host();
    fs::create_dir_all(path.join("a/cache")).unwrap();
    fs::write(path.join("a/f"), "a\n").unwrap();
    fs::write(path.join("a/cache/hidden"), "").unwrap();
    fs::create_dir(path.join("b")).unwrap();
    fs::write(path.join("b/f"), "b\n").unwrap();
    let sb = block_on(
        builder("order")
            .volume("/data/cache/deep", |m| m.bind(path.join("b")).readonly())
            .volume("/data/cache", |m| m.tmpfs())
            .volume("/data", |m| m.bind(path.join("a")))
            .create(),
    )
    .unwrap();
    let seen = shell(&sb, "cat /data/f; ls /data/cache; cat /data/cache/deep/f");
    assert_eq!(seen, "a\ndeep\nb\n");
    shell(&sb, "touch /data/cache/tmp");
    assert!(!path.join("a/cache/tmp").exists());
    block_on(sb.kill()).unwrap();
}

/// Returns an image like the usual one, with a symbolic link at a path.
fn image_with_link(path: &Path, at: &str, to: &Path) -> PathBuf {
    let image = path.join("image");
    let mut copy = std::process::Command::new("cp");
    assert!(copy.arg("-a").arg(common::rootfs()).arg(&image).status().unwrap().success());
    let link = image.join(at);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(to, link).unwrap();
    image
}

#[test]
fn l4_links_of_an_image_lead_no_mount_to_the_host() {
    let (_scratch, path) = host();
    let (outside, source) = (path.join("outside"), path.join("source"));
    for folder in [&outside, &source] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(source.join("f"), "source\n").unwrap();
    for (number, at) in ["data", "data/sub", "data/sub/deep"].into_iter().enumerate() {
        let top = path.join(number.to_string());
        fs::create_dir(&top).unwrap();
        let image = image_with_link(&top, at, &outside);
        let name = format!("link-{number}");
        let result = block_on(
            builder(&name).image(&image).volume("/data/sub/deep", |m| m.bind(&source)).create(),
        );
        let text = refusal(result, ErrorKind::InvalidConfig);
        let link = format!("/{at} is a symbolic link that leads nowhere");
        assert!(text.contains("cannot mount /data/sub/deep: ") && text.contains(&link), "{text}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{at}");
    }
    // A link inside of the image is followed.
    fs::create_dir(path.join("inside")).unwrap();
    let image = image_with_link(&path.join("inside"), "var/run", Path::new("/tmp"));
    let sb = block_on(
        builder("link-inside").image(&image).volume("/var/run/x", |m| m.bind(&source)).create(),
    )
    .unwrap();
    assert_eq!(shell(&sb, "cat /tmp/x/f"), "source\n");
    block_on(sb.kill()).unwrap();
}

#[test]
fn l4_links_left_by_the_guest_lead_no_mount_elsewhere() {
    let (_scratch, path) = host();
    let (outside, source) = (path.join("outside"), path.join("source"));
    for folder in [&outside, &source] {
        fs::create_dir(folder).unwrap();
    }
    for (to, reason) in [
        (outside.to_str().unwrap(), "is a symbolic link that leads nowhere"),
        ("/", "a symbolic link leads to /"),
        ("/proc", "a symbolic link leads to /proc"),
        ("../../../../dev", "a symbolic link leads to /dev"),
        (".msb", "a symbolic link leads to /.msb"),
    ] {
        let creating = builder("guest-link").detached(true);
        let sb = block_on(creating.volume("/sub/data", |m| m.bind(&source)).create()).unwrap();
        block_on(sb.stop()).unwrap();
        // As root inside could, if nothing were mounted there: by way of the parent.
        let sb = block_on(Sandbox::start("guest-link")).unwrap();
        let to = if to == ".msb" { "/.msb" } else { to };
        shell(&sb, &format!("mv /sub /old && mkdir /sub && ln -s {to} /sub/data"));
        block_on(sb.stop()).unwrap();
        let text = refusal(block_on(Sandbox::start("guest-link")), ErrorKind::InvalidConfig);
        assert!(text.contains(reason), "{text}");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{to}");
        assert_eq!(fs::read_dir(&source).unwrap().count(), 0, "{to}");
        block_on(Sandbox::remove("guest-link")).unwrap();
    }
}

#[test]
fn l4_mount_point_of_the_wrong_kind_is_refused_by_name() {
    let (_scratch, path) = host();
    fs::write(path.join("f"), "").unwrap();
    let directory = builder("wrong-kind").volume("/etc/passwd", |m| m.bind(&path));
    let text = refusal(block_on(directory.create()), ErrorKind::InvalidConfig);
    assert!(text.contains("/etc/passwd is a regular file, not a directory"), "{text}");
    let file = builder("wrong-kind").volume("/etc", |m| m.bind(path.join("f")));
    let text = refusal(block_on(file.create()), ErrorKind::InvalidConfig);
    assert!(text.contains("/etc is a directory, not a file"), "{text}");
}

#[test]
fn l4_links_in_a_source_lead_nowhere_but_into_the_sandbox() {
    let (_scratch, path) = host();
    let source = path.join("source");
    fs::create_dir(&source).unwrap();
    fs::write(path.join("secret"), "secret\n").unwrap();
    symlink(path.join("secret"), source.join("absolute")).unwrap();
    symlink("../secret", source.join("relative")).unwrap();
    let sb = mounted("source-links", "/data", |m| m.bind(&source));
    for link in ["absolute", "relative"] {
        let (code, output) = status(&sb, &format!("cat /data/{link}"));
        assert!(code != 0 && !output.contains("secret\n"), "{output}");
    }
    block_on(sb.kill()).unwrap();
}
