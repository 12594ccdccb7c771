//! `msb cp`, with docker's rules for the destination.

use crate::args::{Copy, End, InSandbox};
use crate::failure::Failure;
use crate::progress::CopyBar;
use crate::stdio;
use crate::transfer::{feed, files, print};
use microsandbox::{ErrorKind, FsCopied, FsCopyOptions, FsEntryKind, Sandbox, SandboxFsOps};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Copies between the host and sandboxes.
pub(crate) async fn copy(args: Copy, quiet: bool) -> Result<u8, Failure> {
    perform(args, quiet).await.map_err(Failure::general)
}

async fn perform(args: Copy, quiet: bool) -> Result<u8, Failure> {
    let bar = CopyBar::new(quiet);
    let copied = match (&args.from, &args.to) {
        (End::Host(from), End::Sandbox(to)) => into_sandbox(from, to, &args, &bar).await?,
        (End::Sandbox(from), End::Host(to)) => to_host(from, to, &args, &bar).await?,
        (End::Sandbox(from), End::Sandbox(to)) => between(from, to, &args, &bar).await?,
        (End::Stream, End::Sandbox(to)) => unpack_stdin(to, &args).await?,
        (End::Sandbox(from), End::Stream) => pack_to_stdout(from, &args).await?,
        _ => return Err(Failure::new("cannot copy: one of SRC and DEST has to be NAME:PATH")),
    };
    bar.clear();
    report(&copied, quiet);
    Ok(0)
}

fn report(copied: &FsCopied, quiet: bool) {
    if quiet {
        return;
    }
    for (path, why) in &copied.skipped {
        stdio::report(&format!("left out {}: {why}", Path::new(path).display()));
    }
    let more = copied.skipped_total.saturating_sub(copied.skipped.len() as u64);
    if more > 0 {
        stdio::report(&format!("left out {more} more"));
    }
}

fn options(args: &Copy, bar: &CopyBar) -> impl FnOnce(FsCopyOptions) -> FsCopyOptions + use<> {
    let (archive, follow, max, bar) = (args.archive, args.follow_link, args.max_size, bar.clone());
    move |mut options| {
        if archive {
            options = options.keep_owner();
        }
        if !follow {
            options = options.no_follow();
        }
        if let Some(bytes) = max {
            options = options.max_bytes(bytes);
        }
        options.on_progress(move |bytes| bar.show(bytes))
    }
}

async fn into_sandbox(
    from: &Path,
    to: &InSandbox,
    args: &Copy,
    bar: &CopyBar,
) -> Result<FsCopied, Failure> {
    let sandbox = Sandbox::get(&to.name).await?;
    let fs = files(&sandbox, args.user.as_ref());
    let is_directory = from.metadata().is_ok_and(|found| found.is_dir());
    let name = base_name(from.as_os_str().as_bytes());
    let to = guest_destination(&fs, to, is_directory.then_some(from), name).await?;
    Ok(fs.copy_from_host_with(from, to, options(args, bar)).await?)
}

