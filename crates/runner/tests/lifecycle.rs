//! Promises G and I: sandboxes are created, inspected, ended and removed by name.

mod support;

use msb_state::{
    Control, CreateOptions, DriverChoice, ErrorKind, Isolation, Reason, Request, Status, create,
    list, remove, start,
};
use std::fs;
use std::time::{Duration, Instant};
use support::{LIMIT, Scene, snapshot};

const STOP: Request = Request::Stop { timeout_ms: 5000 };

#[test]
fn g_sandbox_is_created_stopped_restarted_and_removed() {
    let scene = Scene::new();
    let started = Instant::now();
    let ready = scene.create(scene.config("a")).unwrap();
    println!("ready after {:?}", started.elapsed());
    let isolation = match ready.driver.as_str() {
        "container" => Isolation::Container,
        "gvisor" => Isolation::Gvisor,
        "krun" if std::env::var_os("MSB_KRUN_UNCHECKED").is_some() => Isolation::Unchecked,
        "krun" => Isolation::Hardware,
        // Whichever the processor allows, but never less.
        _ => ready.isolation,
    };
    assert_eq!((ready.driver.clone(), ready.isolation), (support::driver().to_string(), isolation));
    assert_eq!(isolation == Isolation::Container, ready.driver == "container");
    assert_eq!(scene.info("a").unwrap().status, Status::Running);

    let started = Instant::now();
    assert_eq!(scene.end("a", &STOP).reason, Reason::Stopped);
    println!("stopped after {:?}", started.elapsed());
    let info = scene.info("a").unwrap();
    assert_eq!((info.status, info.outcome.unwrap().reason), (Status::Stopped, Reason::Stopped));
    scene.assert_nothing_left("a");

    let name = "a".parse().unwrap();
    let started = Instant::now();
    start(&scene.home, &name, &scene.companions).unwrap().wait().unwrap();
    println!("ready again after {:?}", started.elapsed());
    assert_eq!(scene.info("a").unwrap().status, Status::Running);
    assert_eq!(scene.end("a", &Request::Kill).reason, Reason::Killed);
    scene.assert_nothing_left("a");

    remove(&scene.home, &name, false, &scene.companions).unwrap();
    assert_eq!(scene.info("a").unwrap_err().kind(), ErrorKind::SandboxNotFound);
    assert!(list(&scene.home, Some(&scene.companions)).unwrap().is_empty());
    assert!(!scene.dir("a").path().exists());
}

#[test]
fn g_only_running_and_detached_sandboxes_hold_names() {
    let scene = Scene::new();
    let again = |config| scene.create(config).map(|_| ()).map_err(|error| error.kind());
    scene.create(scene.config("a")).unwrap();
    assert_eq!(again(scene.config("a")), Err(ErrorKind::SandboxAlreadyExists));
    scene.end("a", &Request::Kill);
    assert_eq!(again(scene.config("a")), Ok(()), "leftovers of an attached one are no obstacle");
    scene.end("a", &STOP);

    let mut detached = scene.config("d");
    detached.detached = true;
    scene.create(detached.clone()).unwrap();
    scene.end("d", &STOP);
    assert_eq!(again(detached.clone()), Err(ErrorKind::SandboxAlreadyExists));
    assert_eq!(scene.info("d").unwrap().status, Status::Stopped);

    let replace = CreateOptions { replace: true };
    for _ in 0..2 {
        // The first time it is stopped, the second time it runs.
        let pending = create(&scene.home, detached.clone(), replace, &scene.companions).unwrap();
        pending.wait().unwrap();
        assert_eq!(scene.info("d").unwrap().status, Status::Running);
    }
    let name = "d".parse().unwrap();
    let refused = remove(&scene.home, &name, false, &scene.companions).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SandboxRunning);
    remove(&scene.home, &name, true, &scene.companions).unwrap();
    scene.assert_nothing_left("d");
}

#[test]
fn g_exactly_one_racing_creator_wins_a_name() {
    let scene = Scene::new();
    for _ in 0..5 {
        let results: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| scene.create(scene.config("a")))).collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let won = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(won, 1, "{results:?}");
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::SandboxAlreadyExists);
        }
        scene.end("a", &Request::Kill);
    }
    scene.assert_nothing_left("a");
}

