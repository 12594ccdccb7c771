//! Entry points for the fuzzers and the replays of their seeds. Not part of the API.

/// Parses detach keys and types input; see `attach::keys::fuzzing`.
pub fn detach_keys(data: &[u8]) {
    crate::attach::fuzzing::run(data);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_seeds_of_the_detach_keys_pass() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/detach_keys");
        let seeds = fs::read_dir(&seeds).unwrap().map(|seed| seed.unwrap().path());
        let seeds = seeds.inspect(|seed| super::detach_keys(&fs::read(seed).unwrap())).count();
        assert!(seeds > 0);
    }
}
