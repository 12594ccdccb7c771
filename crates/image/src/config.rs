//! The configuration of an image: defaults for the commands that run in it.

use crate::digest::{Digest, InvalidDigest};
use crate::error::{Error, Result};
use crate::platform::Platform;
use crate::{json, json_object};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;

/// Maximum length in bytes of an image's JSON documents. Registries refuse longer manifests.
pub const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;

/// The part of an image's configuration that matters to a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// Environment variables, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory; empty for none.
    pub workdir: String,
    /// User; empty for root.
    pub user: String,
    /// Program and arguments that precede the command.
    pub entrypoint: Vec<String>,
    /// Default command, or the entrypoint's arguments.
    pub cmd: Vec<String>,
    /// Shell with its arguments.
    pub shell: Vec<String>,
    /// Directories that it wants to have.
    pub volumes: Vec<String>,
    /// Signal that asks its command to end; empty for SIGTERM.
    pub stop_signal: String,
    /// Labels set by the image's author.
    pub labels: BTreeMap<String, String>,
    /// CPU architecture that its programs are built for, such as `amd64`.
    pub architecture: String,
    /// Operating system that its programs are built for.
    pub os: String,
    /// Variant of the architecture; mostly empty.
    pub variant: String,
    /// Creation time that the image declares.
    pub created: String,
    /// Digests of the uncompressed layers.
    pub diff_ids: Vec<Digest>,
}

/// The JSON document in a registry or archive. Docker and OCI use the same fields.
///
/// `oci-spec` has no `Shell`, requires the platform, rejects unusual values of unused fields, and
/// adds 23 packages to every program that links this crate.
#[derive(Debug, Default)]
struct Document {
    architecture: String,
    os: String,
    variant: String,
    created: String,
    config: Inner,
    rootfs: RootFs,
}

#[derive(Debug, Default)]
struct Inner {
    env: Vec<String>,
    working_dir: String,
    user: String,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    shell: Vec<String>,
    volumes: BTreeMap<String, Volume>,
    stop_signal: String,
    labels: BTreeMap<String, String>,
}

/// An empty object: only the path of a volume matters.
#[derive(Debug, Default)]
struct Volume {}

#[derive(Debug, Default)]
struct RootFs {
    diff_ids: Vec<String>,
}

json_object!(Document {
    "architecture": architecture,
    "os": os,
    "variant": variant,
    "created": created,
    "config": config,
    "rootfs": rootfs,
});
json_object!(Inner {
    "Env": env,
    "WorkingDir": working_dir,
    "User": user,
    "Entrypoint": entrypoint,
    "Cmd": cmd,
    "Shell": shell,
    "Volumes": volumes,
    "StopSignal": stop_signal,
    "Labels": labels,
});
json_object!(Volume {});
json_object!(RootFs { "diff_ids": diff_ids });

impl ImageConfig {
    /// Parses the JSON document.
    pub fn from_document(bytes: &[u8]) -> Result<ImageConfig> {
        let failed = |why: &dyn Display| {
            Error::bad(format!("cannot parse the image's configuration: {why}"))
        };
        let document: Document = json::from_slice(bytes).map_err(|error| failed(&error))?;
        let Document { config: inner, rootfs, .. } = document;
        let diff_ids = rootfs.diff_ids.iter().map(|text| text.parse());
        let diff_ids = diff_ids.collect::<std::result::Result<_, InvalidDigest>>();
        Ok(ImageConfig {
            env: inner.env,
            workdir: inner.working_dir,
            user: inner.user,
            entrypoint: inner.entrypoint,
            cmd: inner.cmd,
            shell: inner.shell,
            volumes: inner.volumes.into_keys().collect(),
            stop_signal: inner.stop_signal,
            labels: inner.labels,
            architecture: document.architecture,
            os: document.os,
            variant: document.variant,
            created: document.created,
            diff_ids: diff_ids.map_err(|error| failed(&format!("rootfs: diff_ids: {error}")))?,
        })
    }

