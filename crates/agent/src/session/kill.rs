//! Signals to a session's processes.
//!
//! `Everything` is what is in the session's cgroup and, where commands could leave it or there is
//! none, what descends from its processes or belongs to a session (setsid(2)) of one of them. What
//! remains out of reach without a cgroup is a process that made a session of its own and whose
//! ancestors have all ended; and in a virtual machine, which is its commands' own, one that root has
//! moved to another cgroup as well.

use super::refuse;
use crate::cgroup::Cgroup;
use crate::resources::{Process, Resources};
use crate::sys;
use msb_wire::{Refusal, Scope, Verdict};
use std::collections::HashSet;
use std::io;

const SIGKILL: i32 = 9;
const SIGSTOP: i32 = 19;
const ESRCH: i32 = 3;
/// How often processes are looked for that were not there before.
const ROUNDS: usize = 16;

/// The processes of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    /// The session's own process.
    pub(super) pid: i32,
    /// It has ended, and its number is nobody's.
    pub(super) reaped: bool,
    pub(super) cgroup: Option<&'a Cgroup>,
    pub(super) resources: &'a Resources,
}

/// Sends a signal.
pub(super) fn send(target: Target<'_>, signal: i32, scope: Scope) -> Verdict {
    if !sys::valid_signal(signal) {
        return refuse(Refusal::Invalid, 0, &format!("{signal} is not a signal"));
    }
    match (scope, target.cgroup) {
        (Scope::Group, _) if target.reaped => gone(),
        (Scope::Group, _) => verdict(sys::kill_group(target.pid, signal)),
        (Scope::Everything, Some(cgroup)) if !target.resources.commands_mount() => {
            in_cgroup(cgroup, signal)
        }
        (Scope::Everything, _) => everything(target, signal),
    }
}

fn gone() -> Verdict {
    refuse(Refusal::NoSuchProcess, ESRCH, "the process has ended")
}

fn verdict(result: io::Result<()>) -> Verdict {
    match result.map_err(|error| error.raw_os_error().unwrap_or(0)) {
        Ok(()) => Verdict::default(),
        Err(ESRCH) => gone(),
        Err(errno) => refuse(Refusal::System, errno, "the signal could not be sent"),
    }
}

/// For where no command can leave its cgroup.
fn in_cgroup(cgroup: &Cgroup, signal: i32) -> Verdict {
    match cgroup.is_populated() {
        Ok(false) => return gone(),
        Ok(true) => {}
        Err(error) => return verdict(Err(error)),
    }
    if signal == SIGKILL && cgroup.kill() {
        return Verdict::default();
    }
    let members = match cgroup.members() {
        Ok(members) => members,
        Err(error) => return verdict(Err(error)),
    };
    for pid in members {
        // One that ended since it was listed needs no signal any more.
        let _ = sys::kill_process(pid, signal);
    }
    Verdict::default()
}

fn everything(target: Target<'_>, signal: i32) -> Verdict {
    // To be killed, everything is stopped first: nobody sees a child die and goes on or exits by
    // itself, and no orphan loses the ancestor by which it would have been found.
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
    match target.reaped {
        false => verdict(sys::kill_group(target.pid, signal)),
        true if seen.is_empty() => gone(),
        true => Verdict::default(),
    }
}

impl Target<'_> {
    /// The session's processes now, and what belongs to those that were `seen`.
    fn processes(&self, seen: &HashSet<i32>) -> HashSet<i32> {
        let members = self.cgroup.and_then(|cgroup| cgroup.members().ok()).unwrap_or_default();
        let mut seeds: HashSet<i32> = members.into_iter().chain(seen.iter().copied()).collect();
        if !self.reaped {
            seeds.insert(self.pid);
        }
        if seeds.is_empty() {
            return seeds;
        }
        family(&self.resources.processes(), seeds)
    }
}

/// The seeds, their descendants, and the members of sessions to which any of these belongs, except
/// the agent's own: each command begins with a session of its own, so none is shared with another.
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
    fn d2_unknown_signal_is_invalid_and_ended_process_is_gone() {
        let resources = Resources::default();
        let target = Target { pid: 1, reaped: true, cgroup: None, resources: &resources };
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
            // A command, a child that has left its session, and an orphan of that one.
            process(1_000_010, own, 1_000_010),
            process(1_000_011, 1_000_010, 1_000_011),
            process(1_000_012, own, 1_000_011),
            // Another command, and an orphan that is still in the agent's session.
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
