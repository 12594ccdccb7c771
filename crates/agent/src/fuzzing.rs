//! What the fuzzers and the replays of their seeds drive. Not part of the API.

/// Plays hosts that send anything to sessions whose processes do anything; see `session::fuzzing`.
pub fn agent_input(data: &[u8]) {
    crate::session::fuzzing::run(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_seeds_of_the_agents_input_pass() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/agent_input");
        let seeds = fs::read_dir(&seeds).unwrap().map(|seed| seed.unwrap().path());
        let seeds = seeds.inspect(|seed| agent_input(&fs::read(seed).unwrap())).count();
        assert!(seeds > 0);
    }
}
