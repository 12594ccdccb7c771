//! What the driver needs to know about its host.

use msb_driver::Users;
use std::path::PathBuf;

/// What the driver needs to know about its host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory of the cached probe results.
    pub cache: PathBuf,
    /// The agent's binary on the host, for probes.
    pub agent: PathBuf,
    /// A program, with arguments, that runs the command that follows and kills it when its own
    /// parent exits.
    pub launcher: Vec<PathBuf>,
    /// Which users exist.
    pub users: Users,
}
