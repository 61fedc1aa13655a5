//! Lets libFuzzer through the door `record`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: oncegate_fuzz::sow("record"), |bytes: &[u8]| (oncegate_fuzz::door("record").try_it)(bytes));
