//! Promises E: why a command did not start.

mod common;

use common::{block_on, sandbox, shared};
use microsandbox::{
    Error, ExecFailed, ExecFailureKind, ExecOptionsBuilder, ExecStage, RlimitResource,
};

#[allow(clippy::panic, reason = "a failed helper is a failed test")]
fn failed(
    cmd: &str,
    tty: bool,
    f: impl Fn(ExecOptionsBuilder) -> ExecOptionsBuilder,
) -> ExecFailed {
    let result = block_on(shared().exec_with(cmd, |o| f(o.tty(tty))));
    let Err(Error::ExecFailed(failed)) = result else { panic!("{cmd}: {result:?}") };
    assert!(!failed.message.is_empty() && !failed.message.contains('\n'), "{failed:?}");
    failed
}

fn same(o: ExecOptionsBuilder) -> ExecOptionsBuilder {
    o
}

#[test]
fn e_each_start_failure_has_its_kind() {
    use ExecFailureKind::{NotExecutable, NotFound, PermissionDenied};
    let table = [
        ("nonexistent", NotFound, "ENOENT"),
        ("/bin/nonexistent", NotFound, "ENOENT"),
        ("not-permitted", PermissionDenied, "EACCES"),
        ("/bin/not-permitted", PermissionDenied, "EACCES"),
        ("/bin/not-a-program", NotExecutable, "ENOEXEC"),
        ("/bin/no-interpreter", NotExecutable, "ENOENT"),
    ];
    for tty in [false, true] {
        for (cmd, kind, errno_name) in table {
            let failed = failed(cmd, tty, same);
            assert_eq!((failed.kind, failed.stage), (kind, ExecStage::Execve), "{cmd} {failed:?}");
            assert_eq!(failed.errno_name, errno_name, "{cmd}");
            assert!(!failed.path.is_empty(), "{cmd}");
        }
    }
}

#[test]
fn d5_e_failed_start_is_not_listed() {
    let sb = shared();
    let mut handle = block_on(sb.exec_stream("nonexistent", [""; 0])).unwrap();
    assert!(matches!(block_on(handle.wait()), Err(Error::ExecFailed(_))));
    let sessions = block_on(sb.sessions()).unwrap();
    assert!(sessions.iter().all(|session| session.id != handle.id()), "{sessions:?}");
}

#[test]
fn e_inaccessible_directory_is_bad_cwd() {
    for (cwd, errno_name) in [("/nonexistent", "ENOENT"), ("/etc/passwd", "ENOTDIR")] {
        let failed = failed("true", false, |o| o.cwd(cwd));
        assert_eq!((failed.kind, failed.stage), (ExecFailureKind::BadCwd, ExecStage::Chdir));
        assert_eq!(
            (failed.errno_name.as_str(), failed.path.as_slice()),
            (errno_name, cwd.as_bytes())
        );
    }
}

#[test]
fn e_unknown_user_is_a_user_setup_failure() {
    for user in ["nobody-knows", "me:no-such-group"] {
        let failed = failed("true", false, |o| o.user(user));
        assert_eq!(failed.kind, ExecFailureKind::UserSetupFailed);
        assert_eq!(failed.stage, ExecStage::ResolveUser);
    }
}

#[test]
fn e_arguments_beyond_the_kernels_limit_are_bad_args() {
    for size in [200 << 10, 9 << 20] {
        let failed = failed("true", false, |o| o.arg("x".repeat(size)));
        assert_eq!((failed.kind, failed.errno_name.as_str()), (ExecFailureKind::BadArgs, "E2BIG"));
    }
}

#[test]
fn e_limit_above_the_hard_one_is_a_resource_limit() {
    let failed = failed("true", false, |o| o.rlimit(RlimitResource::Nofile, u64::MAX));
    assert_eq!((failed.kind, failed.stage), (ExecFailureKind::ResourceLimit, ExecStage::Rlimit));
    assert_eq!(failed.errno_name, "EPERM");
}

#[test]
fn j5_removed_devices_are_tolerated() {
    let sandbox = sandbox("failures-devices");
    // A driver may have mounted them, and then they cannot be removed.
    let script = "cd /dev && { rm -f null ptmx; [ -e null ] || mkfifo null; true; }";
    assert!(block_on(sandbox.shell(script)).unwrap().status().success);
    let output = block_on(sandbox.exec("echo", ["hello"])).unwrap();
    assert_eq!(output.stdout_bytes().as_ref(), b"hello\n");
    let output = block_on(sandbox.exec_with("echo", |o| o.arg("hello").tty(true))).unwrap();
    assert_eq!(output.stdout_bytes().as_ref(), b"hello\r\n");
    block_on(sandbox.kill()).unwrap();
}

#[test]
fn j5_removed_root_is_a_clear_error_about_the_program() {
    let sandbox = sandbox("failures-removed");
    // What is mounted, and the program that removes, cannot all be removed.
    block_on(sandbox.shell("exec rm -rf /* 2>/dev/null")).unwrap();
    for tty in [false, true] {
        let run = sandbox.exec_with("echo", |o| o.arg("hello").tty(tty));
        let Error::ExecFailed(failed) = block_on(run).unwrap_err() else { panic!() };
        assert_eq!((failed.kind, failed.stage), (ExecFailureKind::NotFound, ExecStage::Execve));
        let text = failed.to_string();
        assert!(text.starts_with("cannot run echo: "), "{text}");
    }
    block_on(sandbox.kill()).unwrap();
}
