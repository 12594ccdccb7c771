//! Promises K: files.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed helper is a failed test")]

mod common;

use common::{block_on, poll_once, shared, shell};
use microsandbox::{
    Error, ErrorKind, FsEntryKind, FsOpenOptions, FsSetAttrs, MicrosandboxResult, Sandbox,
};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Makes a new directory in the sandbox.
fn directory(sb: &Sandbox) -> String {
    shell(sb, "d=$(mktemp -d); chmod 755 $d; echo $d").trim().to_owned()
}

fn failure<T: std::fmt::Debug>(result: MicrosandboxResult<T>) -> (ErrorKind, Option<i32>, String) {
    let error = result.unwrap_err();
    let Error::Fs(failed) = &error else { panic!("{error:?}") };
    let path = String::from_utf8_lossy(&failed.path).into_owned();
    assert!(error.to_string().contains(&path), "{error}");
    (error.kind(), error.os_error(), path)
}

#[test]
fn k1_content_and_names_of_any_bytes_survive() {
    let sb = shared();
    let (fs, root) = (sb.fs(), directory(&sb));
    let data: Vec<u8> = (0..=255).cycle().take(3_000_001).collect();
    for name in [&b"plain"[..], b"a b", b"new\nline", b"\xff\xfe", b"-x", b"...", b"'\"$;*"] {
        let path = [root.as_bytes(), b"/", name].concat();
        let path = OsStr::from_bytes(&path);
        block_on(fs.write(path, &data)).unwrap();
        assert!(block_on(fs.read(path)).unwrap() == data, "{name:?}");
        assert!(block_on(fs.exists(path)).unwrap());
    }
    assert_eq!(shell(&sb, &format!("wc -c < {root}/plain")).trim(), "3000001");
    let listed = block_on(fs.list(&root)).unwrap();
    assert_eq!(listed.len(), 7);
    assert!(listed.iter().any(|entry| entry.name.as_bytes() == b"\xff\xfe"));
    assert!(listed.iter().all(|entry| entry.kind == FsEntryKind::File && entry.size == 3_000_001));
    block_on(fs.write(format!("{root}/empty"), "")).unwrap();
    assert_eq!(block_on(fs.read_to_string(format!("{root}/empty"))).unwrap(), "");
}

#[test]
fn k1_directories_links_and_attributes() {
    let sb = shared();
    let (fs, root) = (sb.fs(), directory(&sb));
    let at = |name: &str| format!("{root}/{name}");
    block_on(fs.mkdir(at("a/b/c"))).unwrap();
    block_on(fs.mkdir(at("a/b/c"))).unwrap();
    block_on(fs.write_with(at("f"), "x", |w| w.mode(0o600))).unwrap();
    block_on(fs.symlink("f", at("link"))).unwrap();
    assert_eq!(block_on(fs.read_link(at("link"))).unwrap(), "f");
    assert_eq!(block_on(fs.real_path(at("a/../link"))).unwrap(), at("f"));
    assert_eq!(block_on(fs.stat(at("link"))).unwrap().kind, FsEntryKind::File);
    let link = block_on(fs.stat_with_follow(at("link"), false)).unwrap();
    assert_eq!(link.kind, FsEntryKind::Symlink);
    let time = UNIX_EPOCH + Duration::new(1_000_000_000, 7);
    let attrs =
        FsSetAttrs { mode: Some(0o640), modified: Some(time), size: Some(5), ..Default::default() };
    block_on(fs.set_stat(at("f"), true, attrs)).unwrap();
    let found = block_on(fs.stat(at("f"))).unwrap();
    assert_eq!((found.mode, found.modified, found.size), (0o640, Some(time), 5));
    block_on(fs.rename(at("f"), at("g"))).unwrap();
    assert!(!block_on(fs.exists(at("link"))).unwrap(), "dangling");
    assert_eq!(failure(block_on(fs.remove_empty_dir(at("a")))).0, ErrorKind::Filesystem);
    block_on(fs.remove_dir(at("a"))).unwrap();
    block_on(fs.remove(at("link"))).unwrap();
    block_on(fs.copy(at("g"), at("h"))).unwrap();
    let names: Vec<_> = block_on(fs.list(&root)).unwrap();
    let names: Vec<_> = names.iter().map(|entry| entry.path.clone()).collect();
    assert_eq!(names, [at("g"), at("h")]);
}

