//! The real program with its store on a real disk, killed and cut from its power under load: nothing that was
//! acknowledged is missing, and nothing comes twice but what the gate itself calls unknown.
//!
//! `CYCLES=5000 cargo test --test crash` tries that many; a plain run takes some seconds. Cutting the power of a loop
//! device takes root and mounts; where they can't be had, the tests say so and pass.

#![expect(clippy::unwrap_used, reason = "what the test itself builds is right, or the test is wrong")]

mod app;
mod disks;
mod gate;
mod kill;
mod points;
mod power;
mod providers;

use std::env;

/// How many cycles to play: what the caller says, else this.
fn cycles(plain: usize) -> usize {
    env::var("CYCLES").ok().map_or(plain, |text| text.parse().expect("CYCLES is a number"))
}

/// SplitMix64: chance without a library.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
