#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| msb_client::fuzzing::link(data));
