//! The entry points of the fuzzers, and the replay of their seeds. Not part of the API.

mod json;
mod tar;

pub use json::image_json;
pub use tar::tar;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn replay(target: &str, run: fn(&[u8])) {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
        let seeds = fs::read_dir(&seeds).unwrap().map(|seed| seed.unwrap().path());
        assert!(seeds.inspect(|seed| run(&fs::read(seed).unwrap())).count() > 0);
    }

    #[test]
    fn i1_seeds_of_tar_pass() {
        replay("tar", tar);
    }

    #[test]
    fn i1_seeds_of_image_json_pass() {
        replay("image_json", image_json);
    }
}
