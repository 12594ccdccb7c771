//! Images of directories: what is stored, and that the calling process leaves no trace in it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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
    std::os::unix::fs::chown(directory, None, Some(4242)).unwrap();
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
