//! Images: by name, from archives, and what the store promises about them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, also in what its tests share"
)]

#[path = "support/fake.rs"]
mod fake;
#[path = "support/registry.rs"]
mod registry;
mod support;

use fake::{Cut, Fake, INDEX, digest, gzip, layer, layer_of, noise};
use registry::{PASSWORD, Registry, USER};
use rustix::process::Signal;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use support::{Scene, image, signal};

/// Waits for a condition that nothing can be waited on for.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed().as_secs() < 60, "not within a minute: {what}");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

fn files_in(scene: &Scene, folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(scene.home.path().join("images").join(folder));
    entries.map(|all| all.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// A busybox image with a command, as an archive, and in the store under the name `app`.
fn built(scene: &Scene) -> PathBuf {
    let archive = scene.home.path().join("app.tar");
    scene.ok(&[
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
    scene.ok(&["image", "export", "app", archive.to_str().unwrap()]);
    archive
}

#[test]
fn g_an_image_is_pulled_by_its_name_and_says_how_commands_run() {
    let scene = Scene::new();
    let registry = Registry::start(false, false);
    registry.push(&built(&scene), "org/app:1");
    scene.ok(&["image", "prune", "--all"]);
    let name = registry.name("org/app:1");
    assert_eq!(scene.ok(&["run", &name]), "image /srv/app\n");
    assert_eq!(scene.ok(&["run", "-e", "FROM=me", "-w", "/tmp", &name]), "me /tmp\n");
    assert_eq!(scene.ok(&["run", &name, "--", "pwd"]), "/srv/app\n", "no entrypoint");
    let by_digest = scene.json(&["image", "inspect", &name])[0]["digests"][0].clone();
    let by_digest = format!("{}@{}", registry.name("org/app"), by_digest.as_str().unwrap());
    assert_eq!(scene.ok(&["run", "--pull", "never", &by_digest]), "image /srv/app\n");
    scene.ok(&["create", "--name", "box", &name]);
    assert_eq!(scene.ok(&["exec", "box", "--", "sh", "-c", "echo $FROM"]), "image\n");
    assert_eq!(scene.json(&["ls", "--json"])[0]["image"], name.as_str());
    // Started again, it is what it was.
    scene.ok(&["stop", "box"]);
    scene.ok(&["start", "box"]);
    assert_eq!(scene.ok(&["exec", "box", "--", "pwd"]), "/srv/app\n");
}

#[test]
fn g_what_a_sandbox_uses_stays_and_what_nothing_uses_goes() {
    let scene = Scene::new();
    built(&scene);
    scene.ok(&["create", "--name", "box", "app"]);
    scene.ok(&["stop", "box"]);
    let complaint = scene.fails(125, &["image", "rm", "app"]);
    assert!(complaint.contains("box"), "{complaint}");
    let kept = scene.json(&["image", "prune", "--all", "--json"]);
    assert_eq!(kept["removed"], json!([]));
    scene.ok(&["image", "rm", "--force", "app"]);
    assert_eq!(scene.json(&["image", "ls", "--json"])[0]["names"], json!([]));
    scene.ok(&["start", "box"]);
    assert_eq!(scene.ok(&["exec", "box", "--", "pwd"]), "/srv/app\n");
    scene.ok(&["rm", "-f", "box"]);
    let report = scene.json(&["image", "prune", "--json"]);
    assert!(report["freed_bytes"].as_u64().unwrap() > 1_000_000, "{report}");
    for folder in ["roots", "blobs/sha256", "refs", "tmp", "partial", "locks"] {
        assert_eq!(files_in(&scene, folder), Vec::<PathBuf>::new(), "{folder}");
    }
    assert!(scene.fails(125, &["image", "rm", "app"]).contains("not in the store"));
}

#[test]
fn g_archives_and_layouts_are_images_as_they_are() {
    let scene = Scene::new();
    let archive = built(&scene);
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
    scene.ok(&["image", "prune", "--all"]);
    for name in ["layout", "saved.tar"] {
        assert_eq!(scene.ok(&["run", &at(name)]), "image /srv/app\n", "{name}");
    }
    assert_eq!(scene.ok(&["run", archive.to_str().unwrap()]), "image /srv/app\n");
    let complaint = scene.fails(125, &["run", &at("rootfs.tar.gz")]);
    assert!(complaint.contains("no command of its own"), "{complaint}");
    assert_eq!(scene.ok(&["run", &at("rootfs.tar.gz"), "--", "echo", "hi"]), "hi\n");
    // What says how it is called is found by that, and what does not by what it is given.
    scene.ok(&["image", "import", &at("saved.tar")]);
    assert_eq!(scene.ok(&["run", "--pull", "never", "saved/app:2"]), "image /srv/app\n");
    scene.ok(&["image", "import", &at("rootfs.tar.gz"), "plain:1"]);
    assert_eq!(scene.ok(&["run", "plain:1", "--", "echo", "hi"]), "hi\n");
    // The same content is there once, however it came.
    let ids = scene.json(&["image", "ls", "--json"]);
    assert_eq!(ids.as_array().unwrap().len(), 2, "{ids}");
    fs::write(at("nonsense.tar"), "no archive").unwrap();
    assert!(scene.fails(125, &["run", &at("nonsense.tar")]).contains("nonsense.tar"));
}

#[test]
fn g_the_policy_says_when_the_registry_is_asked() {
    let scene = Scene::new();
    let fake = Fake::start();
    let base = layer_of(Path::new(image()));
    let offer = |text: &str| {
        let layers = [base.clone(), layer(&[("version", text.as_bytes())])];
        fake.offer("app", "1", &layers, &json!({ "Cmd": ["cat", "/version"] }));
    };
    offer("one");
    let name = format!("{}/app:1", fake.host);
    let complaint = scene.fails(125, &["run", "--pull", "never", &name]);
    assert!(complaint.contains("not to be pulled"), "{complaint}");
    assert_eq!(fake.requests("").len(), 0);
    assert_eq!(scene.ok(&["run", &name]), "one");
    offer("two");
    assert_eq!(scene.ok(&["run", &name]), "one", "it is here");
    assert_eq!(scene.ok(&["run", "--pull", "never", &name]), "one");
    let before = fake.requests("/blobs/").len();
    assert_eq!(scene.ok(&["run", "--pull", "always", &name]), "two");
    assert_eq!(fake.requests("/blobs/").len(), before + 2, "the base layer was here");
    assert_eq!(scene.ok(&["run", "--pull", "always", &name]), "two");
    assert_eq!(fake.requests("/blobs/").len(), before + 2, "and so was everything");
    assert!(scene.fails(125, &["run", "--pull", "sometimes", &name]).contains("missing"));
}

#[test]
fn g_errors_say_what_is_wrong_with_whom() {
    let scene = Scene::new();
    let fake = Fake::start();
    let none = format!("{}/none:1", fake.host);
    let complaint = scene.fails(125, &["image", "pull", &none]);
    assert!(complaint.contains(&format!("{} has no image {none}", fake.host)), "{complaint}");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let complaint = scene.fails(125, &["run", &format!("{nobody}/x"), "--", "true"]);
    assert!(complaint.contains("cannot reach") && complaint.contains("refused"), "{complaint}");
    let complaint = scene.fails(125, &["image", "pull", "no-such-host.invalid/x"]);
    assert!(complaint.contains("cannot reach no-such-host.invalid"), "{complaint}");
    assert!(scene.fails(125, &["image", "pull", "Python"]).contains("lower case"));
    assert!(scene.fails(125, &["image", "pull", "./x"]).contains("./x"));
    assert_eq!(scene.names(), Vec::<String>::new(), "no sandbox is left");
    // A layer that is not what its digest says.
    let bad = layer(&[("f", b"content")]);
    fake.offer("bad", "1", std::slice::from_ref(&bad), &json!({}));
    fake.corrupt("bad", &digest(&gzip(&bad)));
    let complaint = scene.fails(125, &["image", "pull", &format!("{}/bad:1", fake.host)]);
    assert!(complaint.contains("has the digest"), "{complaint}");
    assert_eq!(files_in(&scene, "partial"), Vec::<PathBuf>::new(), "nothing wrong is kept");
    // One that unpacks to something else than the configuration says.
    let (other, config) = (layer(&[("g", b"other")]), json!({}));
    fake.offer_packed("liar", "1", &[bad], vec![gzip(&other)], &config);
    let complaint = scene.fails(125, &["image", "pull", &format!("{}/liar:1", fake.host)]);
    assert!(complaint.contains("unpacks to"), "{complaint}");
    assert_eq!(files_in(&scene, "roots").len() + files_in(&scene, "tmp").len(), 0);
}

#[test]
fn g_of_many_platforms_the_own_one_is_taken() {
    let scene = Scene::new();
    let fake = Fake::start();
    let layers = [layer_of(Path::new(image()))];
    let own = fake.offer("multi", "own", &layers, &json!({ "Cmd": ["echo", "own"] }));
    let other = fake.offer("multi", "other", &layers, &json!({ "Cmd": ["echo", "other"] }));
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let index = |platforms: &[(&str, &str)]| {
        let entry = |(architecture, digest): &(&str, &str)| {
            json!({ "mediaType": fake::MANIFEST, "digest": digest, "size": 1,
                "platform": { "os": "linux", "architecture": architecture } })
        };
        let all: Vec<_> = platforms.iter().map(entry).collect();
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": all });
        index.to_string().into_bytes()
    };
    let both = index(&[("s390x", &other), (architecture, &own)]);
    fake.put_manifest("multi", "1", INDEX, both);
    assert_eq!(scene.ok(&["run", &format!("{}/multi:1", fake.host)]), "own\n");
    fake.put_manifest("multi", "2", INDEX, index(&[("s390x", &other)]));
    let complaint = scene.fails(125, &["image", "pull", &format!("{}/multi:2", fake.host)]);
    assert!(complaint.contains("only for linux/s390x"), "{complaint}");
}

#[test]
fn g_a_download_that_breaks_off_is_taken_up_where_it_stopped() {
    let scene = Scene::new();
    let fake = Fake::start();
    let big = layer(&[("noise", &noise(3 << 20))]);
    fake.offer("big", "1", std::slice::from_ref(&big), &json!({}));
    fake.cut(Cut::BreakOff(1 << 20));
    scene.ok(&["image", "pull", &format!("{}/big:1", fake.host)]);
    let asked = fake.requests(&digest(&gzip(&big)));
    let [None, Some(range)] = asked.as_slice() else { panic!("{asked:?}") };
    let start: usize = range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!(start > 0 && start <= 1 << 20, "{range}");
    let rootfs = scene.json(&["image", "ls", "--json"])[0]["rootfs"].clone();
    let found = fs::read(Path::new(rootfs.as_str().unwrap()).join("noise")).unwrap();
    assert!(found == noise(3 << 20), "not a byte is wrong");
}

#[test]
fn g_a_pull_dies_with_whoever_asked_and_the_next_one_goes_on() {
    let scene = Scene::new();
    let fake = Fake::start();
    let big = layer(&[("noise", &noise(3 << 20))]);
    fake.offer("big", "1", std::slice::from_ref(&big), &json!({}));
    let name = format!("{}/big:1", fake.host);
    fake.cut(Cut::Hang(1 << 20));
    let mut child = scene.spawn(&["image", "pull", &name]);
    fake.wait_for_cut();
    let part =
        || files_in(&scene, "partial").iter().any(|path| fs::metadata(path).unwrap().len() > 0);
    eventually("a part is there", part);
    signal(&child, Signal::KILL);
    child.wait().unwrap();
    let home = scene.home.path().to_str().unwrap().to_owned();
    let is_working = || {
        fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("image\0--home") && line.contains(&home)
        })
    };
    eventually("the process that pulls is gone", || !is_working());
    assert_eq!(scene.json(&["image", "ls", "--json"]), json!([]));
    // Half an image that was being unpacked is tidied up by the next pull.
    fs::create_dir_all(scene.home.path().join("images/tmp/1-2-3/rootfs/half")).unwrap();
    scene.ok(&["image", "pull", &name]);
    assert!(fake.requests(&digest(&gzip(&big)))[1].is_some(), "it was taken up");
    assert_eq!(files_in(&scene, "tmp"), Vec::<PathBuf>::new());
    fake.open_gate();
}

#[test]
fn g_a_pull_that_is_killed_at_any_moment_leaves_no_half_image() {
    let scene = Scene::new();
    let fake = Fake::start();
    let files: Vec<(String, Vec<u8>)> =
        (0..400).map(|n| (format!("d{}/f{n}", n % 20), noise(4096 + n))).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(n, c)| (n.as_str(), c.as_slice())).collect();
    fake.offer("many", "1", &[layer(&files)], &json!({ "Cmd": ["true"] }));
    let name = format!("{}/many:1", fake.host);
    let begun = std::time::Instant::now();
    scene.ok(&["image", "pull", &name]);
    let whole = begun.elapsed();
    for round in 0..8 {
        scene.ok(&["image", "prune", "--all"]);
        let mut child = scene.spawn(&["image", "pull", &name]);
        // No condition is waited for: the moment is to be any.
        std::thread::sleep(whole * round / 7);
        signal(&child, Signal::KILL);
        child.wait().unwrap();
        for info in scene.json(&["image", "ls", "--json"]).as_array().unwrap() {
            let rootfs = PathBuf::from(info["rootfs"].as_str().unwrap());
            let count =
                (0..20).map(|n| fs::read_dir(rootfs.join(format!("d{n}"))).unwrap().count());
            assert_eq!(count.sum::<usize>(), 400, "what is listed is whole");
        }
        scene.ok(&["image", "pull", &name]);
        assert_eq!(files_in(&scene, "roots").len(), 1);
    }
    scene.ok(&["image", "prune", "--all"]);
    assert_eq!(files_in(&scene, "tmp").len() + files_in(&scene, "blobs/sha256").len(), 0);
}

#[test]
fn g_a_terminal_shows_how_far_it_is_and_a_pipe_does_not() {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use std::io::Read;
    let scene = Scene::new();
    let fake = Fake::start();
    let big = layer(&[("noise", &noise(2 << 20))]);
    fake.offer("big", "1", &[big], &json!({}));
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let terminal = ioctl_tiocgptpeer(&master, flags).unwrap();
    let mut command = scene.command(&["image", "pull", &format!("{}/big:1", fake.host)]);
    command.env("TERM", "xterm").stdout(std::process::Stdio::piped()).stderr(terminal);
    fake.cut(Cut::Hang(1 << 20));
    let child = command.spawn().unwrap();
    // What it was started with holds the terminal as well.
    drop(command);
    let (mut master, mut seen) = (fs::File::from(master), String::new());
    while !(seen.contains("downloading") && seen.contains("0/1 layers")) {
        let mut buffer = [0; 4096];
        let count = master.read(&mut buffer).unwrap();
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    fake.open_gate();
    // Read on, since a terminal holds only so much.
    let reader = std::thread::spawn(move || drop(std::io::copy(&mut master, &mut std::io::sink())));
    let output = child.wait_with_output().unwrap();
    reader.join().unwrap();
    assert!(output.status.success());
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.starts_with("sha256:") && out.lines().count() == 1, "{out}");
    // `ok` demands that nothing is said on standard error, which is a pipe.
    scene.ok(&["image", "prune", "--all"]);
    scene.ok(&["image", "pull", &format!("{}/big:1", fake.host)]);
}

#[test]
fn g_two_pulls_at_once_share_what_the_first_gets() {
    let scene = Scene::new();
    let fake = Fake::start();
    let big = layer(&[("noise", &noise(2 << 20))]);
    fake.offer("big", "1", std::slice::from_ref(&big), &json!({}));
    let name = format!("{}/big:1", fake.host);
    fake.cut(Cut::Hang(1 << 20));
    let mut first = scene.spawn(&["image", "pull", &name]);
    fake.wait_for_cut();
    let mut second = scene.spawn(&["image", "pull", &name]);
    eventually("both have asked for the manifest", || fake.requests("/manifests/1").len() == 2);
    fake.open_gate();
    for child in [&mut first, &mut second] {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(fake.requests(&digest(&gzip(&big))).len(), 1, "it was downloaded once");
    assert_eq!(files_in(&scene, "roots").len(), 1);
}

#[test]
fn g_credentials_come_from_dockers_file_and_from_helpers() {
    let scene = Scene::new();
    let registry = Registry::start(false, true);
    registry.push(&built(&scene), "private/app:1");
    scene.ok(&["image", "prune", "--all"]);
    let name = registry.name("private/app:1");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    let pull = || {
        let mut command = scene.command(&["image", "pull", &name]);
        command.env("DOCKER_CONFIG", folder.path()).env_remove("REGISTRY_AUTH_FILE");
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", folder.path().display()));
        support::said(command.output().unwrap())
    };
    let refused = pull();
    assert_eq!(refused.code, 125);
    assert!(refused.err.contains("does not let us have"), "{}", refused.err);
    let entry = |password: &str| json!({ "username": USER, "password": password });
    let write = |file: serde_json::Value| fs::write(&config, file.to_string()).unwrap();
    write(json!({ "auths": { registry.host.as_str(): entry("wrong") } }));
    let refused = pull();
    assert!(refused.err.contains("does not let us have"), "{}", refused.err);
    assert!(!refused.err.contains("wrong"), "no secret in a message: {}", refused.err);
    write(json!({ "auths": { registry.host.as_str(): entry(PASSWORD) } }));
    assert_eq!(pull().code, 0);
    scene.ok(&["image", "prune", "--all"]);
    // In docker's own protocol: the registry on standard input, JSON on standard output.
    let helper = folder.path().join("docker-credential-test");
    let answer = json!({ "ServerURL": "x", "Username": USER, "Secret": PASSWORD });
    let host = &registry.host;
    let script = format!("#!/bin/sh\nread -r host\n[ \"$host\" = {host} ] && echo '{answer}'\n");
    fs::write(&helper, script).unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    write(json!({ "credHelpers": { registry.host.as_str(): "test" } }));
    assert_eq!(pull().code, 0);
    scene.ok(&["image", "prune", "--all"]);
    write(json!({ "credsStore": "test" }));
    assert_eq!(pull().code, 0);
}

#[test]
fn g_a_registry_that_gives_tokens_to_everybody_is_asked_for_one() {
    let scene = Scene::new();
    let fake = Fake::start();
    let layers = [layer_of(Path::new(image()))];
    fake.offer("library/app", "latest", &layers, &json!({ "Cmd": ["echo", "with a token"] }));
    fake.want_tokens();
    let name = format!("{}/library/app", fake.host);
    assert_eq!(scene.ok(&["run", &name]), "with a token\n");
    assert!(!fake.requests("/token?").is_empty());
}

#[test]
fn g_a_registry_with_a_certificate_of_its_own_is_trusted_when_told_so() {
    let scene = Scene::new();
    let registry = Registry::start(true, true);
    registry.push(&built(&scene), "app:1");
    scene.ok(&["image", "prune", "--all"]);
    let name = registry.name("app:1");
    let complaint = scene.fails(125, &["image", "pull", &name]);
    assert!(complaint.contains("certificate"), "{complaint}");
    let folder = tempfile::tempdir().unwrap();
    let login = json!({ "auths": { registry.host.as_str(): {
        "username": USER, "password": PASSWORD } } });
    fs::write(folder.path().join("config.json"), login.to_string()).unwrap();
    let pull = |name: &str, ca: Option<PathBuf>| {
        let mut command = scene.command(&["image", "pull", name]);
        command.env("DOCKER_CONFIG", folder.path());
        if let Some(ca) = ca {
            command.env("MSB_REGISTRY_CA", ca);
        }
        support::said(command.output().unwrap())
    };
    let by_environment = pull(&name, Some(registry.ca()));
    assert_eq!(by_environment.code, 0, "{}", by_environment.err);
    let host = registry.host.as_str();
    let settings = json!({ "images": { "default_registry": host,
        "registries": { host: { "ca_file": registry.ca() } } } });
    fs::write(scene.home.path().join("config.json"), settings.to_string()).unwrap();
    scene.ok(&["image", "prune", "--all"]);
    // As the default registry, it needs no name.
    let by_file = pull("app:1", None);
    assert_eq!(by_file.code, 0, "{}", by_file.err);
    assert_eq!(scene.ok(&["run", "--pull", "never", &name]), "image /srv/app\n");
}

#[test]
fn g_mirrors_are_asked_first_and_the_registry_itself_last() {
    let scene = Scene::new();
    let (mirror, origin) = (Fake::start(), Fake::start());
    let layers = [layer_of(Path::new(image()))];
    origin.offer("a", "1", &layers, &json!({ "Cmd": ["echo", "origin"] }));
    origin.offer("b", "1", &layers, &json!({ "Cmd": ["echo", "origin"] }));
    mirror.offer("a", "1", &layers, &json!({ "Cmd": ["echo", "mirror"] }));
    let run = |name: &str| {
        let mut command = scene.command(&["run", &format!("{}/{name}:1", origin.host)]);
        command.env("MSB_REGISTRY_DEFAULT", &origin.host).env("MSB_REGISTRY_MIRROR", &mirror.host);
        support::said(command.output().unwrap())
    };
    assert_eq!((run("a").out, run("b").out), ("mirror\n".to_owned(), "origin\n".to_owned()));
    assert!(origin.requests("/v2/a/").is_empty());
    let complaint = run("c");
    assert!(complaint.err.contains(&origin.host), "{}", complaint.err);
}

#[test]
fn g_thirty_layers_lie_over_each_other_in_their_order() {
    let scene = Scene::new();
    let fake = Fake::start();
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
    fake.offer("thirty", "1", &layers, &json!({ "Cmd": ["sh", "-c", "cat /top; ls /l | wc -l"] }));
    assert_eq!(scene.ok(&["run", &format!("{}/thirty:1", fake.host)]), "2920\n");
}

#[test]
fn g_an_image_of_a_gigabyte_arrives_whole() {
    if std::env::var_os("MSB_TEST_LONG").is_none() {
        // For make check: it takes a minute and a few gigabytes of disk.
        return;
    }
    let scene = Scene::new();
    let fake = Fake::start();
    let (part, base) = (noise(256 << 20), layer_of(Path::new(image())));
    let rest = (0..4).map(|n| layer(&[(format!("part{n}").as_str(), part.as_slice())]));
    let layers: Vec<Vec<u8>> = std::iter::once(base).chain(rest).collect();
    let command = "cat /part0 /part1 /part2 /part3 | sha256sum";
    let config = json!({ "Cmd": ["sh", "-c", command] });
    fake.offer_packed("big", "1", &layers, layers.clone(), &config);
    fake.cut(Cut::BreakOff(100 << 20));
    let out = scene.ok(&["run", &format!("{}/big:1", fake.host)]);
    let expected = digest(&part.repeat(4));
    assert_eq!(out.split(' ').next(), expected.strip_prefix("sha256:"));
}

#[test]
fn g_lists_are_for_people_and_for_programs() {
    let scene = Scene::new();
    assert_eq!(scene.ok(&["image", "ls"]), "NAME  ID  SIZE  ADDED  USED BY\n");
    built(&scene);
    let table = scene.ok(&["image", "ls"]);
    assert!(table.contains("app:latest") && table.contains("MB"), "{table}");
    let id = scene.ok(&["image", "ls", "-q"]);
    let info = &scene.json(&["image", "inspect", "app"])[0];
    assert_eq!(info["id"], id.trim());
    assert_eq!((&info["env"], &info["workdir"]), (&json!(["FROM=image"]), &json!("/srv/app")));
    assert_eq!(info["cmd"], json!(["echo $FROM $PWD"]));
    let short = &id["sha256:".len()..][..12];
    assert_eq!(scene.ok(&["run", "--pull", "never", short]), "image /srv/app\n");
    let archive = scene.home.path().join("app.tar");
    let complaint = scene.fails(125, &["image", "export", "app", archive.to_str().unwrap()]);
    assert!(complaint.contains("exists"), "{complaint}");
    let made = scene.json(&["image", "build-from-dir", image(), "second", "--json"]);
    assert_eq!(made["names"], json!(["second:latest"]));
    let removed = scene.json(&["image", "rm", "--json", "app", "second"]);
    assert_eq!(removed["removed"], json!(["app:latest", "second:latest"]));
}

/// Everything that needs no registry program, as somebody without rights.
#[test]
fn g_an_ordinary_user_has_images_as_well() {
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
    command.args(["--test-threads=2", "g_the_policy", "g_thirty", "g_what_a_sandbox", "g_a_pull"]);
    command.env("HOME", &own).env("TMPDIR", &own).env_remove("XDG_RUNTIME_DIR").current_dir("/");
    let output = command.output().expect("setpriv is needed for this test");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("4 passed") || said.contains("5 passed"), "{said}");
}

#[test]
fn j4_image_beyond_a_bound_is_refused_and_leaves_nothing() {
    let scene = Scene::new();
    let archive = built(&scene);
    scene.ok(&["image", "prune", "--all"]);
    let import = ["image", "import", archive.to_str().unwrap()];
    for (variable, value, what) in [
        ("MSB_IMAGE_MAX_ENTRIES", "3", "it has more than 3 entries"),
        ("MSB_IMAGE_MAX_BYTES", "1000", "it has files of more than 1000 bytes"),
    ] {
        let output = scene.command(&import).env(variable, value).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let expected = format!("app.tar: cannot unpack the image: {what}; set {variable} to");
        assert!(!output.status.success() && said.contains(&expected), "{said}");
        assert!(files_in(&scene, "tmp").is_empty(), "half an image is left");
        assert!(files_in(&scene, "blobs/sha256").is_empty(), "its blobs are left");
        assert_eq!(scene.ok(&["image", "ls", "-q"]), "");
    }
    scene.ok(&import);
}
