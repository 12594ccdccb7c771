//! Images through the public interface.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use common::{block_on, builder, rootfs, setup, shell, wait_until};
use microsandbox::{BuildOptions, ErrorKind, Image, ImageInfo, ImagePhase, PullPolicy, Sandbox};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Imports an image with a command under a name of the test.
fn built(name: &str, options: BuildOptions) -> ImageInfo {
    setup();
    let mut operation = Image::build_from_dir(rootfs(), name, options).unwrap();
    while block_on(operation.progress()).is_some() {}
    block_on(operation.wait()).unwrap()
}

fn options(cmd: &[&str]) -> BuildOptions {
    let cmd = cmd.iter().map(|word| (*word).to_owned()).collect();
    BuildOptions { cmd, ..BuildOptions::default() }
}

fn stdout_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes an archive, in the form of docker save, of an image with this configuration, whose second
/// layer has what `fill` puts into a directory.
fn archive_of(config: &serde_json::Value, fill: impl FnOnce(&Path)) -> PathBuf {
    setup();
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
    let at = |name: &str| scratch.join(name).display().to_string();
    std::fs::create_dir(at("upper")).unwrap();
    fill(&scratch.join("upper"));
    let mut digests = Vec::new();
    for (layer, of) in [("0.tar", rootfs().to_str().unwrap()), ("1.tar", &at("upper"))] {
        stdout_of("tar", &["-C", of, "-cf", &at(layer), "."]);
        let sum = stdout_of("sha256sum", &[&at(layer)]);
        digests.push(format!("sha256:{}", sum.split(' ').next().unwrap()));
    }
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let document = json!({ "architecture": architecture, "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": digests } });
    let manifest = json!([{ "Config": "config", "Layers": ["0.tar", "1.tar"] }]);
    std::fs::write(at("config"), document.to_string()).unwrap();
    std::fs::write(at("manifest.json"), manifest.to_string()).unwrap();
    let archive = scratch.with_extension("tar");
    let members = ["manifest.json", "config", "0.tar", "1.tar"];
    let packed = ["-C", scratch.to_str().unwrap(), "-cf", archive.to_str().unwrap()];
    stdout_of("tar", &[&packed[..], &members].concat());
    std::fs::remove_dir_all(&scratch).unwrap();
    archive
}

/// Creates a sandbox of such an image.
fn configured(
    name: &str,
    config: &serde_json::Value,
    fill: impl FnOnce(&Path),
) -> microsandbox::MicrosandboxResult<Sandbox> {
    let archive = archive_of(config, fill);
    let created = block_on(builder(name).image(&archive).create());
    std::fs::remove_file(archive).unwrap();
    created
}

#[test]
fn g10_missing_volumes_and_workdir_are_created_inside() {
    let config = json!({
        "WorkingDir": "/app/src", "User": "me",
        "Volumes": { "/var/lib/data": {}, "relative/./x": {}, "/work": {}, "/out/x": {} },
    });
    let outside = tempfile::tempdir().unwrap();
    let sandbox = configured("volumes", &config, |upper| {
        symlink("/data/app", upper.join("app")).unwrap();
        symlink(outside.path().join("made"), upper.join("out")).unwrap();
    });
    let sandbox = sandbox.unwrap();
    let found = shell(&sandbox, "pwd -P; stat -c '%a %u:%g %F' . /var/lib/data /relative/x /out/x");
    let line = "755 0:0 directory\n";
    assert_eq!(found, format!("/data/app/src\n{}", line.repeat(4)));
    assert_eq!(shell(&sandbox, "cat /work/hello | head -n 1"), "#!/bin/sh\n", "what was there");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn g10_volume_or_workdir_that_is_a_file_is_refused_by_name() {
    for (field, value) in [
        ("Volumes", json!({ "/etc/passwd": {} })),
        ("Volumes", json!({ "/file/x": {} })),
        ("WorkingDir", json!("/etc/passwd")),
    ] {
        let made = configured("file", &json!({ field: value }), |upper| {
            symlink("etc/passwd", upper.join("file")).unwrap();
        });
        let error = made.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ImageInvalid);
        let named = ["/etc/passwd", "/file/x"].iter().any(|path| error.to_string().contains(path));
        assert!(named && error.to_string().contains("Not a directory"), "{error}");
    }
}

