//! Cut from its power under load: a file system on a loop device is shut down, and what was not made durable is gone.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use super::{Chance, app::App, cycles, gate::Setup, kill, providers::Providers};

/// A disk of its own, mounted as long as this lives.
pub struct Drive {
    image: PathBuf,
    pub mount: PathBuf,
}

impl Drive {
    /// One with this file system; why not, where it can't be had.
    pub fn with(system: &str, directory: &Path) -> Result<Self, String> {
        let (image, mount) = (directory.join(format!("{system}.img")), directory.join(system));
        std::fs::create_dir(&mount).unwrap();
        std::fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
        let made = run(&[&format!("mkfs.{system}"), "-q", &image.display().to_string()]);
        let drive = Self { image, mount };
        made.and_then(|()| drive.mount()).map(|()| drive)
    }

    pub fn mount(&self) -> Result<(), String> {
        run(&["mount", "-o", "loop", &self.image.display().to_string(), &self.mount.display().to_string()])
    }

    pub fn unmount(&self) {
        // Whoever died a moment ago may still hold a file.
        let path = self.mount.display().to_string();
        for _ in 0..200 {
            if run(&["umount", &path]).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{path} can't be unmounted");
    }

    /// The name of the loop device.
    pub fn device(&self) -> Option<String> {
        let said = Command::new("losetup").args(["-n", "-O", "NAME", "-j"]).arg(&self.image).output().ok()?;
        let name = String::from_utf8(said.stdout).ok()?;
        Some(name.trim().strip_prefix("/dev/")?.to_owned())
    }

    /// Whether nobody uses it any more.
    pub fn is_free(&self) -> bool {
        let used = Command::new("losetup").arg("-j").arg(&self.image).output();
        used.is_ok_and(|used| used.stdout.is_empty())
    }

    /// From now on nothing gets onto the disk any more, and what did not get there is lost.
    pub fn cut(&self) -> Result<(), String> {
        run(&["xfs_io", "-x", "-c", "shutdown", &self.mount.display().to_string()])
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        _ = run(&["umount", "-l", &self.mount.display().to_string()]);
    }
}

/// Runs a program; why not, where it fails.
pub fn run(words: &[&str]) -> Result<(), String> {
    let ended = Command::new(words[0]).args(&words[1..]).output().map_err(|error| format!("{}: {error}", words[0]))?;
    if ended.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&ended.stderr).into_owned()) }
}

/// Plays some cuts; what went wrong.
fn play(system: &str, wrapper: &[&str], count: usize) -> Result<Vec<String>, String> {
    let directory = tempfile::tempdir().unwrap();
    let drive = Drive::with(system, directory.path())?;
    let app = App::start();
    let mut setup = Setup::new(directory.path(), &drive.mount.join("data"), app.address, "outcome");
    setup.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
    let seed = u64::from(std::process::id());
    let mut chance = Chance(seed);
    let mut gate = setup.start();
    let mut providers = Providers::start(12, setup.address, seed << 8);
    for _ in 0..count {
        providers.go_on(20 + chance.below(30) as usize);
        let cut = drive.cut();
        gate.kill();
        drive.unmount();
        drive.mount()?;
        cut?;
        gate = match setup.try_start() {
            Ok(gate) => gate,
            // What is lost must not be forgotten in silence.
            Err(log) => {
                providers.abandon();
                return Ok(vec![log]);
            }
        };
    }
    providers.stop();
    let faults = kill::faults(&app, &providers, &setup, gate);
    drive.unmount();
    drive.mount()?;
    Ok(faults)
}

#[test]
fn cut_from_its_power_it_loses_nothing_that_was_acknowledged() {
    for system in ["ext4", "xfs"] {
        match play(system, &[], cycles(2)) {
            Ok(faults) => assert!(faults.is_empty(), "{system}:\n{}", faults.join("\n")),
            Err(why) => eprintln!("NOT TRIED on {system}: {why}"),
        }
    }
}

#[test]
fn the_trial_of_a_power_cut_can_fail_without_syncing_it_does() {
    for _ in 0..5 {
        match play("ext4", &["eatmydata"], 2) {
            Ok(faults) if faults.is_empty() => {}
            Ok(_) => return,
            Err(why) => return eprintln!("NOT TRIED: {why}"),
        }
    }
    panic!("nothing was lost without syncing, so the trial shows nothing");
}
