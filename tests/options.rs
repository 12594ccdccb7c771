//! An option that exists in Rust exists in every language.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::path::Path;

/// The definitions of options in a language: their file, the section between two texts in it, and
/// the text before and after each name.
struct Language {
    source: &'static str,
    section: (&'static str, &'static str),
    around: (&'static str, &'static str),
}

/// The options of one kind: where each language defines them, and how each option is written there.
/// A dash marks an option that a language has in another form.
struct Group {
    rust: &'static str,
    section: (&'static str, &'static str),
    around: (&'static str, &'static str),
    languages: [Language; 5],
    rows: &'static [(&'static str, [&'static str; 5])],
}

const HEADER: &str = "include/microsandbox.h";
const PYTHON: &str = "sdk/python/src/microsandbox/_options.py";
/// The builders of Rust have the same form.
const METHODS: (&str, &str) = ("    pub fn ", "(");

#[rustfmt::skip]
const SANDBOX: Group = Group {
    rust: "crates/microsandbox/src/sandbox/builder.rs",
    section: ("impl SandboxBuilder {", "\n}\n"),
    around: METHODS,
    languages: [
        Language { source: HEADER, section: ("---- sandbox ----", "/* ----"), around: ("\n", " ") },
        Language { source: "sdk/go", section: ("", ""), around: ("func With", "(") },
        Language { source: PYTHON, section: ("class SandboxOptions", "\n\n\n"), around: ("\n    ", ": ") },
        Language { source: "sdk/node/src/create.ts", section: ("", ""), around: ("\n  ", ": ") },
        Language { source: "docs/cli.md", section: ("### msb run", "\n### "), around: ("--", "") },
    ],
    rows: &[
        // An argument of msb.
        ("image", ["const char *image;", "Image", "image", "image", "-"]),
        ("pull_policy", ["uint32_t pull_policy;", "PullPolicy", "pull_policy", "pullPolicy?", "pull "]),
        ("platform", ["const char *platform;", "Platform", "platform", "platform?", "platform "]),
        // A call in C, an argument of `create` in Python and TypeScript, always on in msb.
        ("on_progress", ["-", "Progress", "-", "-", "-"]),
        ("cpus", ["double cpus;", "CPUs", "cpus", "cpus?", "cpus "]),
        ("memory", ["uint32_t memory_mib;", "Memory", "memory", "memory?", "memory "]),
        ("shm_size", ["uint64_t shm_size;", "ShmSize", "shm_size", "shmSize?", "shm-size "]),
        ("pids_limit", ["uint32_t pids_limit;", "PidsLimit", "pids_limit", "pidsLimit?", "pids-limit "]),
        ("disk", ["uint64_t disk_mib;", "Disk", "disk", "disk?", "disk "]),
        ("require_jail", ["#define MSB_SANDBOX_REQUIRE_JAIL", "RequireJail", "require_jail", "requireJail?", "require-jail`"]),
        ("security", ["uint32_t security;", "Security", "security", "security?", "security "]),
        ("volume", ["const struct msb_mount *mounts;", "Mounts", "volumes", "volumes?", "volume "]),
        ("add_volume_mount", ["const struct msb_mount *mounts;", "Mounts", "volumes", "volumes?", "mount "]),
        ("env", ["const char *const *env;", "Env", "env", "env?", "env "]),
        ("envs", ["const char *const *env;", "Env", "env", "env?", "env-file "]),
        ("workdir", ["const char *workdir;", "Workdir", "workdir", "workdir?", "workdir "]),
        ("shell", ["const char *shell;", "Shell", "shell", "shell?", "shell "]),
        ("user", ["const char *user;", "User", "user", "user?", "user "]),
        ("hostname", ["const char *hostname;", "Hostname", "hostname", "hostname?", "hostname "]),
        ("entrypoint", ["const char *const *entrypoint;", "Entrypoint", "entrypoint", "entrypoint?", "entrypoint "]),
        ("stop_signal", ["const char *stop_signal;", "StopSignal", "stop_signal", "stopSignal?", "stop-signal "]),
        ("init", ["#define MSB_SANDBOX_INIT", "Init", "init", "init?", "init`"]),
        ("label", ["const char *const *labels;", "Labels", "labels", "labels?", "label "]),
        ("labels", ["const char *const *labels;", "Labels", "labels", "labels?", "label "]),
        ("replace", ["#define MSB_SANDBOX_REPLACE", "Replace", "replace", "replace?", "replace`"]),
        ("detached", ["#define MSB_SANDBOX_DETACHED", "Detached", "detached", "detached?", "detach`"]),
        // No driver has network access, so msb does not offer it.
        ("network", ["#define MSB_SANDBOX_NETWORK", "Network", "network", "network?", "-"]),
        ("max_duration", ["uint64_t max_duration_ms;", "MaxDuration", "max_duration", "maxDuration?", "max-duration "]),
        ("idle_timeout", ["uint64_t idle_timeout_ms;", "IdleTimeout", "idle_timeout", "idleTimeout?", "idle-timeout "]),
        ("log", ["#define MSB_SANDBOX_LOG", "Log", "log", "log?", "log`"]),
        // msb has only the default limits.
        ("log_limits", ["uint64_t log_max_bytes;", "LogLimits", "log_max_bytes", "log?", "-"]),
        ("driver", ["const char *driver;", "Driver", "driver", "driver?", "driver "]),
        ("boot_timeout", ["uint64_t boot_timeout_ms;", "BootTimeout", "boot_timeout", "bootTimeout?", "boot-timeout "]),
    ],
};

#[rustfmt::skip]
const EXEC: Group = Group {
    rust: "crates/microsandbox/src/options.rs",
    section: ("impl ExecOptionsBuilder {", "\n}\n"),
    around: METHODS,
    languages: [
        Language { source: HEADER, section: ("---- exec ----", "/* ----"), around: ("\n", " ") },
        Language { source: "sdk/go/exec_options.go", section: ("", ""), around: ("func WithExec", "(") },
        Language { source: PYTHON, section: ("class ExecOptions", "\n\n\n"), around: ("\n    ", ": ") },
        Language { source: "sdk/node/src/options.ts", section: ("abstract class CommandBuilder", "class AttachOptionsBuilder"), around: ("\n  ", "(") },
        Language { source: "docs/cli.md", section: ("### msb exec", "\n### "), around: ("--", "") },
    ],
    rows: &[
        // Arguments of the call, and of msb.
        ("arg", ["const char *const *args;", "Args", "-", "arg", "-"]),
        ("arg_bytes", ["const char *const *args;", "Args", "-", "arg", "-"]),
        ("args", ["const char *const *args;", "Args", "-", "args", "-"]),
        ("cwd", ["const char *cwd;", "Cwd", "cwd", "cwd", "workdir "]),
        ("cwd_bytes", ["const char *cwd;", "Cwd", "cwd", "cwd", "workdir "]),
        ("user", ["const char *user;", "User", "user", "user", "user "]),
        ("env", ["const char *const *env;", "Env", "env", "env", "env "]),
        ("env_bytes", ["const char *const *env;", "Env", "env", "env", "env "]),
        ("envs", ["const char *const *env;", "Env", "env", "envs", "env-file "]),
        ("timeout", ["uint64_t timeout_ns;", "Timeout", "timeout", "timeout", "timeout "]),
        ("tty", ["#define MSB_EXEC_TTY", "TTY", "tty", "tty", "tty`"]),
        // In msb, the size of the terminal.
        ("tty_size", ["uint16_t rows;", "Size", "tty_size", "ttySize", "-"]),
        // The default in C, Go and msb.
        ("stdin_null", ["-", "-", "stdin", "stdinNull", "-"]),
        ("stdin_pipe", ["struct msb_sink **out_stdin,", "StdinPipe", "stdin", "stdinPipe", "interactive`"]),
        ("stdin_bytes", ["const uint8_t *stdin_data;", "Stdin", "stdin", "stdinBytes", "interactive`"]),
        ("rlimit", ["const struct msb_rlimit *rlimits;", "Rlimit", "rlimits", "rlimit", "rlimit "]),
        ("rlimit_range", ["const struct msb_rlimit *rlimits;", "RlimitRange", "rlimits", "rlimitRange", "rlimit "]),
        // msb forwards output as it arrives, with the default drain.
        ("drain", ["uint64_t drain_ns;", "Drain", "drain", "drain", "-"]),
        ("wait_for_eof", ["#define MSB_EXEC_WAIT_FOR_EOF", "WaitForEOF", "wait_for_eof", "waitForEof", "-"]),
        ("max_output", ["uint64_t max_output;", "MaxOutput", "max_output", "maxOutput", "-"]),
    ],
};

/// In C, an attach has the options of an exec.
#[rustfmt::skip]
const ATTACH: Group = Group {
    rust: "crates/microsandbox/src/attach/options.rs",
    section: ("impl AttachOptionsBuilder {", "\n}\n"),
    around: METHODS,
    languages: [
        Language { source: HEADER, section: ("---- attach ----", "#endif"), around: ("\n", " ") },
        Language { source: "sdk/go/attach.go", section: ("", ""), around: ("func With", "(") },
        Language { source: PYTHON, section: ("class AttachOptions", "\n\n\n"), around: ("\n    ", ": ") },
        Language { source: "sdk/node/src/options.ts", section: ("abstract class CommandBuilder", "\n}\n"), around: ("\n  ", "(") },
        // `msb exec -t` attaches.
        Language { source: "docs/cli.md", section: ("### msb exec", "\n### "), around: ("--", "") },
    ],
    rows: &[
        ("arg", ["const struct msb_exec_options *exec;", "AttachArgs", "-", "arg", "-"]),
        ("arg_bytes", ["const struct msb_exec_options *exec;", "AttachArgs", "-", "arg", "-"]),
        ("args", ["const struct msb_exec_options *exec;", "AttachArgs", "-", "args", "-"]),
        ("cwd", ["const struct msb_exec_options *exec;", "AttachCwd", "cwd", "cwd", "workdir "]),
        ("cwd_bytes", ["const struct msb_exec_options *exec;", "AttachCwd", "cwd", "cwd", "workdir "]),
        ("user", ["const struct msb_exec_options *exec;", "AttachUser", "user", "user", "user "]),
        ("env", ["const struct msb_exec_options *exec;", "AttachEnv", "env", "env", "env "]),
        ("env_bytes", ["const struct msb_exec_options *exec;", "AttachEnv", "env", "env", "env "]),
        ("envs", ["const struct msb_exec_options *exec;", "AttachEnv", "env", "envs", "env-file "]),
        // In TypeScript, another class has it.
        ("detach_keys", ["const char *detach_keys;", "DetachKeys", "detach_keys", "-", "detach-keys "]),
        ("rlimit", ["const struct msb_exec_options *exec;", "AttachRlimit", "rlimits", "rlimit", "rlimit "]),
        ("rlimit_range", ["const struct msb_exec_options *exec;", "AttachRlimitRange", "rlimits", "rlimitRange", "rlimit "]),
        ("timeout", ["const struct msb_exec_options *exec;", "AttachTimeout", "timeout", "timeout", "timeout "]),
    ],
};

#[rustfmt::skip]
const LOGS: Group = Group {
    rust: "crates/state/src/log/reader.rs",
    section: ("pub struct LogOptions {", "\n}\n"),
    around: ("    pub ", ":"),
    languages: [
        Language { source: HEADER, section: ("---- log ----", "/* ----"), around: ("\n", " ") },
        Language { source: "sdk/go/logs.go", section: ("", ""), around: ("func WithLog", "(") },
        Language { source: "sdk/python/src/microsandbox/_async.py", section: ("def logs(", ")"), around: ("\n        ", ": ") },
        Language { source: "sdk/node/src/logs.ts", section: ("interface LogsOptions", "\n}\n"), around: ("\n  ", "?: ") },
        Language { source: "docs/cli.md", section: ("### msb logs", "\n### "), around: ("--", "") },
    ],
    rows: &[
        ("session", ["const char *session;", "Session", "session_id", "session", "session "]),
        ("since", ["int64_t since_ns;", "Since", "since", "since", "since "]),
        ("follow", ["#define MSB_LOG_FOLLOW", "Follow", "follow", "follow", "follow`"]),
    ],
};

const GROUPS: [Group; 4] = [SANDBOX, EXEC, ATTACH, LOGS];

/// Returns the text of a file, or of all files of a folder.
fn text_of(path: &Path) -> String {
    if path.is_file() {
        return std::fs::read_to_string(path).unwrap();
    }
    let files = std::fs::read_dir(path).unwrap().flatten().map(|entry| entry.path());
    files.filter(|path| path.is_file()).map(|path| text_of(&path)).collect()
}

/// Returns the section between two texts of a file; all of it if they are empty.
fn section_of(source: &str, (from, to): (&str, &str)) -> String {
    let text = text_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join(source));
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("{source} has no {from:?}"));
    let end = if to.is_empty() { None } else { rest.find(to) };
    rest[..end.unwrap_or(rest.len())].to_owned()
}

