//! Credentials, from where docker and podman keep them.
//!
//! Looked at, in this order: the file that `REGISTRY_AUTH_FILE` names, podman's in
//! `XDG_RUNTIME_DIR`, docker's (`DOCKER_CONFIG`, else `.docker` in the home directory), podman's
//! in `.config/containers`. In each, a helper program for the registry comes before a password.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use msb_image::{Error, OFFICIAL_CREDENTIALS, OFFICIAL_REGISTRY, Result};
use oci_client::secrets::RegistryAuth;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a helper calls a password that is a token and not a user's.
const TOKEN_USER: &str = "<token>";

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// The credentials for a repository of a registry; anonymous where there are none.
pub(crate) fn find(registry: &str, repository: &str) -> Result<RegistryAuth> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = variable("HOME").map(PathBuf::from);
    let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let runtime = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| in_home(".config"));
    let docker = variable("DOCKER_CONFIG").map(PathBuf::from).or_else(|| in_home(".docker"));
    let places = [
        variable("REGISTRY_AUTH_FILE").map(PathBuf::from),
        runtime.map(|folder| folder.join("containers/auth.json")),
        docker.map(|folder| folder.join("config.json")),
        config.map(|folder| folder.join("containers/auth.json")),
    ];
    for path in places.into_iter().flatten() {
        if let Some(found) = find_in(&path, registry, repository)? {
            return Ok(found);
        }
    }
    Ok(RegistryAuth::Anonymous)
}

fn find_in(path: &Path, registry: &str, repository: &str) -> Result<Option<RegistryAuth>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read credentials from", path, error)),
    };
    let file: File = serde_json::from_slice(&bytes).map_err(|error| {
        Error::invalid(format!("cannot read credentials from {}: {error}", path.display()))
    })?;
    let keys = keys(registry, repository);
    let helper = keys.iter().find_map(|key| Some((key, file.cred_helpers.get(key)?)));
    if let Some((key, helper)) = helper {
        return ask(helper, key);
    }
    for key in &keys {
        let found = match file.auths.get(key).map(|entry| from_entry(entry, path)) {
            Some(found) => found?,
            None => None,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    match &file.creds_store {
        // It holds the credentials of a registry as a whole, by the name that docker has for it.
        Some(helper) => ask(helper, keys.last().map_or(registry, String::as_str)),
        None => Ok(None),
    }
}

/// Under which names credentials may be kept, the narrowest first.
fn keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    loop {
        keys.push(format!("{registry}/{path}"));
        match path.rsplit_once('/') {
            Some((above, _)) => path = above,
            None => break,
        }
    }
    keys.extend([registry.to_owned(), format!("https://{registry}")]);
    keys.extend([format!("https://{registry}/v1/"), format!("https://{registry}/v2/")]);
    if registry == OFFICIAL_REGISTRY {
        keys.push(OFFICIAL_CREDENTIALS.to_owned());
    } else {
        keys.push(registry.to_owned());
    }
    keys
}

fn from_entry(entry: &Entry, path: &Path) -> Result<Option<RegistryAuth>> {
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = set(&entry.registrytoken) {
        return Ok(Some(RegistryAuth::Bearer(token)));
    }
    if let (Some(user), Some(password)) = (set(&entry.username), set(&entry.password)) {
        return Ok(Some(RegistryAuth::Basic(user, password)));
    }
    let Some(auth) = set(&entry.auth) else { return Ok(None) };
    let pair = STANDARD.decode(auth.trim_end_matches('\0')).ok();
    let pair = pair.and_then(|bytes| String::from_utf8(bytes).ok());
    match pair.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((user, password)) => {
            let password = password.trim_end_matches('\0').to_owned();
            Ok(Some(RegistryAuth::Basic(user.to_owned(), password)))
        }
        None => {
            let text = format!("credentials in {} are not base64 of USER:PASSWORD", path.display());
            Err(Error::invalid(text))
        }
    }
}

/// Asks a helper program, in docker's protocol for them.
fn ask(helper: &str, key: &str) -> Result<Option<RegistryAuth>> {
    let is_name = !helper.is_empty() && !helper.contains('/');
    let program = format!("docker-credential-{helper}");
    let failed = |what: String| {
        Error::new(msb_image::ErrorKind::Unauthorized, format!("{program} failed: {what}"))
            .hint("docker's or podman's configuration names it")
    };
    if !is_name {
        return Err(failed("its name is none".to_owned()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        // One that wants no input says so by its answer.
        let _ = input.write_all(key.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        // This text is a part of the protocol.
        if said.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(format!("{said} {}", String::from_utf8_lossy(&output.stderr))));
    }
    // What it said may hold a secret, and is not repeated.
    let answer: Answer =
        serde_json::from_str(&said).map_err(|_| failed("its answer cannot be read".to_owned()))?;
    Ok(match answer {
        Answer { username, secret } if username.is_empty() && secret.is_empty() => None,
        Answer { username, secret } if username == TOKEN_USER => Some(RegistryAuth::Bearer(secret)),
        Answer { username, secret } => Some(RegistryAuth::Basic(username, secret)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn basic(user: &str, password: &str) -> Option<RegistryAuth> {
        Some(RegistryAuth::Basic(user.into(), password.into()))
    }

    #[test]
    fn the_narrowest_entry_counts_and_the_official_registry_has_a_name_of_its_own() {
        let of = |pair: &str| STANDARD.encode(pair);
        let text = format!(
            r#"{{"auths": {{"a.example": {{"auth": "{}"}}, "a.example/org": {{"auth": "{}"}},
                "{OFFICIAL_CREDENTIALS}": {{"username": "hub", "password": "pw"}},
                "t.example": {{"registrytoken": "tok"}}, "e.example": {{}}}}}}"#,
            of("wide:1"),
            of("narrow:2:3"),
        );
        let (_folder, path) = file(&text);
        let find = |registry: &str, repository: &str| find_in(&path, registry, repository).unwrap();
        assert_eq!(find("a.example", "other/app"), basic("wide", "1"));
        assert_eq!(find("a.example", "org/app"), basic("narrow", "2:3"));
        assert_eq!(find(OFFICIAL_REGISTRY, "library/python"), basic("hub", "pw"));
        assert_eq!(find("t.example", "x"), Some(RegistryAuth::Bearer("tok".into())));
        assert_eq!(find("e.example", "x"), None);
        assert_eq!(find("b.example", "x"), None);
    }

    #[test]
    fn i_files_that_make_no_sense_are_errors_without_their_content() {
        let (_folder, path) = file(r#"{"auths": {"a.example": {"auth": "c2VjcmV0"}}}"#);
        let error = find_in(&path, "a.example", "x").unwrap_err().to_string();
        assert!(error.contains("config.json") && !error.contains("secret"), "{error}");
        let (_folder, path) = file("{");
        assert!(find_in(&path, "a.example", "x").is_err());
        let (_folder, path) = file(r#"{"credHelpers": {"a.example": "../evil"}}"#);
        assert!(find_in(&path, "a.example", "x").unwrap_err().to_string().contains("name"));
        let (_folder, path) = file(r#"{"credsStore": "msb-test-none"}"#);
        let error = find_in(&path, "a.example", "x").unwrap_err().to_string();
        assert!(error.contains("docker-credential-msb-test-none"), "{error}");
    }
}
