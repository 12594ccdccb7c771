//! The settings of the driver.

use msb_driver::Users;
use std::path::PathBuf;

/// What the driver needs to know about its host.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The state directory.
    pub home: PathBuf,
    /// The cache directory.
    pub cache: PathBuf,
    /// The agent's binary.
    pub agent: PathBuf,
    /// A program, with arguments, that runs the command that follows in a jail.
    pub launcher: Vec<PathBuf>,
    /// The users of this process.
    pub users: Users,
}
