//! Every field of every JSON document that others write: null, absent, in another case, and of a
//! wrong type.

use crate::credentials::read_file;
use crate::manifest::{DockerImage, Document, parse, parse_index};
use msb_image::{Error, ImageConfig};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What a document without a field, or with null there, is read as.
enum Without {
    /// The same.
    Same,
    /// The same with one text replaced by another.
    Other(&'static str, &'static str),
    /// Nothing: an error with this text.
    Refused(&'static str),
}
use Without::{Other, Refused, Same};

/// A kind of document: a name that errors have, an example, and its reader.
struct Kind {
    name: &'static str,
    example: Value,
    read: fn(&[u8]) -> Result<String, Error>,
    fields: &'static [(&'static str, Without)],
}

const DIGEST: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

const EMPTY_DIGEST: Without = Refused("invalid digest \"\"");

fn manifest() -> Kind {
    Kind {
        name: "its manifest",
        example: json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": DIGEST, "size": 7, "annotations": { "a": "b" } },
            "layers": [{ "mediaType": "layer", "digest": DIGEST, "size": 8 }],
        }),
        read: |bytes| Document::parse(bytes).map(|document| format!("{document:?}")),
        fields: &[
            ("/schemaVersion", Same),
            ("/config", Refused("no configuration")),
            ("/config/mediaType", Same),
            ("/config/digest", EMPTY_DIGEST),
            ("/config/size", Other("size: 7", "size: 0")),
            ("/config/annotations", Same),
            ("/config/annotations/a", Same),
            (
                "/layers",
                Other(
                    "Blob { digest: Digest(\"0000000000000000000000000000000000000000000000000000000000000000\"), size: 8 }",
                    "",
                ),
            ),
            ("/layers/0/mediaType", Same),
            ("/layers/0/digest", EMPTY_DIGEST),
            ("/layers/0/size", Other("size: 8", "size: 0")),
        ],
    }
}