#[test]
fn g_sandbox_can_be_removed_while_it_starts() {
    let scene = Scene::new();
    for round in 0..20 {
        let pending = scene.start(scene.config("a")).unwrap();
        // The creator cleans up the failed start concurrently.
        let creating = std::thread::spawn(move || pending.wait());
        // Spread over the start, which takes about 70 ms.
        std::thread::sleep(Duration::from_millis(round * 4));
        msb_state::remove(&scene.home, &"a".parse().unwrap(), true, &scene.companions).unwrap();
        if let Err(error) = creating.join().unwrap() {
            assert_eq!(error.kind(), ErrorKind::BootFailed, "{error}");
        }
        assert!(!scene.dir("a").path().exists());
        scene.assert_nothing_left("a");
    }
}

#[test]
fn g_boot_failures_are_typed_and_leave_nothing() {
    let scene = Scene::new();
    let kind = |change: &dyn Fn(&mut msb_state::SandboxConfig)| {
        let mut config = scene.config("a");
        change(&mut config);
        let error = scene.create(config).unwrap_err();
        assert!(!error.to_string().contains('\n'), "{error}");
        println!("{error}");
        error.kind()
    };
    let mut auto = scene.config("a");
    auto.driver = DriverChoice::Auto;
    match scene.create(auto) {
        Ok(ready) => {
            assert!(matches!(ready.isolation, Isolation::Hardware | Isolation::Gvisor));
            scene.end("a", &Request::Kill);
            msb_state::remove(&scene.home, &"a".parse().unwrap(), true, &scene.companions).unwrap();
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::NoDriver),
    }
    assert_eq!(kind(&|c| c.driver = DriverChoice::Named("x".into())), ErrorKind::NoDriver);
    assert_eq!(kind(&|c| c.network = true), ErrorKind::InvalidConfig);
    assert_eq!(kind(&|c| c.boot_timeout_ms = Some(1)), ErrorKind::BootFailed);
    // Without cgroups a container has no limit; no machine boots with so little memory.
    let has_cgroups = ["container", "gvisor"].contains(&support::driver().to_string().as_str());
    if !support::is_root() || !has_cgroups {
        assert_eq!(kind(&|c| c.memory_mib = Some(64)), ErrorKind::InvalidConfig);
    }
    assert!(!scene.dir("a").path().exists());
    scene.assert_nothing_left("a");
}

#[test]
fn g_image_is_never_written() {
    let scene = Scene::new();
    for directory in ["etc", "proc", "usr/bin"] {
        fs::create_dir_all(scene.image().join(directory)).unwrap();
    }
    fs::write(scene.image().join("etc/hosts"), "mine").unwrap();
    let before = snapshot(&scene.image());
    scene.create(scene.config("a")).unwrap();
    scene.end("a", &STOP);
    assert_eq!(snapshot(&scene.image()), before);
}

#[test]
fn i_odd_image_paths_and_a_long_home_path_work() {
    use std::os::unix::ffi::OsStrExt;
    let long = format!("home {}/{}:,\\", "h".repeat(100), "i".repeat(100));
    let scene = Scene::with_home(&long);
    for name in ["with space", "with,comma", "with:colon", "back\\slash", "quote\"'", "lowerdir=x"]
    {
        let image = scene.scratch.path().join(name);
        fs::create_dir(&image).unwrap();
        let mut config = scene.config("a");
        config.image = image.into();
        scene.create(config).unwrap();
        scene.end("a", &Request::Kill);
    }
    let image = scene.scratch.path().join(std::ffi::OsStr::from_bytes(b"not\xffutf8\n"));
    fs::create_dir(&image).unwrap();
    let mut config = scene.config("a");
    config.image = image.into();
    scene.create(config).unwrap();
    scene.end("a", &Request::Kill);
    scene.assert_nothing_left("a");
}

