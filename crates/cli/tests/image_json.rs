//! JSON that others write: layouts and archives as docker, podman and other tools make them.
//! skopeo, a program in Go, reads the same layouts as an independent reader.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, also in shared code"
)]

#[path = "support/fake_registry.rs"]
mod fake_registry;
mod support;

use fake_registry::{digest, layer, layer_of};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use support::{Msb, image};

/// A directory in OCI image layout.
struct Layout(tempfile::TempDir);

fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

impl Layout {
    fn new() -> Layout {
        let layout = Layout(tempfile::tempdir().unwrap());
        fs::create_dir_all(layout.0.path().join("blobs/sha256")).unwrap();
        layout.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        layout
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.0.path().join(name), content).unwrap();
    }

    /// Adds a blob and returns its descriptor.
    fn blob(&self, kind: &str, content: &[u8]) -> Value {
        let digest = digest(content);
        self.write(&format!("blobs/sha256/{}", &digest[7..]), content);
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest,
            "size": content.len() })
    }

    /// Adds an image of one layer and returns the descriptor of its manifest.
    fn image(&self, layer: &[u8], configuration: &str) -> Value {
        let config = self.blob("config.v1+json", configuration.as_bytes());
        let layer = self.blob("layer.v1.tar", layer);
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [layer] });
        self.blob("manifest.v1+json", manifest.to_string().as_bytes())
    }

    fn index(&self, manifests: &Value) {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        self.write("index.json", index.to_string().as_bytes());
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn file_of(&self, descriptor: &Value) -> String {
        let digest = descriptor["digest"].as_str().unwrap();
        fs::read_to_string(self.0.path().join(format!("blobs/sha256/{}", &digest[7..]))).unwrap()
    }
}

fn configuration(layer: &[u8], config: &Value) -> Value {
    json!({ "architecture": architecture(), "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": [digest(layer)] } })
}

/// Writes the `manifest.json` of docker for the manifest of a layout.
fn write_docker_manifest(layout: &Layout, manifest: &Value, tags: &Value) {
    let manifest: Value = serde_json::from_str(&layout.file_of(manifest)).unwrap();
    let path = |blob: &Value| format!("blobs/sha256/{}", &blob["digest"].as_str().unwrap()[7..]);
    let docker = json!([{ "Config": path(&manifest["config"]), "RepoTags": tags,
        "Layers": [path(&manifest["layers"][0])] }]);
    layout.write("manifest.json", docker.to_string().as_bytes());
}

#[test]
fn g_save_by_digest_is_read_by_its_docker_manifest() {
    let msb = Msb::new();
    let (layout, base) = (Layout::new(), layer_of(Path::new(image())));
    let config = configuration(&base, &json!({ "Cmd": ["echo", "ran"] })).to_string();
    let manifest = layout.image(&base, &config);
    write_docker_manifest(&layout, &manifest, &Value::Null);
    layout.index(&Value::Null);
    msb.ok(&["image", "import", layout.path(), "x:1"]);
    assert_eq!(msb.ok(&["run", "--pull", "never", "x:1"]), "ran\n");
    fs::remove_file(layout.0.path().join("manifest.json")).unwrap();
    let error = msb.fails(125, &["image", "import", layout.path(), "y:1"]);
    assert!(error.ends_with("it has no image"), "{error}");
}

#[test]
fn g_null_annotations_and_labels_are_accepted() {
    let msb = Msb::new();
    let (layout, base) = (Layout::new(), layer_of(Path::new(image())));
    let config = json!({ "Labels": { "a": null, "b": "c" }, "Cmd": ["echo", "ran"] });
    let manifest = layout.image(&base, &configuration(&base, &config).to_string());
    let mut text: Value = serde_json::from_str(&layout.file_of(&manifest)).unwrap();
    text["layers"][0]["annotations"] = Value::Null;
    let manifest = layout.blob("manifest.v1+json", text.to_string().as_bytes());
    layout.index(&json!([manifest]));
    assert_eq!(msb.ok(&["run", layout.path()]), "ran\n");
    let id = msb.json(&["image", "ls", "--json"])[0]["id"].as_str().unwrap().to_owned();
    let labels = msb.json(&["image", "inspect", &id])[0]["labels"].clone();
    assert_eq!(labels, json!({ "a": "", "b": "c" }));
}

#[test]
fn g_all_names_of_an_archive_are_kept() {
    let msb = Msb::new();
    let (layout, first) = (Layout::new(), layer(&[("f", b"1")]));
    let manifest = layout.image(&first, &configuration(&first, &json!({})).to_string());
    write_docker_manifest(&layout, &manifest, &json!(["a:1", "b:2", "a:1"]));
    layout.index(&Value::Null);
    msb.ok(&["image", "import", layout.path()]);
    assert_eq!(msb.json(&["image", "ls", "--json"])[0]["names"], json!(["a:1", "b:2"]));
    // Another archive takes a name, and leaves the others.
    let (other, second) = (Layout::new(), layer(&[("f", b"2")]));
    let manifest = other.image(&second, &configuration(&second, &json!({})).to_string());
    let mut named = manifest.clone();
    named["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/b:2" });
    let mut twice = manifest.clone();
    twice["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/c:3" });
    other.index(&json!([named, twice]));
    msb.ok(&["image", "import", other.path()]);
    let all = msb.json(&["image", "ls", "--json"]);
    let mut names: Vec<Value> =
        all.as_array().unwrap().iter().map(|image| image["names"].clone()).collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, [json!(["a:1"]), json!(["b:2", "c:3"])]);
}

