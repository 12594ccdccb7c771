//! Unix sockets whose path may be longer than a socket address.

use crate::error::{Error, Result};
use rustix::fs::{Mode, OFlags};
use std::fs::{self, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Returns a short path to `name` in `directory`, valid while the descriptor is open.
fn short_path(directory: &Path, name: &str) -> Result<(OwnedFd, PathBuf)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(directory, flags, Mode::empty())
        .map_err(|error| Error::io("open", directory, error))?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", fd.as_raw_fd()));
    Ok((fd, path))
}

/// Connects to the socket `name` in `directory`, whose path may be long.
pub fn connect_in(directory: &Path, name: &str) -> Result<UnixStream> {
    let (_directory, path) = short_path(directory, name)?;
    UnixStream::connect(path).map_err(|error| Error::io("connect to", &directory.join(name), error))
}

/// Creates a private listening socket `name` in `directory`, and replaces an old one.
pub fn bind_in(directory: &Path, name: &str) -> Result<UnixListener> {
    let (_directory, path) = short_path(directory, name)?;
    let failed = |error| Error::io("listen at", &directory.join(name), error);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    // Between the two steps the private directory keeps other users out.
    fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn socket_works_at_a_path_longer_than_an_address() {
        let scratch = tempfile::tempdir().unwrap();
        let deep = scratch.path().join("d".repeat(100)).join("e".repeat(100));
        fs::create_dir_all(&deep).unwrap();
        let _old = bind_in(&deep, "s.sock").unwrap();
        let listener = bind_in(&deep, "s.sock").unwrap();
        let mut client = connect_in(&deep, "s.sock").unwrap();
        client.write_all(b"x").unwrap();
        let mut byte = [0];
        listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
        let mode = fs::metadata(deep.join("s.sock")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
