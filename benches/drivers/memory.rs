//! The memory of sandboxes: the proportional set size of the supervisor and all that descend from it.

use std::collections::HashMap;
use std::fs;

/// The processes of the host: the children of each, and the command lines of supervisors.
pub(crate) struct Processes {
    children: HashMap<u32, Vec<u32>>,
    supervisors: Vec<(u32, String)>,
}

impl Processes {
    pub(crate) fn now() -> Processes {
        let mut now = Processes { children: HashMap::new(), supervisors: Vec::new() };
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let Ok(status) = fs::read_to_string(entry.path().join("status")) else { continue };
            let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
            now.children.entry(parent.unwrap().trim().parse().unwrap()).or_default().push(pid);
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).into_owned();
            if words.contains("msb-runner") {
                now.supervisors.push((pid, words));
            }
        }
        now
    }

    /// The memory of a sandbox, in MiB.
    pub(crate) fn memory(&self, name: &str) -> f64 {
        let mut found: Vec<u32> = Vec::new();
        let of_it = self.supervisors.iter().filter(|(_, words)| words.contains(name));
        let mut waiting: Vec<u32> = of_it.map(|(pid, _)| *pid).collect();
        while let Some(pid) = waiting.pop() {
            if !found.contains(&pid) {
                found.push(pid);
                waiting.extend(self.children.get(&pid).into_iter().flatten());
            }
        }
        assert!(!found.is_empty(), "{name} has no supervisor");
        found.into_iter().map(proportional).sum()
    }
}

fn proportional(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let size = rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.strip_suffix("kB"));
    size.map_or(0.0, |size| size.trim().parse::<f64>().unwrap() / 1024.0)
}
