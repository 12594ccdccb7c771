//! Signals to the processes of a session.
//!
//! `Everything` is every process in the session's cgroup. Where commands can leave the cgroup or
//! there is none, it is also every descendant of these processes and every member of a session
//! (setsid(2)) of one of them. Not found without a cgroup: a process in a new session whose
//! ancestors have all exited. Not found in a virtual machine: the same, if root moved it to another
//! cgroup.

use crate::cgroup::Cgroup;
use crate::resources::{Process, Resources};
use crate::sys;
use msb_wire::{Refusal, Scope, Verdict};
use std::collections::HashSet;
use std::io;

const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;
const ESRCH: i32 = 3;
/// How often the search for new processes is repeated (a count).
const ROUNDS: usize = 16;

/// The processes of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    /// The session's process.
    pub(super) pid: i32,
    /// It was reaped: its number may belong to another process.
    pub(super) has_exited: bool,
    pub(super) cgroup: Option<&'a Cgroup>,
    pub(super) resources: &'a Resources,
}

/// Sends a signal to the processes in the scope.
pub(super) fn send(target: Target<'_>, signal: i32, scope: Scope) -> Verdict {
    if !sys::valid_signal(signal) {
        return Verdict::refused(Refusal::Invalid, 0, &format!("{signal} is not a signal"));
    }
    match (scope, target.cgroup) {
        (Scope::Group, _) if target.has_exited => gone(),
        (Scope::Group, _) => verdict(sys::kill_group(target.pid, signal)),
        (Scope::Everything, Some(cgroup)) if !target.resources.can_commands_mount() => {
            in_cgroup(cgroup, signal)
        }
        (Scope::Everything, _) => everything(target, signal),
    }
}

fn gone() -> Verdict {
    Verdict::refused(Refusal::NoSuchProcess, ESRCH, "the process has exited")
}

fn verdict(result: io::Result<()>) -> Verdict {
    match result.map_err(|error| error.raw_os_error().unwrap_or(0)) {
        Ok(()) => Verdict::default(),
        Err(ESRCH) => gone(),
        Err(errno) => Verdict::refused(Refusal::System, errno, "cannot send the signal"),
    }
}

/// Signals a cgroup that no command can leave.
fn in_cgroup(cgroup: &Cgroup, signal: i32) -> Verdict {
    match cgroup.is_populated() {
        Ok(false) => return gone(),
        Ok(true) => {}
        Err(error) => return verdict(Err(error)),
    }
    if signal == SIGKILL {
        if !cgroup.kill() {
            kill_members(cgroup);
        }
        return Verdict::default();
    }
    let members = match cgroup.members() {
        Ok(members) => members,
        Err(error) => return verdict(Err(error)),
    };
    for pid in members {
        // Fails only if it has exited since.
        let _ = sys::kill_process(pid, signal);
    }
    Verdict::default()
}

/// Kills the members of a cgroup without the kernel's help. They are stopped first, so that none
/// creates another one in between.
fn kill_members(cgroup: &Cgroup) {
    let mut seen = HashSet::new();
    for _ in 0..ROUNDS {
        let members = cgroup.members().unwrap_or_default();
        let fresh: Vec<i32> = members.into_iter().filter(|pid| seen.insert(*pid)).collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            // Fails only if it has exited since.
            let _ = sys::kill_process(pid, SIGSTOP);
        }
    }
    for pid in seen {
        let _ = sys::kill_process(pid, SIGKILL);
    }
}