#[test]
fn k1_failures_have_kind_errno_and_path() {
    let sb = shared();
    let (fs, root) = (sb.fs(), directory(&sb));
    let missing = format!("{root}/missing");
    let not_found = (ErrorKind::PathNotFound, Some(2), missing.clone());
    assert_eq!(failure(block_on(fs.read(&missing))), not_found);
    assert_eq!(failure(block_on(fs.stat(&missing))), not_found);
    assert_eq!(failure(block_on(fs.list(&missing))), not_found);
    assert_eq!(failure(block_on(fs.remove(&missing))), not_found);
    assert_eq!(failure(block_on(fs.read(&root))).1, Some(21), "EISDIR");
    assert_eq!(failure(block_on(fs.mkdir("/proc/x"))).0, ErrorKind::PathNotFound);
    block_on(fs.write_with(format!("{root}/f"), "x", |w| w.mode(0o600))).unwrap();
    let me = fs.clone().as_user("me");
    let denied = (ErrorKind::PermissionDenied, Some(13), format!("{root}/f"));
    assert_eq!(failure(block_on(me.read(format!("{root}/f")))), denied);
    for bad in ["", "relative", "/a\0b"] {
        assert_eq!(block_on(fs.read(bad)).unwrap_err().kind(), ErrorKind::InvalidArgument);
    }
}

#[test]
fn k1_handles_read_write_and_close() {
    let sb = shared();
    let (fs, root) = (sb.fs(), directory(&sb));
    let options = FsOpenOptions { read: true, write: true, create: true, ..Default::default() };
    let handle = block_on(fs.open_file(format!("{root}/f"), options)).unwrap();
    block_on(fs.write_handle(handle, 3, "abc")).unwrap();
    assert_eq!(block_on(fs.read_handle(handle, 0, None)).unwrap(), b"\0\0\0abc"[..]);
    assert_eq!(block_on(fs.read_handle(handle, 4, Some(1))).unwrap(), b"b"[..]);
    assert_eq!(block_on(fs.fstat(handle)).unwrap().size, 6);
    block_on(fs.close_handle(handle)).unwrap();
    assert_eq!(block_on(fs.fstat(handle)).unwrap_err().kind(), ErrorKind::Closed);
    let handle = block_on(fs.open_dir(&root)).unwrap();
    assert_eq!(block_on(fs.read_dir(handle, Some(1))).unwrap().len(), 1);
    assert_eq!(block_on(fs.read_dir(handle, Some(1))).unwrap().len(), 0);
    block_on(fs.close_handle(handle)).unwrap();
}

#[test]
fn k2_a_write_that_is_not_closed_changes_nothing() {
    let sb = shared();
    let (fs, root) = (sb.fs(), directory(&sb));
    let path = format!("{root}/f");
    block_on(fs.write(&path, "old")).unwrap();
    let sink = block_on(fs.write_stream(&path)).unwrap();
    block_on(sink.write(vec![b'n'; 3 << 20])).unwrap();
    assert_eq!(block_on(fs.read(&path)).unwrap(), b"old"[..]);
    drop(sink);
    common::wait_until(&sb, &format!("[ $(ls -A {root} | wc -l) = 1 ]"));
    assert_eq!(block_on(fs.read(&path)).unwrap(), b"old"[..]);
    let sink = block_on(fs.write_stream(&path)).unwrap();
    block_on(sink.write("new")).unwrap();
    block_on(sink.close()).unwrap();
    assert_eq!(shell(&sb, &format!("cat {path}")), "new");
    block_on(fs.write_with(&path, "er", |w| w.append())).unwrap();
    assert_eq!(shell(&sb, &format!("cat {path}")), "newer");
}

#[test]
fn k3_a_stream_that_is_not_read_blocks_and_loses_nothing() {
    const SIZE: usize = 8 << 20;
    let sb = shared();
    let (fs, root) = (sb.fs(), directory(&sb));
    let path = format!("{root}/f");
    let data: Vec<u8> = (0..=250).cycle().take(SIZE).collect();
    let sink = block_on(fs.write_stream(&path)).unwrap();
    let mut write = Box::pin(sink.write(&data));
    let _ = poll_once(write.as_mut());
    block_on(write).unwrap();
    block_on(sink.close()).unwrap();
    let stream = block_on(fs.read_stream(&path)).unwrap();
    assert_eq!(stream.size(), Some(SIZE as u64));
    // Others are served while nobody reads this one.
    assert_eq!(shell(&sb, "echo other"), "other\n");
    assert!(block_on(stream.collect()).unwrap() == data);
    drop(block_on(fs.read_stream(&path)).unwrap());
    assert!(block_on(fs.read(&path)).unwrap() == data);
}

