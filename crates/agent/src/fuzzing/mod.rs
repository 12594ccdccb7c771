//! Entry points of the fuzzers and of the replay of their seeds. Not part of the API.

mod simulation;

/// Simulates hosts and processes that do anything; see `simulation`.
pub fn agent_input(data: &[u8]) {
    simulation::run(data);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn agent_input_seeds_pass() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/agent_input");
        let seeds = fs::read_dir(&seeds).unwrap().map(|seed| seed.unwrap().path());
        let seeds = seeds.inspect(|seed| agent_input(&fs::read(seed).unwrap())).count();
        assert!(seeds > 0);
    }
}