    /// Returns the JSON document for an image that is built here.
    pub fn to_document(&self) -> Vec<u8> {
        let volumes: BTreeMap<_, _> = self.volumes.iter().map(|path| (path, json!({}))).collect();
        let fields = [
            ("Env", json!(self.env)),
            ("WorkingDir", json!(self.workdir)),
            ("User", json!(self.user)),
            ("Entrypoint", json!(self.entrypoint)),
            ("Cmd", json!(self.cmd)),
            ("Shell", json!(self.shell)),
            ("Volumes", json!(volumes)),
            ("StopSignal", json!(self.stop_signal)),
            ("Labels", json!(self.labels)),
        ];
        let is_set = |value: &Value| ![json!(""), json!([]), json!({})].contains(value);
        let fields = fields.into_iter().filter(|(_, value)| is_set(value));
        let config: BTreeMap<_, _> = fields.collect();
        let mut document = json!({
            "architecture": self.architecture,
            "os": self.os,
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": self.diff_ids },
        });
        for (key, value) in [("created", &self.created), ("variant", &self.variant)] {
            if !value.is_empty() {
                document[key] = json!(value);
            }
        }
        document.to_string().into_bytes()
    }

    /// Returns the platform that it declares.
    pub fn platform(&self) -> Platform {
        let (os, architecture) = (self.os.clone(), self.architecture.clone());
        Platform { os, architecture, variant: self.variant.clone() }.normalized()
    }

    /// Sets the platform.
    pub fn set_platform(&mut self, platform: &Platform) {
        let Platform { os, architecture, variant } = platform.clone();
        (self.os, self.architecture, self.variant) = (os, architecture, variant);
    }

    /// Returns the environment variables as pairs. Skips entries without `=`.
    pub fn env_pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().filter_map(|entry| entry.split_once('=')).filter(|(key, _)| !key.is_empty())
    }

    /// Returns the working directory as an absolute path, if set.
    pub fn absolute_workdir(&self) -> Option<String> {
        (!self.workdir.is_empty()).then(|| absolute(&self.workdir))
    }

    /// Returns the directories that have to exist, as absolute paths: the working directory and the
    /// volumes.
    pub fn directories(&self) -> Vec<String> {
        let volumes = self.volumes.iter().map(|path| absolute(path));
        self.absolute_workdir().into_iter().chain(volumes).collect()
    }

    /// Returns the program of the shell, if set.
    pub fn shell_program(&self) -> Option<&str> {
        self.shell.first().map(String::as_str).filter(|program| !program.is_empty())
    }
}

/// Returns a path from the root without `.`, `..` and empty parts, by its text alone as docker does.
fn absolute(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_fields_may_be_missing_or_null() {
        let empty = ImageConfig::from_document(b"{}").unwrap();
        assert_eq!(empty, ImageConfig::default());
        let nulls = br#"{"config":{"Env":null,"Cmd":null,"Labels":null,"Volumes":null},
            "rootfs":null}"#;
        assert_eq!(ImageConfig::from_document(nulls).unwrap(), ImageConfig::default());
        assert!(ImageConfig::from_document(b"[]x").is_err());
        let text = br#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b=c","X","=y"],
            "WorkingDir":"srv","User":"1:2","Entrypoint":["/e"],"Cmd":["c"],
            "Shell":["/bin/bash","-c"],"Volumes":{"/data":{},"a/../b//c":null},
            "StopSignal":"SIGINT"}}"#;
        let config = ImageConfig::from_document(text).unwrap();
        assert_eq!(config.env_pairs().collect::<Vec<_>>(), [("A", "b=c")]);
        assert_eq!(config.absolute_workdir().as_deref(), Some("/srv"));
        assert_eq!(config.directories(), ["/srv", "/data", "/b/c"]);
        assert_eq!(config.shell_program(), Some("/bin/bash"));
        assert_eq!(config.stop_signal, "SIGINT");
        assert_eq!(ImageConfig::from_document(&config.to_document()).unwrap(), config);
        for (given, meant) in [("", None), ("/", Some("/")), ("../x/.", Some("/x"))] {
            let config = ImageConfig { workdir: given.to_owned(), ..ImageConfig::default() };
            assert_eq!(config.absolute_workdir().as_deref(), meant, "{given}");
        }
    }
}
