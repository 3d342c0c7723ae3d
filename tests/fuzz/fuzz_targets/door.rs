#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| aion_fuzz_targets::door::check(data));
