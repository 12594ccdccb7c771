//! Images: pulled, imported, built, and the promises of the store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, also in shared code"
)]

#[path = "support/fake_registry.rs"]
mod fake_registry;
#[path = "support/registry.rs"]
mod registry;
mod support;

use fake_registry::{Cut, FakeRegistry, INDEX, digest, gzip, layer, layer_of, noise};
use registry::{PASSWORD, Registry, USER};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use support::{Msb, image, signal};

/// Polls until a condition holds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed().as_secs() < 60, "timed out waiting: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn files_in(msb: &Msb, folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(msb.home.path().join("images").join(folder));
    entries.map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// Builds the image `app`, busybox with a default command, and returns an archive of it.
fn build_app(msb: &Msb) -> PathBuf {
    let archive = msb.home.path().join("app.tar");
    msb.ok(&[
        "image",
        "build-from-dir",
        image(),
        "app",
        "--env",
        "FROM=image",
        "--workdir",
        "/srv/app",
        "--entrypoint",
        r#"["/bin/sh","-c"]"#,
        "--cmd",
        r#"["echo $FROM $PWD"]"#,
    ]);
    msb.ok(&["image", "export", "app", archive.to_str().unwrap()]);
    archive
}

#[test]
fn g_pulled_image_sets_command_defaults() {
    let msb = Msb::new();
    let registry = Registry::start(false, false);
    registry.push(&build_app(&msb), "org/app:1");
    msb.ok(&["image", "prune", "--all"]);
    let name = registry.name("org/app:1");
    assert_eq!(msb.ok(&["run", &name]), "image /srv/app\n");
    assert_eq!(msb.ok(&["run", "-e", "FROM=me", "-w", "/tmp", &name]), "me /tmp\n");
    assert_eq!(msb.ok(&["run", &name, "--", "pwd"]), "/srv/app\n", "sh -c pwd");
    let by_digest = msb.json(&["image", "inspect", &name])[0]["digests"][0].clone();
    let by_digest = format!("{}@{}", registry.name("org/app"), by_digest.as_str().unwrap());
    assert_eq!(msb.ok(&["run", "--pull", "never", &by_digest]), "image /srv/app\n");
    msb.ok(&["create", "--name", "box", &name]);
    assert_eq!(msb.ok(&["exec", "box", "--", "sh", "-c", "echo $FROM"]), "image\n");
    assert_eq!(msb.json(&["ls", "--json"])[0]["image"], name.as_str());
    // The defaults survive a restart.
    msb.ok(&["stop", "box"]);
    msb.ok(&["start", "box"]);
    assert_eq!(msb.ok(&["exec", "box", "--", "pwd"]), "/srv/app\n");
}

