//! Requests to registries: none without need, bounded answers, waits and errors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, also in shared code"
)]

#[path = "support/fake_registry.rs"]
mod fake_registry;
mod support;

use fake_registry::{FakeRegistry, INDEX, MANIFEST, digest, gzip, layer, layer_of};
use serde_json::json;
use std::path::Path;
use support::{Msb, image};

const LIMITED: fake_registry::Refusal = (
    "429 Too Many Requests",
    "Retry-After: 1\r\n",
    r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down","detail":null}]}"#,
);

/// Adds `app:1`, which prints `ran`. Returns its full name and the digest of its layer.
fn add_app(fake: &FakeRegistry) -> (String, String) {
    let base = layer_of(Path::new(image()));
    let packed = digest(&gzip(&base));
    fake.add_image("app", "1", &[base], &json!({ "Cmd": ["echo", "ran"] }));
    (fake.name("app:1"), packed)
}

#[test]
fn g_what_cannot_start_is_refused_before_a_pull() {
    let msb = Msb::with_sandbox();
    let fake = FakeRegistry::start();
    let (name, _) = add_app(&fake);
    let cases: [(&[&str], &str); 8] = [
        (&["run", "--driver", "nosuch"], "driver \"nosuch\" is not known"),
        (&["run", "--name", "a b"], "contains ' '"),
        (&["run", "--name", "w"], "sandbox w already exists"),
        (&["create", "--name", "w"], "sandbox w already exists"),
        (&["run", "--cpus", "5000"], "cpus is 5000"),
        (&["run", "--memory", "1"], "memory is 1 MiB"),
        (&["run", "--hostname", "a_b"], "hostname \"a_b\""),
        (&["run", "--workdir", "relative"], "relative"),
    ];
    for (arguments, expected) in cases {
        let error = msb.fails(125, &[arguments, &[&name]].concat());
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    if !Path::new("/dev/kvm").exists() {
        let mut command = msb.command(&["run", &name]);
        command.env_remove("MSB_DRIVER");
        let outcome = support::outcome(command.output().unwrap());
        assert!(outcome.err.contains("no driver with hardware isolation"), "{}", outcome.err);
    }
    assert_eq!(fake.requests("").len(), 0, "nothing was asked for");
    assert_eq!(msb.ok(&["run", "--name", "w", "--replace", &name]), "ran\n");
    assert!(!fake.requests("").is_empty());
}

#[test]
fn g_archive_is_not_imported_for_what_cannot_start() {
    let msb = Msb::new();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("a.tar");
    std::fs::write(&path, layer_of(Path::new(image()))).unwrap();
    let error = msb.fails(125, &["run", "--driver", "nosuch", path.to_str().unwrap(), "true"]);
    assert!(error.contains("is not known"), "{error}");
    assert_eq!(msb.json(&["image", "ls", "--json"]), json!([]));
}

#[test]
fn g_registry_that_asks_to_wait_is_waited_for() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let (name, packed) = add_app(&fake);
    fake.refuse("/manifests/", LIMITED);
    fake.refuse(&packed, LIMITED);
    fake.refuse(&packed, ("503 Service Unavailable", "Retry-After: 0\r\n", ""));
    assert_eq!(msb.ok(&["run", &name]), "ran\n");
    assert_eq!(fake.requests("/manifests/").len(), 2);
    assert_eq!(fake.requests(&packed).len(), 3);
}

#[test]
fn g_wait_that_is_too_long_is_an_error_that_says_so() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let (name, _) = add_app(&fake);
    let day = ("429 Too Many Requests", "Retry-After: 86400\r\n", LIMITED.2);
    fake.refuse("/manifests/", day);
    let error = msb.fails(125, &["image", "pull", &name]);
    let expected = format!(
        "cannot pull image {name} from {}: 429 Too Many Requests: slow down; it asks to wait \
         86400 s; log in with docker or podman, or use a mirror",
        fake.host
    );
    assert_eq!(error, expected);
    assert_eq!(fake.requests("/manifests/").len(), 1);
}

#[test]
fn g_limit_of_the_token_service_is_no_denial() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let (name, _) = add_app(&fake);
    fake.require_tokens();
    fake.refuse("/token", LIMITED);
    let error = msb.fails(125, &["image", "pull", &name]);
    let expected = format!("cannot get a token for {name} from {}: slow down; log in", fake.host);
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(msb.ok(&["run", &name]), "ran\n");
}

