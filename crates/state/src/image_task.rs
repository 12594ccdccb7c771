//! The process of an image operation.

use crate::companions::Companions;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::runner::{open_log, own_lifeline, pass_descriptors, runner_command};
use command_fds::FdMapping;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};

/// Additional variables for image operations: credentials, certificates and proxies.
const ENVIRONMENT: [&str; 16] = [
    "HOME",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "DOCKER_CONFIG",
    "REGISTRY_AUTH_FILE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "DBUS_SESSION_BUS_ADDRESS",
];

/// Most memory of the process of an image operation, in bytes of writable mappings.
pub const IMAGE_MEMORY: u64 = 1 << 30;

/// A running image operation.
#[derive(Debug)]
pub struct ImageTask {
    /// The request pipe. Closing it cancels the operation, as the exit of this process does.
    pub input: OwnedFd,
    /// The events, line by line.
    pub output: OwnedFd,
    /// The process, to be reaped.
    pub child: ImageProcess,
}

/// The process of an [`ImageTask`].
#[derive(Debug)]
pub struct ImageProcess(Child);

impl ImageProcess {
    /// Waits for its exit. Returns whether it was aborted, as when an allocation failed.
    pub fn wait(mut self) -> bool {
        // Fails if the host program reaps every child itself.
        let status = self.0.wait().ok();
        let signal = status.and_then(|status| status.signal());
        signal == Some(rustix::process::Signal::ABORT.as_raw())
    }
}

/// Starts an image operation with a request, one line without the newline.
///
/// `require_jail`: unpack in a jail with every wall, or fail. `archive`: the file to import from or
/// to export to.
pub fn begin_image_task(
    home: &Home,
    companions: &Companions,
    request: &str,
    require_jail: bool,
    archive: Option<OwnedFd>,
) -> Result<ImageTask> {
    let runner = &companions.runner;
    let failed = |error: io::Error| Error::io("run", runner, error);
    let mut command = runner_command(companions);
    for key in ENVIRONMENT {
        if let Some(value) = std::env::var_os(key) {
            command.env(key, value);
        }
    }
    if require_jail {
        command.env("MSB_REQUIRE_JAIL", "1");
    }
    let log = open_log(&home.image_log())?;
    command.arg("image").arg("--home").arg(home.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let creator = own_lifeline().map_err(|error| failed(error.into()))?;
    let mut passed = vec![FdMapping { parent_fd: creator, child_fd: 3 }];
    if let Some(archive) = archive {
        command.arg("--archive");
        passed.push(FdMapping { parent_fd: archive, child_fd: 4 });
    }
    pass_descriptors(&mut command, companions, passed)?;
    let mut child = command.spawn().map_err(failed)?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(io::Error::other("the process has no pipes")));
    };
    // The process's events have more details than a broken pipe.
    let _ = input.write_all(format!("{request}\n").as_bytes());
    Ok(ImageTask { input: input.into(), output: output.into(), child: ImageProcess(child) })
}
