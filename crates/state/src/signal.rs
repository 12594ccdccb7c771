//! Signals by name and number.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Linux's names, without SIG, of the signals from 1 on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
const OTHER_NAMES: [(&str, i32); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];
/// The real-time signals that programs may use; C libraries keep 32 and 33 for themselves.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A signal of Linux, from 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(i32);

impl Signal {
    /// Returns its number.
    pub fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = String;

    /// Parses its number, or its name in any case, with or without SIG: `INT`, `RTMIN+3`.
    fn from_str(text: &str) -> Result<Signal, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let found = digits(text).or_else(|| named(name)).or_else(|| real_time(name));
        found.filter(|number| (1..=RTMAX).contains(number)).map(Signal).ok_or_else(|| {
            format!("{text:?} is no signal; use a name such as TERM or RTMIN+3, or 1 to {RTMAX}")
        })
    }
}

/// Parses digits only: `parse` alone would accept a sign.
fn digits(text: &str) -> Option<i32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn named(name: &str) -> Option<i32> {
    let other = OTHER_NAMES.iter().find(|(other, _)| *other == name).map(|(_, number)| *number);
    other.or_else(|| (1..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| number))
}

fn real_time(name: &str) -> Option<i32> {
    let (base, offset) = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => return Some(RTMIN),
        (_, Some("")) => return Some(RTMAX),
        (Some(rest), _) => (RTMIN, digits(rest.strip_prefix('+')?)?),
        (_, Some(rest)) => (RTMAX, -digits(rest.strip_prefix('-')?)?),
        (None, None) => return None,
    };
    base.checked_add(offset).filter(|number| *number >= RTMIN)
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let index = usize::try_from(self.0 - 1).ok();
        match (index.and_then(|index| NAMES.get(index)), self.0 - RTMIN) {
            (Some(name), _) => write!(f, "SIG{name}"),
            (None, 0) => f.write_str("SIGRTMIN"),
            (None, offset @ 1..) => write!(f, "SIGRTMIN+{offset}"),
            (None, _) => self.0.fmt(f),
        }
    }
}

impl TryFrom<String> for Signal {
    type Error = String;

    fn try_from(text: String) -> Result<Signal, String> {
        text.parse()
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> String {
        signal.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Option<i32> {
        text.parse().ok().map(Signal::number)
    }

    #[test]
    fn signal_is_a_number_or_a_name() {
        for (text, expected) in [
            ("TERM", 15),
            ("sigkill", 9),
            ("9", 9),
            ("64", 64),
            ("Hup", 1),
            ("PWR", 30),
            ("sigstkflt", 16),
            ("SIGPOLL", 29),
            ("SYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("rtmin+30", 64),
            ("RTMAX", 64),
            ("RTMAX-1", 63),
            ("SIGRTMAX-30", 34),
        ] {
            assert_eq!(number(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "0",
            "65",
            "-9",
            "+9",
            " 9",
            "NOSUCH",
            "SIGSIGTERM",
            "SIG",
            "SIG9",
            "RTMIN+31",
            "RTMAX-31",
            "RTMIN-1",
            "RTMIN+",
            "RTMIN3",
            "RTMIN+99999999999",
            "RTMAX+1",
        ] {
            assert_eq!(number(bad), None, "{bad}");
        }
        let refusal = "FOO".parse::<Signal>().unwrap_err();
        assert!(refusal.contains("FOO") && refusal.contains("TERM"), "{refusal}");
    }

    #[test]
    fn name_of_a_signal_means_the_signal() {
        for number in 1..=64 {
            let signal = Signal(number);
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
        assert_eq!(Signal(2).to_string(), "SIGINT");
        assert_eq!(Signal(37).to_string(), "SIGRTMIN+3");
        assert_eq!(serde_json::from_str::<Signal>("\"INT\"").unwrap(), Signal(2));
        assert!(serde_json::from_str::<Signal>("\"FOO\"").is_err());
    }
}
