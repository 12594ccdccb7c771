//! An option of a sandbox that exists in Rust exists in every language.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

/// Where a language defines its options, and what stands before and behind the name there.
struct Language {
    source: &'static str,
    around: (&'static str, &'static str),
}

const LANGUAGES: [Language; 5] = [
    Language { source: "include/microsandbox.h", around: ("\n", " ") },
    Language { source: "sdk/go", around: ("func With", "(") },
    Language { source: "sdk/python/src/microsandbox/_options.py", around: ("\n    ", ": ") },
    Language { source: "sdk/node/src/create.ts", around: ("\n  ", ": ") },
    Language { source: "docs/cli.md", around: ("--", "") },
];

/// A method of `SandboxBuilder`; the option in C, Go, Python, TypeScript and `msb`. A dash is for
/// what a language has in another form.
#[rustfmt::skip]
const OPTIONS: [(&str, [&str; 5]); 26] = [
    // An argument of msb.
    ("image", ["const char *image;", "Image", "image", "image", "-"]),
    ("pull_policy", ["uint32_t pull_policy;", "PullPolicy", "pull_policy", "pullPolicy?", "pull "]),
    // A call in C, an argument of `create` in Python and TypeScript, always on in msb.
    ("on_progress", ["-", "Progress", "-", "-", "-"]),
    ("cpus", ["double cpus;", "CPUs", "cpus", "cpus?", "cpus "]),
    ("memory", ["uint32_t memory_mib;", "Memory", "memory", "memory?", "memory "]),
    ("pids_limit", ["uint32_t pids_limit;", "PidsLimit", "pids_limit", "pidsLimit?", "pids-limit "]),
    ("disk", ["uint64_t disk_mib;", "Disk", "disk", "disk?", "disk "]),
    ("require_jail", ["#define MSB_SANDBOX_REQUIRE_JAIL", "RequireJail", "require_jail", "requireJail?", "require-jail`"]),
    ("security", ["uint32_t security;", "Security", "security", "security?", "security "]),
    ("env", ["const char *const *env;", "Env", "env", "env?", "env "]),
    ("envs", ["const char *const *env;", "Env", "env", "env?", "env-file "]),
    ("workdir", ["const char *workdir;", "Workdir", "workdir", "workdir?", "workdir "]),
    ("shell", ["const char *shell;", "Shell", "shell", "shell?", "shell "]),
    ("user", ["const char *user;", "User", "user", "user?", "user "]),
    ("hostname", ["const char *hostname;", "Hostname", "hostname", "hostname?", "hostname "]),
    ("label", ["const char *const *labels;", "Labels", "labels", "labels?", "label "]),
    ("labels", ["const char *const *labels;", "Labels", "labels", "labels?", "label "]),
    ("replace", ["#define MSB_SANDBOX_REPLACE", "Replace", "replace", "replace?", "replace`"]),
    ("detached", ["#define MSB_SANDBOX_DETACHED", "Detached", "detached", "detached?", "detach`"]),
    // No driver has a network, so msb does not offer it.
    ("network", ["#define MSB_SANDBOX_NETWORK", "Network", "network", "network?", "-"]),
    ("max_duration", ["uint64_t max_duration_ms;", "MaxDuration", "max_duration", "maxDuration?", "max-duration "]),
    ("idle_timeout", ["uint64_t idle_timeout_ms;", "IdleTimeout", "idle_timeout", "idleTimeout?", "idle-timeout "]),
    ("log", ["#define MSB_SANDBOX_LOG", "Log", "log", "log?", "log`"]),
    // msb has the default limits only.
    ("log_limits", ["uint64_t log_max_bytes;", "LogLimits", "log_max_bytes", "log?", "-"]),
    ("driver", ["const char *driver;", "Driver", "driver", "driver?", "driver "]),
    ("boot_timeout", ["uint64_t boot_timeout_ms;", "BootTimeout", "boot_timeout", "bootTimeout?", "boot-timeout "]),
];

/// The text of a file, or of all files of a folder.
fn text_of(path: &Path) -> String {
    if path.is_file() {
        return std::fs::read_to_string(path).unwrap();
    }
    let files = std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path());
    files.filter(|path| path.is_file()).map(|path| text_of(&path)).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn options_of_rust_exist_in_every_language() {
    for (number, Language { source, around: (before, behind) }) in LANGUAGES.iter().enumerate() {
        let mut text = text_of(&root().join(source));
        if number == 0 {
            // What is a field and what is a constant, without its indentation.
            text = text.lines().map(|line| format!("\n{} ", line.trim_start())).collect();
        }
        for (option, names) in &OPTIONS {
            let definition = format!("{before}{}{behind}", names[number]);
            let found = names[number] == "-" || text.contains(&definition);
            assert!(found, "{option}: {definition:?} is not in {source}");
        }
    }
}

#[test]
fn options_of_rust_have_a_row_each() {
    let builder = text_of(&root().join("crates/microsandbox/src/sandbox/builder.rs"));
    let methods = builder.split("impl SandboxBuilder {").nth(1).unwrap();
    for line in methods.lines() {
        let Some(rest) = line.strip_prefix("    pub fn ") else { continue };
        let name = rest.split(['(', '<']).next().unwrap();
        let known = OPTIONS.iter().any(|(option, _)| *option == name);
        assert!(known, "{name} has no row in this test");
    }
}
