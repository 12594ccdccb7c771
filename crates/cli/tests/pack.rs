//! Images of directories: what is stored, and that the calling process leaves no trace in it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::pty::Pty;
use support::{Msb, Outcome, binary, image, outcome};

/// Returns a call of `msb` after a command of a shell, such as `umask 077`.
fn after(msb: &Msb, setting: &str, arguments: &[&str]) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("{setting}; exec \"$@\""), "bash"]).arg(binary());
    shell.args(arguments).stdin(Stdio::null());
    msb.set_environment(&mut shell);
    shell
}

/// Runs a script that must succeed, in a directory.
fn shell(directory: &Path, script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns the root filesystem of the only image.
fn only_rootfs(msb: &Msb) -> PathBuf {
    let roots: Vec<_> = fs::read_dir(msb.home.path().join("images/roots")).unwrap().collect();
    assert_eq!(roots.len(), 1);
    roots[0].as_ref().unwrap().path().join("rootfs")
}

/// Gives a directory a group and an access control list that new files in it inherit.
fn set_inherited(directory: &Path) {
    chown(directory, None, Some(4242)).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o2700)).unwrap();
    let entry = |(tag, id): (u16, u32)| {
        [&tag.to_le_bytes()[..], &7_u16.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    // Owner, user 4242, group, mask, others; each may do everything.
    let entries = [(1, u32::MAX), (2, 4242), (4, u32::MAX), (16, u32::MAX), (32, u32::MAX)];
    let list = [2_u32.to_le_bytes().to_vec(), entries.map(entry).concat()].concat();
    let none = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(directory, "system.posix_acl_default", &list, none).unwrap();
}

#[test]
fn g_unnamed_parents_do_not_depend_on_the_caller() {
    let msb = Msb::new();
    let archive = msb.home.path().join("a.tar");
    let script = format!(
        "find . ! -type d | tar -cf '{0}' --no-recursion -T - && mkdir -p '{1}/srv/deep' && \
         echo hi >'{1}/srv/deep/f' && tar -rf '{0}' -C '{1}' srv/deep/f",
        archive.display(),
        msb.home.path().display(),
    );
    shell(Path::new(image()), &script);
    let look = "cat /srv/deep/f; stat -c '%a %u %g' / /srv";
    let arguments = ["run", "--user", "1000", archive.to_str().unwrap(), "--", "sh", "-c", look];
    let mut call = after(&msb, "umask 077", &arguments);
    if is_root() {
        set_inherited(msb.home.path());
        call.gid(4242);
    }
    let found = outcome(call.output().unwrap());
    assert_eq!((found.out.as_str(), found.err.as_str()), ("hi\n755 0 0\n755 0 0\n", ""));
    for path in ["", "srv/deep", "srv/deep/f"] {
        for list in ["system.posix_acl_access", "system.posix_acl_default"] {
            let path = only_rootfs(&msb).join(path);
            let found = rustix::fs::getxattr(&path, list, &mut [0_u8; 256][..]);
            assert!(found.is_err(), "{path:?} has {list} of the state directory");
        }
    }
}

#[test]
fn g_a_limit_on_files_is_named_and_harms_no_later_call() {
    let msb = Msb::new();
    let limited = |setting: &str| -> Outcome {
        outcome(after(&msb, setting, &["run", image(), "--", "true"]).output().unwrap())
    };
    for setting in ["ulimit -f 0", "ulimit -f 1"] {
        let found = limited(setting);
        assert_eq!((found.code, found.err.matches('\n').count()), (125, 1), "{found:?}");
        let reason = "config.json: File too large (os error 27); \
                      raise the limit on the size of files (ulimit -f)";
        assert!(found.err.contains(reason), "{found:?}");
    }
    // Here the OCI runtime fails.
    assert_eq!(limited("ulimit -f 16").code, 125);
    msb.ok(&["run", image(), "--", "true"]);
}

/// Returns a line for each file of a tree: all that an image keeps of it.
fn describe(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let (mut found, mut first) = (BTreeMap::new(), HashMap::new());
    let mut pending = vec![root.to_path_buf()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let mut content = String::new();
        if meta.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            pending.sort_by(|one, other| other.cmp(one));
        } else if meta.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            content = target.as_os_str().as_bytes().escape_ascii().to_string();
        } else {
            let linked = first.entry((meta.dev(), meta.ino())).or_insert_with(|| name.clone());
            content = format!("{} ", linked.escape_ascii());
        }
        if meta.is_file() {
            let hash = Sha256::digest(fs::read(&path).unwrap());
            content += &format!("{} bytes {} blocks {hash:?}", meta.len(), meta.blocks());
        }
        let (owner, time) = ((meta.uid(), meta.gid()), (meta.mtime(), meta.mtime_nsec()));
        let (mode, device) = (meta.mode(), meta.rdev());
        let text = format!("{mode:o} {owner:?} {time:?} {device:x} {content} {:?}", xattrs(&path));
        found.insert(name, text);
    }
    found
}

