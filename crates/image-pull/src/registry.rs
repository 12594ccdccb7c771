//! Pulls an image from a registry.

use crate::credentials;
use crate::helper::Helper;
use crate::import::{MAX_NESTING, too_deep};
use crate::make::{checked_config, count, make, total};
use crate::manifest::{Document, Manifest};
use crate::remote::{Authorization, Refusal, Remote, RemoteError};
use crate::select::{MANIFESTS, select_platform};
use crate::transfer::{Transfer, TransferError, download};
use crate::tree::free_space;
use msb_image::{
    Blob, Digest, Error, ErrorKind, OFFICIAL_REGISTRY, Phase, Platform, Progress, Reference,
    Registries, Result, Store,
};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use std::cell::RefCell;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const USER_AGENT: &str = concat!("microsandbox/", env!("CARGO_PKG_VERSION"));
const LIMIT_HINT: &str = "log in with docker or podman, or use a mirror";
/// Maximum number of concurrent downloads.
const PARALLEL: usize = 4;

/// What to pull, and how registries are configured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) reference: &'a Reference,
    pub(crate) registries: &'a Registries,
}

/// Pulls an image, from a mirror if one has it, names it, and returns its id.
pub(crate) async fn pull(
    store: &Store,
    helper: &Helper,
    source: Source<'_>,
    platform: &Platform,
    report: &mut dyn FnMut(Progress),
) -> Result<Digest> {
    report(Progress::default());
    let Source { reference, registries } = source;
    let mirrors = registries.settings(reference.registry()).mirrors;
    let mut first = None;
    for host in mirrors.iter().map(String::as_str).chain([reference.registry()]) {
        let client = ImageClient::connect(source, host).await;
        let pulled = match client {
            Ok(client) => client.pull(store, helper, platform, report).await,
            Err(error) => Err(error),
        };
        match pulled {
            Ok((id, requested)) => {
                store.set_name(reference, &id, Some(&requested))?;
                return Ok(id);
            }
            // The next registry may succeed.
            Err(error) if may_try_next(error.kind) => {
                // The registry's own error is reported, else that of the first mirror.
                if first.is_none() || host == reference.registry() {
                    first = Some(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(first.unwrap_or_else(|| Error::not_found(format!("cannot find image {reference}"))))
}

fn may_try_next(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Unauthorized | ErrorKind::Unreachable)
}

/// A client of one registry for one image.
struct ImageClient {
    remote: Remote,
    host: String,
    /// Name of the image in errors.
    display_name: String,
    /// Its digest, else its tag.
    requested: String,
}

impl ImageClient {
    /// Creates a client and authenticates, with TLS unless the registry does without.
    async fn connect(source: Source<'_>, host: &str) -> Result<ImageClient> {
        let plain_http = source.registries.settings(host).plain_http;
        let client = ImageClient::new(source, host, plain_http)?;
        let Err(error) = client.remote.authenticate().await else { return Ok(client) };
        // As docker does: a registry on this host may do without TLS. One that has TLS with an
        // untrusted certificate is refused.
        if plain_http || !is_loopback(host) || is_certificate_error(&error) {
            return Err(client.token_error(&error));
        }
        let client = ImageClient::new(source, host, true)?;
        let Err(other) = client.remote.authenticate().await else { return Ok(client) };
        if !is_connection_error(&other) {
            return Err(client.token_error(&other));
        }
        let (with, without) = (root_cause(&error), root_cause(&other));
        let why = match with == without {
            true => with,
            false => format!("with TLS: {with}; without: {without}"),
        };
        Err(Error::new(ErrorKind::Unreachable, format!("cannot reach {host}: {why}")))
    }

    fn new(source: Source<'_>, host: &str, plain_http: bool) -> Result<ImageClient> {
        let Source { reference, registries } = source;
        let auth = credentials::find(host, reference.repository())?;
        let settings = registries.settings(host);
        let mut certificates = Vec::new();
        for file in settings.ca_file.iter().chain(&registries.ca_file) {
            certificates.extend(certificates_in(file)?);
        }
        let failed = |error: &dyn std::error::Error| {
            Error::invalid(format!("cannot load CA certificates: {}", error_chain(error)))
                .hint("install ca-certificates, or set MSB_REGISTRY_CA")
        };
        let http = http_client(&certificates).map_err(|error| failed(&error))?;
        let config = ClientConfig {
            protocol: if plain_http { ClientProtocol::Http } else { ClientProtocol::Https },
            extra_root_certificates: certificates,
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: USER_AGENT,
            ..ClientConfig::default()
        };
        let tokens = oci_client::Client::try_from(config).map_err(|error| failed(&error))?;
        let repository = reference.repository();
        let tag = reference.tag().unwrap_or_default().to_owned();
        let remote = oci_client::Reference::with_tag(host.to_owned(), repository.to_owned(), tag);
        // Docker Hub's own registry has another host than its names.
        let (scheme, address) =
            (if plain_http { "http" } else { "https" }, remote.resolve_registry().to_owned());
        let remote = Remote {
            http,
            tokens,
            auth,
            base: format!("{scheme}://{address}/v2/{repository}"),
            reference: remote,
            authorization: RefCell::new(Authorization::None),
        };
        let mut display_name = reference.familiar();
        if host != reference.registry() && host != OFFICIAL_REGISTRY {
            display_name = format!("{display_name} (at {host})");
        }
        let requested = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        Ok(ImageClient { remote, host: host.to_owned(), display_name, requested })
    }

    /// Pulls the image. Returns its id, and the digest of the manifest or index that has its name.
    async fn pull(
        &self,
        store: &Store,
        helper: &Helper,
        platform: &Platform,
        report: &mut dyn FnMut(Progress),
    ) -> Result<(Digest, Digest)> {
        let (bytes, requested, manifest) = self.manifest(platform).await?;
        let manifest_digest = store.add_blob(bytes.as_slice(), None)?.digest;
        if !store.has(&manifest.config.digest) {
            self.download_blobs(store, &manifest, platform, report).await?;
        }
        let id = make(store, helper, &manifest_digest, &manifest, platform, report)
            .map_err(|error| self.with_name(&error))?;
        Ok((id, requested))
    }

    /// Fetches the manifest for a platform.
    ///
    /// Returns its bytes, the digest of the manifest or index that was requested, and the parsed
    /// manifest.
    async fn manifest(&self, platform: &Platform) -> Result<(Vec<u8>, Digest, Manifest)> {
        let (mut bytes, requested) = self.fetch_document(&self.requested).await?;
        for _ in 0..MAX_NESTING {
            let named = |error: Error| self.with_name(&error);
            match Document::parse(&bytes).map_err(named)? {
                Document::Image(manifest) => return Ok((bytes, requested, manifest)),
                Document::Index(all) => {
                    let chosen = select_platform(&all, platform).and_then(|entry| entry.blob());
                    let digest = chosen.map_err(named)?.digest;
                    (bytes, _) = self.fetch_document(&digest.to_string()).await?;
                }
            }
        }
        Err(self.with_name(&too_deep()))
    }

    /// Fetches a manifest or index by tag or digest, and verifies its digest.
    async fn fetch_document(&self, wanted: &str) -> Result<(Vec<u8>, Digest)> {
        let fetched =
            self.remote.document(&format!("manifests/{wanted}"), &MANIFESTS.join(", ")).await;
        let what = match wanted == self.requested {
            true => format!("image {}", self.display_name),
            false => format!("manifest {wanted} of image {}", self.display_name),
        };
        let bytes = fetched.map_err(|error| self.to_error(&error, &what))?;
        let digest = Digest::of(&bytes);
        if wanted.contains(':') && wanted != digest.to_string() {
            let error = Error::bad(format!("its manifest has the digest {digest}, not {wanted}"));
            return Err(self.with_name(&error));
        }
        Ok((bytes, digest))
    }

    /// Downloads the configuration, checks it, and downloads the layers.
    async fn download_blobs(
        &self,
        store: &Store,
        manifest: &Manifest,
        platform: &Platform,
        report: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let transfer = Transfer { remote: &self.remote, store };
        // First, because it says which platform the image is for.
        let config = [manifest.config.clone()];
        download(&transfer, &config, 1, &mut |_, _| {})
            .await
            .map_err(|error| self.transfer_error(error, "configuration"))?;
        checked_config(store, manifest, platform).map_err(|error| self.with_name(&error))?;
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
        .map_err(|error| self.transfer_error(error, "layer"))
    }

    fn with_name(&self, error: &Error) -> Error {
        Error { message: format!("{}: {}", self.display_name, error.message), ..error.clone() }
    }

    fn transfer_error(&self, error: TransferError, what: &str) -> Error {
        match error {
            TransferError::Local(error) => error,
            TransferError::Remote(digest, error) => {
                self.to_error(&error, &format!("{what} {digest} of image {}", self.display_name))
            }
        }
    }

    /// Converts the error of a request for `what`.
    fn to_error(&self, error: &RemoteError, what: &str) -> Error {
        let (host, image) = (&self.host, &self.display_name);
        let refusal = match error {
            RemoteError::Refused(refusal) => refusal,
            RemoteError::Token(error) => return self.token_error(error),
            RemoteError::Connection(error) => {
                let text = format!("cannot reach {host}: {}", error_chain(error));
                return Error::new(ErrorKind::Unreachable, text);
            }
            RemoteError::Cut => {
                let text = format!("cannot pull {what} from {host}: the connection ends early");
                return Error::new(ErrorKind::Unreachable, text);
            }
            RemoteError::TooLong(max) => {
                return self
                    .with_name(&Error::bad(format!("its manifest is longer than {max} bytes")));
            }
        };
        match refusal.kind() {
            ErrorKind::NotFound => Error::not_found(format!("{host} has no {what}")),
            ErrorKind::Unauthorized => {
                Error::new(ErrorKind::Unauthorized, format!("access to {image} denied by {host}"))
                    .hint("check its name, or log in with docker or podman")
            }
            kind => {
                let text = format!("cannot pull {what} from {host}: {}", refusal.reason());
                let error = Error::new(kind, text);
                if refusal.is_limit() { error.hint(LIMIT_HINT) } else { error }
            }
        }
    }

    /// Converts the error of a request for a token.
    fn token_error(&self, error: &OciDistributionError) -> Error {
        let (host, image) = (&self.host, &self.display_name);
        match error {
            error if is_connection_error(error) => Error::new(
                ErrorKind::Unreachable,
                format!("cannot reach {host}: {}", error_chain(error)),
            ),
            OciDistributionError::AuthenticationFailure(body)
                if Refusal::of_token(body).is_limit() =>
            {
                let why = Refusal::of_token(body).message;
                let text = format!("cannot get a token for {image} from {host}: {why}");
                Error::new(ErrorKind::Unreachable, text).hint(LIMIT_HINT)
            }
            OciDistributionError::AuthenticationFailure(_) => {
                Error::new(ErrorKind::Unauthorized, format!("access to {image} denied by {host}"))
                    .hint("check its name, or log in with docker or podman")
            }
            other => Error::bad(format!("cannot pull {image} from {host}: {}", error_chain(other))),
        }
    }
}

fn http_client(certificates: &[Certificate]) -> reqwest::Result<reqwest::Client> {
    let certificates = certificates.iter().map(|pem| reqwest::Certificate::from_pem(&pem.data));
    reqwest::Client::builder()
        .tls_certs_merge(certificates.collect::<reqwest::Result<Vec<_>>>()?)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .user_agent(USER_AGENT)
        .build()
}

/// Whether a host, with or without a port, is this host. Its registry need not have TLS.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _)) => inside,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_connection_error(error: &OciDistributionError) -> bool {
    matches!(error, OciDistributionError::RequestError(_) | OciDistributionError::IoError(_))
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