#[test]
fn g_missing_blob_is_named_with_its_image() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let (name, packed) = add_app(&fake);
    fake.lose("app", &packed);
    let error = msb.fails(125, &["image", "pull", &name]);
    assert_eq!(error, format!("{} has no layer {packed} of image {name}", fake.host));
    let manifest = json!({ "schemaVersion": 2, "layers": [],
        "config": { "digest": digest(b"none"), "size": 4 } });
    fake.put_manifest("bare", "1", MANIFEST, manifest.to_string().into_bytes());
    let (config, bare) = (digest(b"none"), fake.name("bare:1"));
    let error = msb.fails(125, &["image", "pull", &bare]);
    assert_eq!(error, format!("{} has no configuration {config} of image {bare}", fake.host));
    let index = json!({ "schemaVersion": 2, "manifests": [{ "digest": config, "size": 4 }] });
    fake.put_manifest("index", "1", INDEX, index.to_string().into_bytes());
    let index = fake.name("index:1");
    let error = msb.fails(125, &["image", "pull", &index]);
    assert_eq!(error, format!("{} has no manifest {config} of image {index}", fake.host));
}

#[test]
fn j4_endless_manifest_is_refused_early() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    fake.answer_without_end("app", "1");
    let name = fake.name("app:1");
    let error = msb.fails(125, &["image", "pull", &name]);
    assert_eq!(error, format!("{name}: its manifest is longer than 4194304 bytes"));
    // What is in the buffers of the connection was sent too.
    let sent = fake.bytes_without_end();
    assert!(sent < 64 << 20, "{sent} bytes were sent");
}

#[test]
fn g_nested_index_selects_an_image_without_platform() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let files = [layer_of(Path::new(image())), layer(&[("f", b"x")])];
    let manifest = fake.add_image("app", "1", &files, &json!({ "Cmd": ["echo", "ran"] }));
    let index = |entries: serde_json::Value| {
        json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries })
            .to_string()
            .into_bytes()
    };
    let artifact = json!({ "mediaType": MANIFEST, "digest": digest(b"none"), "size": 1,
        "artifactType": "application/x" });
    let attestation = json!({ "mediaType": MANIFEST, "digest": digest(b"none"), "size": 1,
        "platform": { "os": "unknown", "architecture": "unknown" },
        "annotations": { "vnd.docker.reference.type": "attestation-manifest" } });
    let image = json!({ "mediaType": MANIFEST, "digest": manifest, "size": 1, "platform": null });
    let inner = index(json!([attestation, artifact, image]));
    let mut inner = fake.put_manifest("app", "inner", INDEX, inner);
    for _ in 0..2 {
        let outer = index(json!([{ "mediaType": INDEX, "digest": inner, "size": 1 }, artifact]));
        inner = fake.put_manifest("app", "outer", INDEX, outer);
    }
    assert_eq!(msb.ok(&["run", &fake.name("app:outer")]), "ran\n");
    fake.put_manifest("app", "none", INDEX, index(json!([attestation, artifact])));
    let error = msb.fails(125, &["image", "pull", &fake.name("app:none")]);
    assert!(error.ends_with("its index has no image at all"), "{error}");
    let outer = index(json!([{ "mediaType": INDEX, "digest": inner, "size": 1 }]));
    let outer = fake.put_manifest("app", "deeper", INDEX, outer);
    let deepest = index(json!([{ "mediaType": INDEX, "digest": outer, "size": 1 }]));
    fake.put_manifest("app", "deepest", INDEX, deepest);
    let error = msb.fails(125, &["image", "pull", &fake.name("app:deepest")]);
    assert!(error.ends_with("nested more than 4 levels deep"), "{error}");
}

/// Adds an image for a platform without a name, and returns its entry in an index.
fn add_for(fake: &FakeRegistry, platform: &str) -> serde_json::Value {
    let layers = [layer_of(Path::new(image()))];
    let mut parts = platform.split('/').skip(1);
    let (architecture, variant) = (parts.next().unwrap(), parts.next());
    let manifest = fake.add_image_for(
        "multi",
        &layers,
        &json!({ "architecture": architecture, "os": "linux", "variant": variant,
            "config": { "Cmd": ["echo", platform] } }),
    );
    json!({ "mediaType": MANIFEST, "digest": manifest, "size": 1,
        "platform": { "os": "linux", "architecture": architecture, "variant": variant } })
}