/// Returns the attributes of a file that an image keeps.
fn xattrs(path: &Path) -> Vec<(String, String)> {
    let mut names = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    names.truncate(length);
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = String::from_utf8(name.to_vec()).unwrap();
        let mut value = vec![0; 65_536];
        let length = rustix::fs::lgetxattr(path, name.as_str(), value.as_mut_slice()).unwrap();
        found.push((name, value[..length].escape_ascii().to_string()));
    }
    found.sort();
    found
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

/// Sets the time of a file, of a link itself.
fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

/// Files whose content has holes.
fn make_sparse(at: &dyn Fn(&str) -> PathBuf) {
    let file = |name: &str, size: u64| {
        let file = fs::File::create(at(name)).unwrap();
        file.set_len(size).unwrap();
        file
    };
    file("hole", 16 << 20);
    file("hole-at-end", 16 << 20).write_all_at(&[b'a'; 5000], 0).unwrap();
    file("hole-at-start", (16 << 20) + 5000).write_all_at(&[b'b'; 5000], 16 << 20).unwrap();
    let many = file("holes", 10 << 20);
    for index in 0..100 {
        many.write_all_at(&[b'c'; 4096], (25 * index + 1) << 12).unwrap();
    }
    set_time(&at("holes"), 1_000_000_000, 5);
    file(&format!("{}/holes", "n".repeat(150)), 1 << 20).write_all_at(b"x", 700_000).unwrap();
}

/// Links, special files, and names.
fn make_odd(at: &dyn Fn(&str) -> PathBuf) {
    fs::write(at("one"), "linked").unwrap();
    fs::hard_link(at("one"), at("two")).unwrap();
    fs::hard_link(at("one"), at("deep/three")).unwrap();
    symlink("a//b/./", at("link")).unwrap();
    fs::hard_link(at("link"), at("same-link")).unwrap();
    symlink("/".to_owned() + &"x/".repeat(1500), at("long-link")).unwrap();
    fs::write(at("new\nline and  spaces"), "").unwrap();
    fs::write(at("").join(OsStr::from_bytes(b"not-utf8-\xff\xfe")), "name").unwrap();
    fs::write(at(&"n".repeat(255)), "long").unwrap();
    fs::write(at(&format!("deep{}/file", "/directory".repeat(100))), "long path").unwrap();
    let nodes = [
        ("fifo", rustix::fs::FileType::Fifo, (0, 0)),
        ("null", rustix::fs::FileType::CharacterDevice, (1, 3)),
        ("loop", rustix::fs::FileType::BlockDevice, (7, 300)),
    ];
    for (name, kind, (major, minor)) in nodes {
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(rustix::fs::CWD, at(name), kind, mode, device).unwrap();
    }
}

