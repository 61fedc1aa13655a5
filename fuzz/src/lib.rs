//! The doors by which foreign bytes come in. Each is a function that takes any bytes and asserts what must hold of them,
//! beyond that nothing panics; libFuzzer calls them (`fuzz_targets`), and so does a test of the gate's with changed seeds.

mod answer;
mod apps_answer;
mod callback;
mod configuration;
mod forwarded;
mod learned;
mod place;
mod proxy;
mod reading;
mod record;
mod recording;
mod request;

/// A way in.
pub struct Door {
    /// What it is called, as its target is.
    pub name: &'static str,
    /// Tries some bytes; it panics where something does not hold.
    pub try_it: fn(&[u8]),
    /// What is well understood, to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every one of them.
pub const DOORS: &[Door] = &[
    Door { name: "callback", try_it: callback::try_it, seeds: callback::seeds },
    Door { name: "place", try_it: place::try_it, seeds: place::seeds },
    Door { name: "reading", try_it: reading::try_it, seeds: reading::seeds },
    Door { name: "answer", try_it: answer::try_it, seeds: answer::seeds },
    Door { name: "proxy", try_it: proxy::try_it, seeds: proxy::seeds },
    Door { name: "forwarded", try_it: forwarded::try_it, seeds: forwarded::seeds },
    Door { name: "record", try_it: record::try_it, seeds: record::seeds },
    Door { name: "apps_answer", try_it: apps_answer::try_it, seeds: apps_answer::seeds },
    Door { name: "learned", try_it: learned::try_it, seeds: learned::seeds },
    Door { name: "recording", try_it: recording::try_it, seeds: recording::seeds },
    Door { name: "configuration", try_it: configuration::try_it, seeds: configuration::seeds },
];

/// Writes the seeds of this door into the folder that `SEEDS` names, if it names one, for libFuzzer to read them there.
///
/// # Panics
///
/// If they can't be written.
#[allow(dead_code, reason = "only the targets of libFuzzer need it")]
pub fn sow(name: &str) {
    let Some(folder) = std::env::var_os("SEEDS").map(std::path::PathBuf::from) else { return };
    std::fs::create_dir_all(&folder).expect("a folder");
    for (number, seed) in (door(name).seeds)().iter().enumerate() {
        std::fs::write(folder.join(number.to_string()), seed).expect("a seed");
    }
}

/// The door with this name.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn door(name: &str) -> &'static Door {
    DOORS.iter().find(|door| door.name == name).expect("a door")
}
