#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kidafs_fuzz::mountinfo(data));
