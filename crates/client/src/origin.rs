//! Where a failure was detected.

use std::fmt;

/// Where a failure was detected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The caller: the call itself was invalid.
    Caller,
    /// This library or its host.
    Host,
    /// The driver, which starts and supervises the sandbox.
    Driver,
    /// The connection.
    Transport,
    /// The agent in the sandbox.
    Agent,
}

impl Origin {
    /// Returns the name, the same in every language.
    pub const fn name(self) -> &'static str {
        match self {
            Origin::Caller => "caller",
            Origin::Host => "host",
            Origin::Driver => "driver",
            Origin::Transport => "transport",
            Origin::Agent => "agent",
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