#[test]
fn g_limits_hold_and_the_agent_has_its_own_cgroup() {
    // A machine's limits are its size, which tests/machines.rs checks from inside.
    if !support::is_root() || support::driver().to_string() != "container" {
        return;
    }
    let scene = Scene::new();
    let mut config = scene.config("a");
    (config.cpus, config.memory_mib) = (Some(1.into()), Some(64));
    scene.create(config).unwrap();
    let groups = support::groups(scene.dir("a").id());
    let value = |names: [&str; 2]| {
        let paths = groups.iter().flat_map(|group| names.map(|name| group.join(name)));
        let found = paths.filter_map(|path| fs::read_to_string(path).ok()).next();
        found.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(value(["memory.max", "memory.limit_in_bytes"]), "67108864");
    assert!(["100000", "100000 100000"].contains(&&*value(["cpu.max", "cpu.cfs_quota_us"])));
    assert_eq!(value(["pids.max", "pids.max"]), "4096");
    let pid = fs::read_to_string(scene.dir("a").bundle().join("pid")).unwrap();
    let inside = std::path::PathBuf::from(format!("/proc/{}/root", pid.trim()));
    if let Some(group) = groups.iter().find(|group| group.join("cgroup.kill").exists()) {
        use std::os::unix::fs::MetadataExt;
        let own = group.join("agent");
        let owner = fs::metadata(format!("/proc/{}/root/.msb", pid.trim())).unwrap().uid();
        assert_ne!(owner, 0);
        assert_eq!(fs::metadata(own.join("cgroup.procs")).unwrap().uid(), owner);
        for limit in ["cgroup.max.descendants", "cgroup.max.depth", "cgroup.subtree_control"] {
            assert_eq!(fs::metadata(group.join(limit)).unwrap().uid(), 0, "{limit}");
        }
        assert!(!inside.join(".msb/cgroup").exists());
        fs::create_dir(own.join("exec")).unwrap();
        fs::write(own.join("exec/cgroup.procs"), pid.trim()).unwrap();
        assert!(fs::read_dir(inside.join("sys/fs/cgroup")).unwrap().count() > 0);
    }
    scene.end("a", &Request::Kill);
    scene.assert_nothing_left("a");
}

#[test]
fn g_unreadable_sandbox_is_listed_and_kept() {
    let scene = Scene::new();
    let mut config = scene.config("a");
    config.detached = true;
    scene.create(config.clone()).unwrap();
    scene.end("a", &STOP);
    fs::write(scene.dir("a").config(), "{\"from\": \"the future\"}").unwrap();
    scene.create(scene.config("b")).unwrap();
    let listed = list(&scene.home, Some(&scene.companions)).unwrap();
    let readable: Vec<_> =
        listed.iter().map(|(name, info)| (name.as_str(), info.is_ok())).collect();
    assert_eq!(readable, [("a", false), ("b", true)]);
    let refused = scene.create(config).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::SandboxAlreadyExists);
    remove(&scene.home, &"a".parse().unwrap(), false, &scene.companions).unwrap();
    scene.end("b", &Request::Kill);
}

#[test]
fn g_doctor_reports_the_drivers() {
    let scene = Scene::new();
    let report = msb_state::doctor(&scene.home, &scene.companions).unwrap();
    let container = report.drivers.iter().find(|report| report.name == "container").unwrap();
    assert_eq!(container.isolation, Isolation::Container);
    assert!(matches!(container.probe, msb_state::Probe::Usable(_)), "{container:?}");
}

#[test]
fn g_sandbox_ends_by_duration_and_by_idle_timeout() {
    let scene = Scene::new();
    let mut config = scene.config("a");
    config.max_duration_ms = Some(300);
    let mut idle = scene.config("b");
    idle.idle_timeout_ms = Some(400);
    scene.create(config).unwrap();
    scene.create(idle).unwrap();
    assert_eq!(scene.wait("a").reason, Reason::MaxDuration);
    assert_eq!(scene.wait("b").reason, Reason::Idle);
    for name in ["a", "b"] {
        assert_eq!(scene.info(name).unwrap().status, Status::Stopped);
        scene.assert_nothing_left(name);
    }
}

#[test]
fn i_garbage_on_the_control_socket_is_refused() {
    use std::io::{BufRead, BufReader, Write};
    let scene = Scene::new();
    scene.create(scene.config("a")).unwrap();
    let connect = || Control::connect(&scene.dir("a")).unwrap();
    for garbage in [&b"\n"[..], b"{}\n", b"\xff\xfe\n", b"{\"op\":\"fly\"}\n", &[b'x'; 70_000]] {
        let mut stream = connect().stream().unwrap();
        // The server may close the connection before a long line is sent.
        let _ = stream.write_all(garbage);
        let mut reply = String::new();
        let _ = BufReader::new(stream).read_line(&mut reply);
        assert!(reply.contains("refused"), "{reply}");
    }
    let info = connect().request(&Request::Info, Some(LIMIT)).unwrap();
    assert!(matches!(info, msb_state::Reply::Info { .. }), "{info:?}");
    scene.end("a", &Request::Kill);
}

#[test]
fn g_all_tests_pass_for_an_ordinary_user() {
    if !support::is_root() {
        return;
    }
    support::run_tests_as_ordinary_user();
}
