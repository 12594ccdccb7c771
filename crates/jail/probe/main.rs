//! Prints what a process finds in its jail, and tries to leave it.
//!
//! Under the name of another program it prints its findings with that name as the prefix, and waits
//! to be killed. `jail-probe launch PROGRAM ARGS...` enters a jail and runs a program in it.
//! Otherwise it prints lines of `key=value` and waits until its standard input closes.

#![allow(clippy::print_stdout, reason = "its purpose is its output")]

use rustix::net::{AddressFamily, SocketType};
use rustix::thread::{CapabilitySets, capabilities};
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = PathBuf::from(arguments.next().unwrap_or_default());
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if name == "virtiofsd" || name.starts_with("qemu") {
        report(&format!("{name}:"));
        loop {
            std::thread::park();
        }
    }
    let arguments: Vec<OsString> = arguments.collect();
    if arguments.first().is_some_and(|word| word == "launch") {
        msb_jail::launch(arguments.get(1..).unwrap_or_default());
        return ExitCode::FAILURE;
    }
    if arguments.first().is_some_and(|word| word == "enter") {
        let Ok(entered) = msb_jail::enter(&[]) else { return ExitCode::FAILURE };
        if entered.finish().is_err() {
            return ExitCode::FAILURE;
        }
    }
    if arguments.first().is_some_and(|word| word == "forbidden") {
        // Kills the process if the filter is set.
        let made = rustix::mount::fsopen("tmpfs", rustix::mount::FsOpenFlags::empty());
        println!("fsopen={made:?}");
        return ExitCode::SUCCESS;
    }
    if arguments.first().is_some_and(|word| word == "walls") {
        for wall in msb_jail::walls(&std::env::temp_dir()) {
            let missing =
                wall.missing.map(|why| format!("{why}; {}", wall.remedy.unwrap_or_default()));
            println!("{}={}", wall.name, missing.unwrap_or_else(|| "yes".to_owned()));
        }
        return ExitCode::SUCCESS;
    }
    report("");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    ExitCode::SUCCESS
}

fn report(name: &str) {
    macro_rules! println {
        ($($part:tt)*) => { std::println!("{name}{}", format!($($part)*)) };
    }
    println!("pid={}", std::process::id());
    println!("uid={}", rustix::process::getuid().as_raw());
    println!("gid={}", rustix::process::getgid().as_raw());
    if let Ok(CapabilitySets { effective, permitted, inheritable }) = capabilities(None) {
        println!("caps={:x}", (effective | permitted | inheritable).bits());
    }
    println!("environment={:?}", std::env::vars_os().map(|(key, _)| key).collect::<Vec<_>>());
    let open = (0..1024).filter(|number| msb_jail::is_open(*number));
    println!("descriptors={:?}", open.collect::<Vec<i32>>());
    let mut files = Vec::new();
    list(Path::new("/"), &mut files);
    files.sort();
    for file in files {
        println!("file={file}");
    }
    println!("write={:?}", fs::write("/written", "x").map_err(|error| error.kind()));
    println!("null={:?}", fs::write("/dev/null", "x").map_err(|error| error.kind()));
    println!("tcp={:?}", std::net::TcpStream::connect("127.0.0.1:1").map_err(|e| e.kind()));
    println!("host={:?}", rustix::system::uname().nodename());
    println!("socket={:?}", rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None));
    println!("end=");
}

fn list(folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path == Path::new("/proc") {
            files.push("/proc".to_owned());
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&path, files);
        } else {
            files.push(path.display().to_string());
        }
    }
}
