//! Lets libFuzzer through the door `configuration`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: oncegate_fuzz::sow("configuration"), |bytes: &[u8]| (oncegate_fuzz::door("configuration").try_it)(bytes));
