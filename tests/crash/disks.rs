//! Disks that are full, gone or broken, while the gate runs: callbacks are refused, the rest goes on, and when the disk is
//! back the gate is too.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    thread,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    app::App,
    gate::{PATIENCE, Setup},
    kill,
    power::{Drive, run},
    providers::{Providers, say},
};

/// The status of a page.
fn page(address: SocketAddr, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs load, lets something happen to the disk, and sees that the gate refuses callbacks, passes the rest on, and comes
/// back by itself.
fn survives(directory: &Path, store: &Path, breaks: impl FnOnce(), mends: impl FnOnce()) {
    let app = App::start();
    let setup = Setup::new(directory, store, app.address, "outcome");
    let gate = setup.start();
    let mut providers = Providers::start(6, setup.address, 1);
    until("the load has begun", || providers.acknowledged().len() > 60);
    assert_eq!(page(setup.admin, "/readyz"), Some(200));
    breaks();
    until("callbacks are refused", || say("p/refused", setup.address, &mut None) == Some(503));
    assert_eq!(page(setup.address, "/page"), Some(200), "what is no callback passes");
    until("it says that it is not ready", || page(setup.admin, "/readyz") == Some(503));
    mends();
    until("callbacks are taken", || say("p/taken", setup.address, &mut None) == Some(200));
    until("it says that it is ready", || page(setup.admin, "/readyz") == Some(200));
    providers.stop();
    // Once per fault, and not once per callback: the rest are tries that were under way.
    let said = setup.said();
    let errors = said.lines().filter(|line| line.contains(r#""level":"ERROR""#)).count();
    assert!((1..20).contains(&errors), "{errors} errors:\n{said}");
    let faults = kill::faults(&app, &providers, &setup, gate);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_full_disk_refuses_callbacks_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path().join("small");
    fs::create_dir(&mount).unwrap();
    let mounted = run(&["mount", "-t", "tmpfs", "-o", "size=32m", "none", &mount.display().to_string()]);
    if let Err(why) = mounted {
        return eprintln!("NOT TRIED: {why}");
    }
    let filler = mount.join("filler");
    let fills = || {
        let mut file = File::create(&filler).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    };
    survives(directory.path(), &mount.join("data"), fills, || fs::remove_file(&filler).unwrap());
    _ = run(&["umount", "-l", &mount.display().to_string()]);
}

#[test]
fn a_folder_that_is_moved_away_is_missed_and_used_again_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let [store, aside] = ["data", "aside"].map(|name| directory.path().join(name));
    survives(directory.path(), &store, || fs::rename(&store, &aside).unwrap(), || fs::rename(&aside, &store).unwrap());
}

#[test]
fn a_folder_that_is_removed_is_missed_and_begun_anew_by_the_next_gate_only() {
    let directory = tempfile::tempdir().unwrap();
    let (store, app) = (directory.path().join("data"), App::start());
    let setup = Setup::new(directory.path(), &store, app.address, "outcome");
    setup.says("answer = 'accept'");
    let begun = || setup.said().lines().filter(|line| line.contains("a new store was begun")).count();
    let gate = setup.start();
    assert_eq!(begun(), 1);
    assert_eq!(say("p/first", setup.address, &mut None), Some(200));
    fs::remove_dir_all(&store).unwrap();
    for event in ["p/second", "p/third"] {
        assert_eq!(say(event, setup.address, &mut None), Some(503), "{event}");
    }
    until("it says that it is not ready", || page(setup.admin, "/readyz") == Some(503));
    assert_eq!(page(setup.address, "/page"), Some(200), "what is no callback passes");
    until("it says what to do", || setup.said().contains("put back what was there"));
    assert_eq!(begun(), 1, "it is not begun anew beneath the gate");
    drop(gate);
    let gate = setup.start();
    assert_eq!(begun(), 1, "the next one says that it begins with nothing");
    assert_eq!(say("p/second", setup.address, &mut None), Some(200));
    drop(gate);
    let _gate = setup.start();
    assert_eq!(begun(), 0);
}

#[test]
fn a_disk_that_is_gone_and_comes_back_is_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let drive = match Drive::with("ext4", directory.path()) {
        Ok(drive) => drive,
        Err(why) => return eprintln!("NOT TRIED: {why}"),
    };
    survives(directory.path(), &drive.mount.join("data"), || drive.cut().unwrap(), || returns(&drive));
}

/// It is mounted anew.
fn returns(drive: &Drive) {
    run(&["umount", "-l", &drive.mount.display().to_string()]).unwrap();
    // The gate lets go of the last file when it tries to open the disk anew.
    until("the disk is free", || drive.is_free());
    drive.mount().unwrap();
}

#[test]
fn a_disk_that_the_system_makes_read_only_over_an_error_is_used_again_when_it_can_be_written() {
    let directory = tempfile::tempdir().unwrap();
    let drive = match Drive::with("ext4", directory.path()) {
        Ok(drive) => drive,
        Err(why) => return eprintln!("NOT TRIED: {why}"),
    };
    let mounted = drive.mount.display().to_string();
    if let Err(why) = run(&["mount", "-o", "remount,errors=remount-ro", &mounted]) {
        return eprintln!("NOT TRIED: {why}");
    }
    let Some(trigger) = drive.device().map(|device| format!("/sys/fs/ext4/{device}/trigger_fs_error")) else {
        return eprintln!("NOT TRIED: nobody knows which device it is");
    };
    if !Path::new(&trigger).exists() {
        return eprintln!("NOT TRIED: this system makes no errors to order");
    }
    let errs = || {
        fs::write(&trigger, "for a trial").unwrap();
        assert!(fs::write(drive.mount.join("other"), "").is_err(), "it is read-only");
    };
    survives(directory.path(), &drive.mount.join("data"), errs, || returns(&drive));
}

#[test]
fn what_an_fsync_could_not_write_is_written_anew() {
    if let Err(why) = run(&["strace", "-o", "/dev/null", "true"]) {
        return eprintln!("NOT TRIED: {why}");
    }
    let directory = tempfile::tempdir().unwrap();
    let app = App::start();
    let mut setup = Setup::new(directory.path(), &directory.path().join("data"), app.address, "outcome");
    let inject = "inject=fdatasync:error=EIO:when=60+150";
    setup.wrapper = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", inject]
        .map(str::to_owned)
        .into();
    let gate = setup.start();
    let mut providers = Providers::start(6, setup.address, 1);
    until("it failed and was used again, twice", || setup.said().matches("callbacks are taken").count() >= 2);
    until("there was load", || providers.acknowledged().len() > 60);
    providers.stop();
    drop(gate);
    setup.wrapper.clear();
    let gate = setup.start();
    let faults = kill::faults(&app, &providers, &setup, gate);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
