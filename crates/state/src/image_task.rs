//! The process that works on the store of images for this one.

use crate::companions::Companions;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::runner::{open_log, own_lifeline, pass_descriptors, runner_command};
use command_fds::FdMapping;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

/// What a process that gets images may see besides: where credentials, certificates and proxies
/// are.
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

/// Work on the store of images that goes on in another process.
#[derive(Debug)]
pub struct ImageTask {
    /// Closing it ends the work. It ends with this process, too.
    pub input: OwnedFd,
    /// What the process tells, line by line, until its end.
    pub output: OwnedFd,
    /// The process, to be waited for.
    pub child: ImageProcess,
}

/// The process of an [`ImageTask`].
#[derive(Debug)]
pub struct ImageProcess(Child);

impl ImageProcess {
    /// Waits for its end.
    pub fn wait(mut self) {
        // The host program may wait for all its children itself; then there is nothing to do.
        let _ = self.0.wait();
    }
}

/// Starts the process with a request, one line without its end.
///
/// `require_jail`: unpack in a jail that has every wall, or fail.
pub fn begin_image_task(
    home: &Home,
    companions: &Companions,
    request: &str,
    require_jail: bool,
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
    pass_descriptors(
        &mut command,
        companions,
        vec![FdMapping { parent_fd: creator, child_fd: 3 }],
    )?;
    let mut child = command.spawn().map_err(failed)?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(failed(io::Error::other("it has no pipes")));
    };
    // What it says, or does not say, tells more than a pipe that broke.
    let _ = input.write_all(format!("{request}\n").as_bytes());
    Ok(ImageTask { input: input.into(), output: output.into(), child: ImageProcess(child) })
}
