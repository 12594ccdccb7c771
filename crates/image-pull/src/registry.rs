//! Getting an image from a registry.

use crate::credentials;
use crate::helper::Helper;
use crate::make::{checked_config, count, make, total};
use crate::manifest::{Document, Manifest, choose};
use crate::transfer::{Failed, Transfer, download};
use crate::tree::room;
use msb_image::{
    Blob, Digest, Error, ErrorKind, MAX_DOCUMENT, OFFICIAL_REGISTRY, Phase, Progress, Reference,
    Registries, Result, Store, is_loopback,
};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as Remote, RegistryOperation};
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// How long a connection may take, with TLS; how long nothing may come on one; and how long it may
/// take to be let in.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const READ_LIMIT: Duration = Duration::from_secs(60);
const SIGN_IN_LIMIT: Duration = Duration::from_secs(30);
/// How many blobs are under way at once.
const PARALLEL: usize = 4;
const ACCEPTED: [&str; 4] = [
    OCI_IMAGE_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

/// Gets an image, gives it its name, and returns its id.
pub(crate) async fn pull(
    store: &Store,
    helper: &Helper,
    reference: &Reference,
    registries: &Registries,
    report: &mut dyn FnMut(Progress),
) -> Result<Digest> {
    report(Progress::default());
    let mirrors = registries.settings(reference.registry()).mirrors;
    let mut first = None;
    for host in mirrors.iter().map(String::as_str).chain([reference.registry()]) {
        match pull_from(store, helper, reference, host, registries, report).await {
            // What only a registry can lack is asked for at the next one.
            Err(error) if is_its_own(error.kind) => {
                // That of the registry itself says most; of mirrors the first.
                if first.is_none() || host == reference.registry() {
                    first = Some(error);
                }
            }
            result => return result,
        }
    }
    Err(first.unwrap_or_else(|| Error::not_found(format!("there is no image {reference}"))))
}

fn is_its_own(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Unauthorized | ErrorKind::Unreachable)
}

async fn pull_from(
    store: &Store,
    helper: &Helper,
    reference: &Reference,
    host: &str,
    registries: &Registries,
    report: &mut dyn FnMut(Progress),
) -> Result<Digest> {
    let session = Session::open(reference, host, registries).await?;
    let (bytes, asked, manifest) = session.manifest().await?;
    let manifest_digest = store.add_blob(bytes.as_slice(), None)?.digest;
    let id = &manifest.config.digest;
    if !store.has(id) {
        session.blobs(store, &manifest, report).await?;
    }
    let id = make(store, helper, &manifest_digest, &manifest, report)?;
    store.name(reference, &id, Some(&asked))?;
    Ok(id)
}

/// A conversation with one registry about one image.
struct Session {
    client: Client,
    remote: Remote,
    shown: String,
}

impl Session {
    async fn open(reference: &Reference, host: &str, registries: &Registries) -> Result<Session> {
        let auth = credentials::find(host, reference.repository())?;
        let settings = registries.settings(host);
        let plain = settings.plain_http;
        let secure = Session::with(reference, host, registries, plain)?;
        match secure.sign_in(&auth).await {
            // As docker has it: a registry on this machine may do without TLS. One that has it,
            // but nobody to vouch for it, is no such registry.
            Err(error) if !plain && is_loopback(host) && !is_about_trust(&error) => {
                let open = Session::with(reference, host, registries, true)?;
                open.sign_in(&auth).await.map_err(|other| match open.explained(&other) {
                    explained if explained.kind != ErrorKind::Unreachable => explained,
                    _ => Error::new(
                        ErrorKind::Unreachable,
                        format!(
                            "cannot reach {host}: with TLS: {}; without: {}",
                            chain(&error),
                            chain(&other)
                        ),
                    ),
                })?;
                Ok(open)
            }
            Err(error) => Err(secure.explained(&error)),
            Ok(()) => Ok(secure),
        }
    }

