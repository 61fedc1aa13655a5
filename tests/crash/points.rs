//! Every crash point of one delivery: each call by which the gate changes its disk or speaks to somebody while a webhook
//! goes through it, and what becomes of the webhook when the gate ends at that call.
//!
//! One run is watched and its calls are listed. Then it is played again for each of them, twice: that call is never made,
//! for the process is killed as it begins it; and with the process the power goes. What it comes to stands in
//! `points.md`; `POINTS=write cargo test --test crash points` writes that anew.

use std::{
    collections::HashMap,
    env,
    fmt::{self, Write},
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::Instant;

use super::{
    app::App,
    gate::{PATIENCE, Setup},
    kill,
    power::{Drive, run},
    providers::hear,
};

/// How a webhook is answered, and what is waited for.
struct Way {
    title: &'static str,
    durable: &'static str,
    rule: &'static str,
}

const WAYS: [Way; 3] = [
    Way {
        title: "The provider hears what the app said once that is durable (`durable = \"outcome\"`)",
        durable: "outcome",
        rule: "answer = 'upstream'",
    },
    Way {
        title: "What the app said becomes durable a moment later (`durable = \"claim\"`)",
        durable: "claim",
        rule: "answer = 'upstream'",
    },
    Way {
        title: "The provider is thanked before the app has it (`answer = \"accept\"`)",
        durable: "outcome",
        rule: "answer = 'accept'",
    },
];

/// What changes a disk, and by which others are spoken to and heard.
const CALLS: &str = "accept4,connect,sendto,sendmsg,recvfrom,recvmsg,read,write,writev,pwrite64,pwritev,fsync,fdatasync,\
                     fallocate,ftruncate,openat,mkdir,rename,renameat,renameat2,link,linkat,unlink,unlinkat";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    thread: String,
    name: String,
    on: On,
    /// Which of its kind it is: of this thread, on this file or on any socket.
    nth: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum On {
    /// A file of the store, seen from its folder.
    File(String),
    Provider,
    App,
}

impl fmt::Display for Call {
    /// As the beginning of its row.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { thread: _, name, on, nth } = self;
        match on {
            On::File(path) => write!(f, "| `{name}` {nth} | `{path}` |"),
            On::Provider => write!(f, "| `{name}` {nth} | the provider |"),
            On::App => write!(f, "| `{name}` {nth} | the app |"),
        }
    }
}

/// A gate of its own, with its store in a folder of its own.
struct Stage<'a> {
    setup: Setup,
    app: &'a App,
    event: String,
}

impl<'a> Stage<'a> {
    /// In this directory; the store in the other, which may be on a disk of its own.
    fn new(name: &str, directory: &Path, disk: &Path, app: &'a App, way: &Way) -> Self {
        let directory = directory.join(name);
        fs::create_dir(&directory).unwrap();
        let setup = Setup::new(&directory, &disk.join(format!("{name}-store")), app.address, way.durable);
        setup.says(way.rule);
        // Longer than what nobody waits for is let gather: what is held is on the disk before it goes.
        setup.holds("100ms");
        Self { setup, app, event: format!("{name}/paid") }
    }

    fn tell(&self) -> Option<(u16, String)> {
        hear(&self.event, self.setup.address, &mut None)
    }

    /// Tells of the event until that is a repetition of what is settled; what was decided the first time.
    fn tell_again(&self) -> Result<String, String> {
        let (began, mut first) = (Instant::now(), None);
        while began.elapsed() < PATIENCE {
            if let Some((200, decision)) = self.tell() {
                let first = first.get_or_insert_with(|| decision.clone());
                if decision == "replayed" {
                    return Ok(first.clone());
                }
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(format!("it is never settled; told again it was {first:?}"))
    }

    /// Whether the app gets it, unless it takes too long.
    fn comes(&self) -> bool {
        let began = Instant::now();
        while self.app.count(&self.event) == 0 && began.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(2));
        }
        self.app.count(&self.event) > 0
    }

    /// All calls that one delivery makes.
    fn calls(&self) -> Vec<Call> {
        let trace = self.setup.store.with_extension("trace");
        let mut gate = self.setup.start();
        let all = format!("trace={CALLS}");
        let mut watcher = attach(gate.id(), &["-f", "-yy", "-Y", "-e", &all, "-o", &trace.display().to_string()]);
        assert_eq!(self.tell(), Some((200, "first".to_owned())));
        assert!(self.comes());
        // What the app says is heard by then, and written though nobody waits for it.
        thread::sleep(Duration::from_millis(300));
        gate.kill();
        watcher.wait().unwrap();
        let trace = fs::read_to_string(&trace).unwrap();
        let mut counts = HashMap::new();
        trace.lines().filter_map(|line| self.call(line, &mut counts)).collect()
    }

