//! The size and the options of a guest. The agent's `machine` module reads the options.

use msb_state::{Failure, SandboxConfig, Security};

/// The tag of the image's file system.
pub const IMAGE_TAG: &str = "image";
/// The name of the virtio-serial port that leads to the agent.
pub const PORT_NAME: &str = "msb";
/// Default memory of a machine, in MiB. The host allocates only what the guest touches.
pub const MEMORY_MIB: u32 = 512;
/// Least memory with which a guest boots, in MiB.
const LEAST_MIB: u32 = 96;
/// Most processors of a machine.
const MOST_CPUS: u32 = 255;

/// The size of a machine, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guest {
    /// Processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Size of `/dev/shm` in bytes.
    pub shm_bytes: u64,
    /// Its host name.
    pub hostname: String,
    /// Its security profile.
    pub security: Security,
}

impl Guest {
    /// Returns the guest of a configuration; an error if driver `name` does not support it.
    pub fn of(config: &SandboxConfig, name: &str) -> Result<Guest, Failure> {
        let refuse = |what: String, hint: String| Err(Failure::invalid_config(what).hint(hint));
        if config.network {
            return refuse(
                format!("driver {name} cannot give a sandbox network access yet"),
                "leave network off".to_owned(),
            );
        }
        if let Some(mount) = config.mounts.first() {
            return Err(mount
                .refusal(format_args!("driver {name} has no mounts yet"))
                .hint("use driver container or gvisor"));
        }
        let memory_mib = config.memory_mib.unwrap_or(MEMORY_MIB);
        if memory_mib < LEAST_MIB {
            return refuse(
                format!("memory is {memory_mib} MiB, with which no virtual machine boots"),
                format!("give it at least {LEAST_MIB} MiB"),
            );
        }
        let cpus = config.cpus.map_or(1, msb_state::Cpus::whole);
        if cpus > MOST_CPUS {
            return refuse(
                format!("cpus is {cpus}; a virtual machine can have {MOST_CPUS}"),
                "ask for fewer".to_owned(),
            );
        }
        let shm_bytes = config.shm_bytes(Some(u64::from(memory_mib) << 20))?;
        // A host name has at most 64 bytes, a sandbox's name may have more.
        let hostname = config.hostname.clone();
        let hostname = hostname.unwrap_or_else(|| config.name.as_str().chars().take(64).collect());
        Ok(Guest { cpus, memory_mib, shm_bytes, hostname, security: config.security })
    }

    /// Returns the agent's options for the kernel's command line. None needs quoting there.
    pub fn options(&self, transport: &str) -> Vec<String> {
        let mut options = vec![
            format!("MSB_MACHINE={transport}"),
            format!("MSB_HOSTNAME={}", self.hostname),
            format!("MSB_SHM={}", self.shm_bytes),
        ];
        if self.security == Security::Restricted {
            options.push("MSB_SECURITY=restricted".to_owned());
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> SandboxConfig {
        SandboxConfig::new("n".parse().unwrap(), "/")
    }

    #[test]
    fn guest_has_defaults_and_a_hostname() {
        let guest = Guest::of(&config(), "qemu").unwrap();
        assert_eq!((guest.cpus, guest.memory_mib, guest.hostname.as_str()), (1, MEMORY_MIB, "n"));
        assert_eq!(
            guest.options("serial"),
            ["MSB_MACHINE=serial", "MSB_HOSTNAME=n", "MSB_SHM=67108864"]
        );
        let mut restricted = config();
        restricted.security = Security::Restricted;
        let options = Guest::of(&restricted, "qemu").unwrap().options("vsock");
        assert_eq!(options.last().unwrap(), "MSB_SECURITY=restricted");
    }

    #[test]
    fn unsupported_options_are_refused_with_a_hint() {
        let refused = |change: fn(&mut SandboxConfig)| {
            let mut config = config();
            change(&mut config);
            Guest::of(&config, "qemu").unwrap_err().to_string()
        };
        assert!(refused(|c| c.network = true).contains("leave network off"));
        assert!(refused(|c| c.memory_mib = Some(32)).contains("at least 96 MiB"));
        assert!(refused(|c| c.shm_size = Some(1 << 30)).contains("more than the memory"));
        assert!(refused(|c| c.cpus = Some(4000.into())).contains("cpus is 4000"));
    }
}
