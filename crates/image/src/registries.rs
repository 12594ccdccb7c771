//! Which registries there are and how they are reached: `config.json` in the state directory, and
//! the environment.

use crate::error::{Error, Result};
use crate::files::read_json;
use crate::reference::{OFFICIAL_REGISTRY, Reference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Everything that is configured about registries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registries {
    /// The registry of names without a host.
    pub default_registry: String,
    /// What is known about single registries, by host and port as they stand in names.
    pub registries: BTreeMap<String, RegistrySettings>,
    /// A file of certificates, in PEM, that every registry may be signed with.
    pub ca_file: Option<PathBuf>,
}

/// How one registry is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySettings {
    /// Registries that hold the same images and are asked first, in this order.
    pub mirrors: Vec<String>,
    /// Without TLS.
    pub plain_http: bool,
    /// A file of certificates, in PEM, that this registry may be signed with.
    pub ca_file: Option<PathBuf>,
}

impl Default for Registries {
    fn default() -> Self {
        Registries {
            default_registry: OFFICIAL_REGISTRY.to_owned(),
            registries: BTreeMap::new(),
            ca_file: None,
        }
    }
}

/// `config.json`; other parts of it are none of this crate's business.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    images: Registries,
}

impl Registries {
    /// What holds now: the file in the state directory, and over it the environment.
    pub fn load(home: &Path) -> Result<Registries> {
        let path = home.join("config.json");
        let file: Option<File> = read_json(&path).map_err(|error| match error.os_error {
            // The system's fault, and not that of whoever wrote it.
            Some(_) => error,
            None => Error::invalid(error.message),
        })?;
        let file = file.unwrap_or_default();
        let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        file.images.with_environment(variable)
    }

    fn with_environment(mut self, variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        if let Some(host) = variable("MSB_REGISTRY_DEFAULT") {
            self.default_registry = host;
        }
        if let Some(mirrors) = variable("MSB_REGISTRY_MIRROR") {
            let settings = self.registries.entry(self.default_registry.clone()).or_default();
            settings.mirrors = words(&mirrors);
        }
        for host in variable("MSB_REGISTRY_PLAIN_HTTP").map(|text| words(&text)).unwrap_or_default()
        {
            self.registries.entry(host).or_default().plain_http = true;
        }
        if let Some(file) = variable("MSB_REGISTRY_CA") {
            self.ca_file = Some(file.into());
        }
        self.checked()
    }

    fn checked(self) -> Result<Self> {
        let mirrors = self.registries.values().flat_map(|settings| &settings.mirrors);
        let hosts = self.registries.keys().chain(mirrors).chain([&self.default_registry]);
        for host in hosts {
            let probe = Reference::parse("x/x", host);
            if !probe.is_ok_and(|probe| probe.registry() == host) {
                let text = format!("{host:?} in the configuration of registries is no host");
                return Err(Error::invalid(text).hint("give HOST or HOST:PORT, without a scheme"));
            }
        }
        Ok(self)
    }

    /// How a registry is reached.
    pub fn settings(&self, host: &str) -> RegistrySettings {
        self.registries.get(host).cloned().unwrap_or_default()
    }
}

fn words(text: &str) -> Vec<String> {
    text.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Whether a host, with or without a port, is this machine. Such a registry may do without TLS.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _)) => inside,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_stands_over_the_file() {
        let home = tempfile::tempdir().unwrap();
        let text = r#"{"other": 1, "images": {"default_registry": "a.example",
            "registries": {"b.example:5000": {"plain_http": true, "ca_file": "/ca.pem"}}}}"#;
        std::fs::write(home.path().join("config.json"), text).unwrap();
        let file: File = read_json(&home.path().join("config.json")).unwrap().unwrap();
        let set = |name: &str| match name {
            "MSB_REGISTRY_DEFAULT" => Some("c.example".to_owned()),
            "MSB_REGISTRY_MIRROR" => Some("m.example, localhost:5000".to_owned()),
            "MSB_REGISTRY_PLAIN_HTTP" => Some("m.example".to_owned()),
            _ => None,
        };
        let registries = file.images.with_environment(set).unwrap();
        assert_eq!(registries.default_registry, "c.example");
        assert_eq!(registries.settings("c.example").mirrors, ["m.example", "localhost:5000"]);
        assert!(registries.settings("m.example").plain_http);
        assert_eq!(registries.settings("b.example:5000").ca_file, Some("/ca.pem".into()));
    }

    #[test]
    fn i_a_host_with_a_scheme_or_an_unknown_option_is_refused() {
        let set = |name: &str| (name == "MSB_REGISTRY_MIRROR").then(|| "http://m".to_owned());
        let error = Registries::default().with_environment(set).unwrap_err();
        assert!(error.to_string().contains("without a scheme"), "{error}");
        assert!(serde_json::from_str::<File>(r#"{"images": {"registry": "x"}}"#).is_err());
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.1.2.3:80", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.org", "10.0.0.1:5000", "localhost.example", "[::2]:5000"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