    /// `4790<store> write(13</…/store/0.jnl>, …`
    fn call(&self, line: &str, counts: &mut HashMap<(String, String, Option<String>), usize>) -> Option<Call> {
        let (thread, call) = line.split_once("> ")?;
        let (_, thread) = thread.split_once('<')?;
        let (name, arguments) = call.split_once('(')?;
        let speaks_to = |address: SocketAddr| {
            let port = address.port();
            [format!(":{port}"), format!("htons({port})")].iter().any(|port| arguments.contains(port))
        };
        let on = match arguments.split_once(&format!("{}/", self.setup.store.display())) {
            Some((_, path)) => On::File(path.split(['>', '"']).next()?.to_owned()),
            None if speaks_to(self.app.address) => On::App,
            None if speaks_to(self.setup.address) => On::Provider,
            None => return None,
        };
        let file = if let On::File(path) = &on { Some(path.clone()) } else { None };
        let nth = counts.entry((thread.to_owned(), name.to_owned(), file)).or_default();
        *nth += 1;
        Some(Call { thread: thread.to_owned(), name: name.to_owned(), on, nth: *nth })
    }

    /// Plays it to this call, where the gate is killed and, on a disk of its own, the power cut. What became of it; what is
    /// wrong, where a promise is broken.
    fn crash(&self, at: &Call, drive: Option<&Drive>) -> Result<&'static str, String> {
        let mut gate = self.setup.start();
        let Some(thread) = thread_of(gate.id(), &at.thread) else { return Ok(NOT_REACHED) };
        let (trace, inject) = (format!("trace={}", at.name), format!("inject={}:signal=KILL:when={}", at.name, at.nth));
        let mut words = vec!["-o", "/dev/null", "-e", &trace, "-e", &inject];
        let path;
        if let On::File(file) = &at.on {
            path = self.setup.store.join(file).display().to_string();
            words.extend(["-P", &path]);
        }
        let mut watcher = attach(thread, &words);
        let acknowledged = matches!(self.tell(), Some((200, _)));
        let began = Instant::now();
        while !gate.is_over() && began.elapsed() < Duration::from_secs(3) {
            thread::sleep(Duration::from_millis(2));
        }
        let is_reached = gate.is_over();
        gate.kill();
        watcher.wait().unwrap();
        let before = self.app.count(&self.event);
        if let Some(drive) = drive {
            drive.cut()?;
            drive.unmount();
            drive.mount()?;
        }
        let mut gate = self.setup.try_start()?;
        // Whoever was thanked does not come again.
        if acknowledged && !self.comes() {
            return Err("it was acknowledged and is lost".to_owned());
        }
        let told_again = self.tell_again()?;
        gate.kill();
        let unknown = kill::called_unknown(&self.setup.store).values().sum::<usize>();
        let became = match (unknown, before, self.app.count(&self.event)) {
            (0, 0, 1) if told_again == "first" => "not known; told again, it goes",
            (0, 0, 1) => "known; it goes by itself",
            (0, 1, 1) => "settled",
            (1, 0, 1) => "called unknown; the app had not got it, and gets it",
            (1, 1, 2) => "called unknown; the app had got it, and gets it again",
            (unknown, before, came) => {
                return Err(format!(
                    "it came {before} times before and {came} in all, and was called unknown {unknown} times"
                ));
            }
        };
        Ok(if is_reached { became } else { NOT_REACHED })
    }
}

const NOT_REACHED: &str = "not reached";

/// Watches a thread, or a process, as these words say. It does so when this returns.
fn attach(thread: u32, words: &[&str]) -> Child {
    let mut strace = Command::new("strace");
    strace.args(words).args(["-p", &thread.to_string()]);
    let mut watcher = strace.stderr(Stdio::piped()).spawn().unwrap();
    let (mut said, mut line) = (BufReader::new(watcher.stderr.take().unwrap()), String::new());
    said.read_line(&mut line).unwrap();
    assert!(line.contains("attached"), "strace says: {line}");
    thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    watcher
}

/// The number of the process's thread that is called so.
fn thread_of(process: u32, name: &str) -> Option<u32> {
    let mut threads = fs::read_dir(format!("/proc/{process}/task")).ok()?.map_while(Result::ok);
    let is_called =
        |entry: &fs::DirEntry| fs::read_to_string(entry.path().join("comm")).is_ok_and(|it| it.trim() == name);
    threads.find(is_called)?.file_name().to_str()?.parse().ok()
}

/// What a kill leaves behind is in memory anyway; there a start is quick.
fn directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Why nothing of this can be tried here.
fn why_not() -> Option<String> {
    let mut sleeper = Command::new("sleep").arg("60").spawn().unwrap();
    let tried = run(&["timeout", "1", "strace", "-o", "/dev/null", "-p", &sleeper.id().to_string()]);
    _ = sleeper.kill();
    _ = sleeper.wait();
    // It is cut short where it can.
    tried.err().filter(|said| !said.contains("attached"))
}

/// How many are played at the same time.
const HANDS: usize = 4;

const HEAD: &str = "# Every crash point of one delivery

Each call by which the gate changes its disk or speaks to somebody while one webhook goes through it, in their order, and what
becomes of the webhook when the process is killed instead of making it, and when the power goes with it. A test plays and
compares this (`points.rs`). What is called unknown is sent again by `on_unknown = \"resend\"`, after `quiet`.
";

