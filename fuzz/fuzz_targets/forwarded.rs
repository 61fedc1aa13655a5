//! Lets libFuzzer through the door `forwarded`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: oncegate_fuzz::sow("forwarded"), |bytes: &[u8]| (oncegate_fuzz::door("forwarded").try_it)(bytes));
