//! Credentials of docker and podman.
//!
//! Searched in this order: the file in `REGISTRY_AUTH_FILE`, podman's in `XDG_RUNTIME_DIR`,
//! docker's (in `DOCKER_CONFIG`, else `.docker` in the home directory), podman's in
//! `.config/containers`. In each file, a credential helper for the registry precedes a password.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use msb_image::{Error, ErrorKind, MAX_DOCUMENT, OFFICIAL_REGISTRY, Result, json, json_object};
use oci_client::secrets::RegistryAuth;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Name of docker for the credentials of its registry.
const OFFICIAL_CREDENTIALS: &str = "https://index.docker.io/v1/";
/// User name of a credential helper for a bearer token.
const TOKEN_USER: &str = "<token>";

/// A file of credentials.
#[derive(Debug, Default)]
pub(crate) struct AuthFile {
    auths: BTreeMap<String, AuthEntry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: String,
}

#[derive(Debug, Default)]
struct AuthEntry {
    auth: String,
    username: String,
    password: String,
    registrytoken: String,
}

/// What a credential helper prints.
#[derive(Debug, Default)]
struct HelperAnswer {
    username: String,
    secret: String,
}

json_object!(AuthFile {
    "auths": auths,
    "credHelpers": cred_helpers,
    "credsStore": creds_store,
});
json_object!(AuthEntry {
    "auth": auth,
    "username": username,
    "password": password,
    "registrytoken": registrytoken,
});
json_object!(HelperAnswer { "Username": username, "Secret": secret });

/// Returns the credentials for a repository; anonymous if there are none.
pub(crate) fn find(registry: &str, repository: &str) -> Result<RegistryAuth> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = variable("HOME").map(PathBuf::from);
    let in_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let runtime = variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| in_home(".config"));
    let docker = variable("DOCKER_CONFIG").map(PathBuf::from).or_else(|| in_home(".docker"));
    let paths = [
        variable("REGISTRY_AUTH_FILE").map(PathBuf::from),
        runtime.map(|directory| directory.join("containers/auth.json")),
        docker.map(|directory| directory.join("config.json")),
        config.map(|directory| directory.join("containers/auth.json")),
    ];
    for path in paths.into_iter().flatten() {
        if let Some(found) = find_in(&path, registry, repository)? {
            return Ok(found);
        }
    }
    Ok(RegistryAuth::Anonymous)
}

/// Reads a file of credentials; `None` if there is none.
pub(crate) fn read_file(path: &Path) -> Result<Option<AuthFile>> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read credentials from", path, error)),
        // `/dev/null`, for example.
        Ok(0) => return Ok(None),
        Ok(_) => {}
    }
    let failed = |why: String| {
        Error::invalid(format!("cannot read credentials from {}: {why}", path.display()))
    };
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(failed(format!("longer than {MAX_DOCUMENT} bytes")));
    }
    parse(&bytes).map(Some).map_err(failed)
}

/// Parses a file of credentials. The error quotes no value.
pub(crate) fn parse(bytes: &[u8]) -> std::result::Result<AuthFile, String> {
    json::from_slice(bytes).map_err(|error| error.to_string())
}

