//! Lets libFuzzer through the door `reading`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: oncegate_fuzz::sow("reading"), |bytes: &[u8]| (oncegate_fuzz::door("reading").try_it)(bytes));
