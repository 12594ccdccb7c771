//! Entry points of the fuzzers and of the replay of their seeds. Not part of the API.

#[allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failed assertion is the result"
)]
mod files;
mod simulation;

/// Simulates hosts and processes that do anything; see `simulation`.
pub fn agent_input(data: &[u8]) {
    simulation::run(data);
}

/// Simulates a host that asks for any operations on files; see `files`.
pub fn agent_fs(data: &[u8]) {
    files::run_script(data);
}

#[cfg(test)]
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
    fn agent_input_seeds_pass() {
        replay("agent_input", agent_input);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig {
            // Each has files to make.
            cases: 32,
            ..Default::default()
        })]
        #[test]
        fn k3_any_script_of_operations_leaves_nothing(
            script in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)
        ) {
            agent_fs(&script);
        }
    }

    #[test]
    fn agent_fs_seeds_pass() {
        replay("agent_fs", agent_fs);
    }
}