fn find_in(path: &Path, registry: &str, repository: &str) -> Result<Option<RegistryAuth>> {
    let Some(file) = read_file(path)? else { return Ok(None) };
    let keys = lookup_keys(registry, repository);
    let helper = keys
        .iter()
        .find_map(|key| Some((key, file.cred_helpers.get(key)?)))
        // An empty name turns the helper off.
        .filter(|(_, helper)| !helper.is_empty());
    if let Some((key, helper)) = helper {
        return run_credential_helper(helper, key);
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
    match file.creds_store.as_str() {
        "" => Ok(None),
        // It has credentials for whole registries, by docker's name for each.
        helper => run_credential_helper(helper, keys.last().map_or(registry, String::as_str)),
    }
}

/// Returns the keys under which credentials may be stored, the most specific first.
fn lookup_keys(registry: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    loop {
        keys.push(format!("{registry}/{path}"));
        match path.rsplit_once('/') {
            Some((parent, _)) => path = parent,
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

fn from_entry(entry: &AuthEntry, path: &Path) -> Result<Option<RegistryAuth>> {
    let set = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
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
            let path = path.display();
            let text = format!("cannot use credentials in {path}: not base64 of USER:PASSWORD");
            Err(Error::invalid(text))
        }
    }
}

/// Runs a credential helper by docker's protocol.
fn run_credential_helper(helper: &str, key: &str) -> Result<Option<RegistryAuth>> {
    let is_name = !helper.is_empty() && !helper.contains('/');
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| {
        Error::new(ErrorKind::Unauthorized, format!("cannot run {program}: {why}"))
            .hint("it is set in the configuration of docker or podman")
    };
    if !is_name {
        return Err(failed("its name is invalid".to_owned()));
    }
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read its input reports an error itself.
        let _ = input.write_all(key.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        // This text is part of the protocol.
        if stdout.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(format!("{stdout} {}", String::from_utf8_lossy(&output.stderr))));
    }
    // The answer may contain a secret, so no error quotes it.
    let answer: HelperAnswer =
        json::from_slice(&output.stdout).map_err(|_| failed("its answer is invalid".to_owned()))?;
    Ok(match answer {
        HelperAnswer { username, secret } if username.is_empty() && secret.is_empty() => None,
        HelperAnswer { username, secret } if username == TOKEN_USER => {
            Some(RegistryAuth::Bearer(secret))
        }
        HelperAnswer { username, secret } => Some(RegistryAuth::Basic(username, secret)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn basic(user: &str, password: &str) -> Option<RegistryAuth> {
        Some(RegistryAuth::Basic(user.into(), password.into()))
    }

    #[test]
    fn most_specific_credentials_apply() {
        let of = |pair: &str| STANDARD.encode(pair);
        let text = format!(
            r#"{{"auths": {{"a.example": {{"auth": "{}"}}, "a.example/org": {{"auth": "{}"}},
                "{OFFICIAL_CREDENTIALS}": {{"username": "hub", "password": "pw"}},
                "t.example": {{"registrytoken": "tok"}}, "e.example": {{}}}}}}"#,
            of("wide:1"),
            of("narrow:2:3"),
        );
        let (_directory, path) = file(&text);
        let find = |registry: &str, repository: &str| find_in(&path, registry, repository).unwrap();
        assert_eq!(find("a.example", "other/app"), basic("wide", "1"));
        assert_eq!(find("a.example", "org/app"), basic("narrow", "2:3"));
        assert_eq!(find(OFFICIAL_REGISTRY, "library/python"), basic("hub", "pw"));
        assert_eq!(find("t.example", "x"), Some(RegistryAuth::Bearer("tok".into())));
        assert_eq!(find("e.example", "x"), None);
        assert_eq!(find("b.example", "x"), None);
    }

    #[test]
    fn i_invalid_credentials_are_errors_without_content() {
        let (_directory, path) = file(r#"{"auths": {"a.example": {"auth": "c2VjcmV0"}}}"#);
        let error = find_in(&path, "a.example", "x").unwrap_err().to_string();
        assert!(error.contains("config.json") && !error.contains("secret"), "{error}");
        let (_directory, path) = file("{");
        assert!(find_in(&path, "a.example", "x").is_err());
        let (_directory, path) = file("");
        assert_eq!(find_in(&path, "a.example", "x").unwrap(), None, "an empty file has none");
        let (_directory, path) = file(r#"{"credHelpers": {"a.example": "../evil"}}"#);
        assert!(find_in(&path, "a.example", "x").unwrap_err().to_string().contains("name"));
        let (_directory, path) = file(r#"{"credsStore": "msb-test-none"}"#);
        let error = find_in(&path, "a.example", "x").unwrap_err().to_string();
        assert!(error.contains("docker-credential-msb-test-none"), "{error}");
    }
}
