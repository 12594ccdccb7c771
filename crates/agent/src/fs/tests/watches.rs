//! Watching files and trees.

use super::path;
use crate::fs::testing::{Host, run};
use msb_wire::fs::decode_events;
use msb_wire::{FsErrorKind, FsEvent, FsEventKind, FsOp};
use std::fs;

fn watch(at: &str, recursive: bool) -> FsOp {
    FsOp::Watch { path: path(at), recursive }
}

/// Begins to watch, and waits until the watch is in place.
async fn begin(host: &mut Host, at: &str, recursive: bool) -> u32 {
    let channel = host.begin(watch(at, recursive)).await;
    host.wait_until_open(channel).await;
    channel
}

/// Waits for an event.
async fn wait(host: &mut Host, channel: u32, kind: FsEventKind, at: &str) -> FsEvent {
    loop {
        let data = host.wait_for_data(channel).await;
        assert!(!data.is_empty(), "the watch ended before {kind:?} of {at}");
        let mut events = decode_events(&data).unwrap().into_iter();
        if let Some(event) = events.find(|event| event.kind == kind && event.path == path(at)) {
            return event;
        }
    }
}

#[test]
fn k1_changes_of_a_directory_are_reported() {
    run(async || {
        let mut host = Host::start().await;
        fs::create_dir(host.at("d")).unwrap();
        let channel = begin(&mut host, "/d", false).await;
        fs::write(host.at("d/a"), "1").unwrap();
        wait(&mut host, channel, FsEventKind::Closed, "/d/a").await;
        fs::rename(host.at("d/a"), host.at("d/b")).unwrap();
        wait(&mut host, channel, FsEventKind::MovedTo, "/d/b").await;
        fs::remove_file(host.at("d/b")).unwrap();
        wait(&mut host, channel, FsEventKind::Removed, "/d/b").await;
        fs::create_dir(host.at("d/sub")).unwrap();
        assert!(wait(&mut host, channel, FsEventKind::Created, "/d/sub").await.directory);
        fs::remove_dir_all(host.at("d")).unwrap();
        wait(&mut host, channel, FsEventKind::Removed, "/d").await;
        host.end(channel).await.1.unwrap();
        assert_eq!(host.fails(watch("/none", false)).await.kind, FsErrorKind::PathNotFound);
    });
}

#[test]
fn k1_new_and_moved_directories_are_watched_as_well() {
    run(async || {
        let mut host = Host::start().await;
        fs::create_dir_all(host.at("d/old/deep")).unwrap();
        fs::create_dir_all(host.at("outside/in")).unwrap();
        fs::write(host.at("outside/in/file"), "").unwrap();
        let channel = begin(&mut host, "/d", true).await;
        fs::write(host.at("d/old/deep/a"), "").unwrap();
        wait(&mut host, channel, FsEventKind::Created, "/d/old/deep/a").await;
        fs::create_dir_all(host.at("d/x/y/z")).unwrap();
        wait(&mut host, channel, FsEventKind::Created, "/d/x/y/z").await;
        fs::rename(host.at("outside"), host.at("d/x/moved")).unwrap();
        wait(&mut host, channel, FsEventKind::Created, "/d/x/moved/in/file").await;
        fs::rename(host.at("d/x"), host.at("d/renamed")).unwrap();
        wait(&mut host, channel, FsEventKind::MovedTo, "/d/renamed").await;
        fs::write(host.at("d/renamed/moved/in/file"), "1").unwrap();
        wait(&mut host, channel, FsEventKind::Modified, "/d/renamed/moved/in/file").await;
        host.close(channel).await;
        host.settle().await;
        assert_eq!(host.registry.files().unwrap().watched(), 0);
    });
}

#[test]
fn k3_host_that_does_not_read_events_gets_an_overflow() {
    run(async || {
        let mut host = Host::start().await;
        fs::create_dir(host.at("d")).unwrap();
        let channel = begin(&mut host, "/d", false).await;
        let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let limit: usize = limit.trim().parse().unwrap();
        let name = "n".repeat(200);
        // The window holds some as well.
        for number in 0..limit + 10_000 {
            fs::remove_file(host.at(&format!("d/{name}{}", number.wrapping_sub(1)))).ok();
            fs::write(host.at(&format!("d/{name}{number}")), "").unwrap();
        }
        let mut overflows = 0;
        while overflows == 0 {
            let (data, lengths) = host.pieces(channel).await;
            let mut rest = &data[..];
            for length in lengths {
                let (page, tail) = rest.split_at(length);
                let events = decode_events(page).unwrap();
                overflows += events.iter().filter(|e| e.kind == FsEventKind::Overflow).count();
                rest = tail;
            }
        }
        host.close(channel).await;
    });
}

#[test]
fn k1_file_that_is_watched_ends_the_watch_when_it_is_removed() {
    run(async || {
        let mut host = Host::start().await;
        fs::write(host.at("file"), "").unwrap();
        let channel = begin(&mut host, "/file", true).await;
        fs::write(host.at("file"), "1").unwrap();
        wait(&mut host, channel, FsEventKind::Modified, "/file").await;
        fs::remove_file(host.at("file")).unwrap();
        wait(&mut host, channel, FsEventKind::Removed, "/file").await;
        host.end(channel).await.1.unwrap();
    });
}