/// Signals everything that is found, where a command may have left its cgroup.
fn everything(target: Target<'_>, signal: i32) -> Verdict {
    // Before a kill everything is stopped, so that no process reacts to the death of another one,
    // and no orphan loses the ancestor by which it is found.
    let first = if signal == SIGKILL { SIGSTOP } else { signal };
    let mut seen = HashSet::new();
    for _ in 0..ROUNDS {
        let found = target.processes(&seen);
        let fresh: Vec<i32> = found.into_iter().filter(|pid| seen.insert(*pid)).collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            let _ = sys::kill_process(pid, first);
        }
    }
    if signal == SIGKILL {
        if let Some(cgroup) = target.cgroup {
            cgroup.kill();
        }
        for pid in &seen {
            let _ = sys::kill_process(*pid, signal);
        }
    }
    match target.has_exited {
        false => verdict(sys::kill_group(target.pid, signal)),
        true if seen.is_empty() => gone(),
        true => Verdict::default(),
    }
}

impl Target<'_> {
    /// Returns the session's current processes, and the families of those `seen` before.
    fn processes(&self, seen: &HashSet<i32>) -> HashSet<i32> {
        let members = self.cgroup.and_then(|cgroup| cgroup.members().ok()).unwrap_or_default();
        let mut seeds: HashSet<i32> = members.into_iter().chain(seen.iter().copied()).collect();
        if !self.has_exited {
            seeds.insert(self.pid);
        }
        if seeds.is_empty() {
            return seeds;
        }
        family(&self.resources.processes(), seeds)
    }
}

/// Returns the seeds, their descendants, and the members of their sessions (setsid(2)), except the
/// agent's own. Each command starts a session, so two commands never share one.
fn family(table: &[Process], mut members: HashSet<i32>) -> HashSet<i32> {
    let own = std::process::id().cast_signed();
    let agents = table.iter().find(|process| process.pid == own).map(|process| process.session);
    let is_own = |session: i32| session == 0 || Some(session) == agents;
    loop {
        let before = members.len();
        let mut sessions: HashSet<i32> = HashSet::new();
        for process in table.iter().filter(|process| members.contains(&process.pid)) {
            if !is_own(process.session) {
                sessions.insert(process.session);
            }
        }
        for process in table.iter().filter(|process| process.pid != own) {
            if members.contains(&process.parent) || sessions.contains(&process.session) {
                members.insert(process.pid);
            }
        }
        if members.len() == before {
            return members;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d2_unknown_signal_or_exited_process_is_refused() {
        let resources = Resources::default();
        let target = Target { pid: 1, has_exited: true, cgroup: None, resources: &resources };
        for signal in [0, -1, 65, i32::MAX] {
            let verdict = send(target, signal, Scope::Group);
            assert_eq!(verdict.refusal, Some(Refusal::Invalid), "{signal}");
        }
        for scope in [Scope::Group, Scope::Everything] {
            assert_eq!(send(target, 15, scope).refusal, Some(Refusal::NoSuchProcess));
        }
    }

    #[test]
    fn j7_family_holds_descendants_and_their_sessions() {
        let own = std::process::id().cast_signed();
        let process = |pid, parent, session| Process { pid, parent, session };
        let table = [
            process(own, 0, own),
            // A command, a child in a session of its own, and an orphan of that child.
            process(1_000_010, own, 1_000_010),
            process(1_000_011, 1_000_010, 1_000_011),
            process(1_000_012, own, 1_000_011),
            // Another command, and an orphan in the agent's session.
            process(1_000_020, own, 1_000_020),
            process(1_000_021, own, own),
            process(2, 0, 0),
        ];
        let found = family(&table, HashSet::from([1_000_010]));
        assert_eq!(found, HashSet::from([1_000_010, 1_000_011, 1_000_012]));
        let forked = family(&table, HashSet::from([1_000_021]));
        assert_eq!(forked, HashSet::from([1_000_021]), "the agent's session is not the command's");
        assert!(family(&table, HashSet::new()).is_empty());
    }

    #[test]
    fn d2_family_holds_the_children() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let child_id = child.id().cast_signed();
        let own_id = std::process::id().cast_signed();
        let table = Resources::open().unwrap().processes();
        assert!(family(&table, HashSet::from([own_id])).contains(&child_id));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