/// Makes a tree of every kind of file that is copied.
fn make_tree(root: &Path, files: usize) {
    fs::create_dir_all(root.join("d/e")).unwrap();
    for number in 0..files {
        let folder = root.join(format!("d/{}", number % 100));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(number.to_string()), format!("content {number}")).unwrap();
    }
    fs::write(root.join("script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(root.join("script"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::hard_link(root.join("script"), root.join("hard")).unwrap();
    symlink("script", root.join("link")).unwrap();
    symlink("/nonexistent", root.join("dangling")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"middle", 32 << 20).unwrap();
    fs::set_permissions(root.join("d/e"), fs::Permissions::from_mode(0o500)).unwrap();
    let time = std::time::SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    sparse.set_modified(time).unwrap();
}

/// Checks that two trees are the same.
fn assert_same(one: &Path, other: &Path) {
    let names = |path: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let (a, b) = (one.symlink_metadata().unwrap(), other.symlink_metadata().unwrap());
    assert_eq!(a.mode(), b.mode(), "{}", one.display());
    if a.is_symlink() {
        assert_eq!(fs::read_link(one).unwrap(), fs::read_link(other).unwrap());
        return;
    }
    assert_eq!((a.mtime(), a.mtime_nsec()), (b.mtime(), b.mtime_nsec()), "{}", one.display());
    if a.is_dir() {
        assert_eq!(names(one), names(other));
        names(one).iter().for_each(|name| assert_same(&one.join(name), &other.join(name)));
        return;
    }
    assert_eq!((a.len(), a.nlink()), (b.len(), b.nlink()), "{}", one.display());
    assert!(fs::read(one).unwrap() == fs::read(other).unwrap(), "{}", one.display());
}

#[test]
fn k4_a_tree_survives_the_way_there_and_back() {
    let is_long = std::env::var_os("MSB_TEST_LONG").is_some();
    let sb = shared();
    let (files, root) = (sb.fs(), directory(&sb));
    let scratch = tempfile::tempdir().unwrap();
    let (from, back) = (scratch.path().join("from"), scratch.path().join("back"));
    make_tree(&from, if is_long { 100_000 } else { 500 });
    if is_long {
        fs::write(from.join("large"), vec![7; 1 << 30]).unwrap();
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        from.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let guest = format!("{root}/tree");
    let copied = block_on(files.copy_from_host_with(&from, &guest, |o| o)).unwrap();
    assert_eq!(copied.skipped_total, 1, "{copied:?}");
    assert_eq!(copied.skipped[0].0, from.join("fifo"));
    fs::remove_file(from.join("fifo")).unwrap();
    block_on(files.copy_to_host(&guest, &back)).unwrap();
    // Its time changed with the FIFO.
    let time = fs::metadata(&back).unwrap().modified().unwrap();
    fs::File::open(&from).unwrap().set_modified(time).unwrap();
    assert_same(&from, &back);
    let sparse = fs::metadata(back.join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 16 << 20, "{} blocks", sparse.blocks());
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2, "nothing else is left");
    fs::set_permissions(from.join("d/e"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn k4_files_replace_files_and_directories_merge() {
    let sb = shared();
    let (files, root) = (sb.fs(), directory(&sb));
    let scratch = tempfile::tempdir().unwrap();
    let host = |name: &str| scratch.path().join(name);
    shell(&sb, &format!("cd {root}; mkdir t; echo new > t/f; echo g > t/g; echo x > file"));
    fs::create_dir_all(host("t")).unwrap();
    fs::write(host("t/f"), "old").unwrap();
    fs::write(host("t/kept"), "kept").unwrap();
    block_on(files.copy_to_host(format!("{root}/t"), host("t"))).unwrap();
    assert_eq!(fs::read_to_string(host("t/f")).unwrap(), "new\n");
    assert_eq!(fs::read_to_string(host("t/kept")).unwrap(), "kept");
    block_on(files.copy_to_host(format!("{root}/file"), host("t/f"))).unwrap();
    assert_eq!(fs::read_to_string(host("t/f")).unwrap(), "x\n");
    let error = block_on(files.copy_to_host(format!("{root}/file"), host("t"))).unwrap_err();
    assert_eq!(error.os_error(), Some(21), "{error}");
    let error = block_on(files.copy_to_host(format!("{root}/t"), host("t/f"))).unwrap_err();
    assert_eq!(error.os_error(), Some(20), "{error}");
    let error = block_on(files.copy_to_host(format!("{root}/no"), host("n"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PathNotFound);
    let error = block_on(files.copy_to_host(format!("{root}/t"), host("no/n"))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PathNotFound, "{error}");
    let error = block_on(files.copy_from_host(host("missing"), &root)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PathNotFound, "{error}");
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}

#[test]
fn k4_a_limit_ends_a_copy_and_leaves_nothing() {
    let sb = shared();
    let (files, root) = (sb.fs(), directory(&sb));
    let scratch = tempfile::tempdir().unwrap();
    shell(&sb, &format!("mkdir {root}/t; head -c 2000000 /dev/zero | tr '\\0' x > {root}/t/f"));
    let to = scratch.path().join("t");
    let limited = files.copy_to_host_with(format!("{root}/t"), &to, |o| o.max_bytes(1_000_000));
    assert_eq!(block_on(limited).unwrap_err().kind(), ErrorKind::LimitReached);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}
