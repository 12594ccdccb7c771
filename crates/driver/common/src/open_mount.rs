//! A mount before it is attached.

use msb_jail::Tree;
use msb_state::Mount;

/// A mount that is open and attached nowhere.
#[derive(Debug)]
pub struct OpenMount {
    /// What was asked for.
    pub mount: Mount,
    /// What is mounted.
    pub tree: Tree,
    /// Whether it is a directory.
    pub is_directory: bool,
}
