//! Times of the cases.

use std::time::Duration;

/// Scales a time by `MSB_TEST_TIME_SCALE`, for slow machines.
pub(crate) fn scaled(time: Duration) -> Duration {
    let scale = std::env::var("MSB_TEST_TIME_SCALE").ok().and_then(|text| text.parse().ok());
    time.mul_f64(scale.unwrap_or(1.0))
}

/// As [`scaled`], in milliseconds.
pub(crate) fn scaled_ms(ms: u64) -> u64 {
    u64::try_from(scaled(Duration::from_millis(ms)).as_millis()).unwrap_or(u64::MAX)
}