#[test]
fn g10_arguments_of_run_follow_the_entrypoint() {
    let msb = Msb::new();
    let entry = ["--entrypoint", r#"["echo","entry"]"#, "--cmd", "cmd"];
    msb.ok(&[&["image", "build-from-dir", image(), "app"][..], &entry].concat());
    let run = |words: &[&str]| msb.ok(&[&["run"][..], words].concat());
    assert_eq!(run(&["app"]), "entry cmd\n");
    assert_eq!(run(&["app", "--", "extra", "-x"]), "entry extra -x\n");
    assert_eq!(run(&["app", "extra"]), "entry extra\n");
    // A replaced entrypoint drops the image's command.
    assert_eq!(run(&["--entrypoint", "/bin/echo", "app"]), "\n");
    assert_eq!(run(&["--entrypoint", "/bin/echo", "app", "--", "a", "b"]), "a b\n");
    assert_eq!(run(&["--entrypoint", r#"["echo","-n"]"#, "app", "a"]), "a");
    assert_eq!(run(&["--entrypoint", "", "app", "--", "echo", "bare"]), "bare\n");
    assert_eq!(run(&["--entrypoint=", image(), "--", "echo", "bare"]), "bare\n");
    let error = msb.fails(125, &["run", "--entrypoint", "", "app"]);
    assert!(error.contains("app:latest has no command"), "{error}");
    let error = msb.fails(127, &["run", "--entrypoint", "no-such", "app"]);
    assert!(error.contains("no-such"), "{error}");
    msb.ok(&["create", "--name", "box", "--entrypoint", "cat", "app"]);
    assert_eq!(msb.ok(&["exec", "box", "echo", "own"]), "own\n", "exec has no entrypoint");
}

#[test]
fn g_used_images_stay_and_unused_are_removed() {
    let msb = Msb::new();
    build_app(&msb);
    msb.ok(&["create", "--name", "box", "app"]);
    msb.ok(&["stop", "box"]);
    let error = msb.fails(125, &["image", "rm", "app"]);
    assert!(error.contains("box"), "{error}");
    let kept = msb.json(&["image", "prune", "--all", "--json"]);
    assert_eq!(kept["removed"], json!([]));
    msb.ok(&["image", "rm", "--force", "app"]);
    assert_eq!(msb.json(&["image", "ls", "--json"])[0]["names"], json!([]));
    msb.ok(&["start", "box"]);
    assert_eq!(msb.ok(&["exec", "box", "--", "pwd"]), "/srv/app\n");
    msb.ok(&["rm", "-f", "box"]);
    let report = msb.json(&["image", "prune", "--json"]);
    assert!(report["freed_bytes"].as_u64().unwrap() > 1_000_000, "{report}");
    for folder in ["roots", "blobs/sha256", "refs", "tmp", "partial", "locks"] {
        assert_eq!(files_in(&msb, folder), Vec::<PathBuf>::new(), "{folder}");
    }
    assert!(msb.fails(125, &["image", "rm", "app"]).contains("not in the store"));
}

#[test]
fn g_archives_and_layouts_are_run_directly() {
    let msb = Msb::new();
    let archive = build_app(&msb);
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name).display().to_string();
    let tool = |program: &str, arguments: &[&str]| {
        let output = std::process::Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let from = format!("oci-archive:{}", archive.display());
    let copy = |to: String| tool("skopeo", &["copy", "-q", "--insecure-policy", &from, &to]);
    copy(format!("oci:{}", at("layout")));
    copy(format!("docker-archive:{}:saved/app:2", at("saved.tar")));
    tool("tar", &["-C", image(), "-czf", &at("rootfs.tar.gz"), "."]);
    msb.ok(&["image", "prune", "--all"]);
    for name in ["layout", "saved.tar"] {
        assert_eq!(msb.ok(&["run", &at(name)]), "image /srv/app\n", "{name}");
    }
    assert_eq!(msb.ok(&["run", archive.to_str().unwrap()]), "image /srv/app\n");
    let error = msb.fails(125, &["run", &at("rootfs.tar.gz")]);
    assert!(error.contains("no command of its own"), "{error}");
    assert_eq!(msb.ok(&["run", &at("rootfs.tar.gz"), "--", "echo", "hi"]), "hi\n");
    // The name comes from the archive, or from the command line.
    msb.ok(&["image", "import", &at("saved.tar")]);
    assert_eq!(msb.ok(&["run", "--pull", "never", "saved/app:2"]), "image /srv/app\n");
    msb.ok(&["image", "import", &at("rootfs.tar.gz"), "plain:1"]);
    assert_eq!(msb.ok(&["run", "plain:1", "--", "echo", "hi"]), "hi\n");
    // The same content is stored once, however it was imported.
    let ids = msb.json(&["image", "ls", "--json"]);
    assert_eq!(ids.as_array().unwrap().len(), 2, "{ids}");
    for (program, suffix) in [("xz", "xz"), ("bzip2", "bz2")] {
        tool(program, &["-k", &at("saved.tar")]);
        assert_eq!(msb.ok(&["run", &at(&format!("saved.tar.{suffix}"))]), "image /srv/app\n");
    }
    // A FIFO is read once, and again by the next command.
    tool("mkfifo", &[&at("fifo")]);
    let fifo = at("fifo");
    let given: [(&str, &[&str], &str); 2] = [
        ("saved.tar.xz", &["run", &fifo], "image /srv/app\n"),
        ("rootfs.tar.gz", &["run", &fifo, "--", "echo", "hi"], "hi\n"),
    ];
    for (file, arguments, output) in given {
        let (from, to) = (at(file), fifo.clone());
        let writer = std::thread::spawn(move || {
            std::io::copy(
                &mut fs::File::open(from)?,
                &mut fs::OpenOptions::new().write(true).open(to)?,
            )
        });
        assert_eq!(msb.ok(arguments), output, "{file}");
        writer.join().unwrap().unwrap();
    }
    assert!(files_in(&msb, "tmp").is_empty());
    fs::write(at("nonsense.tar"), "no archive").unwrap();
    assert!(msb.fails(125, &["run", &at("nonsense.tar")]).contains("nonsense.tar"));
}

#[test]
fn g_pull_policy_decides_when_to_pull() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let base = layer_of(Path::new(image()));
    let offer = |text: &str| {
        let layers = [base.clone(), layer(&[("version", text.as_bytes())])];
        fake.add_image("app", "1", &layers, &json!({ "Cmd": ["cat", "/version"] }));
    };
    offer("one");
    let name = fake.name("app:1");
    let error = msb.fails(125, &["run", "--pull", "never", &name]);
    assert!(error.contains("not to be pulled"), "{error}");
    assert_eq!(fake.requests("").len(), 0);
    assert_eq!(msb.ok(&["run", &name]), "one");
    offer("two");
    assert_eq!(msb.ok(&["run", &name]), "one", "it is in the store");
    assert_eq!(msb.ok(&["run", "--pull", "never", &name]), "one");
    let before = fake.requests("/blobs/").len();
    assert_eq!(msb.ok(&["run", "--pull", "always", &name]), "two");
    assert_eq!(fake.requests("/blobs/").len(), before + 2, "the base layer is reused");
    assert_eq!(msb.ok(&["run", "--pull", "always", &name]), "two");
    assert_eq!(fake.requests("/blobs/").len(), before + 2, "everything is reused");
    assert!(msb.fails(125, &["run", "--pull", "sometimes", &name]).contains("missing"));
}

#[test]
fn g_image_errors_name_the_cause_and_the_registry() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let none = fake.name("none:1");
    let error = msb.fails(125, &["image", "pull", &none]);
    assert!(error.contains(&format!("{} has no image {none}", fake.host)), "{error}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = msb.fails(125, &["run", &format!("{nobody}/x"), "--", "true"]);
    assert!(error.contains("cannot reach") && error.contains("refused"), "{error}");
    let error = msb.fails(125, &["image", "pull", "no-such-host.invalid/x"]);
    assert!(error.contains("cannot reach no-such-host.invalid"), "{error}");
    assert!(msb.fails(125, &["image", "pull", "Python"]).contains("lower case"));
    assert!(msb.fails(125, &["image", "pull", "./x"]).contains("./x"));
    assert_eq!(msb.names(), Vec::<String>::new(), "no sandbox is left");
    // A layer that does not match its digest.
    let bad = layer(&[("f", b"content")]);
    fake.add_image("bad", "1", std::slice::from_ref(&bad), &json!({}));
    fake.corrupt("bad", &digest(&gzip(&bad)));
    let error = msb.fails(125, &["image", "pull", &fake.name("bad:1")]);
    assert!(error.contains("has the digest"), "{error}");
    assert_eq!(files_in(&msb, "partial"), Vec::<PathBuf>::new(), "the bad layer is not kept");
    // A layer that does not match its diff id.
    let (other, config) = (layer(&[("g", b"other")]), json!({}));
    fake.add_packed_image("liar", "1", &[bad], vec![gzip(&other)], &config);
    let error = msb.fails(125, &["image", "pull", &fake.name("liar:1")]);
    assert!(error.contains("unpacks to"), "{error}");
    assert_eq!(files_in(&msb, "roots").len() + files_in(&msb, "tmp").len(), 0);
}

#[test]
fn g_index_selects_the_own_platform() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let layers = [layer_of(Path::new(image()))];
    let own = fake.add_image("multi", "own", &layers, &json!({ "Cmd": ["echo", "own"] }));
    let other = fake.add_image("multi", "other", &layers, &json!({ "Cmd": ["echo", "other"] }));
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let index = |platforms: &[(&str, &str)]| {
        let entry = |(architecture, digest): &(&str, &str)| {
            json!({ "mediaType": fake_registry::MANIFEST, "digest": digest, "size": 1,
                "platform": { "os": "linux", "architecture": architecture } })
        };
        let all: Vec<_> = platforms.iter().map(entry).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": all });
        index.to_string().into_bytes()
    };
    let both = index(&[("s390x", &other), (architecture, &own)]);
    fake.put_manifest("multi", "1", INDEX, both);
    assert_eq!(msb.ok(&["run", &fake.name("multi:1")]), "own\n");
    fake.put_manifest("multi", "2", INDEX, index(&[("s390x", &other)]));
    let error = msb.fails(125, &["image", "pull", &fake.name("multi:2")]);
    assert!(error.contains("only for linux/s390x"), "{error}");
}

#[test]
fn g_broken_download_resumes_where_it_stopped() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let (name, digest) = fake.add_big_image(3 << 20);
    fake.cut(Cut::Disconnect(1 << 20));
    msb.ok(&["image", "pull", &name]);
    let requests = fake.requests(&digest);
    let [None, Some(range)] = requests.as_slice() else { panic!("{requests:?}") };
    let start: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!(start > 0 && start <= 1 << 20, "{range}");
    let rootfs = msb.json(&["image", "ls", "--json"])[0]["rootfs"].clone();
    let found = fs::read(Path::new(rootfs.as_str().unwrap()).join("noise")).unwrap();
    assert!(found == noise(3 << 20), "the content is intact");
}

#[test]
fn g_killed_pull_is_resumed_by_the_next() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let (name, digest) = fake.add_big_image(3 << 20);
    fake.cut(Cut::Hang(1 << 20));
    let mut child = msb.spawn(&["image", "pull", &name]);
    fake.wait_until_cut();
    let part =
        || files_in(&msb, "partial").iter().any(|path| fs::metadata(path).unwrap().len() > 0);
    eventually("a partial download exists", part);
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    let home = msb.home.path().to_str().unwrap().to_owned();
    let is_working = || {
        fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("image\0--home") && line.contains(&home)
        })
    };
    eventually("the pull process ends", || !is_working());
    assert_eq!(msb.json(&["image", "ls", "--json"]), json!([]));
    // The next pull removes a partially unpacked image.
    fs::create_dir_all(msb.home.path().join("images/tmp/1-2-3/rootfs/half")).unwrap();
    msb.ok(&["image", "pull", &name]);
    assert!(fake.requests(&digest)[1].is_some(), "the download is resumed");
    assert_eq!(files_in(&msb, "tmp"), Vec::<PathBuf>::new());
    fake.open_gate();
}