#[test]
fn g_platform_is_pulled_exactly_or_refused() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let own = if cfg!(target_arch = "x86_64") { "linux/amd64" } else { "linux/arm64" };
    let all = ["linux/vax", "linux/vax/v2", own].map(|platform| add_for(&fake, platform));
    let index = json!({ "schemaVersion": 2, "manifests": all });
    fake.put_manifest("multi", "1", INDEX, index.to_string().into_bytes());
    let name = fake.name("multi:1");
    // What cannot run here is not pulled for a sandbox.
    let error = msb.fails(125, &["run", "--platform", "linux/vax/v2", &name]);
    assert!(
        error.starts_with(&format!("cannot run image {name}: it is for linux/vax/v2")),
        "{error}"
    );
    assert_eq!(fake.requests("").len(), 0);
    msb.ok(&["image", "pull", "--platform", "linux/vax/v2", &name]);
    assert_eq!(msb.json(&["image", "inspect", &name])[0]["cmd"], json!(["echo", "linux/vax/v2"]));
    let error = msb.fails(125, &["run", &name]);
    assert!(error.contains("it is for linux/vax/v2, and this host is"), "{error}");
    // The one that runs is pulled instead of the one in the store.
    assert_eq!(msb.ok(&["run", "--platform", own, &name]), format!("{own}\n"));
    assert_eq!(msb.ok(&["run", &name]), format!("{own}\n"));
    let error = msb.fails(125, &["image", "pull", "--platform", "linux/vax/v3", &name]);
    let expected = format!("no image for linux/vax/v3, only for {own}, linux/vax, linux/vax/v2");
    assert!(error.ends_with(&expected), "{error}");
    for arguments in
        [["image", "pull", "--platform", "vax"], ["run", "--pull", "never", "--platform=x"]]
    {
        let error = msb.fails(125, &[&arguments[..], &[&name]].concat());
        assert!(error.contains("invalid platform"), "{error}");
    }
    let only = add_for(&fake, "linux/vax")["digest"].as_str().unwrap().to_owned();
    let by_digest = format!("{}@{only}", fake.name("multi"));
    let error = msb.fails(125, &["image", "pull", &by_digest]);
    assert!(error.contains(&format!("it is for linux/vax, not {own}")), "{error}");
}

#[test]
fn j4_puller_without_memory_names_the_bound() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    fake.answer_without_end("app", "1");
    let runner = support::binary().with_file_name("msb-runner");
    // Less than a manifest needs that is as long as is allowed.
    let little = format!("ulimit -d 7000\nexec '{}' \"$@\"", runner.display());
    let little = msb.script("little-memory", &little);
    let mut command = msb.command(&["image", "pull", &fake.name("app:1")]);
    let outcome = support::outcome(command.env("MSB_RUNNER", little).output().unwrap());
    let log = msb.home.path().join("images.log");
    let expected = format!(
        "msb: the process that works on images was aborted, as when it needs more than 1024 MiB of \
         memory; see {}\n",
        log.display()
    );
    assert_eq!((outcome.code, outcome.err), (125, expected));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("memory allocation of"), "{log}");
}

#[test]
fn j4_puller_bounds_its_own_memory() {
    let msb = Msb::new();
    let fake = FakeRegistry::start();
    let (name, packed) = add_app(&fake);
    fake.refuse("/manifests/", ("429 Too Many Requests", "Retry-After: 30\r\n", ""));
    let mut child = msb.spawn(&["image", "pull", &name]);
    let home = msb.home.path().to_str().unwrap().to_owned();
    let limits = loop {
        assert!(child.try_wait().unwrap().is_none(), "it waits for the registry");
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let puller = all.map(|entry| entry.path()).find(|path| {
            let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&format!("image\0--home\0{home}"))
        });
        let waits = !fake.requests("/manifests/").is_empty();
        match puller.and_then(|path| std::fs::read_to_string(path.join("limits")).ok()) {
            Some(limits) if waits => break limits,
            _ => std::thread::yield_now(),
        }
    };
    let data = limits.lines().find(|line| line.starts_with("Max data size")).unwrap();
    assert!(data.contains(" 1073741824 "), "{data}");
    assert_eq!(fake.requests(&packed).len(), 0);
    support::signal(&child, rustix::process::Signal::KILL);
    child.wait().unwrap();
}