/// What `points.md` says of this call in its table: of a kill, and of a power cut.
fn told<'t>(text: &'t str, way: &Way, call: &Call) -> Option<[&'t str; 2]> {
    let (_, table) = text.split_once(way.title)?;
    let table = table.split("\n## ").next()?;
    let row = table.lines().find_map(|line| line.strip_prefix(&call.to_string()))?;
    let mut cells = row.trim_end_matches('|').split('|').map(str::trim);
    Some([cells.next()?, cells.next()?])
}

/// The calls of a delivery; listed again where a slow machine made them others than are told.
fn listed(nth: usize, way: &Way, directory: &Path, app: &App, text: &str) -> Vec<Call> {
    let list = |trial: usize| Stage::new(&format!("list-{nth}-{trial}"), directory, directory, app, way).calls();
    let is_told = |calls: &Vec<Call>| calls.iter().all(|call| told(text, way, call).is_some());
    (0..3).map(list).find(is_told).unwrap_or_else(|| list(3))
}

#[test]
fn at_whatever_call_of_a_delivery_the_gate_ends_nothing_is_lost_and_nothing_comes_twice_unsaid() {
    if let Some(why) = why_not() {
        return eprintln!("NOT TRIED: {why}");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/points.md");
    let (told_text, directory, app) = (fs::read_to_string(&file).unwrap_or_default(), directory(), App::start());
    let directory = directory.path();
    let calls: Vec<_> =
        WAYS.iter().enumerate().map(|(nth, way)| listed(nth, way, directory, &app, &told_text)).collect();
    let points: Vec<_> =
        WAYS.iter().zip(&calls).flat_map(|(way, calls)| calls.iter().map(move |call| (way, call))).collect();
    assert!(points.len() > 40, "{points:?}", points = points.len());
    let (next, rows) = (Mutex::new(0..points.len()), Mutex::new(vec![String::new(); points.len()]));
    thread::scope(|scope| {
        for hand in 0..HANDS {
            let (next, rows, points, app, told_text) = (&next, &rows, &points, &app, &told_text);
            scope.spawn(move || {
                let drive = drive(&directory.join(format!("hand-{hand}")));
                let take = || next.lock().unwrap().next();
                while let Some(point) = take() {
                    let (way, call) = points[point];
                    let [killed, cut] = told(told_text, way, call).unwrap_or_default();
                    let play = |name: &str, drive: Option<&Drive>, wanted: &str| {
                        let disk = drive.map_or(directory, |drive| &drive.mount);
                        let play = |trial| {
                            let stage = Stage::new(&format!("{name}-{point}-{trial}"), directory, disk, app, way);
                            let became = stage.crash(call, drive);
                            _ = fs::remove_dir_all(&stage.setup.store);
                            became.unwrap_or_else(|fault| panic!("{}: {call} {name}: {fault}", way.title))
                        };
                        let is_wanted =
                            |became: &&str| *became == wanted || wanted.is_empty() && *became != NOT_REACHED;
                        (0..3).map(play).find(is_wanted).unwrap_or_else(|| play(3))
                    };
                    let killed = play("killed", None, killed);
                    let cut = match &drive {
                        Ok(drive) => play("cut", Some(drive), cut),
                        Err(_) => cut,
                    };
                    rows.lock().unwrap()[point] = format!("{call} {killed} | {cut} |\n");
                }
                if let Err(why) = drive {
                    eprintln!("NOT TRIED with power cuts: {why}");
                }
            });
        }
    });
    let (mut text, mut rows) = (HEAD.to_owned(), rows.into_inner().unwrap().into_iter());
    for (way, calls) in WAYS.iter().zip(&calls) {
        write!(
            text,
            "\n## {}\n\n| the call | on | killed there | cut from power there |\n|---|---|---|---|\n",
            way.title
        )
        .unwrap();
        text.extend(rows.by_ref().take(calls.len()));
    }
    if env::var("POINTS").is_ok_and(|word| word == "write") {
        return fs::write(&file, text).unwrap();
    }
    assert!(text == told_text, "it came to this, and not to what points.md says:\n{text}");
}

/// A disk that can be cut off.
fn drive(directory: &Path) -> Result<Drive, String> {
    fs::create_dir(directory).unwrap();
    Drive::with("ext4", directory)
}

#[test]
fn the_trial_of_the_crash_points_can_fail_without_syncing_it_does() {
    let (directory, app, way) = (directory(), App::start(), &WAYS[0]);
    let drive = match why_not().map_or_else(|| drive(&directory.path().join("disk")), Err) {
        Ok(drive) => drive,
        Err(why) => return eprintln!("NOT TRIED: {why}"),
    };
    // The app has it, and answers.
    let calls = Stage::new("list", directory.path(), directory.path(), &app, way).calls();
    let call = calls.iter().find(|call| call.on == On::App && call.name == "recvfrom").unwrap();
    let mut stage = Stage::new("cut", directory.path(), &drive.mount, &app, way);
    stage.setup.wrapper = vec!["eatmydata".to_owned()];
    let fault = stage.crash(call, Some(&drive)).unwrap_err();
    assert_eq!(fault, "it came 1 times before and 2 in all, and was called unknown 0 times");
}
