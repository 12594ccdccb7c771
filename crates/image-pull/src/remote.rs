//! Requests to a registry, with tokens, for one image.
//!
//! Not by `oci-client`, which only gets the tokens: it reads an answer of any length into memory,
//! and loses how long a registry asks to wait.

use futures_util::StreamExt;
use msb_image::{ErrorKind, MAX_DOCUMENT, json, json_object};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use reqwest::header::{ACCEPT, AUTHORIZATION, RANGE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use std::cell::RefCell;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time that one request waits because the registry asks for it.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// Least time to wait, also if the registry says 0.
const MIN_WAIT: Duration = Duration::from_secs(1);
/// Maximum number of bytes of a refusal that are read.
const MAX_REFUSAL: u64 = 64 * 1024;
/// Maximum number of characters of a registry's message in an error.
const MAX_MESSAGE: usize = 300;

/// A registry's answers for one image.
pub(crate) struct Remote {
    pub(crate) http: reqwest::Client,
    /// Gets tokens.
    pub(crate) tokens: Client,
    pub(crate) reference: Reference,
    pub(crate) auth: RegistryAuth,
    /// `SCHEME://HOST/v2/REPOSITORY`.
    pub(crate) base: String,
    pub(crate) authorization: RefCell<Authorization>,
}

/// How requests are authorized.
pub(crate) enum Authorization {
    None,
    Bearer(String),
    Basic(String, String),
}

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum RemoteError {
    /// The connection failed.
    Connection(reqwest::Error),
    /// The registry refused.
    Refused(Refusal),
    /// There is no token.
    Token(OciDistributionError),
    /// The answer is too long; the maximum number of bytes.
    TooLong(u64),
    /// The connection ended early.
    Cut,
}

/// A registry's refusal.
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The registry's codes, such as `MANIFEST_UNKNOWN`.
    pub(crate) codes: Vec<String>,
    /// What it says, in one line of bounded length.
    pub(crate) message: String,
    /// How long it asks to wait.
    pub(crate) retry_after: Option<Duration>,
}

#[derive(Debug, Default)]
struct Envelope {
    errors: Vec<EnvelopeError>,
}

#[derive(Debug, Default)]
struct EnvelopeError {
    code: String,
    message: String,
}

json_object!(Envelope { "errors": errors });
json_object!(EnvelopeError { "code": code, "message": message });

impl From<reqwest::Error> for RemoteError {
    fn from(error: reqwest::Error) -> RemoteError {
        RemoteError::Connection(error)
    }
}

impl Remote {
    /// Asks for a token if the registry wants one.
    pub(crate) async fn authenticate(&self) -> oci_client::errors::Result<()> {
        let token = self.tokens.auth(&self.reference, &self.auth, RegistryOperation::Pull);
        let token = timeout(AUTHENTICATION_TIMEOUT, token).await.unwrap_or_else(|_| {
            let text = format!("no answer within {} s", AUTHENTICATION_TIMEOUT.as_secs());
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text).into())
        })?;
        if let Some(token) = token {
            *self.authorization.borrow_mut() = Authorization::Bearer(token);
        }
        Ok(())
    }

    /// Authenticates again: the token has expired, or the registry wants a password after all.
    async fn authenticate_again(&self) -> Result<(), RemoteError> {
        self.authenticate().await.map_err(RemoteError::Token)?;
        let mut authorization = self.authorization.borrow_mut();
        if let (Authorization::None, RegistryAuth::Basic(user, password)) =
            (&*authorization, &self.auth)
        {
            *authorization = Authorization::Basic(user.clone(), password.clone());
        }
        Ok(())
    }

    /// Requests a path below the repository, from an offset on. Waits if the registry asks for it.
    pub(crate) async fn get(
        &self,
        path: &str,
        accept: &str,
        offset: u64,
    ) -> Result<Response, RemoteError> {
        let (mut waited, mut renewed) = (Duration::ZERO, false);
        loop {
            let mut request = self.http.get(format!("{}/{path}", self.base)).header(ACCEPT, accept);
            if offset > 0 {
                request = request.header(RANGE, format!("bytes={offset}-"));
            }
            let response = self.authorized(request).send().await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            if status == StatusCode::UNAUTHORIZED && !renewed {
                renewed = true;
                self.authenticate_again().await?;
                continue;
            }
            let refusal = Refusal::read(response).await;
            let delay = refusal.retry_after.map(|delay| delay.max(MIN_WAIT));
            match delay {
                Some(delay) if waited.saturating_add(delay) <= MAX_WAIT => {
                    waited += delay;
                    sleep(delay).await;
                }
                _ => return Err(RemoteError::Refused(refusal)),
            }
        }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &*self.authorization.borrow() {
            Authorization::None => request,
            Authorization::Bearer(token) => {
                request.header(AUTHORIZATION, format!("Bearer {token}"))
            }
            Authorization::Basic(user, password) => request.basic_auth(user, Some(password)),
        }
    }

    /// Requests a document of bounded length.
    pub(crate) async fn document(&self, path: &str, accept: &str) -> Result<Vec<u8>, RemoteError> {
        let response = self.get(path, accept, 0).await?;
        match bounded(response, MAX_DOCUMENT).await? {
            bytes if bytes.len() as u64 <= MAX_DOCUMENT => Ok(bytes),
            _ => Err(RemoteError::TooLong(MAX_DOCUMENT)),
        }
    }
}

