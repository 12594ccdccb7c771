//! Sandboxes that are virtual machines, and everything that depends on the guest: the driver suite,
//! the Rust tests, the conformance cases and the C harness.

use crate::run::{self, note, quiet, root, say, variable};
use crate::{c, rootfs};
use anyhow::{Context, Result};
use xshell::{Shell, cmd};
