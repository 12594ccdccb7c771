//! The runner's own connections to the agent.

use msb_client::{Connection, Limits, Pending};
use msb_state::SandboxDir;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Opens a connection and starts the handshake. The agent has at least `limit` for each answer.
/// Call it inside the runtime.
pub(crate) fn connect(dir: &SandboxDir, limit: Duration) -> io::Result<Pending<Arc<Connection>>> {
    let socket = dir.connect_agent().map_err(io::Error::other)?;
    let connection = Connection::establish(socket, Limits::new(limit), &Handle::current());
    connection.map_err(io::Error::other)
}