#[test]
fn g_killed_pull_leaves_no_partial_image() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let files: Vec<(String, Vec<u8>)> =
        (0..400).map(|n| (format!("d{}/f{n}", n % 20), noise(4096 + n))).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect();
    fake.add_image("many", "1", &[layer(&files)], &json!({ "Cmd": ["true"] }));
    let name = fake.name("many:1");
    let begun = std::time::Instant::now();
    msb.ok(&["image", "pull", &name]);
    let whole = begun.elapsed();
    for round in 0..8 {
        msb.ok(&["image", "prune", "--all"]);
        let mut child = msb.spawn(&["image", "pull", &name]);
        // At an arbitrary moment, so no condition is waited for.
        std::thread::sleep(whole * round / 7);
        signal(&child, Signal::KILL);
        child.wait().unwrap();
        for info in msb.json(&["image", "ls", "--json"]).as_array().unwrap() {
            let rootfs = PathBuf::from(info["rootfs"].as_str().unwrap());
            let count =
                (0..20).map(|n| fs::read_dir(rootfs.join(format!("d{n}"))).unwrap().count());
            assert_eq!(count.sum::<usize>(), 400, "listed images are complete");
        }
        msb.ok(&["image", "pull", &name]);
        assert_eq!(files_in(&msb, "roots").len(), 1);
    }
    msb.ok(&["image", "prune", "--all"]);
    assert_eq!(files_in(&msb, "tmp").len() + files_in(&msb, "blobs/sha256").len(), 0);
}

