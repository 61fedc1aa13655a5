//! Lets libFuzzer through the door `callback`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: oncegate_fuzz::sow("callback"), |bytes: &[u8]| (oncegate_fuzz::door("callback").try_it)(bytes));
