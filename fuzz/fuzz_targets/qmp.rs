#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| msb_driver_qemu::fuzzing::qmp(data));
