//! An agent process, and a client that exchanges frames with it.

#![allow(dead_code, reason = "not every test uses every part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

use bytes::{Bytes, BytesMut};
use command_fds::{CommandFdExt, FdMapping};
use msb_wire::limits::OUTPUT_WINDOW;
use msb_wire::*;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) fn binary() -> PathBuf {
    std::env::var_os("MSB_AGENT").map_or_else(
        || {
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/static/msb-agent"))
                .canonicalize()
                .expect("the static agent is not built: run `make agent`")
        },
        PathBuf::from,
    )
}

/// Creates a root file system of busybox with a container's devices, and runs the agent in it. The
/// arguments are the directory, the agent, `--`, and the agent's arguments.
const ROOT_SCRIPT: &str = r#"
root=$1 agent=$2; shift 3
mount -t tmpfs -o mode=755 root "$root"
mkdir -p "$root/bin" "$root/dev/pts" "$root/etc" "$root/proc" "$root/tmp"
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$agent" "$root/agent"
"$root/bin/busybox" --install -s "$root/bin" 2>/dev/null || true
for applet in $("$root/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
done
for device in "null 1 3" "zero 1 5" "tty 5 0" "fuse 10 229"; do
    set -- $device "$@"; name=$1 major=$2 minor=$3; shift 3
    mknod -m 666 "$root/dev/$name" c $major $minor 2>/dev/null || {
        [ -e "/dev/$name" ] || continue
        : > "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; }
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for pair in "stdin 0" "stdout 1" "stderr 2"; do
    ln -s "/proc/self/fd/${pair#* }" "$root/dev/${pair% *}"
done
mount -t proc proc "$root/proc"
printf 'root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/tmp:/bin/sh\n' > "$root/etc/passwd"
printf 'root:x:0:\nme:x:1000:\n' > "$root/etc/group"
PREPARE
exec chroot "$root" /agent "$@"
"#;

pub(crate) struct Agent {
    pub(crate) process: Child,
    pub(crate) address: PathBuf,
    pub(crate) _folder: tempfile::TempDir,
}

impl Agent {
    pub(crate) fn start() -> Agent {
        Agent::start_as(|_| {})
    }

    /// Starts an agent with changes to its command.
    pub(crate) fn start_as(change: impl FnOnce(&mut Command)) -> Agent {
        let mut command = Command::new(binary());
        change(&mut command);
        Agent::spawn(command, tempfile::tempdir().unwrap())
    }

    /// Starts an agent as PID 1 in a small root file system, which commands may break. The script
    /// `prepare` changes the file system at `$root` first.
    pub(crate) fn start_in_root(prepare: &str) -> Agent {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        let script = ROOT_SCRIPT.replace("PREPARE", prepare);
        command.args(["--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-ec", &script]);
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        command.arg("root").arg(root).arg(binary()).arg("--");
        Agent::spawn(command, folder)
    }

    fn spawn(mut command: Command, folder: tempfile::TempDir) -> Agent {
        let address = folder.path().join("agent.sock");
        let listener = UnixListener::bind(&address).unwrap();
        let mapping = FdMapping { parent_fd: listener.into(), child_fd: 3 };
        let process = command
            .args(["--listen-fd", "3"])
            .env_clear()
            .env("SECRET", "of the agent")
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .fd_mappings(vec![mapping])
            .unwrap()
            .spawn()
            .unwrap();
        Agent { process, address, _folder: folder }
    }

    /// Signals the agent. After `STOP`, waits until it has stopped.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
        let is_stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        while name == "STOP" && !is_stopped() {
            std::thread::yield_now();
        }
    }

    pub(crate) fn connect(&self) -> Client {
        self.connect_with(FEATURES)
    }

    pub(crate) fn connect_with(&self, features: u64) -> Client {
        let stream = UnixStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut client = Client {
            stream,
            decoder: Decoder::new(Peer::Agent),
            buffer: BytesMut::new(),
            next_channel: 0,
        };
        client.send(0, Message::Hello(Hello { features, ..Hello::ours(None) }));
        let Message::Hello(hello) = client.receive().message else { panic!("no hello") };
        assert!(hello.boot_id.is_some());
        client
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    pub(crate) decoder: Decoder,
    pub(crate) buffer: BytesMut,
    pub(crate) next_channel: u32,
}

/// Everything that one channel received.
#[derive(Debug, Default)]
pub(crate) struct ChannelResult {
    pub(crate) order: Vec<&'static str>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) exited: Option<Exited>,
    pub(crate) end: Option<End>,
    pub(crate) failed: Option<Failure>,
}

impl Client {
    pub(crate) fn send(&mut self, channel: u32, message: Message) {
        self.send_all([(channel, message)]);
    }

    /// Sends messages in one write.
    pub(crate) fn send_all(&mut self, messages: impl IntoIterator<Item = (u32, Message)>) {
        let mut out = BytesMut::new();
        for (channel, message) in messages {
            assert!(encode(&Frame { channel, message }, &mut out));
        }
        self.stream.write_all(&out).unwrap();
    }

    pub(crate) fn try_receive(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.next(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes).expect("the agent timed out") {
                0 => return None,
                count => self.buffer.extend_from_slice(&bytes[..count]),
            }
        }
    }

    pub(crate) fn receive(&mut self) -> Frame {
        self.try_receive().expect("the connection is closed")
    }

    pub(crate) fn channel(&mut self) -> u32 {
        self.next_channel += 1;
        self.next_channel
    }

    pub(crate) fn exec(&mut self, exec: Exec) -> u32 {
        let channel = self.channel();
        self.send(channel, Message::Exec(exec));
        channel
    }

    /// Reads a channel to its end, and grants credit at once.
    pub(crate) fn collect(&mut self, channel: u32) -> ChannelResult {
        let (mut result, mut credit) =
            (ChannelResult::default(), ReceiveCredit::new(OUTPUT_WINDOW));
        loop {
            let frame = self.receive();
            assert_eq!(frame.channel, channel, "{:?}", frame.message);
            let mut data = |client: &mut Client, bytes: &Bytes| {
                credit.receive(bytes.len()).unwrap();
                if let Some(limit) = credit.release(cost(bytes.len())) {
                    client.send(channel, Message::Credit(limit));
                }
            };
            let name = match frame.message {
                Message::Started(_) => "started",
                Message::Attached(_) => "attached",
                Message::Credit(_) => continue,
                Message::StdinError(_) => "stdin_error",
                Message::Stdout(bytes) => {
                    data(self, &bytes);
                    result.stdout.extend_from_slice(&bytes);
                    "stdout"
                }
                Message::Stderr(bytes) => {
                    data(self, &bytes);
                    result.stderr.extend_from_slice(&bytes);
                    "stderr"
                }
                Message::Exited(exited) => {
                    result.exited = Some(exited);
                    "exited"
                }
                Message::Failed(failure) => {
                    result.failed = Some(failure);
                    return result;
                }
                Message::End(end) => {
                    result.end = Some(end);
                    return result;
                }
                other => panic!("{other:?}"),
            };
            if result.order.last() != Some(&name) {
                result.order.push(name);
            }
        }
    }

    pub(crate) fn run(&mut self, exec: Exec) -> ChannelResult {
        let channel = self.exec(exec);
        self.collect(channel)
    }

    pub(crate) fn verdict(&mut self, message: Message) -> Verdict {
        let channel = self.channel();
        self.send(channel, message);
        loop {
            let frame = self.receive();
            match frame.message {
                Message::Verdict(verdict) if frame.channel == channel => return verdict,
                // Other messages of another channel are ignored, but not its end.
                message => assert!(!matches!(message, Message::End(_)), "{message:?}"),
            }
        }
    }

    pub(crate) fn wait_for(&mut self, wanted: impl Fn(&Message) -> bool) -> Message {
        loop {
            let frame = self.receive();
            if wanted(&frame.message) {
                return frame.message;
            }
        }
    }
}

pub(crate) fn exec(argv: &[&str]) -> Exec {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    Exec {
        session: SessionId::from_bytes(
            u128::from(NEXT.fetch_add(1, Ordering::Relaxed)).to_be_bytes(),
        ),
        argv: argv.iter().map(|text| text.as_bytes().to_vec().into()).collect(),
        env: vec![],
        cwd: b"/".to_vec(),
        user: None,
        stdin: StdinMode::Null,
        tty: None,
        timeout_ns: None,
        rlimits: vec![],
        drain_ns: None,
        wait_for_eof: false,
        window: OUTPUT_WINDOW,
        modes: None,
    }
}

pub(crate) fn sh(script: &str) -> Exec {
    exec(&["/bin/sh", "-c", script])
}