/// Modes, owners, times and attributes.
fn make_metadata(at: &dyn Fn(&str) -> PathBuf) {
    for (name, mode) in [("setuid", 0o4755), ("setgid", 0o2711), ("none", 0o000)] {
        fs::write(at(name), vec![b'x'; mode as usize]).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, mode) in [("sticky", 0o1777), ("group", 0o2775)] {
        fs::create_dir(at(name)).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (name, user, group) in [("user", 1000, 100), ("nobody", 65_534, 65_534)] {
        fs::write(at(name), "").unwrap();
        chown(at(name), Some(user), Some(group)).unwrap();
    }
    lchown(at("link"), Some(12), Some(13)).unwrap();
    set_xattr(&at("user"), "user.binary", b"a=b\0\xff 12 c=d");
    set_xattr(&at("user"), "user.empty", b"");
    set_xattr(&at("sticky"), "user.directory", &[b'v'; 3000]);
    for (name, seconds, nanos) in [
        ("user", -86_400, 0),
        ("nobody", 1_234_567_890, 123_456_789),
        ("link", 1_000_000_000, 999_999_999),
        ("fifo", 0, 1),
        ("group", 9_000_000_000, 7),
        ("", 1_500_000_000, 500_000_000),
    ] {
        set_time(&at(name), seconds, nanos);
    }
}

#[test]
fn g_packed_tree_is_the_same_when_it_is_unpacked() {
    if !is_root() {
        return;
    }
    let (one, other) = (Msb::new(), Msb::new());
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join("tree").join(name);
    fs::create_dir_all(at(&format!("deep{}", "/directory".repeat(100)))).unwrap();
    fs::create_dir(at(&"n".repeat(150))).unwrap();
    make_sparse(&at);
    make_odd(&at);
    make_metadata(&at);
    let tree = at("");
    one.ok(&["image", "build-from-dir", tree.to_str().unwrap(), "tree"]);

    // Our unpacker leaves out devices.
    let mut expected = describe(&tree);
    expected.retain(|name, _| name != b"null" && name != b"loop");
    assert_eq!(describe(&only_rootfs(&one)), expected, "built");
    let archive = one.output(&["image", "export", "tree", "-"]);
    assert!(archive.status.success() && archive.stderr.is_empty(), "{archive:?}");
    let imported = other.run_with_input(&["image", "import", "-", "tree"], &archive.stdout);
    assert!(imported.status.success(), "{imported:?}");
    assert_eq!(describe(&only_rootfs(&other)), expected, "imported");

    // What our unpacker maps to others, or has no place for.
    fs::write(at("big-ids"), "").unwrap();
    chown(at("big-ids"), Some(3_000_000), Some(4_000_000_000)).unwrap();
    set_time(&at("big-ids"), -2, 250_000_000);
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    set_xattr(&at("setuid"), "security.capability", &capability);
    set_time(&tree, 1, 0);
    one.ok(&["image", "build-from-dir", tree.to_str().unwrap(), "more"]);
    one.ok(&["image", "export", "more", scratch.path().join("more.tar").to_str().unwrap()]);
    let script = "mkdir out image; tar -xf more.tar -C image; layer=$(sed 's/.*\"Layers\":\\[\"//; \
                  s/\".*//' image/manifest.json); tar -C out --numeric-owner -p --xattrs \
                  --xattrs-include='*' -xf image/$layer";
    shell(scratch.path(), script);
    assert_eq!(describe(&scratch.path().join("out")), describe(&tree), "GNU tar");
}

/// Returns `msb` with an image `app`, and an archive of it.
fn exported() -> (Msb, PathBuf) {
    let msb = Msb::new();
    msb.ok(&["image", "build-from-dir", image(), "app"]);
    let archive = msb.home.path().join("app.tar");
    msb.ok(&["image", "export", "app", archive.to_str().unwrap()]);
    (msb, archive)
}

#[test]
fn g_archives_are_streams_of_pipes_and_fifos() {
    let (msb, archive) = exported();
    let bytes = fs::read(&archive).unwrap();
    let fifo = msb.home.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    let path = &fifo.to_str().unwrap().to_owned();
    assert_eq!(msb.output(&["image", "export", "app", "-"]).stdout, bytes);
    assert_eq!(msb.output(&["image", "export", "app", "/dev/stdout"]).stdout, bytes);
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo).unwrap()
    });
    msb.ok(&["image", "export", "app", path]);
    assert_eq!(reader.join().unwrap(), bytes);
    msb.ok(&["image", "rm", "app"]);
    for source in ["-", "/dev/stdin"] {
        let imported = msb.run_with_input(&["image", "import", source, "again"], &bytes);
        assert!(imported.status.success(), "{imported:?}");
        assert_eq!(msb.ok(&["run", "--pull", "never", "again", "--", "echo", "hi"]), "hi\n");
        msb.ok(&["image", "rm", "again"]);
    }
    let writer = std::thread::spawn(move || fs::write(fifo, bytes).unwrap());
    msb.ok(&["image", "import", path, "again"]);
    writer.join().unwrap();
    assert_eq!(fs::read_dir(msb.home.path().join("images/tmp")).unwrap().count(), 0);

    let broken = outcome(msb.run_with_input(&["image", "import", "-"], b"no archive"));
    assert!(broken.err.starts_with("msb: standard input: cannot read"), "{broken:?}");
    let empty = msb.fails(125, &["image", "import", "-"]);
    assert_eq!(empty, "standard input: the archive is empty");
    let json = msb.fails(125, &["image", "export", "--json", "again", "-"]);
    assert_eq!(json, "cannot print JSON of again: standard output is its archive");
    // A reader that has enough ends msb as it ends other programs.
    let mut child = msb.spawn(&["image", "export", "again", "-"]);
    drop(child.stdout.take());
    let found = support::wait(child);
    assert_eq!((found.code, found.err.as_str()), (128 + 13, ""));
}