/// Reads an answer until it is longer than `max`.
async fn bounded(response: Response, max: u64) -> Result<Vec<u8>, reqwest::Error> {
    let (mut bytes, mut stream) = (Vec::new(), response.bytes_stream());
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk?);
        if bytes.len() as u64 > max {
            break;
        }
    }
    Ok(bytes)
}

impl Refusal {
    /// Returns the refusal of a token, of which only the body is known.
    pub(crate) fn of_token(body: &str) -> Refusal {
        Refusal::new(401, body.as_bytes(), None)
    }

    async fn read(response: Response) -> Refusal {
        let status = response.status().as_u16();
        let after = response.headers().get(RETRY_AFTER);
        // The form with a date depends on both clocks.
        let seconds = after.and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        let retry_after = seconds.map(Duration::from_secs).filter(|_| matches!(status, 429 | 503));
        // The status says enough if the rest cannot be read.
        let body = bounded(response, MAX_REFUSAL).await.unwrap_or_default();
        Refusal::new(status, &body, retry_after)
    }

    fn new(status: u16, body: &[u8], retry_after: Option<Duration>) -> Refusal {
        let errors = json::from_slice::<Envelope>(body).unwrap_or_default().errors;
        let text = match errors.first() {
            Some(error) => error.message.clone(),
            None => String::from_utf8_lossy(body).into_owned(),
        };
        let message = text.trim().chars().take(MAX_MESSAGE).flat_map(char::escape_debug).collect();
        let codes = errors.into_iter().map(|error| error.code).collect();
        Refusal { status, codes, message, retry_after }
    }

    /// Whether there were too many requests.
    pub(crate) fn is_limit(&self) -> bool {
        self.status == 429 || self.codes.iter().any(|code| code == "TOOMANYREQUESTS")
    }

    /// Returns the kind of error that it is.
    pub(crate) fn kind(&self) -> ErrorKind {
        let has = |wanted: &[&str]| self.codes.iter().any(|code| wanted.contains(&code.as_str()));
        match self.status {
            _ if self.is_limit() => ErrorKind::Unreachable,
            401 | 403 => ErrorKind::Unauthorized,
            500..=599 => ErrorKind::Unreachable,
            404 => ErrorKind::NotFound,
            _ if has(&["UNAUTHORIZED", "DENIED"]) => ErrorKind::Unauthorized,
            _ if has(&["MANIFEST_UNKNOWN", "NAME_UNKNOWN", "NOT_FOUND", "BLOB_UNKNOWN"]) => {
                ErrorKind::NotFound
            }
            _ => ErrorKind::BadImage,
        }
    }

    /// Returns why, with what the registry says.
    pub(crate) fn reason(&self) -> String {
        let status = StatusCode::from_u16(self.status).ok();
        let name = status.and_then(|status| status.canonical_reason()).unwrap_or_default();
        let mut text = format!("{} {name}", self.status);
        if !self.message.is_empty() {
            text = format!("{text}: {}", self.message);
        }
        match self.retry_after {
            Some(delay) => format!("{text}; it asks to wait {} s", delay.as_secs()),
            None => text,
        }
    }
}

impl RemoteError {
    /// Whether a retry may succeed. [`Remote::get`] has waited already if the registry asked to.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            RemoteError::Connection(_) | RemoteError::Cut => true,
            RemoteError::Refused(refusal) => matches!(refusal.status, 429 | 500..=599),
            RemoteError::Token(error) => {
                matches!(error, OciDistributionError::RequestError(_))
            }
            RemoteError::TooLong(_) => false,
        }
    }
}