#[test]
fn options_of_rust_exist_in_every_language() {
    for Group { languages, rows, .. } in &GROUPS {
        for (number, Language { source, section, around }) in languages.iter().enumerate() {
            let mut text = section_of(source, *section);
            if *source == HEADER {
                // Separates fields from constants, without indentation.
                text = text.lines().map(|line| format!("\n{} ", line.trim_start())).collect();
            }
            for (option, names) in *rows {
                let definition = format!("{}{}{}", around.0, names[number], around.1);
                let found = names[number] == "-" || text.contains(&definition);
                assert!(found, "{option}: {definition:?} is not in {source} ({section:?})");
            }
        }
    }
}

#[test]
fn options_of_rust_have_a_row_each() {
    for Group { rust, section, around: (before, behind), rows, .. } in &GROUPS {
        let mut count = 0;
        for line in section_of(rust, *section).lines() {
            let Some(rest) = line.strip_prefix(before) else { continue };
            let name = rest.split(['<', behind.chars().next().unwrap()]).next().unwrap();
            if ["new", "build", "create"].contains(&name) {
                continue;
            }
            let known = rows.iter().any(|(option, _)| *option == name);
            assert!(known, "{name} of {rust} has no row in this test");
            count += 1;
        }
        assert_eq!(count, rows.len(), "a row of {rust} is of an option that is not there");
    }
}
