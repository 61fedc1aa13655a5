//! Killed at any moment, with nothing said before.

use std::{collections::HashMap, path::Path, thread, time::Duration};

use oncegate::{
    callback::Key,
    store::{
        Lines, Store,
        embedded::{Embedded, Options, folder::Place, seal::Seals},
        memory,
    },
    time::{Clock, SystemClock, Timestamp},
    transaction::{
        effect::Durable,
        history::{Arrived, What},
        state::Phase,
    },
};
use tokio::time::Instant;

use super::{
    Chance,
    app::App,
    cycles,
    gate::{Gate, PATIENCE, Setup},
    power::run,
    providers::{Providers, say},
};

#[test]
fn killed_at_any_moment_it_loses_nothing_that_was_acknowledged_and_repeats_only_what_it_calls_unknown() {
    killed_again_and_again("answer = 'upstream'");
}

#[test]
fn what_was_acknowledged_before_the_app_had_it_survives_the_kill_and_arrives() {
    killed_again_and_again("answer = 'accept'");
}

fn killed_again_and_again(rule: &str) {
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    for (nth, durable) in ["outcome", "claim"].into_iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        let app = App::start();
        let setup = Setup::new(directory.path(), &directory.path().join("data"), app.address, durable);
        setup.says(rule);
        let mut gate = setup.start();
        let mut providers = Providers::start(12, setup.address, seed + nth as u64);
        let mut chance = Chance(seed);
        let count = cycles(14);
        for _ in 0..count {
            providers.go_on(chance.below(14) as usize);
            thread::sleep(Duration::from_micros(chance.below(4000)));
            gate.kill();
            gate = setup.start();
        }
        providers.stop();
        let faults = faults(&app, &providers, &setup, gate);
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

/// What changes the disk, and what others see.
const CALLS: &str =
    "write,writev,pwrite64,fdatasync,fsync,ftruncate,rename,unlink,link,mkdir,sendto,sendmsg,recvfrom,connect,accept4";

#[test]
fn killed_at_a_system_call_it_loses_nothing_that_was_acknowledged_wherever_that_is() {
    if let Err(why) = run(&["strace", "-o", "/dev/null", "true"]) {
        return eprintln!("NOT TRIED: {why}");
    }
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let directory = tempfile::tempdir().unwrap();
    let app = App::start();
    let mut setup = Setup::new(directory.path(), &directory.path().join("data"), app.address, "outcome");
    let gate = setup.start();
    let mut providers = Providers::start(4, setup.address, seed);
    providers.go_on(60);
    drop(gate);
    let (mut chance, mut killed) = (Chance(seed), 0);
    let (trace, count) = (format!("trace={CALLS}"), cycles(5));
    for _ in 0..count {
        // Each thread counts for itself: the one that speaks, and the one that writes.
        let inject = format!("inject={CALLS}:signal=KILL:when={}", 1 + chance.below(160));
        setup.wrapper =
            ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned).into();
        match setup.try_start() {
            Ok(mut gate) => {
                providers.go_on(40);
                killed += usize::from(gate.is_over());
            }
            Err(_) => killed += 1,
        }
    }
    setup.wrapper.clear();
    let gate = setup.start();
    providers.stop();
    let faults = faults(&app, &providers, &setup, gate);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(killed > 0, "{killed} of {count} were killed at a call");
}

/// Every event that was acknowledged came to the app and is remembered, and none came again but as often as the gate
/// said so.
pub fn faults(app: &App, providers: &Providers, setup: &Setup, gate: Gate) -> Vec<String> {
    // Said once more, none of them gets to the app; but what is unknown is sent again by itself.
    let mut wire = None;
    for event in providers.acknowledged() {
        assert!(matches!(say(&event, setup.address, &mut wire), Some(200 | 503)), "{event}");
    }
    // What was acknowledged before the app had it is still on its way.
    let (began, comes) = (Instant::now(), || providers.acknowledged().iter().all(|event| app.count(event) > 0));
    while !comes() && began.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(20));
    }
    drop(gate);
    let unknown = called_unknown(&setup.store);
    let (acknowledged, mut faults) = (providers.acknowledged(), app.faults());
    faults.extend(acknowledged.iter().filter(|event| app.count(event) == 0).map(|event| format!("{event} is missing")));
    let mut again: HashMap<String, usize> = HashMap::new();
    for (event, count) in app.events() {
        let payment = event.split_once('/').unwrap().0.to_owned();
        *again.entry(payment).or_default() += count - 1;
    }
    for (payment, again) in &again {
        let told = unknown.get(payment).copied().unwrap_or_default();
        if *again > told {
            faults.push(format!("{payment}: {again} came again, and {told} were called unknown"));
        }
    }
    eprintln!(
        "{} events acknowledged; {} unknown at some time, {} came again",
        acknowledged.len(),
        unknown.values().sum::<usize>(),
        again.values().sum::<usize>()
    );
    assert!(acknowledged.len() > 50, "the load was none");
    faults
}

/// How often the gate noted, by payment, that nobody knows whether the app got an event: in its history, for a line of
/// the log may be lost with the process.
pub fn called_unknown(store: &Path) -> HashMap<String, usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bounds = memory::Options { history: 1_000_000, ..memory::Options::default() };
        let options =
            Options { bounds, durable: Durable::Outcome, quiet: Duration::from_secs(1), seals: Seals::default() };
        let store = Embedded::open(Box::new(Place::at(store.to_owned())), options, SystemClock.now()).unwrap();
        let all = Lines::Between(Timestamp::EPOCH, Timestamp::NEVER);
        let (mut names, mut unknown): (HashMap<Key, String>, HashMap<String, usize>) = Default::default();
        for (_, line) in store.history(all, 0, usize::MAX).await.unwrap() {
            match line.what {
                What::Arrived(Arrived { reference, .. }) => _ = names.insert(line.transaction, reference.to_string()),
                What::Moved(Phase::Unknown { .. }) => {
                    *unknown.entry(names[&line.transaction].clone()).or_default() += 1
                }
                _ => {}
            }
        }
        unknown
    })
}
