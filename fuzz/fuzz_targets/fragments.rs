//! See `xlvs_fuzzed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = xlvs_fuzzed::target("fragments");
    target(data);
});
