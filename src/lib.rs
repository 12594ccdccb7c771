//! Run commands in isolated sandboxes.