#[test]
fn g_exported_file_is_complete_or_as_before() {
    let (msb, archive) = exported();
    let bytes = fs::read(&archive).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let names = || {
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        names.sort_by_key(fs::DirEntry::file_name);
        names.iter().map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
    };
    fs::write(at("old"), "before").unwrap();
    symlink("old", at("link")).unwrap();
    msb.ok(&["image", "export", "app", &at("link")]);
    assert!(fs::read(at("old")).unwrap() == bytes && Path::new(&at("link")).is_symlink());
    let call = after(&msb, "umask 077", &["image", "export", "app", &at("new")]).output().unwrap();
    assert!(call.status.success(), "{call:?}");
    assert_eq!(fs::metadata(at("new")).unwrap().mode() & 0o777, 0o600, "the caller's umask");
    fs::write(at("old"), "before").unwrap();
    let mut limited = after(&msb, "ulimit -f 100", &["image", "export", "app", &at("old")]);
    let found = outcome(limited.output().unwrap());
    assert_eq!((found.code, found.err.contains("(ulimit -f)")), (125, true), "{found:?}");
    assert_eq!(fs::read_to_string(at("old")).unwrap(), "before");
    assert_eq!(names(), ["link", "new", "old"]);
    for (path, reason) in [("", "Is a directory"), ("no/such", "No such file or directory")] {
        let error = msb.fails(125, &["image", "export", "app", &at(path)]);
        assert!(error.contains(reason) && error.contains(&at(path)), "{error}");
    }
    let error = msb.fails(125, &["image", "export", "app", "/dev/full"]);
    assert!(error.starts_with("cannot write /dev/full: No space left"), "{error}");
}

#[test]
fn g_archives_do_not_go_to_terminals() {
    let (msb, _) = exported();
    let reason = "cannot use a terminal for an archive; redirect it to a file";
    for arguments in [["image", "export", "app", "-"], ["image", "import", "-", "app"]] {
        let (code, out) = Pty::of(&mut msb.command(&arguments), true).wait_and_read();
        assert_eq!((code, out.contains(reason)), (125, true), "{out}");
    }
}

#[test]
fn g_a_packed_directory_reports_what_it_left_out() {
    let msb = Msb::new();
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("run")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.path().join("run/s")).unwrap();
    let path = tree.path().to_str().unwrap();
    let found = msb.run(&["image", "build-from-dir", path, "app"]);
    assert_eq!((found.code, found.err), (0, format!("msb: skipped {path}/run/s: a socket\n")));
    fs::write(tree.path().join(".wh.note"), "mine").unwrap();
    let error = msb.fails(125, &["image", "build-from-dir", path, "app"]);
    let reason = "in a layer, a name that begins with .wh. removes a file";
    assert_eq!(error, format!("cannot pack {path}/.wh.note: {reason}"));
    fs::remove_file(tree.path().join(".wh.note")).unwrap();
    if is_root() {
        let script = "mkdir proc mnt && mount -t proc proc proc && mount -t tmpfs tmpfs mnt && \
                      echo in >mnt/f && \"$@\"";
        let mut call = Command::new("unshare");
        call.args(["--mount", "--fork", "sh", "-c", script, "sh"]).arg(binary());
        call.args(["image", "build-from-dir", path, "app"]).current_dir(tree.path());
        msb.set_environment(&mut call);
        let found = outcome(call.output().unwrap());
        let skipped = format!("skipped {path}/proc: content of a file system of the kernel");
        assert!(found.code == 0 && found.err.contains(&skipped), "{found:?}");
        let root = msb.json(&["image", "inspect", "app"])[0]["rootfs"].clone();
        let root = Path::new(root.as_str().unwrap());
        assert_eq!(fs::read_to_string(root.join("mnt/f")).unwrap(), "in\n");
        assert_eq!(fs::read_dir(root.join("proc")).unwrap().count(), 0);
    }
}