#[test]
fn g_progress_is_shown_on_a_terminal_only() {
    use std::io::Read;
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let (name, _) = fake.add_big_image(2 << 20);
    let (mut master, terminal) = support::pty::open();
    let mut command = msb.command(&["image", "pull", &name]);
    command.env("TERM", "xterm").stdout(std::process::Stdio::piped()).stderr(terminal);
    fake.cut(Cut::Hang(1 << 20));
    let child = command.spawn().unwrap();
    // The command holds the terminal open too.
    drop(command);
    let mut seen = String::new();
    while !(seen.contains("downloading") && seen.contains("0/1 layers")) {
        let mut buffer = [0; 4096];
        let count = master.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    fake.open_gate();
    // Keeps reading, since the terminal's buffer is small.
    let reader = std::thread::spawn(move || drop(std::io::copy(&mut master, &mut std::io::sink())));
    let output = child.wait_with_output().unwrap();
    reader.join().unwrap();
    assert!(output.status.success());
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.starts_with("sha256:") && out.lines().count() == 1, "{out}");
    // `ok` checks that nothing is printed on standard error, which is a pipe.
    msb.ok(&["image", "prune", "--all"]);
    msb.ok(&["image", "pull", &name]);
}

#[test]
fn g_concurrent_pulls_share_one_download() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let (name, digest) = fake.add_big_image(2 << 20);
    fake.cut(Cut::Hang(1 << 20));
    let mut first = msb.spawn(&["image", "pull", &name]);
    fake.wait_until_cut();
    let mut second = msb.spawn(&["image", "pull", &name]);
    eventually("both requested the manifest", || fake.requests("/manifests/1").len() == 2);
    fake.open_gate();
    for child in [&mut first, &mut second] {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fake.requests(&digest).len(), 1, "it is downloaded once");
    assert_eq!(files_in(&msb, "roots").len(), 1);
}

