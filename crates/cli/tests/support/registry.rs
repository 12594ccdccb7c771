//! Debian's docker-registry on the loopback interface.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails, also in shared code"
)]

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The only user of a registry with a login.
pub(crate) const USER: &str = "ann";
pub(crate) const PASSWORD: &str = "open sesame";
/// The password as htpasswd -B hashes it, so that the program is not needed.
const STORED: &str = "$2y$05$P7RpsyrHglMFH5rE.ROeduwqrs4zTwWdz0j4OrV11ZhC.oGla5/na";

/// A registry, killed on drop.
pub(crate) struct Registry {
    pub(crate) host: String,
    folder: tempfile::TempDir,
    child: Child,
    secure: bool,
    login: bool,
}

impl Registry {
    pub(crate) fn start(secure: bool, login: bool) -> Registry {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n",
            at("data")
        );
        if secure {
            make_certificates(folder.path());
            let (certificate, key) = (at("server.pem"), at("server.key"));
            config += &format!("  tls: {{certificate: {certificate}, key: {key}}}\n");
        }
        if login {
            fs::write(at("users"), format!("{USER}:{STORED}\n")).unwrap();
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", at("users"));
        }
        fs::write(at("config.yml"), config).unwrap();
        let log = fs::File::create(at("log")).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", &at("config.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("docker-registry is needed: scripts/setup test");
        let host = format!("127.0.0.1:{port}");
        let registry = Registry { host, folder, child, secure, login };
        registry.wait(port);
        registry
    }

    fn wait(&self, port: u16) {
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(60), "cannot start the registry: {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns the path of the CA certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Returns the full name of an image.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host)
    }

    /// Pushes an image from an archive.
    pub(crate) fn push(&self, archive: &Path, rest: &str) {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy"]);
        command.arg(format!("--dest-tls-verify={}", self.secure));
        if self.secure {
            command.arg("--dest-cert-dir").arg(self.folder.path().join("trusted"));
        }
        if self.login {
            command.arg("--dest-creds").arg(format!("{USER}:{PASSWORD}"));
        }
        command.arg(format!("oci-archive:{}", archive.display()));
        command.arg(format!("docker://{}", self.name(rest)));
        let output = command.output().expect("skopeo is needed: scripts/setup test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Creates a CA and a certificate for 127.0.0.1 that it signed.
fn make_certificates(folder: &Path) {
    let openssl = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder).output();
        let output = output.expect("openssl is needed: scripts/setup test");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let with = |rest: &[&'static str]| [&["req"], &key[..], rest].concat();
    let ca = ["-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test", "-days", "9"];
    openssl(&with(&ca));
    openssl(&with(&["-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=registry"]));
    fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-out",
        "server.pem",
        "-days",
        "9",
        "-extfile",
        "names",
    ]);
    fs::create_dir(folder.join("trusted")).unwrap();
    fs::copy(folder.join("ca.pem"), folder.join("trusted/ca.crt")).unwrap();
}
