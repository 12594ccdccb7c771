//! Who noticed a failure.

use std::fmt;

/// Who noticed a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The call itself was wrong.
    Caller,
    /// This library or its host.
    Host,
    /// What starts and watches the sandbox.
    Driver,
    /// The connection.
    Transport,
    /// The agent in the sandbox.
    Agent,
}

impl Origin {
    /// The name, the same in every language.
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