fn index() -> Kind {
    Kind {
        name: "index.json",
        example: json!({ "schemaVersion": 2, "manifests": [{
            "mediaType": "media", "artifactType": "kind", "digest": DIGEST, "size": 7,
            "platform": { "os": "linux", "architecture": "amd64", "variant": "v2" },
            "annotations": { "a": "b" },
        }]}),
        read: |bytes| {
            let show = |all: Vec<_>| all.iter().map(|entry| format!("{entry:?}")).collect();
            parse_index(bytes).map(show)
        },
        fields: &[
            ("/schemaVersion", Same),
            ("/manifests", Other("", "nothing")),
            ("/manifests/0/mediaType", Other("\"media\"", "\"\"")),
            ("/manifests/0/artifactType", Other("\"kind\"", "\"\"")),
            ("/manifests/0/digest", Other(DIGEST, "")),
            ("/manifests/0/size", Other("size: 7", "size: 0")),
            (
                "/manifests/0/platform",
                Other(
                    r#"os: "linux", architecture: "amd64", variant: "v2""#,
                    r#"os: "", architecture: "", variant: """#,
                ),
            ),
            ("/manifests/0/platform/os", Other("\"linux\"", "\"\"")),
            ("/manifests/0/platform/architecture", Other("\"amd64\"", "\"\"")),
            ("/manifests/0/platform/variant", Other("\"v2\"", "\"\"")),
            ("/manifests/0/annotations", Other(r#"{"a": "b"}"#, "{}")),
            ("/manifests/0/annotations/a", Other(r#"{"a": "b"}"#, r#"{"a": ""}"#)),
        ],
    }
}

fn configuration() -> Kind {
    Kind {
        name: "the image's configuration",
        example: json!({
            "architecture": "amd64", "os": "linux", "variant": "v2", "created": "then",
            "config": { "Env": ["A=b"], "WorkingDir": "/w", "User": "u", "Entrypoint": ["e"],
                "Cmd": ["c"], "Shell": ["s"], "Volumes": { "v": {} }, "StopSignal": "INT",
                "Labels": { "a": "b" } },
            "rootfs": { "type": "layers", "diff_ids": [DIGEST] },
        }),
        read: |bytes| ImageConfig::from_document(bytes).map(|config| format!("{config:?}")),
        fields: &[
            ("/architecture", Other("\"amd64\"", "\"\"")),
            ("/os", Other("\"linux\"", "\"\"")),
            ("/variant", Other("\"v2\"", "\"\"")),
            ("/created", Other("\"then\"", "\"\"")),
            ("/config/Env", Other("[\"A=b\"]", "[]")),
            ("/config/WorkingDir", Other("\"/w\"", "\"\"")),
            ("/config/User", Other("\"u\"", "\"\"")),
            ("/config/Entrypoint", Other("[\"e\"]", "[]")),
            ("/config/Cmd", Other("[\"c\"]", "[]")),
            ("/config/Shell", Other("[\"s\"]", "[]")),
            ("/config/Volumes", Other("[\"v\"]", "[]")),
            ("/config/Volumes/v", Same),
            ("/config/StopSignal", Other("\"INT\"", "\"\"")),
            ("/config/Labels", Other(r#"{"a": "b"}"#, "{}")),
            ("/config/Labels/a", Other(r#"{"a": "b"}"#, r#"{"a": ""}"#)),
            (
                "/config",
                Other(
                    r#"env: ["A=b"], workdir: "/w", user: "u", entrypoint: ["e"], cmd: ["c"], shell: ["s"], volumes: ["v"], stop_signal: "INT", labels: {"a": "b"}"#,
                    r#"env: [], workdir: "", user: "", entrypoint: [], cmd: [], shell: [], volumes: [], stop_signal: "", labels: {}"#,
                ),
            ),
            (
                "/rootfs",
                Other(
                    "[Digest(\"0000000000000000000000000000000000000000000000000000000000000000\")]",
                    "[]",
                ),
            ),
            (
                "/rootfs/diff_ids",
                Other(
                    "[Digest(\"0000000000000000000000000000000000000000000000000000000000000000\")]",
                    "[]",
                ),
            ),
        ],
    }
}

fn docker_manifest() -> Kind {
    Kind {
        name: "manifest.json",
        example: json!([{ "Config": "c", "RepoTags": ["t"], "Layers": ["l"] }]),
        read: |bytes| {
            parse::<Vec<DockerImage>>("manifest.json", bytes).map(|all| format!("{all:?}"))
        },
        fields: &[
            ("/0/Config", Other("\"c\"", "\"\"")),
            ("/0/RepoTags", Other("[\"t\"]", "[]")),
            ("/0/Layers", Other("[\"l\"]", "[]")),
        ],
    }
}

fn credentials() -> Kind {
    Kind {
        name: "credentials from config.json",
        example: json!({
            "auths": { "r": { "auth": "a", "username": "u", "password": "p",
                "registrytoken": "t" } },
            "credHelpers": { "h": "helper" }, "credsStore": "store",
        }),
        read: |bytes| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("config.json");
            std::fs::write(&path, bytes).unwrap();
            let file = read_file(&path).map_err(|error| Error {
                message: error
                    .message
                    .replace(&directory.path().display().to_string(), "")
                    .replace("/config", "config"),
                ..error
            });
            file.map(|file| format!("{:?}", file.unwrap()))
        },
        fields: &[
            (
                "/auths",
                Other(
                    r#"{"r": AuthEntry { auth: "a", username: "u", password: "p", registrytoken: "t" }}"#,
                    "{}",
                ),
            ),
            (
                "/auths/r",
                Other(
                    r#"auth: "a", username: "u", password: "p", registrytoken: "t""#,
                    r#"auth: "", username: "", password: "", registrytoken: """#,
                ),
            ),
            ("/auths/r/auth", Other("\"a\"", "\"\"")),
            ("/auths/r/username", Other("\"u\"", "\"\"")),
            ("/auths/r/password", Other("\"p\"", "\"\"")),
            ("/auths/r/registrytoken", Other("\"t\"", "\"\"")),
            ("/credHelpers", Other(r#"{"h": "helper"}"#, "{}")),
            ("/credHelpers/h", Other("\"helper\"", "\"\"")),
            ("/credsStore", Other("\"store\"", "\"\"")),
        ],
    }
}

fn kinds() -> [Kind; 5] {
    [manifest(), index(), configuration(), docker_manifest(), credentials()]
}

/// Maps whose keys are no fields.
const MAPS: [&str; 5] = ["annotations", "Labels", "Volumes", "auths", "credHelpers"];
/// Fields that are not read.
const UNREAD: [&str; 3] = ["/mediaType", "/rootfs/type", "/layers/0/annotations"];

/// Returns the paths of all fields of a value, without the items of lists of texts.
fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    let mut add = |key: String, inner: &Value| {
        let path = format!("{at}/{key}");
        if value.is_object() {
            found.insert(path.clone());
        }
        paths(inner, &path, found);
    };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, inner)| add(key.clone(), inner)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(number, inner)| add(number.to_string(), inner));
        }
        _ => {}
    }
}

/// Returns the object that has a field, and the field's key.
fn parent<'a>(
    value: &'a mut Value,
    path: &str,
) -> (&'a mut serde_json::Map<String, Value>, String) {
    let (parent, key) = path.rsplit_once('/').unwrap();
    (value.pointer_mut(parent).unwrap().as_object_mut().unwrap(), key.to_owned())
}

fn read(kind: &Kind, value: &Value) -> Result<String, String> {
    (kind.read)(value.to_string().as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn g_every_field_of_an_example_has_a_row() {
    for kind in kinds() {
        let mut found = BTreeSet::new();
        paths(&kind.example, "", &mut found);
        let rows = kind.fields.iter().map(|(path, _)| *path);
        let rows: BTreeSet<String> = rows.chain(UNREAD).map(str::to_owned).collect();
        let missing: Vec<_> = found.difference(&rows).collect();
        assert!(missing.is_empty(), "{}: {missing:?}", kind.name);
    }
}

#[test]
fn g_field_may_be_null_or_absent() {
    for kind in kinds() {
        let whole = read(&kind, &kind.example).unwrap();
        for (path, without) in kind.fields {
            let mut null = kind.example.clone();
            let (map, key) = parent(&mut null, path);
            map.insert(key.clone(), Value::Null);
            let mut absent = kind.example.clone();
            parent(&mut absent, path).0.remove(&key);
            // A key of a map is not a field: without it there is no entry.
            let is_entry = MAPS.iter().any(|map| path.ends_with(&format!("{map}/{key}")));
            let documents = [Some(null), Some(absent).filter(|_| !is_entry)];
            for document in documents.into_iter().flatten() {
                let (found, name) = (read(&kind, &document), kind.name);
                match without {
                    Same => assert_eq!(found.as_ref(), Ok(&whole), "{name} {path}"),
                    Other("", _) => assert_eq!(found, Ok(String::new()), "{name} {path}"),
                    Other(from, to) => {
                        assert!(whole.contains(from), "{name} {path}: {whole}");
                        assert_eq!(found, Ok(whole.replacen(from, to, 1)), "{name} {path}");
                    }
                    Refused(text) => {
                        let error = found.unwrap_err();
                        assert!(error.contains(text), "{name} {path}: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn g_field_may_have_another_case() {
    for kind in kinds() {
        let whole = read(&kind, &kind.example).unwrap();
        for (path, _) in kind.fields {
            for change in [str::to_uppercase, str::to_lowercase] {
                let mut document = kind.example.clone();
                let (map, key) = parent(&mut document, path);
                if MAPS.iter().any(|map| path.ends_with(&format!("{map}/{key}"))) {
                    continue;
                }
                let value = map.remove(&key).unwrap();
                map.insert(change(&key), value);
                assert_eq!(read(&kind, &document).as_ref(), Ok(&whole), "{} {path}", kind.name);
            }
        }
    }
}

#[test]
fn i_field_of_a_wrong_type_is_refused_by_name() {
    for kind in kinds() {
        for (path, _) in kind.fields {
            let wrong =
                [json!(true), json!(-1), json!(1.5), json!("4711"), json!(4711), json!([[]])];
            for value in wrong {
                let mut document = kind.example.clone();
                let (map, key) = parent(&mut document, path);
                let same = |a: &Value, b: &Value| {
                    (a.is_string() && b.is_string()) || (a.is_u64() && b.is_u64())
                };
                if same(&value, &map[&key]) {
                    continue;
                }
                map.insert(key.clone(), value.clone());
                let error = read(&kind, &document).unwrap_err();
                let context = format!("{} {path} {value}: {error}", kind.name);
                assert!(error.contains(kind.name) && error.contains(&key), "{context}");
                assert!(error.contains("must be a") && !error.contains('\n'), "{context}");
                assert!(!error.contains("4711"), "{context}");
            }
        }
    }
}
