//! Whether the processor's virtualisation can be used.

use rustix::fs::{Access, access};

/// `Ok` when KVM can be used by this process, else why not, and what would help.
///
/// `trust_device` skips the look at the processor's flags, for hosts that virtualise without
/// showing them.
pub fn kvm(trust_device: bool) -> Result<(), (String, Option<String>)> {
    let device = "/dev/kvm";
    match access(device, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => {}
        Err(rustix::io::Errno::NOENT) => {
            let remedy = "modprobe kvm_intel || modprobe kvm_amd".to_owned();
            return Err((format!("{device} does not exist"), Some(remedy)));
        }
        Err(error) => {
            let reason = format!("{device} cannot be opened: {}", std::io::Error::from(error));
            return Err((reason, Some("adduser \"$USER\" kvm".to_owned())));
        }
    }
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if trust_device || virtualises(&flags) {
        return Ok(());
    }
    Err(("the processor shows neither vmx nor svm".to_owned(), None))
}

fn virtualises(cpuinfo: &str) -> bool {
    // Other processors than x86 do not show it here; there the device has to be enough.
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags")).peekable();
    flags.peek().is_none()
        || flags.any(|line| line.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_must_show_that_it_virtualises() {
        assert!(virtualises("flags\t: fpu vmx sse\n"));
        assert!(virtualises("flags : svm"));
        assert!(!virtualises("flags\t: fpu sse vmxx\n"));
        assert!(virtualises("Features : fp asimd\n"));
    }
}
