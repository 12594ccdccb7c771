//! The check for hardware virtualisation.

use rustix::fs::{Access, access};

/// Checks that this process can use KVM; the error has the reason and the remedy.
///
/// `trust_device` skips the check of the processor's flags, for hosts that hide them.
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
    if trust_device || has_virtualization(&flags) {
        return Ok(());
    }
    Err(("the processor has neither vmx nor svm".to_owned(), None))
}

fn has_virtualization(cpuinfo: &str) -> bool {
    // Processors other than x86 have no such flag; there the device has to be enough.
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags")).peekable();
    flags.peek().is_none()
        || flags.any(|line| line.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_flags_show_virtualization() {
        assert!(has_virtualization("flags\t: fpu vmx sse\n"));
        assert!(has_virtualization("flags : svm"));
        assert!(!has_virtualization("flags\t: fpu sse vmxx\n"));
        assert!(has_virtualization("Features : fp asimd\n"));
    }
}
