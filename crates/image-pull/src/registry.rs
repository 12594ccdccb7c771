//! Pulls an image from a registry.

use crate::credentials;
use crate::helper::Helper;
use crate::make::{checked_config, count, make, total};
use crate::manifest::{Document, Manifest, select_platform};
use crate::transfer::{Transfer, TransferError, download};
use crate::tree::free_space;
use msb_image::{
    Blob, Digest, Error, ErrorKind, MAX_DOCUMENT, OFFICIAL_REGISTRY, Phase, Progress, Reference,
    Registries, Result, Store,
};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference as Remote, RegistryOperation};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum number of concurrent downloads.
const PARALLEL: usize = 4;
/// Media types of manifests and indexes.
const ACCEPTED: [&str; 4] = [
    OCI_IMAGE_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

/// Pulls an image, from a mirror if one has it, names it, and returns its id.
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
            // The next registry may succeed.
            Err(error) if may_try_next(error.kind) => {
                // The registry's own error is reported, else that of the first mirror.
                if first.is_none() || host == reference.registry() {
                    first = Some(error);
                }
            }
            result => return result,
        }
    }
    Err(first.unwrap_or_else(|| Error::not_found(format!("cannot find image {reference}"))))
}

fn may_try_next(kind: ErrorKind) -> bool {
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
    let client = ImageClient::connect(reference, host, registries).await?;
    let (bytes, requested, manifest) = client.manifest().await?;
    let manifest_digest = store.add_blob(bytes.as_slice(), None)?.digest;
    let id = &manifest.config.digest;
    if !store.has(id) {
        client.download_blobs(store, &manifest, report).await?;
    }
    let id = make(store, helper, &manifest_digest, &manifest, report)?;
    store.set_name(reference, &id, Some(&requested))?;
    Ok(id)
}

/// A client of one registry for one image.
struct ImageClient {
    client: Client,
    remote: Remote,
    /// Name of the image in errors.
    display_name: String,
}

impl ImageClient {
    /// Creates a client and authenticates, with TLS unless the registry does without.
    async fn connect(
        reference: &Reference,
        host: &str,
        registries: &Registries,
    ) -> Result<ImageClient> {
        let auth = credentials::find(host, reference.repository())?;
        let plain_http = registries.settings(host).plain_http;
        let client = ImageClient::new(reference, host, registries, plain_http)?;
        let Err(error) = client.authenticate(&auth).await else { return Ok(client) };
        // As docker does: a registry on this host may do without TLS. One that has TLS with an
        // untrusted certificate is refused.
        if plain_http || !is_loopback(host) || is_certificate_error(&error) {
            return Err(client.to_error(&error));
        }
        let client = ImageClient::new(reference, host, registries, true)?;
        let Err(other) = client.authenticate(&auth).await else { return Ok(client) };
        let converted = client.to_error(&other);
        if converted.kind != ErrorKind::Unreachable {
            return Err(converted);
        }
        let (with, without) = (root_cause(&error), root_cause(&other));
        let why = match with == without {
            true => with,
            false => format!("with TLS: {with}; without: {without}"),
        };
        Err(Error::new(ErrorKind::Unreachable, format!("cannot reach {host}: {why}")))
    }

