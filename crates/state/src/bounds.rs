//! The resource limits of a sandbox, and the walls of its jail.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Maximum number of processors.
const MAX_CPUS: u32 = 4096;
const MIB: u64 = 1024 * 1024;
/// Memory of a sandbox that sets none, unless half of the host's is less.
const DEFAULT_MEMORY_MIB: u64 = 2048;

/// Processes and threads that a sandbox may have at once, unless it sets a number.
pub const DEFAULT_PIDS: u32 = 4096;
/// Size of a sandbox's upper layer in MiB, unless it sets one.
pub const DEFAULT_DISK_MIB: u64 = 32 * 1024;

/// A number of processors, in thousandths.
///
/// Conversions never fail: an invalid value is kept, and refused by
/// [`SandboxConfig::validated`](crate::SandboxConfig::validated).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus(i64);

/// Represents a value that is not a number.
const NOT_A_NUMBER: i64 = i64::MIN;

impl Cpus {
    /// Returns the number in thousandths.
    pub fn millis(self) -> u32 {
        u32::try_from(self.0.max(0)).unwrap_or(u32::MAX)
    }

    /// Returns the number, rounded up.
    pub fn whole(self) -> u32 {
        self.millis().div_ceil(1000)
    }

    /// Returns the number as users write it.
    pub fn count(self) -> f64 {
        match self.0 {
            NOT_A_NUMBER => f64::NAN,
            i64::MAX => f64::INFINITY,
            #[allow(clippy::cast_precision_loss, reason = "exact for every valid number")]
            thousandths => thousandths as f64 / 1000.0,
        }
    }

    /// Returns the error for an invalid number.
    pub(crate) fn refusal(self) -> String {
        format!("cpus is {self}; it must be more than 0 and at most {MAX_CPUS}")
    }

    /// Returns whether the number is valid: more than 0 and at most 4096.
    pub fn is_valid(self) -> bool {
        (1..=i64::from(MAX_CPUS) * 1000).contains(&self.0)
    }
}

impl From<f64> for Cpus {
    /// Rounds up to a thousandth.
    fn from(count: f64) -> Cpus {
        if count.is_nan() {
            return Cpus(NOT_A_NUMBER);
        }
        // Tolerates the binary rounding error: 0.1 is 100 thousandths.
        #[allow(clippy::cast_possible_truncation, reason = "the conversion saturates")]
        let thousandths = (count * 1000.0 - 1e-6).ceil() as i64;
        Cpus(thousandths.max(NOT_A_NUMBER + 1))
    }
}

impl From<u32> for Cpus {
    fn from(count: u32) -> Cpus {
        Cpus(i64::from(count) * 1000)
    }
}

impl From<u8> for Cpus {
    fn from(count: u8) -> Cpus {
        Cpus::from(u32::from(count))
    }
}

impl From<i32> for Cpus {
    fn from(count: i32) -> Cpus {
        Cpus(i64::from(count) * 1000)
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.count().fmt(f)
    }
}

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Cpus, String> {
        let is_plain = !text.contains(['e', 'E', '+']);
        let count: Option<f64> = text.parse().ok().filter(|_| is_plain);
        let count = count.ok_or_else(|| "not a number".to_owned())?;
        let cpus = Cpus::from(count);
        if cpus.is_valid() { Ok(cpus) } else { Err(cpus.refusal()) }
    }
}

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.count())
    }
}

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cpus, D::Error> {
        f64::deserialize(deserializer).map(Cpus::from)
    }
}

/// The security profile of commands in a virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Security {
    /// Root has every right in the guest's kernel.
    #[default]
    Default,
    /// The capabilities and the seccomp profile of a container.
    Restricted,
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Security::Default => "default",
            Security::Restricted => "restricted",
        })
    }
}

impl FromStr for Security {
    type Err = String;

    fn from_str(text: &str) -> Result<Security, String> {
        match text {
            "default" => Ok(Security::Default),
            "restricted" => Ok(Security::Restricted),
            _ => Err(format!("security is {text:?}; it must be \"default\" or \"restricted\"")),
        }
    }
}

/// The limits of a sandbox; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Bounds {
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Bytes of the upper layer.
    pub disk_bytes: Option<u64>,
    /// Processor time, in thousandths of a processor.
    pub cpu_millis: Option<u32>,
}

impl Bounds {
    /// Returns the processor limit as a number of processors.
    pub fn cpus(&self) -> Option<f64> {
        self.cpu_millis.map(|millis| f64::from(millis) / 1000.0)
    }
}

/// The walls and limits of a running sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Protection {
    /// Whether every host process of it but the runner is in a jail with all walls.
    pub jailed: bool,
    /// The missing walls, each with the reason.
    pub missing: Vec<String>,
    /// Its limits.
    pub bounds: Bounds,
}

/// Returns a sandbox's memory in MiB: the requested amount, else 2 GiB or half of the host's,
/// whichever is less.
pub fn memory_mib(asked: Option<u32>) -> u64 {
    asked.map_or_else(|| default_memory_mib(host_memory_mib()), u64::from)
}

fn default_memory_mib(host: Option<u64>) -> u64 {
    host.map_or(DEFAULT_MEMORY_MIB, |host| DEFAULT_MEMORY_MIB.min(host / 2))
}

pub(crate) fn host_memory_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024 / MIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_may_be_a_fraction() {
        let millis = |text: &str| text.parse::<Cpus>().map(Cpus::millis);
        assert_eq!(millis("0.5"), Ok(500));
        assert_eq!(millis("0.1"), Ok(100));
        assert_eq!(millis("2"), Ok(2000));
        assert_eq!(millis("0.0001"), Ok(1));
        assert_eq!("1.5".parse::<Cpus>().unwrap().whole(), 2);
        assert_eq!("1.5".parse::<Cpus>().unwrap().to_string(), "1.5");
        assert_eq!(millis(".5"), Ok(500));
        for bad in ["0", "-1", "nan", "inf", "4097", "x", "", "1.5.2", "1e1", "1E1", "+1", "1 "] {
            assert!(millis(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn g9_refused_cpus_are_named() {
        let refused = |cpus: Cpus| (cpus.is_valid(), cpus.refusal());
        for (bad, shown) in [
            (Cpus::from(-1), "cpus is -1;"),
            (Cpus::from(-0.5), "cpus is -0.5;"),
            (Cpus::from(0.0), "cpus is 0;"),
            (Cpus::from(f64::NAN), "cpus is NaN;"),
            (Cpus::from(f64::INFINITY), "cpus is inf;"),
            (Cpus::from(4097), "cpus is 4097;"),
        ] {
            let (valid, refusal) = refused(bad);
            assert!(!valid && refusal.starts_with(shown), "{refusal}");
        }
    }

    #[test]
    fn whole_numbers_of_earlier_versions_are_read() {
        assert_eq!(serde_json::from_str::<Cpus>("2").unwrap().millis(), 2000);
        assert_eq!(serde_json::to_string(&Cpus::from(0.5)).unwrap(), "0.5");
    }

    #[test]
    fn j4_default_memory_is_at_most_half_of_the_host() {
        assert_eq!(default_memory_mib(Some(24 * 1024)), 2048);
        assert_eq!(default_memory_mib(Some(1000)), 500);
        assert_eq!(default_memory_mib(None), 2048);
        assert_eq!(memory_mib(Some(64)), 64);
        assert!(host_memory_mib().is_some());
    }
}