#[test]
fn g10_entrypoint_precedes_the_command_and_can_be_replaced() {
    let image = BuildOptions {
        entrypoint: vec!["echo".to_owned(), "entry".to_owned()],
        ..options(&["cmd"])
    };
    built("entry", image);
    let create = |name: &str| builder(name).image("entry").pull_policy(PullPolicy::Never);
    let plain = block_on(create("entry").create()).unwrap();
    assert_eq!(plain.entrypoint(), ["echo", "entry"]);
    assert_eq!(plain.default_command().unwrap(), ["echo", "entry", "cmd"]);
    // Of a command that is named, nothing is said by the image.
    assert_eq!(block_on(plain.exec("echo", ["own"])).unwrap().stdout().unwrap(), "own\n");
    let own = block_on(create("own-entry").entrypoint(["/bin/cat", "-n"]).create()).unwrap();
    assert_eq!(own.default_command().unwrap(), ["/bin/cat", "-n"]);
    let none = block_on(create("no-entry").entrypoint([""]).create()).unwrap();
    assert_eq!(none.entrypoint(), [] as [&str; 0]);
    assert_eq!(none.default_command().unwrap_err().kind(), ErrorKind::NoCommand);
    let empty = block_on(create("empty-entry").entrypoint([] as [&str; 0]).create()).unwrap();
    assert_eq!(empty.default_command().unwrap_err().kind(), ErrorKind::NoCommand);
}

#[test]
fn g10_fields_that_are_not_used_do_no_harm() {
    let config = json!({
        "Env": ["NOTHING", "=nobody", "KEY=a=b"], "User": "1000:", "WorkingDir": "work/../work/",
        "Shell": ["/bin/ash", "-c"], "Entrypoint": [""], "Cmd": null, "Labels": { "a": "b" },
        "Volumes": null, "StopSignal": null, "ExposedPorts": { "80/tcp": {} }, "ArgsEscaped": true,
        "Healthcheck": { "Test": ["CMD", "false"], "Interval": 1 }, "OnBuild": ["RUN false"],
        "StopTimeout": 1, "Hostname": "other", "Domainname": "other", "MacAddress": "0", "Later": 1,
    });
    let sandbox = configured("unused", &config, |_| ()).unwrap();
    assert_eq!(
        shell(&sandbox, "echo $0 $(id -u):$(id -g) $PWD $KEY"),
        "/bin/ash 1000:1000 /work a=b\n"
    );
    assert_eq!(shell(&sandbox, "env | grep -c -e ^NOTHING -e nobody || :"), "0\n");
    assert_eq!(shell(&sandbox, "hostname"), "unused\n");
    assert_eq!(sandbox.default_command().unwrap_err().kind(), ErrorKind::NoCommand);
}

/// A command that ends by SIGINT alone, and says so.
const BY_INT: &str =
    "trap 'echo INT; exit' INT; trap '' TERM; touch /tmp/ready; while :; do sleep 0.1; done";

/// Stops a sandbox while such a command runs in it, and returns what the command writes.
fn stopped_with(sandbox: &Sandbox, script: &str) -> String {
    shell(sandbox, "rm -f /tmp/ready");
    let mut command = block_on(sandbox.shell_stream(script)).unwrap();
    wait_until(sandbox, "[ -e /tmp/ready ]");
    block_on(sandbox.stop_with_timeout(Duration::from_secs(100))).unwrap();
    let output = block_on(command.collect()).unwrap();
    output.stdout().unwrap().to_owned()
}

#[test]
fn g10_stop_signal_of_image_or_caller_ends_the_command() {
    let config = json!({ "StopSignal": "SIGINT" });
    let sandbox = configured("stop-signal", &config, |_| ()).unwrap();
    assert_eq!(stopped_with(&sandbox, BY_INT), "INT\n");
    // The next start has it as well.
    let sandbox = block_on(Sandbox::start("stop-signal")).unwrap();
    assert_eq!(stopped_with(&sandbox, BY_INT), "INT\n");
    for signal in ["INT", "2", "sigint"] {
        let own = block_on(builder("own-signal").stop_signal(signal).create()).unwrap();
        assert_eq!(stopped_with(&own, BY_INT), "INT\n", "{signal}");
    }
    let real = "trap 'echo RT; exit' 37; touch /tmp/ready; while :; do sleep 0.1; done";
    let own = block_on(builder("own-signal").stop_signal("RTMIN+3").create()).unwrap();
    assert_eq!(stopped_with(&own, real), "RT\n");
    // SIGTERM, named or not, reaches every process.
    let everyone = "sleep 600 & touch /tmp/ready; wait; echo woken";
    for builder in [builder("own-signal"), builder("own-signal").stop_signal("TERM")] {
        let own = block_on(builder.create()).unwrap();
        let script = format!("trap : TERM; {everyone}");
        assert_eq!(stopped_with(&own, &script), "woken\n");
    }
}

#[test]
fn g10_stop_signal_that_is_none_is_refused_by_name() {
    let error = configured("no-signal", &json!({ "StopSignal": "SIGFOO" }), |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ImageInvalid);
    assert!(error.to_string().contains("\"SIGFOO\" is no signal"), "{error}");
    for bad in ["", "FOO", "0", "65", "-2", "RTMIN+31"] {
        // Before the image is looked for.
        let created = builder("no-signal").image("no/such:1").stop_signal(bad).create();
        let error = block_on(created).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
        assert!(error.to_string().contains(&format!("{bad:?} is no signal")), "{error}");
    }
}

