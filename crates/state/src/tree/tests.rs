use super::*;
use rustix::fs::mkdirat;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// A directory in memory where there is one: on a disk that is mounted with `discard`, the removal
/// of each directory waits for the device.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Nests directories below one, deeper than a path can say.
fn nest(top: &Path, depth: usize, name: &CStr) {
    let mut at = openat(CWD, top, DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..depth {
        mkdirat(&at, name, Mode::RWXU).unwrap();
        at = openat(&at, name, DIRECTORY, Mode::empty()).unwrap();
    }
    drop(openat(&at, c"file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap());
}

/// Runs a function on a thread with the smallest stack that the threads of Rust have.
fn with_small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(96 * 1024);
        thread.spawn_scoped(scope, work).unwrap().join().unwrap();
    });
}

#[test]
fn j6_nested_100000_deep_is_removed() {
    let scratch = scratch();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    nest(&tree, 100_000, c"d");
    with_small_stack(|| remove_tree(&tree).unwrap());
    assert!(!tree.exists());
}

#[test]
fn j6_nested_with_names_of_255_bytes_is_removed() {
    let scratch = scratch();
    let tree = scratch.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let name = std::ffi::CString::new(vec![b'n'; 255]).unwrap();
    nest(&tree, 20_000, &name);
    with_small_stack(|| remove_tree(&tree).unwrap());
    assert!(!tree.exists());
}

#[test]
fn j6_removal_keeps_two_descriptors_and_own_names() {
    let scratch = scratch();
    let tree = scratch.path().join("tree");
    // Names that the removal itself uses, taken by files, directories and full directories.
    fs::create_dir_all(tree.join("a/b/c/.raised-0/x/.raised-1/y")).unwrap();
    fs::create_dir_all(tree.join(".raised-0/.raised-1/.raised-2/z")).unwrap();
    fs::write(tree.join(".raised-1"), "x").unwrap();
    fs::create_dir(tree.join(".raised-2")).unwrap();
    for branch in 0..50 {
        fs::create_dir_all(tree.join(format!("wide/{branch}/{branch}/{branch}"))).unwrap();
    }
    remove_tree(&tree).unwrap();
    assert!(!tree.exists());
}

#[test]
fn j6_closed_directories_are_opened_up() {
    let scratch = scratch();
    let tree = scratch.path().join("tree");
    fs::create_dir_all(tree.join("closed/inner/below/leaf")).unwrap();
    fs::create_dir_all(tree.join("closed/other/below")).unwrap();
    for closed in ["closed/inner/below/leaf", "closed/inner/below", "closed/inner", "closed"] {
        fs::set_permissions(tree.join(closed), Permissions::from_mode(0o000)).unwrap();
    }
    fs::set_permissions(&tree, Permissions::from_mode(0o000)).unwrap();
    remove_tree(&tree).unwrap();
    assert!(fs::symlink_metadata(&tree).is_err());
}

#[test]
fn j6_links_are_not_followed() {
    let scratch = scratch();
    let (tree, other) = (scratch.path().join("tree"), scratch.path().join("other"));
    fs::create_dir_all(tree.join("below")).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("kept"), "x").unwrap();
    std::os::unix::fs::symlink(&other, tree.join("link")).unwrap();
    std::os::unix::fs::symlink(&other, tree.join("below/link")).unwrap();
    remove_tree(&tree).unwrap();
    remove_tree(&tree).unwrap();
    std::os::unix::fs::symlink(&other, &tree).unwrap();
    remove_tree(&tree).unwrap();
    assert!(other.join("kept").exists() && fs::symlink_metadata(&tree).is_err());
}

#[test]
fn j6_two_removals_of_a_tree_at_once_succeed() {
    let scratch = scratch();
    let tree = scratch.path().join("tree");
    for round in 0..5 {
        for branch in 0..40 {
            let at = tree.join(format!("{branch}/a/b/c/d"));
            fs::create_dir_all(&at).unwrap();
            fs::write(at.join("file"), "x").unwrap();
        }
        std::thread::scope(|scope| {
            let removals = [(); 3].map(|()| scope.spawn(|| remove_tree(&tree)));
            for removal in removals {
                removal.join().unwrap().unwrap();
            }
        });
        assert!(!tree.exists(), "round {round}");
    }
}

/// Runs itself again in a mount namespace, which needs root.
#[test]
fn j6_mount_points_are_not_entered() {
    const INNER: &str = "MSB_TEST_MOUNTED_TREE";
    if let Some(tree) = std::env::var_os(INNER) {
        let error = remove_tree(Path::new(&tree)).unwrap_err();
        let Error::Io { error: source, .. } = &error else { panic!("{error}") };
        let expected = [Errno::XDEV, Errno::BUSY].map(Errno::raw_os_error);
        assert!(source.raw_os_error().is_some_and(|code| expected.contains(&code)), "{error}");
        return;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can mount here");
        return;
    }
    let scratch = scratch();
    let (tree, other) = (scratch.path().join("tree"), scratch.path().join("other"));
    fs::create_dir_all(tree.join("a/mounted")).unwrap();
    fs::create_dir(&other).unwrap();
    fs::write(other.join("kept"), "x").unwrap();
    let script = r#"mount --bind "$1" "$2" && exec "$3" --exact tree::tests::j6_mount_points_are_not_entered"#;
    let status = Command::new("unshare")
        .args(["-m", "sh", "-ec", script, "sh"])
        .args([&other, &tree.join("a/mounted"), &std::env::current_exe().unwrap()])
        .env(INNER, &tree)
        .status()
        .unwrap();
    assert!(status.success());
    assert!(other.join("kept").exists());
}
