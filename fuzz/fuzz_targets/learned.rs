//! Lets libFuzzer through the door `learned`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: oncegate_fuzz::sow("learned"), |bytes: &[u8]| (oncegate_fuzz::door("learned").try_it)(bytes));