    fn with(
        reference: &Reference,
        host: &str,
        registries: &Registries,
        plain: bool,
    ) -> Result<Session> {
        let settings = registries.settings(host);
        let files = settings.ca_file.iter().chain(&registries.ca_file);
        let mut certificates = Vec::new();
        for file in files {
            certificates.extend(certificates_in(file)?);
        }
        let protocol = if plain { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            extra_root_certificates: certificates,
            connect_timeout: Some(CONNECT_LIMIT),
            read_timeout: Some(READ_LIMIT),
            user_agent: concat!("microsandbox/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| {
            let hint = "install ca-certificates, or name certificates in MSB_REGISTRY_CA";
            Error::invalid(format!("cannot make a client: {}", chain(&error))).hint(hint)
        })?;
        let (registry, repository) = (host.to_owned(), reference.repository().to_owned());
        let remote = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Remote::with_digest(registry, repository, digest.to_string()),
            (None, tag) => Remote::with_tag(registry, repository, tag.unwrap_or("latest").into()),
        };
        let mut shown = reference.familiar();
        if host != reference.registry() && host != OFFICIAL_REGISTRY {
            shown = format!("{shown} (at {host})");
        }
        Ok(Session { client, remote, shown })
    }

    async fn sign_in(&self, auth: &RegistryAuth) -> oci_client::errors::Result<()> {
        let signing_in = self.client.auth(&self.remote, auth, RegistryOperation::Pull);
        match timeout(SIGN_IN_LIMIT, signing_in).await {
            Ok(result) => result.map(drop),
            Err(_) => Err(OciDistributionError::IoError(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("no answer within {} s", SIGN_IN_LIMIT.as_secs()),
            ))),
        }
    }

    /// The manifest of the image for this machine; and the digest of what was asked for.
    async fn manifest(&self) -> Result<(Vec<u8>, Digest, Manifest)> {
        let (bytes, asked) = self.document(&self.remote).await?;
        match Document::parse(&bytes)? {
            Document::Image(manifest) => Ok((bytes, asked, manifest)),
            Document::Index(all) => {
                let chosen = choose(&all).map_err(|error| self.about(&error))?.blob()?;
                let remote = self.remote.clone_with_digest(chosen.digest.to_string());
                let (bytes, _) = self.document(&remote).await?;
                match Document::parse(&bytes)? {
                    Document::Image(manifest) => Ok((bytes, asked, manifest)),
                    Document::Index(_) => Err(Error::bad("a list of images holds a list")),
                }
            }
        }
    }

    async fn document(&self, remote: &Remote) -> Result<(Vec<u8>, Digest)> {
        // Whether it has the right digest, the client looks; it was told who to be.
        let pulled =
            self.client.pull_manifest_raw(remote, &RegistryAuth::Anonymous, &ACCEPTED).await;
        let (bytes, _) = pulled.map_err(|error| self.explained(&error))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(Error::bad(format!("the manifest of {} is far too long", self.shown)));
        }
        let digest = Digest::of(&bytes);
        if remote.digest().is_some_and(|wanted| wanted != digest.to_string()) {
            return Err(Error::bad(format!(
                "the registry sent another manifest of {}",
                self.shown
            )));
        }
        Ok((bytes.to_vec(), digest))
    }

    async fn blobs(
        &self,
        store: &Store,
        manifest: &Manifest,
        report: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let transfer = Transfer { client: &self.client, remote: &self.remote, store };
        // First, since it says whether the rest is of any use here.
        let config = [manifest.config.clone()];
        let got = download(&transfer, &config, 1, &mut |_, _| {}).await;
        got.map_err(|failed| failed.explained(self))?;
        checked_config(store, manifest).map_err(|error| self.about(&error))?;
        let mut wanted: Vec<Blob> = Vec::new();
        for blob in &manifest.layers {
            if !wanted.contains(blob) && !store.blob(&blob.digest).is_file() {
                wanted.push(blob.clone());
            }
        }
        let total = total(&wanted);
        let (free, _) = room(store.home())?;
        if total > free {
            let text = format!("{} has {total} bytes to download, {free} are free", self.shown);
            return Err(Error::new(ErrorKind::NoSpace, text));
        }
        let mut progress = Progress::default();
        progress.phase = Phase::Downloading;
        progress.layers = count(wanted.len());
        progress.bytes_total = total;
        report(progress);
        download(&transfer, &wanted, PARALLEL, &mut |layers, bytes| {
            progress.layers_done = layers;
            progress.bytes = bytes;
            report(progress);
        })
        .await
        .map_err(|failed| failed.explained(self))
    }

    fn about(&self, error: &Error) -> Error {
        Error { message: format!("{}: {}", self.shown, error.message), ..error.clone() }
    }

    /// What a client's error means for somebody who wanted an image.
    pub(crate) fn explained(&self, error: &OciDistributionError) -> Error {
        use OciDistributionError as Oci;
        let (host, shown) = (self.remote.registry(), &self.shown);
        let codes: Vec<&OciErrorCode> = match error {
            Oci::RegistryError { envelope, .. } => {
                envelope.errors.iter().map(|e| &e.code).collect()
            }
            _ => Vec::new(),
        };
        let has = |wanted: &[OciErrorCode]| codes.iter().any(|code| wanted.contains(code));
        let denied = || {
            Error::new(ErrorKind::Unauthorized, format!("{host} does not let us have {shown}"))
                .hint("it may not exist, or want credentials: log in with docker or podman")
        };
        let missing = || Error::not_found(format!("{host} has no image {shown}"));
        match error {
            Oci::UnauthorizedError { .. } | Oci::AuthenticationFailure(_) => denied(),
            Oci::ServerError { code: 401 | 403, .. } => denied(),
            _ if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) => denied(),
            Oci::ImageManifestNotFoundError(_) | Oci::ServerError { code: 404, .. } => missing(),
            _ if has(&[
                OciErrorCode::ManifestUnknown,
                OciErrorCode::NameUnknown,
                OciErrorCode::NotFound,
                OciErrorCode::BlobUnknown,
            ]) =>
            {
                missing()
            }
            Oci::RequestError(_) | Oci::IoError(_) => {
                Error::new(ErrorKind::Unreachable, format!("cannot reach {host}: {}", chain(error)))
            }
            Oci::ServerError { code: 429 | 500..=599, .. } => {
                let text = format!("{host} cannot give {shown} now: {error}");
                Error::new(ErrorKind::Unreachable, text)
            }
            _ if has(&[OciErrorCode::Toomanyrequests]) => {
                let text = format!("{host} cannot give {shown} now: {error}");
                Error::new(ErrorKind::Unreachable, text).hint("log in, or use a mirror")
            }
            other => Error::bad(format!("{host} did not give {shown}: {}", chain(other))),
        }
    }
}

impl Failed {
    fn explained(self, session: &Session) -> Error {
        match self {
            Failed::Here(error) => error,
            Failed::There(error) => session.explained(&error),
        }
    }
}

/// Whether a certificate is the reason, and not that there is no TLS at all.
fn is_about_trust(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
        return true;
    }
    // One of the system's hides the error that it is about from those who ask for its source.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    wrapped.is_some_and(|inner| is_about_trust(inner)) || error.source().is_some_and(is_about_trust)
}

/// An error with those behind it, which say what really happened.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

/// The certificates of a file, of which there may be many.
fn certificates_in(path: &Path) -> Result<Vec<Certificate>> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::io("read certificates from", path, error))?;
    let found: Vec<Certificate> = text
        .split_inclusive(END)
        .filter(|part| part.ends_with(END))
        .map(|part| Certificate {
            encoding: CertificateEncoding::Pem,
            data: part.as_bytes().to_vec(),
        })
        .collect();
    if found.is_empty() {
        return Err(Error::invalid(format!("{} has no certificate in PEM", path.display())));
    }
    Ok(found)
}
