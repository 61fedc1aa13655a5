//! Lets libFuzzer through the door `answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: oncegate_fuzz::sow("answer"), |bytes: &[u8]| (oncegate_fuzz::door("answer").try_it)(bytes));
