//! Lets libFuzzer through the door `place`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: oncegate_fuzz::sow("place"), |bytes: &[u8]| (oncegate_fuzz::door("place").try_it)(bytes));