    fn new(
        reference: &Reference,
        host: &str,
        registries: &Registries,
        plain_http: bool,
    ) -> Result<ImageClient> {
        let settings = registries.settings(host);
        let files = settings.ca_file.iter().chain(&registries.ca_file);
        let mut certificates = Vec::new();
        for file in files {
            certificates.extend(certificates_in(file)?);
        }
        let protocol = if plain_http { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            extra_root_certificates: certificates,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: concat!("microsandbox/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| {
            let hint = "install ca-certificates, or set MSB_REGISTRY_CA";
            Error::invalid(format!("cannot load CA certificates: {}", error_chain(&error)))
                .hint(hint)
        })?;
        let (registry, repository) = (host.to_owned(), reference.repository().to_owned());
        let remote = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Remote::with_digest(registry, repository, digest.to_string()),
            (None, tag) => Remote::with_tag(registry, repository, tag.unwrap_or("latest").into()),
        };
        let mut display_name = reference.familiar();
        if host != reference.registry() && host != OFFICIAL_REGISTRY {
            display_name = format!("{display_name} (at {host})");
        }
        Ok(ImageClient { client, remote, display_name })
    }

    async fn authenticate(&self, auth: &RegistryAuth) -> oci_client::errors::Result<()> {
        let authentication = self.client.auth(&self.remote, auth, RegistryOperation::Pull);
        match timeout(AUTHENTICATION_TIMEOUT, authentication).await {
            Ok(result) => result.map(drop),
            Err(_) => Err(OciDistributionError::IoError(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!("no answer within {} s", AUTHENTICATION_TIMEOUT.as_secs()),
            ))),
        }
    }

    /// Fetches the manifest for this platform.
    ///
    /// Returns its bytes, the digest of the manifest or index that was requested, and the parsed
    /// manifest.
    async fn manifest(&self) -> Result<(Vec<u8>, Digest, Manifest)> {
        let (bytes, requested) = self.fetch_document(&self.remote).await?;
        match Document::parse(&bytes)? {
            Document::Image(manifest) => Ok((bytes, requested, manifest)),
            Document::Index(all) => {
                let chosen =
                    select_platform(&all).map_err(|error| self.with_name(&error))?.blob()?;
                let remote = self.remote.clone_with_digest(chosen.digest.to_string());
                let (bytes, _) = self.fetch_document(&remote).await?;
                match Document::parse(&bytes)? {
                    Document::Image(manifest) => Ok((bytes, requested, manifest)),
                    Document::Index(_) => {
                        Err(Error::bad("cannot use its index: nested in another index"))
                    }
                }
            }
        }
    }

    /// Fetches a manifest or index, and verifies its digest.
    async fn fetch_document(&self, remote: &Remote) -> Result<(Vec<u8>, Digest)> {
        // The client is authenticated already, and checks the digest that the registry declares.
        let pulled =
            self.client.pull_manifest_raw(remote, &RegistryAuth::Anonymous, &ACCEPTED).await;
        let (bytes, _) = pulled.map_err(|error| self.to_error(&error))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            let text = format!("its manifest is longer than {MAX_DOCUMENT} bytes");
            return Err(self.with_name(&Error::bad(text)));
        }
        let digest = Digest::of(&bytes);
        if remote.digest().is_some_and(|wanted| wanted != digest.to_string()) {
            return Err(
                self.with_name(&Error::bad(format!("its manifest has the digest {digest}")))
            );
        }
        Ok((bytes.to_vec(), digest))
    }

    /// Downloads the configuration, checks it, and downloads the layers.
    async fn download_blobs(
        &self,
        store: &Store,
        manifest: &Manifest,
        report: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let transfer = Transfer { client: &self.client, remote: &self.remote, store };
        // First, because it says whether the image is for this platform.
        let config = [manifest.config.clone()];
        download(&transfer, &config, 1, &mut |_, _| {})
            .await
            .map_err(|error| self.transfer_error(error))?;
        checked_config(store, manifest).map_err(|error| self.with_name(&error))?;
        let mut wanted: Vec<Blob> = Vec::new();
        for blob in &manifest.layers {
            if !wanted.contains(blob) && !store.blob(&blob.digest).is_file() {
                wanted.push(blob.clone());
            }
        }
        let total = total(&wanted);
        let (free, _) = free_space(store.home())?;
        if total > free {
            let name = &self.display_name;
            let text = format!("cannot download {name}: {total} bytes needed, {free} bytes free");
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
        .map_err(|error| self.transfer_error(error))
    }

    fn with_name(&self, error: &Error) -> Error {
        Error { message: format!("{}: {}", self.display_name, error.message), ..error.clone() }
    }

    fn transfer_error(&self, error: TransferError) -> Error {
        match error {
            TransferError::Local(error) => error,
            TransferError::Remote(error) => self.to_error(&error),
        }
    }

    /// Converts a client's error.
    fn to_error(&self, error: &OciDistributionError) -> Error {
        use OciDistributionError as Oci;
        let (host, image) = (self.remote.registry(), &self.display_name);
        let codes: Vec<&OciErrorCode> = match error {
            Oci::RegistryError { envelope, .. } => {
                envelope.errors.iter().map(|e| &e.code).collect()
            }
            _ => Vec::new(),
        };
        let has = |wanted: &[OciErrorCode]| codes.iter().any(|code| wanted.contains(code));
        let denied = || {
            Error::new(ErrorKind::Unauthorized, format!("access to {image} denied by {host}"))
                .hint("check its name, or log in with docker or podman")
        };
        let missing = || Error::not_found(format!("{host} has no image {image}"));
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
            Oci::RequestError(_) | Oci::IoError(_) => Error::new(
                ErrorKind::Unreachable,
                format!("cannot reach {host}: {}", error_chain(error)),
            ),
            Oci::ServerError { code: 429 | 500..=599, .. } => {
                let text = format!("cannot pull {image} from {host}: {error}");
                Error::new(ErrorKind::Unreachable, text)
            }
            _ if has(&[OciErrorCode::Toomanyrequests]) => {
                let text = format!("cannot pull {image} from {host}: {error}");
                Error::new(ErrorKind::Unreachable, text)
                    .hint("log in with docker or podman, or use a mirror")
            }
            other => Error::bad(format!("cannot pull {image} from {host}: {}", error_chain(other))),
        }
    }
}

/// Whether a host, with or without a port, is this host. Its registry need not have TLS.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _)) => inside,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether an untrusted certificate is the cause, and not a server without TLS.
fn is_certificate_error(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
        return true;
    }
    // `io::Error::source` skips the error that it wraps.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    wrapped.is_some_and(|inner| is_certificate_error(inner))
        || error.source().is_some_and(is_certificate_error)
}

/// Returns the text of an error with those of its sources.
fn error_chain(error: &dyn std::error::Error) -> String {
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

/// Returns the text of the last of an error's sources.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}

/// Reads the certificates of a PEM file.
fn certificates_in(path: &Path) -> Result<Vec<Certificate>> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::io("read certificates from", path, error))?;
    let parts = text.split_inclusive(END).filter(|part| part.ends_with(END));
    let found: Vec<_> = parts
        .map(|part| Certificate { encoding: CertificateEncoding::Pem, data: part.into() })
        .collect();
    match found.is_empty() {
        true => Err(Error::invalid(format!("cannot use {}: no PEM certificate", path.display()))),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_recognized() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.1.2.3:80", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["example.org", "10.0.0.1:5000", "localhost.example", "[::2]:5000"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
