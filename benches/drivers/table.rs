//! Measures in turns, and prints tables.

use crate::MIB;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Instant;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

pub(crate) fn seconds(f: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    f();
    begun.elapsed().as_secs_f64()
}

/// What is measured: its name, and one turn of it, which returns its seconds.
pub(crate) type Variant<'a> = (String, Box<dyn FnMut() -> f64 + 'a>);

/// Runs the variants in turns, since machines are noisy: each one's median, and the median of its
/// ratios to the first. `bytes` is what a turn transfers; with 0, times are printed.
pub(crate) fn compare(title: &str, turns: usize, bytes: usize, variants: &mut [Variant<'_>]) {
    let most = std::env::var("MSB_BENCH_TURNS").ok().and_then(|most| most.parse().ok());
    let turns = turns.min(most.unwrap_or(turns));
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); variants.len()];
    for turn in 0..=turns {
        for ((_, run), times) in variants.iter_mut().zip(&mut times) {
            let took = run();
            // The first turn warms caches.
            if turn > 0 {
                times.push(took);
            }
        }
    }
    let unit = if bytes > 0 { "MiB/s" } else { "us" };
    head(&format!("{title} ({turns} turns)"), unit);
    for ((name, _), own) in variants.iter().zip(&times) {
        let ratio = median(own.iter().zip(&times[0]).map(|(own, first)| own / first));
        let middle = median(own.iter().copied());
        if bytes > 0 {
            let rate = (bytes / MIB) as f64 / middle;
            println!("| {name} | {rate:.0} | {:.2} |", 1.0 / ratio);
        } else {
            println!("| {name} | {:.0} | {ratio:.2} |", middle * 1e6);
        }
    }
}

/// Prints values and their ratios to the first.
pub(crate) fn print(title: &str, unit: &str, values: &[(String, f64)]) {
    head(title, unit);
    for (name, value) in values {
        println!("| {name} | {value:.1} | {:.2} |", value / values[0].1);
    }
}

fn head(title: &str, unit: &str) {
    println!("\n{title}\n\n| | {unit} | ratio |\n| --- | ---: | ---: |");
}
