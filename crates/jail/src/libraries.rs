//! The files that a program needs: itself, its loader and its libraries.

use crate::describe::Bind;
use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::ReadCache;
use object::read::elf::{FileHeader, ProgramHeader};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program's files, to be bound into a jail at the same paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramFiles {
    /// The program, its loader and its libraries.
    pub paths: Vec<PathBuf>,
}

impl ProgramFiles {
    /// Asks the program's loader for its libraries. The result is cached in the directory `cache`,
    /// if given, until the program changes.
    pub fn of(program: &Path, cache: Option<&Path>) -> io::Result<ProgramFiles> {
        let cached =
            cache.map(|cache| Ok::<_, io::Error>(cache.join(key(program)?))).transpose()?;
        if let Some(files) = cached.as_deref().and_then(read) {
            return Ok(files);
        }
        let mut paths = vec![program.to_path_buf()];
        if let Some(loader) = loader(program)? {
            let mut command = Command::new(&loader);
            let output = command.arg("--list").arg(program).stdin(Stdio::null()).output()?;
            if !output.status.success() {
                let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(io::Error::other(format!("{}: {stderr}", loader.display())));
            }
            paths.push(loader);
            paths.extend(parse(&output.stdout)?);
        }
        paths.sort();
        paths.dedup();
        let files = ProgramFiles { paths };
        if let Some(cached) = cached {
            // Without the cache the loader is queried again.
            let _ = files.write(&cached);
        }
        Ok(files)
    }

    /// Returns the bind mounts of these files.
    pub fn binds(&self) -> impl Iterator<Item = Bind> {
        self.paths.iter().map(|path| Bind::program(path))
    }

    /// Returns the variable with which the loader finds the libraries without the host's
    /// `ld.so.cache`.
    pub fn environment(&self) -> (OsString, OsString) {
        let mut folders: Vec<&Path> = self.paths.iter().filter_map(|path| path.parent()).collect();
        folders.sort_unstable();
        folders.dedup();
        let value = folders.iter().map(|path| path.as_os_str()).collect::<Vec<_>>();
        ("LD_LIBRARY_PATH".into(), value.join(OsStr::new(":")))
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = Vec::new();
        for path in &self.paths {
            text.extend_from_slice(path.as_os_str().as_bytes());
            text.push(b'\n');
        }
        let half = path.with_extension(std::process::id().to_string());
        fs::write(&half, text)?;
        fs::rename(half, path)
    }
}

/// Returns the name of the cache file, which changes with the program.
fn key(program: &Path) -> io::Result<String> {
    let found = fs::metadata(program)?;
    let (device, inode, at) = (found.dev(), found.ino(), found.mtime());
    Ok(format!("libraries-{device}-{inode}-{at}-{}", found.len()))
}

fn read(cached: &Path) -> Option<ProgramFiles> {
    let text = fs::read(cached).ok()?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let paths: Vec<PathBuf> = lines.map(|line| OsStr::from_bytes(line).into()).collect();
    let is_valid = !paths.is_empty() && paths.iter().all(|path| path.exists());
    is_valid.then_some(ProgramFiles { paths })
}

/// Returns the loader of an ELF program; `None` for a static one.
fn loader(program: &Path) -> io::Result<Option<PathBuf>> {
    let not_elf = |_| io::Error::other(format!("{} is not an ELF program", program.display()));
    let data = ReadCache::new(fs::File::open(program)?);
    let header = FileHeader64::<LittleEndian>::parse(&data).map_err(not_elf)?;
    let endian = header.endian().map_err(not_elf)?;
    for segment in header.program_headers(endian, &data).map_err(not_elf)? {
        if let Some(name) = segment.interpreter(endian, &data).map_err(not_elf)? {
            return Ok(Some(OsStr::from_bytes(name).into()));
        }
    }
    Ok(None)
}

/// Parses lines such as `libc.so.6 => /lib/libc.so.6 (0x7f12)` and `/lib64/ld.so (0x7f12)`.
fn parse(output: &[u8]) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in String::from_utf8_lossy(output).lines() {
        let line = line.trim();
        let found = line.split_once(" => ").map_or(line, |(_, found)| found);
        if found.starts_with("not found") {
            return Err(io::Error::other(format!("a library is missing: {line}")));
        }
        let path = found.rsplit_once(" (").map_or(found, |(path, _)| path);
        if path.starts_with('/') {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j2_libraries_of_a_program_are_found() {
        let program = Path::new("/bin/sh").canonicalize().unwrap();
        let cache = tempfile::tempdir().unwrap();
        let files = ProgramFiles::of(&program, Some(cache.path())).unwrap();
        assert!(files.paths.contains(&program), "{files:?}");
        assert!(files.paths.iter().any(|path| path.to_string_lossy().contains("libc.")));
        assert_eq!(ProgramFiles::of(&program, Some(cache.path())).unwrap(), files);
        let script = cache.path().join("script");
        fs::write(&script, "#!/bin/sh\n").unwrap();
        let error = ProgramFiles::of(&script, None).unwrap_err().to_string();
        assert!(error.ends_with("is not an ELF program"), "{error}");
    }

    #[test]
    fn loader_output_is_parsed() {
        let text = b"\tlinux-vdso.so.1 (0x7ffd)\n\tlibz.so.1 => /lib/x/libz.so.1 (0x7f)\n\
                     \t/lib64/ld-linux-x86-64.so.2 (0x7f00)\n";
        let paths = [Path::new("/lib/x/libz.so.1"), Path::new("/lib64/ld-linux-x86-64.so.2")];
        assert_eq!(parse(text).unwrap(), paths);
        assert!(parse(b"\tlibz.so.1 => not found\n").is_err());
    }
}
