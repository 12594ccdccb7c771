#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| msb_image_pull::fuzzing::image_json(data));
