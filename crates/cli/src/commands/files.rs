//! `msb fs`, with the habits of the coreutils.

use crate::args::{FileCommand, Files, InSandbox};
use crate::failure::Failure;
use crate::transfer::{feed, files};
use crate::{output, transfer};
use microsandbox::{ErrorKind, FsEntryKind, FsMetadata, MicrosandboxResult, Sandbox, SandboxFsOps};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Performs one of the commands.
pub(crate) async fn run(args: Files) -> Result<u8, Failure> {
    perform(args).await.map_err(Failure::general)
}

async fn perform(args: Files) -> Result<u8, Failure> {
    let user = args.user;
    match args.command {
        FileCommand::Ls { paths, long, recursive } => {
            let several = paths.len() > 1 || recursive;
            each(&paths, user, async |fs, path| list(fs, path, long, recursive, several).await)
                .await
        }
        FileCommand::Cat { paths } => {
            each(&paths, user, async |fs, path| {
                transfer::print(&fs.read_stream(&path.path).await?).await
            })
            .await
        }
        FileCommand::Stat { paths, follow } => {
            each(&paths, user, async |fs, path| {
                let found = fs.stat_with_follow(&path.path, follow).await?;
                output::print(details(&path.path, &found))
            })
            .await
        }
        FileCommand::Rm { paths, recursive, force } => {
            each(&paths, user, async |fs, path| {
                Ok(ignore(force, remove(fs, &path.path, recursive).await)?)
            })
            .await
        }
        FileCommand::Mkdir { paths, parents } => {
            each(&paths, user, async |fs, path| {
                Ok(fs.mkdir_with(&path.path, parents, None).await?)
            })
            .await
        }
        FileCommand::Mv { from, to } => rename(&from, &to, user.as_ref()).await,
        FileCommand::Write { path, append, parents } => {
            let sandbox = Sandbox::get(&path.name).await?;
            let fs = files(&sandbox, user.as_ref());
            let sink = fs.write_stream_with(&path.path, |mut options| {
                if append {
                    options = options.append();
                }
                if parents { options.parents() } else { options }
            });
            let sink = sink.await?;
            feed(&sink).await?;
            sink.close().await?;
            Ok(0)
        }
    }
}

/// Applies an action to each path, also after a failure.
async fn each(
    paths: &[InSandbox],
    user: Option<String>,
    action: impl AsyncFn(&SandboxFsOps<'_>, &InSandbox) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let mut last: Result<u8, Failure> = Ok(0);
    for path in paths {
        let done = async {
            let sandbox = Sandbox::get(&path.name).await?;
            action(&files(&sandbox, user.as_ref()), path).await
        };
        if let Err(failure) = done.await
            && let Err(earlier) = std::mem::replace(&mut last, Err(failure))
        {
            earlier.report(false);
        }
    }
    last
}

fn ignore(missing: bool, result: MicrosandboxResult<()>) -> MicrosandboxResult<()> {
    match result {
        Err(error) if missing && error.kind() == ErrorKind::PathNotFound => Ok(()),
        result => result,
    }
}

async fn remove(fs: &SandboxFsOps<'_>, path: &OsStr, recursive: bool) -> MicrosandboxResult<()> {
    let found = fs.stat_with_follow(path, false).await?;
    match recursive && found.kind == FsEntryKind::Directory {
        true => fs.remove_dir(path).await,
        false => fs.remove(path).await,
    }
}

async fn rename(from: &InSandbox, to: &InSandbox, user: Option<&String>) -> Result<u8, Failure> {
    if from.name != to.name {
        return Err(Failure::new("cannot move to another sandbox; use msb cp"));
    }
    let sandbox = Sandbox::get(&from.name).await?;
    let fs = files(&sandbox, user);
    let into = fs.stat(&to.path).await;
    let is_directory = into.is_ok_and(|found| found.kind == FsEntryKind::Directory);
    let target = match (is_directory, Path::new(&from.path).file_name()) {
        (true, Some(name)) => to.join(name).path,
        _ => to.path.clone(),
    };
    fs.rename(&from.path, target).await?;
    Ok(0)
}

async fn list(
    fs: &SandboxFsOps<'_>,
    path: &InSandbox,
    long: bool,
    recursive: bool,
    several: bool,
) -> Result<(), Failure> {
    let found = fs.stat_with_follow(&path.path, !long).await?;
    if found.kind != FsEntryKind::Directory {
        return output::print(line(&path.path, &found, long));
    }
    let mut left = vec![path.clone()];
    while let Some(directory) = left.pop() {
        let entries = fs.list(&directory.path).await?;
        let mut text = Vec::new();
        if several {
            let path = shown(&directory.path);
            text.extend_from_slice(format!("{}:{path}:\n", directory.name).as_bytes());
        }
        for entry in &entries {
            text.extend(line(&entry.name, &entry.metadata, long).into_bytes());
        }
        if several && recursive {
            text.push(b'\n');
        }
        output::print(text)?;
        let below = entries.iter().rev().filter(|entry| entry.kind == FsEntryKind::Directory);
        if recursive {
            left.extend(below.map(|entry| directory.join(&entry.name)));
        }
    }
    Ok(())
}

/// Returns the line of a file in a list.
fn line(name: &OsStr, found: &FsMetadata, long: bool) -> String {
    let name = shown(name);
    if !long {
        return format!("{name}\n");
    }
    let (mode, time) = (mode(found), time(found));
    format!(
        "{mode} {:>3} {:>5} {:>5} {:>10} {time} {name}\n",
        found.links, found.uid, found.gid, found.size
    )
}

fn details(path: &OsStr, found: &FsMetadata) -> String {
    let path = shown(path);
    format!(
        "File: {path}\nSize: {}\nMode: {:04o} {}\nOwner: {}:{}\nLinks: {}\nModified: {}\n",
        found.size,
        found.mode,
        mode(found),
        found.uid,
        found.gid,
        found.links,
        time(found)
    )
}

fn mode(found: &FsMetadata) -> String {
    let bit = |mask: u32, letter: char| if found.mode & mask != 0 { letter } else { '-' };
    let special = |shift: u32, mask: u32, set: char| {
        let executable = found.mode & (0o1 << shift) != 0;
        match (found.mode & mask != 0, executable) {
            (true, true) => set,
            (true, false) => set.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        }
    };
    let mut text = String::from(found.type_letter);
    for (shift, mask, set) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        text.push(bit(0o4 << shift, 'r'));
        text.push(bit(0o2 << shift, 'w'));
        text.push(special(shift, mask, set));
    }
    text
}

fn time(found: &FsMetadata) -> String {
    // Times that have no date are shown as none.
    let dated = found.modified.filter(|time| *time >= std::time::UNIX_EPOCH);
    dated.map_or_else(|| "-".to_owned(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

/// Returns a name as text that controls no terminal.
fn shown(name: &OsStr) -> String {
    microsandbox::escape(&String::from_utf8_lossy(name.as_bytes())).into_owned()
}
