//! Lets libFuzzer through the door `recording`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: oncegate_fuzz::sow("recording"), |bytes: &[u8]| (oncegate_fuzz::door("recording").try_it)(bytes));
