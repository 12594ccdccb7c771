//! The examples of the documentation, unchanged. The test is that they compile; their behavior is
//! tested elsewhere.

#![allow(dead_code, reason = "compiled, not run")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the examples print")]

use microsandbox::sandbox::RlimitResource;
use microsandbox::{ExecEvent, MicrosandboxResult, ReattachFrom, Sandbox};
use std::time::Duration;

async fn typical_flow() -> MicrosandboxResult<()> {
    let sb = Sandbox::builder("api").image("python").create().await?;

    // Buffered: run and collect everything
    let out = sb.exec("python", ["-c", "print('hi')"]).await?;
    println!("{}", out.stdout()?);

    // Streaming: process output as it arrives
    let mut handle = sb.exec_stream("tail", ["-f", "/var/log/app.log"]).await?;
    while let Some(event) = handle.recv().await {
        if let microsandbox::ExecEvent::Stdout(chunk) = event {
            print!("{}", String::from_utf8_lossy(&chunk));
        }
    }

    sb.stop().await?;
    Ok(())
}

async fn options(sb: &Sandbox) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let out = sb
        .exec_with("python", |e| {
            e.args(["compute.py"])
                .cwd("/app")
                .env("LOG_LEVEL", "debug")
                .timeout(Duration::from_secs(30))
        })
        .await?;
    println!("{}", out.stdout()?);
    println!("{}", out.status().code);
    let out = sb.shell("cat /etc/os-release | grep PRETTY_NAME").await?;
    println!("{}", out.stdout()?);
    let out = sb.shell_with("env | sort", |e| e.env("STAGE", "build")).await?;
    assert!(out.status().success);
    let _out = sb.exec_with("./worker", |e| e.rlimit(RlimitResource::Nofile, 1024)).await?;
    Ok(())
}

async fn streams(sb: &Sandbox) -> MicrosandboxResult<()> {
    let mut handle = sb.exec_stream("tail", ["-f", "/var/log/app.log"]).await?;
    while let Some(event) = handle.recv().await {
        match event {
            ExecEvent::Stdout(chunk) => print!("{}", String::from_utf8_lossy(&chunk)),
            ExecEvent::Stderr(data) => eprint!("{}", String::from_utf8_lossy(&data)),
            ExecEvent::Started { pid } => println!("{pid}"),
            ExecEvent::Exited { code } => {
                println!("exited {code}");
                break;
            }
            _ => {}
        }
    }
    let mut handle = sb.shell_stream("for i in 1 2 3; do echo $i; sleep 1; done").await?;
    let _out = handle.collect().await?;
    let handle = sb.shell_stream_with("npm run build", |e| e.cwd("/app")).await?;
    let _session_id = handle.id().to_string();
    Ok(())
}

async fn stdin(sb: &Sandbox) -> MicrosandboxResult<()> {
    let mut handle = sb.exec_stream_with("python", |e| e.stdin_pipe().tty(true)).await?;
    if let Some(stdin) = handle.take_stdin() {
        stdin.write(b"print(2 + 2)\n").await?;
        stdin.close().await?;
    }
    handle.wait().await?;
    Ok(())
}

async fn attached(sb: &Sandbox) -> MicrosandboxResult<()> {
    let _exit_code = sb.attach("bash", ["-l"]).await?;
    let _exit_code = sb
        .attach_with("zsh", |a| a.env("TERM", "xterm-256color").detach_keys("ctrl-p,ctrl-q"))
        .await?;
    let exit_code = sb.attach_shell().await?;
    println!("{exit_code}");
    let _exit_code =
        sb.attach_with("python", |a| a.env("DEBUG", "1").cwd("/app").detach_keys("ctrl-q")).await?;
    let _exit_code = sb
        .attach_with("./worker", |a| {
            a.arg("-v")
                .args(["--jobs", "2"])
                .user("app")
                .envs([("A", "1"), ("B", "2")])
                .rlimit(RlimitResource::Nofile, 1024)
                .rlimit_range(RlimitResource::Nproc, 64, 128)
        })
        .await?;
    let _options = microsandbox::AttachOptionsBuilder::new().detach_keys("q").build()?;
    Ok(())
}

async fn again(sb: &Sandbox, session_id: String) -> MicrosandboxResult<()> {
    let mut handle = sb.reattach(&session_id, ReattachFrom::Start).await?;
    while handle.recv().await.is_some() {}
    println!("{} bytes, {} missed", handle.position(), handle.missed());
    let _exit_code: i32 = sb.attach_session(session_id).await?;
    Ok(())
}

fn sendable<T: Send>(_: T) {}

#[test]
fn the_futures_of_the_library_can_move_between_threads() {
    sendable(typical_flow());
    let with = |sb: Sandbox| {
        sendable(options(&sb));
        sendable(streams(&sb));
        sendable(stdin(&sb));
        sendable(attached(&sb));
        sendable(again(&sb, String::new()));
    };
    let _ = with;
}
