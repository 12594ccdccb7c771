//! What the fuzzers and the replays of their seeds drive. Not part of the API.

/// Plays an agent that sends anything, and a reader that does anything; see `client::fuzzing`.
pub fn client_input(data: &[u8]) {
    crate::client::fuzzing::run(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_seeds_of_the_clients_input_pass() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/client_input");
        let seeds = fs::read_dir(&seeds).unwrap().map(|seed| seed.unwrap().path());
        let seeds = seeds.inspect(|seed| client_input(&fs::read(seed).unwrap())).count();
        assert!(seeds > 0);
    }
}
