//! The command line of whoever looks at payments and acts on them: the real program beside a gate that runs.

use std::{path::Path, process::Output};

use serde_json::Value;

use crate::support::{
    Office, Standing,
    office::BRACKETS,
    process::oncegate,
    standing::{NINJA, joined},
};

const TOKEN: &str = "correct-horse-battery-staple";

struct Desk {
    gate: Standing,
    app: Office,
    /// Where the configuration lies that the program reads.
    folder: tempfile::TempDir,
}

impl Desk {
    async fn open() -> Self {
        Self::before(Office::open().await, "").await
    }

    async fn before(app: Office, store: &str) -> Self {
        let token = format!("admin.token = {{ value = '{TOKEN}' }}\n");
        let preset = NINJA.replacen('\n', &format!("\n{store}"), 1);
        let rules = format!("{token}{preset}on_unknown = 'review'\nquiet = '50ms'\n");
        let gate = Standing::before(&app.url(), &rules).await;
        let folder = tempfile::tempdir().unwrap();
        let listen = gate.running.admin.unwrap();
        // A fault elsewhere in the file keeps nobody from the gate that runs.
        let config = format!("admin.listen = '{listen}'\n{token}gateway.max_body = 'much'\n");
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        Self { gate, app, folder }
    }

    async fn types(&self, args: &[&str]) -> Output {
        let (args, folder) =
            (args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>(), self.folder.path().to_owned());
        let typed = move || oncegate(&folder, &args.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(typed).await.unwrap()
    }

    /// What the program prints when all is well.
    async fn well(&self, args: &[&str]) -> String {
        let out = self.types(args).await;
        assert_eq!(out.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// What it says when something is not well.
    async fn not_well(&self, args: &[&str]) -> String {
        let out = self.types(args).await;
        assert_eq!(out.status.code(), Some(1), "{args:?}: {out:?}");
        String::from_utf8(out.stderr).unwrap()
    }

    /// A webhook of which nobody knows whether it was booked: its entry.
    async fn lost(&mut self, n: u32) -> String {
        let caller = self.gate.begin(joined(&format!("pi_{n}"), &format!("h{n}"))).await;
        self.app.next().await.resets("");
        assert_eq!(caller.await.unwrap().status(), 502);
        for _ in 0..200 {
            let listed = self.well(&["review", "list", "--format", "json"]).await;
            let entries = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            if let Some(entry) = entries.into_iter().find(|entry| entry["references"][0] == format!("pi_{n}")) {
                return entry["id"].as_str().unwrap().to_owned();
            }
        }
        panic!("it does not wait");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_the_gate_that_runs_is_restored_in_another_folder_and_knows_all() {
    let disk = tempfile::tempdir().unwrap();
    let store = |name: &str| format!("[store]\npath = '{}'\n", disk.path().join(name).display());
    let mut desk = Desk::before(Office::open().await, &store("data")).await;
    let entry = desk.lost(1).await;
    let webhook = joined("pi_2", "h2");
    let caller = desk.gate.begin(&webhook).await;
    desk.app.next().await.answer(BRACKETS);
    caller.await.unwrap().is_brackets();

    let folder = disk.path().join("backup");
    let said = desk.well(&["backup", folder.to_str().unwrap()]).await;
    assert!(said.contains("holds all that the gate knew"), "{said}");
    assert!(desk.not_well(&["backup", folder.to_str().unwrap()]).await.contains("is there already"));

    let restored = Desk::before(desk.app, &store("backup")).await;
    assert!(restored.well(&["review", "list"]).await.contains(&entry));
    assert!(restored.well(&["show", "pi_2"]).await.contains("accepted"));
    let told = restored.gate.ask(&webhook).await;
    told.is_brackets();
    assert_eq!(told.decision(), "replayed");

    let forgetful = Desk::open().await;
    assert!(forgetful.not_well(&["backup", "there"]).await.contains("memory engine"));
    assert_eq!(std::fs::read_dir(forgetful.folder.path()).unwrap().count(), 1, "nothing was begun");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_lists_looks_and_acts_from_the_command_line() {
    let mut desk = Desk::open().await;
    assert_eq!(desk.well(&["review", "list"]).await, "Nothing waits for a person.\n");
    let (one, two) = (desk.lost(1).await, desk.lost(2).await);

    let listed = desk.well(&["review", "list"]).await;
    let rows: Vec<_> = listed.lines().collect();
    assert!(rows.len() == 3 && rows[0].starts_with("ID ") && rows[1].starts_with(&one), "{listed}");
    assert!(rows[1].contains("unknown") && rows[1].contains("stripe") && rows[1].contains("pi_1"), "{listed}");

    let shown = desk.well(&["review", "show", &one]).await;
    assert!(shown.starts_with(&format!("{one}: it is unknown whether the app got it\n")), "{shown}");
    assert!(shown.contains("POST /payment_webhook/") && shown.contains("\"pi_1\"") && shown.contains("try 1: unknown"));

    let said = desk.well(&["review", "settle", &one, "--reason", "the app shows it", "--who", "Ada"]).await;
    assert_eq!(said, format!("{one}: settled: a redelivery is acknowledged\n"));
    assert_eq!(desk.gate.ask(joined("pi_1", "h1")).await.decision(), "replayed");

    let said = desk.well(&["review", "resend", &two, "--reason", "the app is back", "--who", "Ada"]).await;
    assert_eq!(said, format!("{two}: will be sent again\n"));
    desk.app.next().await.answer(BRACKETS);
    assert_eq!(desk.gate.ask(joined("pi_2", "h2")).await.status(), 200);

    let gone = desk.not_well(&["review", "discard", &one, &two, "--reason", "r", "--who", "Ada"]).await;
    assert_eq!(gone.matches("there is no such entry").count(), 2, "the second is tried too: {gone}");

    let life = desk.well(&["show", "pi_1"]).await;
    for told in
        ["first: not seen before (stripe pi_1, paid", "settle by Ada: the app shows it", "replayed: settled before"]
    {
        assert!(life.contains(told), "{told}: {life}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_written_as_json_lines_however_much_there_is() {
    let desk = Desk::open().await;
    let Desk { gate, app, folder } = desk;
    let _seen = app.answer_all(BRACKETS);
    for n in 0..30 {
        gate.ask(joined(&format!("pi_{n}"), &format!("h{n}"))).await.is_brackets();
    }
    let desk = Desk { gate, app: Office::open().await, folder };
    let lines = async |args: &[&str]| {
        let written = desk.well(args).await;
        written.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(lines(&["export", "--from", "2020-01-01T00:00:00Z"]).await.len(), 90);
    assert_eq!(lines(&["export", "--day", "2020-01-01"]).await.len(), 0);
    let one = lines(&["export", "--reference", "pi_7"]).await;
    assert_eq!(
        one.iter().map(|line| line["what"].as_str().unwrap()).collect::<Vec<_>>(),
        ["arrived", "in_flight", "ended"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_told_with_its_remedy() {
    let desk = Desk::open().await;
    assert!(desk.not_well(&["show", "tr_none"]).await.contains("history knows no payment called tr_none"));
    assert!(desk.not_well(&["export", "--day", "today"]).await.contains("write 2026-11-22"));
    let token = desk.folder.path().join("token");
    std::fs::write(&token, "wrong-wrong-wrong-wrong\n").unwrap();
    let token = token.to_str().unwrap();
    assert!(desk.not_well(&["review", "list", "--token-file", token]).await.contains("the token is missing or wrong"));
    std::fs::write(token, format!("{TOKEN}\n")).unwrap();
    let url = format!("http://{}", desk.gate.running.admin.unwrap());
    let listed = oncegate(Path::new("/"), &["review", "list", "--token-file", token, "--url", &url]);
    assert_eq!(listed.status.code(), Some(0), "no configuration is needed: {listed:?}");

    let unused = tempfile::tempdir().unwrap();
    let config = unused.path().join("config.toml");
    let say = |text: &str| {
        std::fs::write(&config, text).unwrap();
        let out = oncegate(unused.path(), &["review", "list"]);
        assert_eq!(out.status.code(), Some(1));
        String::from_utf8(out.stderr).unwrap()
    };
    let down = say(&format!("admin.listen = '127.0.0.1:1'\nadmin.token = {{ value = '{TOKEN}' }}\n"));
    assert!(down.contains("no gate answers at http://127.0.0.1:1: is `oncegate run` running"), "{down}");
    assert!(say("admin.listen = 'off'\n").contains("nobody can be asked"));
    assert!(say("").contains("[admin]") && say("").contains("openssl rand -hex 32"), "{}", say(""));
    let unset = say("admin.token = { env = 'ONCEGATE_NO_SUCH_TOKEN' }\n");
    assert!(unset.contains("ONCEGATE_NO_SUCH_TOKEN is not set") && unset.contains("--token-file"), "{unset}");
    for wrong in [
        &["review"][..],
        &["review", "settle", "1", "--who", "Ada"],
        &["review", "settle", "--reason", "r"],
        &["export"],
        &["export", "--day", "2026-11-22", "--reference", "tr_1"],
    ] {
        assert_eq!(oncegate(unused.path(), wrong).status.code(), Some(2), "{wrong:?}");
    }
}
