//! Sandboxes that are virtual machines, and everything that depends on the guest: the driver suite,
//! the Rust tests, the conformance cases and the C harness.

use crate::c;
use crate::run::{self, BUILT, cargo, root};
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use xshell::{Shell, cmd};

/// Tests a driver, or only kills and machines that hang.
pub(crate) fn test(sh: &Shell, driver: &str, only_kills: bool) -> Result<()> {
    run::build(sh)?;
    sh.set_var("MSB_DRIVER", driver);
    let say = |text: &str| println!("== {driver}: {text}");
    let mut _without_avx = None;
    match driver {
        "qemu" => prepare_qemu(sh)?,
        "krun" => {
            if let Some(why) = reason_without_krun(sh)? {
                println!("== SKIPPED: the krun driver is not usable here: {why}");
                return Ok(());
            }
            if sh.var("MSB_KRUN_UNCHECKED").is_ok_and(|value| !value.is_empty()) {
                say("this KVM is not the processor's: guest programs do not use AVX");
                _without_avx = Some(prepare_unchecked_krun(sh)?);
            }
        }
        _ => bail!("{driver} is no driver of machines"),
    }
    let doctor = cmd!(sh, "{BUILT}/msb doctor").quiet().read()?;
    say(doctor.lines().find_map(|line| line.strip_prefix(driver)).unwrap_or_default().trim());

    let tests = |package: &str, arguments: &str| {
        let (cargo, arguments) = (cargo(), arguments.split_whitespace());
        cmd!(sh, "{cargo} test --quiet -p {package} {arguments...}").quiet().run()
    };
    if only_kills {
        tests("msb-runner", "--test killing -- --test-threads=2")?;
        return Ok(tests("msb-runner", "--test killing hung -- --ignored")?);
    }
    say("the driver suite: lives, ends and kills");
    tests("msb-runner", "--test lifecycle --test killing -- --test-threads=2")?;
    say("machine tests");
    tests("libmicrosandbox", "--test machines -- --ignored --test-threads=2")?;
    say("the Rust tests");
    let files = "streaming input ending failures sandboxes images reattach attach logs examples";
    for file in files.split(' ').chain((driver == "qemu").then_some("running")) {
        tests("libmicrosandbox", &format!("--test {file} -- --test-threads=2"))?;
    }
    say("the conformance cases");
    tests("conformance-testee", "")?;
    say("the C harness and the C example");
    set_default(sh, "MSB_TEST_LIMIT", "900");
    c::test(sh, &[])
}

fn set_default(sh: &Shell, name: &str, value: &str) {
    sh.set_var(name, run::variable(sh, name, value));
}

/// A guest kernel, which is downloaded once.
pub(crate) fn kernel(sh: &Shell, built: &str) -> Result<PathBuf> {
    let folder = root().join("target/kernel");
    let kernels = || run::files(sh, "target/kernel/boot", "").unwrap_or_default();
    let newest = || {
        let is_kernel = |file: &PathBuf| file.to_string_lossy().contains("/vmlinuz-");
        kernels().into_iter().rfind(is_kernel)
    };
    if newest().is_none() {
        cmd!(sh, "{built}/msb setup kernel --to {folder}").quiet().run()?;
    }
    newest().context("no guest kernel in target/kernel")
}

fn prepare_qemu(sh: &Shell) -> Result<()> {
    if run::variable(sh, "MSB_KERNEL", "").is_empty()
        && run::variable(sh, "MSB_LIBKRUNFW", "").is_empty()
    {
        sh.set_var("MSB_KERNEL", kernel(sh, BUILT)?);
    }
    // Emulated, possibly next to other builds.
    set_default(sh, "MSB_TEST_TIME_SCALE", "4");
    set_default(sh, "MSB_TEST_SCALE", "8");
    // A start takes seconds; make check runs more of these.
    set_default(sh, "MSB_TEST_KILLS", "5");
    Ok(())
}

fn reason_without_krun(sh: &Shell) -> Result<Option<String>> {
    let doctor = cmd!(sh, "{BUILT}/msb doctor").quiet().read()?;
    let row = doctor.lines().find(|line| line.starts_with("krun ")).context("doctor omits krun")?;
    let mut words = row.split_whitespace().skip(2);
    let is_usable = words.next() == Some("yes");
    Ok((!is_usable).then(|| words.collect::<Vec<_>>().join(" ")))
}

/// Its machines need programs without AVX. It is also slow: a boot takes a minute, a command up to a
/// second, and the tests hours.
fn prepare_unchecked_krun(sh: &Shell) -> Result<WithoutAvx<'_>> {
    let programs = root().join("target/sse-programs");
    cmd!(sh, "scripts/sse-programs {programs}").quiet().run()?;
    sh.set_var("PATH", format!("{}:{}", programs.display(), sh.var("PATH")?));
    sh.set_var("MSB_AGENT", programs.join("msb-agent"));
    sh.set_var("CC", "cc");
    for (name, value) in [
        ("MSB_BOOT_TIMEOUT", "400"),
        ("MSB_TEST_KILLS", "2"),
        ("MSB_TEST_TIME_SCALE", "30"),
        ("MSB_TEST_SCALE", "64"),
    ] {
        set_default(sh, name, value);
    }
    let made = WithoutAvx(sh);
    made.remove();
    cmd!(sh, "scripts/rootfs target/rootfs").quiet().run()?;
    Ok(made)
}

/// Root filesystems of programs without AVX. They are cached, and these are only for one run.
struct WithoutAvx<'a>(&'a Shell);

impl WithoutAvx<'_> {
    fn remove(&self) {
        let cached =
            "target/rootfs target/tmp/rootfs* target/tmp/conformance-* target/test-c/rootfs";
        let _ = cmd!(self.0, "sh -c").arg(format!("rm -rf {cached}")).quiet().run();
    }
}

impl Drop for WithoutAvx<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}
