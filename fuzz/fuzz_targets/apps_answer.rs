//! Lets libFuzzer through the door `apps_answer`.

#![no_main]

libfuzzer_sys::fuzz_target!(init: oncegate_fuzz::sow("apps_answer"), |bytes: &[u8]| (oncegate_fuzz::door("apps_answer").try_it)(bytes));
