//! Lets libFuzzer through the door `proxy`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: oncegate_fuzz::sow("proxy"), |bytes: &[u8]| (oncegate_fuzz::door("proxy").try_it)(bytes));