#[test]
fn g_credentials_from_docker_config_and_helpers() {
    let msb = Msb::new();
    let registry = Registry::start(false, true);
    registry.push(&build_app(&msb), "private/app:1");
    msb.ok(&["image", "prune", "--all"]);
    let name = registry.name("private/app:1");
    let denied = format!("access to {name} denied by {}", registry.host);
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let pull = || {
        let mut command = msb.command(&["image", "pull", &name]);
        command.env("DOCKER_CONFIG", folder.path()).env_remove("REGISTRY_AUTH_FILE");
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", folder.path().display()));
        support::outcome(command.output().unwrap())
    };
    let refused = pull();
    assert_eq!(refused.code, 125);
    assert!(refused.err.contains(&denied), "{}", refused.err);
    let entry = |password: &str| json!({ "username": USER, "password": password });
    let write = |file: serde_json::Value| fs::write(&config, file.to_string()).unwrap();
    write(json!({ "auths": { registry.host.as_str(): entry("wrong") } }));
    let refused = pull();
    assert!(refused.err.contains(&denied), "{}", refused.err);
    assert!(!refused.err.contains("wrong"), "the error contains the password: {}", refused.err);
    write(json!({ "auths": { registry.host.as_str(): entry(PASSWORD) } }));
    assert_eq!(pull().code, 0);
    msb.ok(&["image", "prune", "--all"]);
    // Docker's protocol: the registry on standard input, JSON on standard output.
    let helper = folder.path().join("docker-credential-test");
    let answer = json!({ "ServerURL": "x", "Username": USER, "Secret": PASSWORD });
    let host = &registry.host;
    let script = format!("read -r host\n[ \"$host\" = {host} ] && echo '{answer}'");
    support::write_script(&helper, &script);
    write(json!({ "credHelpers": { registry.host.as_str(): "test" } }));
    assert_eq!(pull().code, 0);
    msb.ok(&["image", "prune", "--all"]);
    write(json!({ "credsStore": "test" }));
    assert_eq!(pull().code, 0);
}

