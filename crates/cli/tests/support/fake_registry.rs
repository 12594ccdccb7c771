//! A fake registry that can delay, disconnect, send wrong content and count requests.

#![allow(dead_code, reason = "not every test uses every part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, also in shared code"
)]

use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// What the registry serves, and how.
#[derive(Default)]
struct State {
    documents: Mutex<HashMap<String, Document>>,
    /// The path and range of each request.
    log: Mutex<Vec<(String, Option<String>)>>,
    /// How the next long answer is cut, if at all.
    cut: Mutex<Option<Cut>>,
    gate: (Mutex<bool>, Condvar),
    /// The URL for tokens, if they are required.
    tokens: Mutex<Option<String>>,
    /// Refusals, each for the next request whose path contains the text.
    refusals: Mutex<Vec<(String, Refusal)>>,
    /// The path that is answered without end, and the number of bytes sent.
    endless: Mutex<Option<String>>,
    endless_bytes: AtomicU64,
}

/// Status line, headers and body of a refusal.
pub(crate) type Refusal = (&'static str, &'static str, &'static str);

#[derive(Clone)]
struct Document {
    kind: String,
    content: Arc<Vec<u8>>,
}

#[derive(Clone, Copy)]
pub(crate) enum Cut {
    /// Closes the connection after so many bytes.
    Disconnect(usize),
    /// Waits after so many bytes until the gate is opened.
    Hang(usize),
}

/// The registry; it runs until the test program ends.
pub(crate) struct FakeRegistry {
    pub(crate) host: String,
    state: Arc<State>,
}

/// The `config` of an image configuration.
pub(crate) type Config = serde_json::Value;

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Returns a layer of plain files, by name and content; whiteouts have their special names.
pub(crate) fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Returns a layer with the content of a directory.
pub(crate) fn layer_of(folder: &Path) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    archive.follow_symlinks(false);
    archive.append_dir_all(".", folder).unwrap();
    archive.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// Returns incompressible bytes, the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

impl FakeRegistry {
    pub(crate) fn start() -> FakeRegistry {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = Arc::clone(&served);
                // A client may disconnect.
                std::thread::spawn(move || drop(serve(connection, &state)));
            }
        });
        FakeRegistry { host, state }
    }

    /// Returns the full name of an image.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }

    /// Adds an image `big:1` whose only file, `noise`, has this length. Returns the image's full
    /// name and the digest of its compressed layer.
    pub(crate) fn add_big_image(&self, length: usize) -> (String, String) {
        let big = layer(&[("noise", &noise(length))]);
        self.add_image("big", "1", std::slice::from_ref(&big), &serde_json::json!({}));
        (self.name("big:1"), digest(&gzip(&big)))
    }

    fn put(&self, path: String, kind: &str, content: Vec<u8>) {
        let document = Document { kind: kind.to_owned(), content: Arc::new(content) };
        self.state.documents.lock().unwrap().insert(path, document);
    }

    pub(crate) fn put_blob(&self, name: &str, content: Vec<u8>) -> serde_json::Value {
        let (digest, size) = (digest(&content), content.len());
        self.put(format!("/v2/{name}/blobs/{digest}"), "application/octet-stream", content);
        serde_json::json!({ "digest": digest, "size": size })
    }

    pub(crate) fn put_manifest(
        &self,
        name: &str,
        tag: &str,
        kind: &str,
        content: Vec<u8>,
    ) -> String {
        let digest = digest(&content);
        self.put(format!("/v2/{name}/manifests/{digest}"), kind, content.clone());
        self.put(format!("/v2/{name}/manifests/{tag}"), kind, content);
        digest
    }

    /// Adds an image of uncompressed layers and returns the digest of its manifest.
    pub(crate) fn add_image(
        &self,
        name: &str,
        tag: &str,
        layers: &[Vec<u8>],
        config: &Config,
    ) -> String {
        let packed = layers.iter().map(|layer| gzip(layer)).collect::<Vec<_>>();
        self.add_packed_image(name, tag, layers, packed, config)
    }

    pub(crate) fn add_packed_image(
        &self,
        name: &str,
        tag: &str,
        layers: &[Vec<u8>],
        packed: Vec<Vec<u8>>,
        config: &Config,
    ) -> String {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let document =
            serde_json::json!({ "architecture": architecture, "os": "linux", "config": config });
        self.add(name, tag, layers, packed, document)
    }

    /// Adds an image with a whole configuration except for the digests of its layers, without a tag.
    pub(crate) fn add_image_for(
        &self,
        name: &str,
        layers: &[Vec<u8>],
        document: &serde_json::Value,
    ) -> String {
        let packed = layers.iter().map(|layer| gzip(layer)).collect::<Vec<_>>();
        self.add(name, "untagged", layers, packed, document.clone())
    }

    fn add(
        &self,
        name: &str,
        tag: &str,
        layers: &[Vec<u8>],
        packed: Vec<Vec<u8>>,
        mut document: serde_json::Value,
    ) -> String {
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        document["rootfs"] = serde_json::json!({ "type": "layers", "diff_ids": diff_ids });
        let mut config = self.put_blob(name, document.to_string().into_bytes());
        config["mediaType"] = "application/vnd.oci.image.config.v1+json".into();
        let layers: Vec<_> = packed
            .into_iter()
            .map(|bytes| {
                let mut entry = self.put_blob(name, bytes);
                entry["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip".into();
                entry
            })
            .collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        self.put_manifest(name, tag, MANIFEST, manifest.to_string().into_bytes())
    }

    /// Changes a blob without changing its digest or size.
    pub(crate) fn corrupt(&self, name: &str, digest: &str) {
        let mut documents = self.state.documents.lock().unwrap();
        let document = documents.get_mut(&format!("/v2/{name}/blobs/{digest}")).unwrap();
        let mut content = document.content.as_ref().clone();
        *content.last_mut().unwrap() ^= 1;
        document.content = Arc::new(content);
    }

    /// Cuts the next answer of more than 64 KiB.
    pub(crate) fn cut(&self, cut: Cut) {
        *self.state.cut.lock().unwrap() = Some(cut);
    }

    /// Requires a token for each image, as Docker Hub does, and issues it to everybody.
    pub(crate) fn require_tokens(&self) {
        *self.state.tokens.lock().unwrap() = Some(format!("http://{}/token", self.host));
    }

    /// Refuses the next request whose path contains `part`.
    pub(crate) fn refuse(&self, part: &str, refusal: Refusal) {
        self.state.refusals.lock().unwrap().push((part.to_owned(), refusal));
    }

    /// Removes a blob.
    pub(crate) fn lose(&self, name: &str, digest: &str) {
        let path = format!("/v2/{name}/blobs/{digest}");
        self.state.documents.lock().unwrap().remove(&path).unwrap();
    }

    /// Answers requests for a tag without end.
    pub(crate) fn answer_without_end(&self, name: &str, tag: &str) {
        *self.state.endless.lock().unwrap() = Some(format!("/v2/{name}/manifests/{tag}"));
    }

    /// Returns how many bytes of an answer without end were sent.
    pub(crate) fn bytes_without_end(&self) -> u64 {
        self.state.endless_bytes.load(Ordering::Relaxed)
    }

    /// Waits until the answer to be cut has started.
    pub(crate) fn wait_until_cut(&self) {
        let begun = std::time::Instant::now();
        while self.state.cut.lock().unwrap().is_some() {
            assert!(begun.elapsed().as_secs() < 120, "no request for a long answer");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Releases the answer that waits.
    pub(crate) fn open_gate(&self) {
        *self.state.gate.0.lock().unwrap() = true;
        self.state.gate.1.notify_all();
    }

    /// Returns the ranges of all requests so far whose path contains `part`.
    pub(crate) fn requests(&self, part: &str) -> Vec<Option<String>> {
        let log = self.state.log.lock().unwrap();
        log.iter().filter(|(path, _)| path.contains(part)).map(|(_, range)| range.clone()).collect()
    }
}

fn answer(mut to: &TcpStream, status: &str, header: &str, body: &[u8]) -> io::Result<()> {
    write_head(to, status, header, body.len())?;
    to.write_all(body)
}

fn write_head(mut to: &TcpStream, status: &str, header: &str, length: usize) -> io::Result<()> {
    write!(to, "HTTP/1.1 {status}\r\n{header}Content-Length: {length}\r\nConnection: close\r\n\r\n")
}

fn serve(connection: TcpStream, state: &State) -> io::Result<()> {
    let mut lines = BufReader::new(&connection).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let (mut range, mut authorization) = (None, None);
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        match line.split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("range") => {
                range = Some(value.trim().to_owned());
            }
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                authorization = Some(value.trim().to_owned());
            }
            _ => {}
        }
    }
    state.log.lock().unwrap().push((path.clone(), range.clone()));
    let mut to = &connection;
    let refusal = {
        let mut all = state.refusals.lock().unwrap();
        let found = all.iter().position(|(part, _)| path.contains(part));
        found.map(|at| all.remove(at).1)
    };
    if let Some((status, header, body)) = refusal {
        return answer(to, status, header, body.as_bytes());
    }
    if let Some(realm) = state.tokens.lock().unwrap().as_deref() {
        // The scope in the query limits the token to one image.
        let scope = path.strip_prefix("/token?").map(|query| query.replace("%3A", ":"));
        let token = |name: &str| format!("for-{}", name.replace('/', "-"));
        if let Some(scope) = scope {
            let name = scope.split("repository:").nth(1).and_then(|rest| rest.split(':').next());
            let body =
                format!(r#"{{"token":"{}"}}"#, token(&name.unwrap_or("").replace("%2F", "/")));
            return answer(to, "200 OK", "", body.as_bytes());
        }
        let name = path.strip_prefix("/v2/").unwrap_or_default();
        let name = name.split("/manifests/").next().unwrap_or_default();
        let name = name.split("/blobs/").next().unwrap_or_default();
        if authorization != Some(format!("Bearer {}", token(name))) || name.is_empty() {
            let header = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"test\"\r\n");
            return answer(to, "401 Unauthorized", &header, b"");
        }
    }
    if state.endless.lock().unwrap().as_ref() == Some(&path) {
        write!(to, "HTTP/1.1 200 OK\r\nContent-Type: {MANIFEST}\r\nConnection: close\r\n\r\n")?;
        let chunk = [b' '; 64 * 1024];
        loop {
            to.write_all(&chunk)?;
            state.endless_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
    }
    let document = state.documents.lock().unwrap().get(&path).cloned();
    let Some(Document { kind, content }) = document else {
        let (status, body) = match path.as_str() {
            "/v2/" => ("200 OK", "{}"),
            _ => ("404 Not Found", r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#),
        };
        return answer(to, status, "", body.as_bytes());
    };
    let start = range.as_deref().and_then(|range| {
        range.strip_prefix("bytes=")?.trim_end_matches('-').parse::<usize>().ok()
    });
    let (status, body) = match start {
        Some(start) => ("206 Partial Content", &content[start.min(content.len())..]),
        None => ("200 OK", content.as_slice()),
    };
    let length = body.len();
    write_head(to, status, &format!("Content-Type: {kind}\r\n"), length)?;
    let cut = if length > 64 * 1024 { state.cut.lock().unwrap().take() } else { None };
    let (Cut::Disconnect(at) | Cut::Hang(at)) = cut.unwrap_or(Cut::Disconnect(length));
    to.write_all(&body[..at.min(length)])?;
    if let Some(Cut::Hang(_)) = cut {
        let opened = state.gate.0.lock().unwrap();
        drop(state.gate.1.wait_while(opened, |opened| !*opened).unwrap());
        to.write_all(&body[at.min(length)..])?;
    }
    Ok(())
}