/// Returns the path of the copy itself.
async fn guest_destination(
    fs: &SandboxFsOps<'_>,
    to: &InSandbox,
    directory: Option<&Path>,
    name: Option<OsString>,
) -> Result<OsString, Failure> {
    let contents = directory.is_some_and(|path| is_contents(path.as_os_str().as_bytes()));
    match fs.stat(&to.path).await {
        Ok(found) if found.kind == FsEntryKind::Directory => Ok(match name {
            Some(name) if !contents => to.join(&name).path,
            _ => to.path.clone(),
        }),
        Ok(_) if directory.is_some() => Err(not_a_directory(&to.path)),
        Ok(_) => Ok(to.path.clone()),
        Err(error) if error.kind() == ErrorKind::PathNotFound => {
            match directory.is_none() && to.path.as_bytes().ends_with(b"/") {
                true => Err(no_directory(&to.path)),
                false => Ok(to.path.clone()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

async fn to_host(
    from: &InSandbox,
    to: &Path,
    args: &Copy,
    bar: &CopyBar,
) -> Result<FsCopied, Failure> {
    let sandbox = Sandbox::get(&from.name).await?;
    let fs = files(&sandbox, args.user.as_ref());
    let found = fs.stat_with_follow(&from.path, args.follow_link).await?;
    let is_directory = found.kind == FsEntryKind::Directory;
    let contents = is_directory && is_contents(from.path.as_bytes());
    let to = match (to.is_dir(), base_name(from.path.as_bytes())) {
        (true, Some(name)) if !contents => to.join(name),
        (false, _) if !is_directory && to.as_os_str().as_bytes().ends_with(b"/") => {
            return Err(no_directory(to.as_os_str()));
        }
        _ => PathBuf::from(to),
    };
    Ok(fs.copy_to_host_with(&from.path, to, options(args, bar)).await?)
}

async fn between(
    from: &InSandbox,
    to: &InSandbox,
    args: &Copy,
    bar: &CopyBar,
) -> Result<FsCopied, Failure> {
    let (source, target) = (Sandbox::get(&from.name).await?, Sandbox::get(&to.name).await?);
    let (source, target) = (files(&source, args.user.as_ref()), files(&target, args.user.as_ref()));
    let found = source.stat_with_follow(&from.path, args.follow_link).await?;
    let is_directory = found.kind == FsEntryKind::Directory;
    let path = Path::new(&from.path);
    let name = base_name(from.path.as_bytes());
    let to = guest_destination(&target, to, is_directory.then_some(path), name).await?;
    let name = base_name(to.as_bytes())
        .ok_or_else(|| Failure::new("cannot copy onto / of another sandbox; name a directory"))?;
    let parent = Path::new(&to).parent().unwrap_or(Path::new("/"));
    let archive = source.pack_stream(&from.path, &name, options(args, bar)).await?;
    let sink = target.unpack_stream(parent, options(args, bar)).await?;
    while let Some(data) = archive.recv().await? {
        sink.write(&data).await?;
    }
    sink.close().await?;
    Ok(FsCopied::default())
}

/// Unpacks standard input in an existing directory.
async fn unpack_stdin(to: &InSandbox, args: &Copy) -> Result<FsCopied, Failure> {
    let sandbox = Sandbox::get(&to.name).await?;
    let fs = files(&sandbox, args.user.as_ref());
    let sink = fs.unpack_stream(&to.path, options(args, &CopyBar::new(true))).await?;
    feed(&sink).await?;
    sink.close().await?;
    Ok(FsCopied::default())
}

async fn pack_to_stdout(from: &InSandbox, args: &Copy) -> Result<FsCopied, Failure> {
    let sandbox = Sandbox::get(&from.name).await?;
    let fs = files(&sandbox, args.user.as_ref());
    let name = base_name(from.path.as_bytes()).unwrap_or_else(|| OsString::from("root"));
    let archive = fs.pack_stream(&from.path, name, options(args, &CopyBar::new(true))).await?;
    print(&archive).await?;
    Ok(FsCopied::default())
}

/// Returns whether a path means what is in the directory: it ends in `/.`.
fn is_contents(path: &[u8]) -> bool {
    path == b"." || path.ends_with(b"/.")
}

/// Returns the last name of a path; `None` if it has none.
fn base_name(path: &[u8]) -> Option<OsString> {
    let name = path.split(|byte| *byte == b'/').rfind(|part| !part.is_empty())?;
    (!matches!(name, b"." | b"..")).then(|| OsString::from_vec(name.to_vec()))
}

fn no_directory(path: &OsStr) -> Failure {
    Failure::new(format!("cannot copy to {}: no such directory", Path::new(path).display()))
}

fn not_a_directory(path: &OsStr) -> Failure {
    Failure::new(format!("cannot copy a directory to {}: it is a file", Path::new(path).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k5_last_names_and_contents() {
        for (path, name) in [("/a/b", "b"), ("/a/b/", "b"), ("b", "b"), ("./b//", "b")] {
            assert_eq!(base_name(path.as_bytes()).unwrap(), name, "{path}");
        }
        for path in ["/", ".", "..", "a/..", "a/.", ""] {
            assert_eq!(base_name(path.as_bytes()), None, "{path}");
        }
        assert!(
            is_contents(b"a/.")
                && is_contents(b".")
                && !is_contents(b"a.")
                && !is_contents(b"a/..")
        );
    }
}
