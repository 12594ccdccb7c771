//! Configuration of registries: `config.json` in the state directory, and the environment.

use crate::error::{Error, Result};
use crate::files::read_json;
use crate::reference::{OFFICIAL_REGISTRY, Reference};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Configuration of all registries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registries {
    /// Registry of names without a host.
    pub default_registry: String,
    /// Settings of single registries, by host and port as in names.
    pub registries: BTreeMap<String, RegistrySettings>,
    /// PEM file of additional CA certificates for all registries.
    pub ca_file: Option<PathBuf>,
}

/// Settings of one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySettings {
    /// Mirrors, tried first, in this order.
    pub mirrors: Vec<String>,
    /// Whether to connect without TLS.
    pub plain_http: bool,
    /// PEM file of additional CA certificates for this registry.
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

/// `config.json`. Other crates own its other parts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    images: Registries,
}

impl Registries {
    /// Loads the configuration. The environment overrides the file.
    pub fn load(home: &Path) -> Result<Registries> {
        let path = home.join("config.json");
        let file: Option<File> = read_json(&path).map_err(|error| match error.os_error {
            // A failed system call is no error of the configuration.
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
            settings.mirrors = split_list(&mirrors);
        }
        for host in
            variable("MSB_REGISTRY_PLAIN_HTTP").map(|text| split_list(&text)).unwrap_or_default()
        {
            self.registries.entry(host).or_default().plain_http = true;
        }
        if let Some(file) = variable("MSB_REGISTRY_CA") {
            self.ca_file = Some(file.into());
        }
        self.validate()
    }

    fn validate(self) -> Result<Self> {
        let mirrors = self.registries.values().flat_map(|settings| &settings.mirrors);
        let hosts = self.registries.keys().chain(mirrors).chain([&self.default_registry]);
        for host in hosts {
            let probe = Reference::parse("x/x", host);
            if !probe.is_ok_and(|probe| probe.registry() == host) {
                let text = format!("invalid registry {host:?} in the configuration");
                return Err(Error::invalid(text).hint("use HOST or HOST:PORT, without a scheme"));
            }
        }
        Ok(self)
    }

    /// Returns the settings of a registry.
    pub fn settings(&self, host: &str) -> RegistrySettings {
        self.registries.get(host).cloned().unwrap_or_default()
    }
}

fn split_list(text: &str) -> Vec<String> {
    text.split([',', ' ']).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_overrides_the_file() {
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
    fn i_host_with_a_scheme_or_unknown_option_is_refused() {
        let set = |name: &str| (name == "MSB_REGISTRY_MIRROR").then(|| "http://m".to_owned());
        let error = Registries::default().with_environment(set).unwrap_err();
        assert!(error.to_string().contains("without a scheme"), "{error}");
        assert!(serde_json::from_str::<File>(r#"{"images": {"registry": "x"}}"#).is_err());
    }
}
