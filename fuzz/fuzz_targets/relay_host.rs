#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| msb_relay::fuzzing::host_input(data));
