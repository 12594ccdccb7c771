//! The open handles of one sandbox object.
//!
//! An agent's handles belong to a connection: with a new connection, its numbers mean other files.

use crate::error::{Error, ErrorKind, MicrosandboxResult, Origin};
use msb_client::{Connection, lock};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Handles(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    open: HashMap<u64, (Weak<Connection>, u64)>,
}

impl Handles {
    /// Adds a handle of an agent, and returns its number for callers.
    pub(crate) fn add(&self, connection: &Arc<Connection>, handle: u64) -> u64 {
        let mut table = lock(&self.0);
        table.open.retain(|_, (connection, _)| connection.strong_count() > 0);
        table.last += 1;
        let number = table.last;
        table.open.insert(number, (Arc::downgrade(connection), handle));
        number
    }

    /// Returns the connection and the agent's number of a handle.
    pub(crate) fn find(&self, number: u64) -> MicrosandboxResult<(Arc<Connection>, u64)> {
        let error = |context: &str| Err(Error::new(ErrorKind::Closed, Origin::Caller, context));
        let table = lock(&self.0);
        let Some((connection, handle)) = table.open.get(&number) else {
            return error(&format!("{number} is not an open handle of this sandbox"));
        };
        match connection.upgrade().filter(|connection| connection.lost().is_none()) {
            Some(connection) => Ok((connection, *handle)),
            None => error("the handle was closed with its connection"),
        }
    }

    /// Forgets a handle.
    pub(crate) fn remove(&self, number: u64) {
        lock(&self.0).open.remove(&number);
    }
}