#[test]
fn g_callers_options_override_the_images_defaults() {
    let options = BuildOptions {
        env: vec!["A=image".to_owned(), "B=image".to_owned()],
        workdir: "/work".to_owned(),
        user: "me".to_owned(),
        entrypoint: vec!["/bin/env".to_owned()],
        ..options(&["echo", "default"])
    };
    let info = built("defaults", options);
    assert_eq!(
        (info.names.as_slice(), info.layers.len()),
        (&["defaults:latest".to_owned()][..], 1)
    );
    let create = |name: &str| builder(name).image("defaults").pull_policy(PullPolicy::Never);
    let plain = block_on(create("plain").create()).unwrap();
    let script = "echo $A $B $PWD $(id -un)";
    let output = block_on(plain.shell(script)).unwrap();
    assert_eq!(output.stdout().unwrap(), "image image /work me\n");
    let command = plain.default_command().unwrap();
    assert_eq!(command, ["/bin/env", "echo", "default"]);
    let own = create("own").env("B", "own").workdir("/tmp").user("root");
    let own = block_on(own.create()).unwrap();
    let output = block_on(own.shell(script)).unwrap();
    assert_eq!(output.stdout().unwrap(), "image own /tmp root\n");
    let output = block_on(own.exec_with("sh", |o| o.args(["-c", script]).env("A", "exec")));
    assert_eq!(output.unwrap().stdout().unwrap(), "exec own /tmp root\n");
    let info = block_on(Image::get("defaults")).unwrap();
    assert_eq!(info.used_by, ["own", "plain"]);
    let error = block_on(Image::remove("defaults", false)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ImageInUse);
    assert_eq!(block_on(plain.info()).unwrap().image, PathBuf::from("defaults:latest"));
}

#[test]
fn g_image_without_a_command_has_its_own_error_kind() {
    let directory = common::sandbox("directory");
    let error = directory.default_command().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoCommand);
    built("silent", BuildOptions::default());
    let silent = block_on(builder("silent").image("silent").create()).unwrap();
    assert_eq!(silent.default_command().unwrap_err().kind(), ErrorKind::NoCommand);
}

#[test]
fn g_creation_reports_the_progress_of_its_image() {
    let archive = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("reported.tar");
    let _ = std::fs::remove_file(&archive);
    built("reported", options(&["true"]));
    let mut exporting = Image::export("reported", &archive).unwrap();
    block_on(exporting.wait()).unwrap();
    block_on(Image::remove("reported", false)).unwrap();
    // An untagged image is kept while other tests use the store, so poll.
    block_on(Image::prune(false)).unwrap();
    let reported = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&reported);
    let tell = move |progress: microsandbox::ImageProgress| list.lock().unwrap().push(progress);
    block_on(builder("reported").image(&archive).on_progress(tell).create()).unwrap();
    let reported = reported.lock().unwrap();
    let mut phases: Vec<ImagePhase> = reported.iter().map(|progress| progress.phase).collect();
    phases.dedup();
    assert_eq!(phases, [ImagePhase::Unpacking, ImagePhase::Starting]);
    assert!(reported.iter().any(|p| p.bytes == p.bytes_total && p.bytes > 0 && p.layers_done == 1));
}

#[test]
fn g_errors_about_images_have_kinds() {
    setup();
    let kind_of = |name: &str, policy| {
        let created = block_on(builder("kinds").image(name).pull_policy(policy).create());
        created.unwrap_err().kind()
    };
    assert_eq!(kind_of("no/such:1", PullPolicy::Never), ErrorKind::ImageNotFound);
    assert_eq!(kind_of("./no/such", PullPolicy::Missing), ErrorKind::InvalidConfig);
    assert_eq!(kind_of("No Name", PullPolicy::Missing), ErrorKind::InvalidConfig);
    // No server listens on the discard port of this machine.
    assert_eq!(kind_of("127.0.0.1:9/x", PullPolicy::Missing), ErrorKind::RegistryUnreachable);
    let broken = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("broken.tar");
    std::fs::write(&broken, vec![b'x'; 4096]).unwrap();
    let broken = broken.to_str().unwrap();
    assert_eq!(kind_of(broken, PullPolicy::Missing), ErrorKind::ImageInvalid);
    assert_eq!(block_on(Sandbox::get("kinds")).unwrap_err().kind(), ErrorKind::SandboxNotFound);
}

#[test]
fn g_dropped_operation_is_cancelled() {
    setup();
    // A server that accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/x", silent.local_addr().unwrap());
    let operation = Image::pull(&name).unwrap();
    let (mut connection, _) = silent.accept().unwrap();
    drop(operation);
    // The connected process has ended, and its connection with it.
    let read = std::io::copy(&mut connection, &mut std::io::sink());
    assert!(read.is_ok() || read.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
}
