#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| msb_agent::fuzzing::agent_fs(data));
