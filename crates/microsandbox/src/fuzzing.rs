//! Entry points for the fuzzers and the replays of their seeds. Not part of the API.

/// Runs the client against an arbitrary agent and reader; see `client::fuzzing`.
pub fn client_input(data: &[u8]) {
    crate::client::fuzzing::run(data);
}

/// Parses detach keys and types input; see `attach::keys::fuzzing`.
pub fn detach_keys(data: &[u8]) {
    crate::attach::fuzzing::run(data);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn replay(target: &str, run: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
        let seeds = fs::read_dir(&seeds).unwrap().map(|seed| seed.unwrap().path());
        let seeds = seeds.inspect(|seed| run(&fs::read(seed).unwrap())).count();
        assert!(seeds > 0);
    }

    #[test]
    fn the_seeds_of_the_clients_input_pass() {
        replay("client_input", client_input);
    }

    #[test]
    fn the_seeds_of_the_detach_keys_pass() {
        replay("detach_keys", detach_keys);
    }
}