#[test]
fn g_anonymous_token_is_requested() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let layers = [layer_of(Path::new(image()))];
    fake.add_image("library/app", "latest", &layers, &json!({ "Cmd": ["echo", "with a token"] }));
    fake.require_tokens();
    let name = fake.name("library/app");
    assert_eq!(msb.ok(&["run", &name]), "with a token\n");
    assert!(!fake.requests("/token?").is_empty());
}

#[test]
fn g_private_ca_is_trusted_if_configured() {
    let msb = Msb::new();
    let registry = Registry::start(true, true);
    registry.push(&build_app(&msb), "app:1");
    msb.ok(&["image", "prune", "--all"]);
    let name = registry.name("app:1");
    let error = msb.fails(125, &["image", "pull", &name]);
    assert!(error.contains("certificate"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let login = json!({ "auths": { registry.host.as_str(): {
        "username": USER, "password": PASSWORD } } });
    fs::write(folder.path().join("config.json"), login.to_string()).unwrap();
    let pull = |name: &str, ca: Option<PathBuf>| {
        let mut command = msb.command(&["image", "pull", name]);
        command.env("DOCKER_CONFIG", folder.path());
        if let Some(ca) = ca {
            command.env("MSB_REGISTRY_CA", ca);
        }
        support::outcome(command.output().unwrap())
    };
    let by_environment = pull(&name, Some(registry.ca()));
    assert_eq!(by_environment.code, 0, "{}", by_environment.err);
    let host = registry.host.as_str();
    let settings = json!({ "images": { "default_registry": host,
        "registries": { host: { "ca_file": registry.ca() } } } });
    fs::write(msb.home.path().join("config.json"), settings.to_string()).unwrap();
    msb.ok(&["image", "prune", "--all"]);
    // The default registry may be left out of the name.
    let by_file = pull("app:1", None);
    assert_eq!(by_file.code, 0, "{}", by_file.err);
    assert_eq!(msb.ok(&["run", "--pull", "never", &name]), "image /srv/app\n");
}

#[test]
fn g_mirrors_are_tried_before_the_registry() {
    let msb = Msb::new();
    let (mirror, origin) = (FakeRegistry::start(), FakeRegistry::start());
    let layers = [layer_of(Path::new(image()))];
    origin.add_image("a", "1", &layers, &json!({ "Cmd": ["echo", "origin"] }));
    origin.add_image("b", "1", &layers, &json!({ "Cmd": ["echo", "origin"] }));
    mirror.add_image("a", "1", &layers, &json!({ "Cmd": ["echo", "mirror"] }));
    let run = |name: &str| {
        let mut command = msb.command(&["run", &format!("{}/{name}:1", origin.host)]);
        command.env("MSB_REGISTRY_DEFAULT", &origin.host).env("MSB_REGISTRY_MIRROR", &mirror.host);
        support::outcome(command.output().unwrap())
    };
    assert_eq!((run("a").out, run("b").out), ("mirror\n".to_owned(), "origin\n".to_owned()));
    assert!(origin.requests("/v2/a/").is_empty());
    let error = run("c");
    assert!(error.err.contains(&origin.host), "{}", error.err);
}

#[test]
fn g_thirty_layers_stack_in_order() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let mut layers = vec![layer_of(Path::new(image()))];
    for number in 1..30_usize {
        let (own, last) = (format!("l/{number}"), format!("l/.wh.{}", number - 1));
        let text = number.to_string();
        let mut files: Vec<(&str, &[u8])> = vec![("top", text.as_bytes()), (&own, text.as_bytes())];
        if number % 3 == 0 {
            files.push((&last, b""));
        }
        layers.push(layer(&files));
    }
    fake.add_image(
        "thirty",
        "1",
        &layers,
        &json!({ "Cmd": ["sh", "-c", "cat /top; ls /l | wc -l"] }),
    );
    assert_eq!(msb.ok(&["run", &fake.name("thirty:1")]), "2920\n");
}

#[test]
fn g_gigabyte_image_is_complete() {
    if std::env::var_os("MSB_TEST_LONG").is_none() {
        // Only in make check: it takes a minute and a few gigabytes of disk.
        return;
    }
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let (part, base) = (noise(256 << 20), layer_of(Path::new(image())));
    let rest = (0..4).map(|n| layer(&[(format!("part{n}").as_str(), part.as_slice())]));
    let layers: Vec<Vec<u8>> = std::iter::once(base).chain(rest).collect();
    let command = "cat /part0 /part1 /part2 /part3 | sha256sum";
    let config = json!({ "Cmd": ["sh", "-c", command] });
    fake.add_packed_image("big", "1", &layers, layers.clone(), &config);
    fake.cut(Cut::Disconnect(100 << 20));
    let out = msb.ok(&["run", &fake.name("big:1")]);
    let expected = digest(&part.repeat(4));
    assert_eq!(out.split(' ').next(), expected.strip_prefix("sha256:"));
}

#[test]
fn g_image_lists_as_table_and_json() {
    let msb = Msb::new();
    assert_eq!(msb.ok(&["image", "ls"]), "NAME  ID  SIZE  ADDED  USED BY\n");
    build_app(&msb);
    let table = msb.ok(&["image", "ls"]);
    assert!(table.contains("app:latest") && table.contains("MB"), "{table}");
    let id = msb.ok(&["image", "ls", "-q"]);
    let info = &msb.json(&["image", "inspect", "app"])[0];
    assert_eq!(info["id"], id.trim());
    assert_eq!((&info["env"], &info["workdir"]), (&json!(["FROM=image"]), &json!("/srv/app")));
    assert_eq!(info["cmd"], json!(["echo $FROM $PWD"]));
    let short = &id["sha256:".len()..][..12];
    assert_eq!(msb.ok(&["run", "--pull", "never", short]), "image /srv/app\n");
    let made = msb.json(&["image", "build-from-dir", image(), "second", "--json"]);
    assert_eq!(made["names"], json!(["second:latest"]));
    let removed = msb.json(&["image", "rm", "--json", "app", "second"]);
    assert_eq!(removed["removed"], json!(["app:latest", "second:latest"]));
}

/// Runs some of these tests, which need no docker-registry, as an ordinary user.
#[test]
fn g_images_work_for_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let own = scratch.path().join("own");
    fs::create_dir(&own).unwrap();
    const USER_ID: u32 = 61_234;
    std::os::unix::fs::chown(&own, Some(USER_ID), Some(USER_ID)).unwrap();
    let user = USER_ID.to_string();
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
    command.arg(std::env::current_exe().unwrap());
    command.args([
        "--test-threads=2",
        "g_pull_policy",
        "g_thirty",
        "g_used_images",
        "g_killed_pull",
    ]);
    command.env("HOME", &own).env("TMPDIR", &own).env_remove("XDG_RUNTIME_DIR").current_dir("/");
    let output = command.output().expect("setpriv is needed for this test");
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{out}{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("5 passed"), "{out}");
}

#[test]
fn j4_image_beyond_a_bound_is_refused_and_leaves_nothing() {
    let msb = Msb::new();
    let archive = build_app(&msb);
    msb.ok(&["image", "prune", "--all"]);
    let import = ["image", "import", archive.to_str().unwrap()];
    for (variable, value, what) in [
        ("MSB_IMAGE_MAX_ENTRIES", "3", "it has more than 3 entries"),
        ("MSB_IMAGE_MAX_BYTES", "1000", "it has files of more than 1000 bytes"),
    ] {
        let output = msb.command(&import).env(variable, value).output().unwrap();
        let outcome = String::from_utf8(output.stderr).unwrap();
        let expected = format!("app.tar: cannot unpack the image: {what}; set {variable} to");
        assert!(!output.status.success() && outcome.contains(&expected), "{outcome}");
        assert!(files_in(&msb, "tmp").is_empty(), "a partial image is left");
        assert!(files_in(&msb, "blobs/sha256").is_empty(), "its blobs are left");
        assert_eq!(msb.ok(&["image", "ls", "-q"]), "");
    }
    msb.ok(&import);
}
