//! Shared code of the benchmarks.

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Instant;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn time(f: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    f();
    begun.elapsed().as_secs_f64()
}

/// A measured variant: its name and one turn of it.
pub(crate) type Variant<'a> = (&'a str, Box<dyn FnMut() + 'a>);

/// Runs the variants in turns; prints each one's median time and its ratio to the first.
pub(crate) fn compare(turns: usize, unit: f64, unit_name: &str, variants: &mut [Variant<'_>]) {
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    for turn in 0..turns + 1 {
        for ((_, run), times) in variants.iter_mut().zip(&mut times) {
            let took = time(run);
            // The first turn warms caches.
            if turn > 0 {
                times.push(took);
            }
        }
    }
    let baseline = times.first().cloned().unwrap_or_default();
    for ((name, _), times) in variants.iter().zip(&times) {
        let ratios = times.iter().zip(&baseline).map(|(own, base)| own / base).collect();
        let value =
            if unit > 0.0 { unit / median(times.clone()) } else { median(times.clone()) * 1e6 };
        println!("  {name:<44} {value:>10.0} {unit_name}   {:>6.2} x", median(ratios));
    }
}

/// Restarts this program with the environment for the library, so that it is set before any thread
/// exists. Returns only in the new process.
#[allow(clippy::exit, reason = "nothing to drop")]
pub(crate) fn in_an_environment_of_its_own(root: &Path, variables: &[(&str, &str)]) {
    if std::env::var_os("MSB_BENCH").is_some() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .env("MSB_BENCH", "1")
        .env("MSB_HOME", home.path())
        .env("MSB_RUNNER", root.join("target/release/msb-runner"))
        .env("MSB_AGENT", root.join("target/static/msb-agent"))
        .envs(variables.iter().copied())
        .status();
    drop(home);
    std::process::exit(status.unwrap().code().unwrap_or(1));
}