#[test]
fn g_archive_of_several_images_lists_their_names() {
    let msb = Msb::new();
    let layout = Layout::new();
    let entries: Vec<Value> = ["a:1", "b:2"]
        .iter()
        .map(|name| {
            let files = layer(&[("name", name.as_bytes())]);
            let mut entry = layout.image(&files, &configuration(&files, &json!({})).to_string());
            entry["annotations"] =
                json!({ "io.containerd.image.name": format!("docker.io/library/{name}") });
            entry
        })
        .collect();
    layout.index(&json!(entries));
    let error = msb.fails(125, &["image", "import", layout.path()]);
    let expected =
        "cannot select one of 2 images: a:1, b:2; import it with the name of one of them";
    assert!(error.ends_with(expected), "{error}");
    msb.ok(&["image", "import", layout.path(), "b:2"]);
    assert_eq!(msb.json(&["image", "ls", "--json"])[0]["names"], json!(["b:2"]));
}

/// Returns variations of a configuration: each field null, absent, in other cases, repeated.
fn variations(whole: &Value) -> Vec<String> {
    let mut found = vec![whole.to_string()];
    for parent in ["", "/config", "/rootfs"] {
        let keys: Vec<String> =
            whole.pointer(parent).unwrap().as_object().unwrap().keys().cloned().collect();
        for key in keys {
            let mut vary = |change: &dyn Fn(&mut serde_json::Map<String, Value>)| {
                let mut document = whole.clone();
                change(document.pointer_mut(parent).unwrap().as_object_mut().unwrap());
                found.push(document.to_string());
            };
            vary(&|map| drop(map.insert(key.clone(), Value::Null)));
            vary(&|map| drop(map.remove(&key)));
            for other in [key.to_uppercase(), key.to_lowercase()] {
                vary(&|map| {
                    let value = map.remove(&key).unwrap();
                    map.insert(other.clone(), value);
                });
                // Of both keys, null comes last or first.
                vary(&|map| drop(map.insert(other.clone(), Value::Null)));
            }
            // Nothing here reads the type of the layers.
            if key != "type" {
                vary(&|map| drop(map.insert(key.clone(), json!(5))));
            }
        }
    }
    let inner = whole["config"].to_string();
    for (first, second) in [("config", "CONFIG"), ("Config", "config")] {
        let text = whole.to_string().replace(
            &format!("\"config\":{inner}"),
            &format!(
                r#""{first}":{inner},"{second}":{{"Cmd":["second"],"labels":{{"x":null,"z":"9"}},
                "USER":"other","WorkingDir":null,"env":["C=d",null]}}"#
            ),
        );
        assert_ne!(text, whole.to_string());
        found.push(text);
    }
    found
}

/// Returns what skopeo reads of a configuration; `None` if it refuses it.
fn read_by_skopeo(layout: &Layout) -> Option<Value> {
    let from = format!("oci:{}", layout.path());
    let output = Command::new("skopeo").args(["inspect", "--config", &from]).output();
    let output = output.expect("skopeo is needed: scripts/setup test");
    let found: Value = serde_json::from_slice(&output.stdout).ok()?;
    let config = &found["config"];
    let or = |value: &Value, default: Value| {
        if value.is_null() { default } else { value.clone() }
    };
    Some(json!({
        "architecture": or(&found["architecture"], json!("")),
        "env": or(&config["Env"], json!([])),
        "entrypoint": or(&config["Entrypoint"], json!([])),
        "cmd": or(&config["Cmd"], json!([])),
        "labels": or(&config["Labels"], json!({})),
        "user": or(&config["User"], json!("")),
        "workdir": or(&config["WorkingDir"], json!("")),
        "diff_ids": or(&found["rootfs"]["diff_ids"], json!([])),
    }))
}

/// Returns what is read here, in the same form.
fn read_here(text: &str) -> Option<Value> {
    let config = msb_image::ImageConfig::from_document(text.as_bytes()).ok()?;
    Some(json!({
        "architecture": config.architecture, "env": config.env, "entrypoint": config.entrypoint,
        "cmd": config.cmd, "labels": config.labels, "user": config.user,
        "workdir": config.workdir, "diff_ids": config.diff_ids,
    }))
}

#[test]
fn g_configurations_are_read_as_skopeo_reads_them() {
    let files = layer(&[("f", b"x")]);
    let mut whole = configuration(
        &files,
        &json!({ "Env": ["A=b"], "WorkingDir": "/w", "User": "u", "Entrypoint": ["e", "f"],
            "Cmd": ["c"], "Labels": { "x": "1", "y": "2" } }),
    );
    whole["created"] = json!("2020-01-01T00:00:00Z");
    whole["variant"] = json!("v2");
    let (mut accepted, mut refused) = (0, 0);
    for text in variations(&whole) {
        let layout = Layout::new();
        layout.index(&json!([layout.image(&files, &text)]));
        let (theirs, ours) = (read_by_skopeo(&layout), read_here(&text));
        assert_eq!(ours, theirs, "{text}");
        *(if theirs.is_some() { &mut accepted } else { &mut refused }) += 1;
    }
    assert!(accepted > 60 && refused > 10, "{accepted} accepted, {refused} refused");
}
