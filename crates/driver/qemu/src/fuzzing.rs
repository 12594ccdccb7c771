//! The entry points of the fuzzers and of the replays of their seeds.

use std::time::Duration;
use tokio::net::UnixStream;

/// Longer than any run that does not hang.
const LIMIT: Duration = Duration::from_secs(10);

/// QEMU sends arbitrary bytes and closes: the reader returns, with a bounded reason.
pub fn qmp(data: &[u8]) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let Ok(runtime) = builder.enable_all().build() else { return };
    let ended = runtime.block_on(async {
        let Ok((qemu, ours)) = UnixStream::pair() else { return true };
        let reading = crate::qmp::read_from(qemu, ours, data);
        tokio::time::timeout(LIMIT, reading).await.is_ok()
    });
    assert!(ended, "it hangs");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn i1_seeds_of_qmp_pass() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../fuzz/seeds/qmp");
        let seeds = fs::read_dir(&seeds).unwrap().map(|seed| seed.unwrap().path());
        assert!(seeds.inspect(|seed| qmp(&fs::read(seed).unwrap())).count() > 0);
    }
}
