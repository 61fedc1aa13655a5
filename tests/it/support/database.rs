//! Real databases of the test's own: MariaDB and PostgreSQL, each in a folder that goes away, at a socket in it, and behind TLS
//! on loopback where that is asked for.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use mysql_async::{Conn, Opts, prelude::Queryable};

use super::authority::Pair;

/// The books of an app like Invoice Ninja, as far as the gate asks about them.
const SCHEMA: [&str; 3] = [
    "CREATE TABLE payment_hashes (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, hash VARCHAR(255) NOT NULL, \
     data MEDIUMTEXT NOT NULL, payment_id INT UNSIGNED NULL, KEY payment_hashes_hash_index (hash))",
    "CREATE TABLE payments (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, transaction_reference VARCHAR(191) NULL, \
     status_id INT UNSIGNED NOT NULL, is_deleted TINYINT(1) NOT NULL DEFAULT 0, company_gateway_id INT UNSIGNED NULL, \
     KEY payments_transaction_reference_index (transaction_reference))",
    "CREATE TABLE users (id INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, email VARCHAR(100))",
];

/// What the README says that the gate needs, and no more.
const GRANTS: [&str; 3] = [
    "CREATE USER oncegate@localhost IDENTIFIED BY 'only/reads'",
    "GRANT SELECT (id, hash, data) ON ninja.payment_hashes TO oncegate@localhost",
    "GRANT SELECT (transaction_reference, status_id, is_deleted) ON ninja.payments TO oncegate@localhost",
];

/// A port of loopback at which nobody listens.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that is stopped when the test ends.
pub struct MariaDb {
    server: Child,
    folder: tempfile::TempDir,
    /// Where it listens besides, if it shows a certificate.
    port: Option<u16>,
}

impl MariaDb {
    /// With an empty database `ninja`, and a user `oncegate` who has the least privileges.
    pub async fn start() -> Self {
        Self::showing(None).await
    }

    /// The same on loopback too, under TLS.
    pub async fn under_tls(pair: &Pair) -> Self {
        Self::showing(Some(pair)).await
    }

    async fn showing(pair: Option<&Pair>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let copied = Command::new("cp").arg("-a").arg(template()).arg(&data).status().unwrap();
        assert!(copied.success());
        let door = pair.map(|pair| (pair, free_port()));
        let database = Self { server: Self::serve(folder.path(), door), folder, port: door.map(|(_, port)| port) };
        let mut root = database.root("mysql").await;
        root.query_drop("CREATE DATABASE ninja").await.unwrap();
        root.query_drop("USE ninja").await.unwrap();
        for statement in SCHEMA.iter().chain(&GRANTS) {
            root.query_drop(*statement).await.unwrap();
        }
        database
    }

    fn serve(folder: &Path, door: Option<(&Pair, u16)>) -> Child {
        let option = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
        let listening = match door {
            None => vec!["--skip-networking".to_owned()],
            Some((pair, port)) => vec![
                "--bind-address=127.0.0.1".to_owned(),
                format!("--port={port}"),
                option("ssl-cert", pair.certificate.clone()),
                option("ssl-key", pair.key.clone()),
            ],
        };
        Command::new(find("mariadbd"))
            .args(["--no-defaults", "--user=root"])
            .args(listening)
            .args(["--innodb-log-file-size=4M", "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0"])
            .arg(option("datadir", folder.join("data")))
            .arg(option("socket", folder.join("socket")))
            .arg(option("log-error", folder.join("log")))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mariadbd is here: test.sh puts it in place")
    }

    /// It is gone, and nobody listens at its socket any more.
    pub fn stop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// It is there again.
    pub async fn start_again(&mut self) {
        self.server = Self::serve(self.folder.path(), None);
        self.root("ninja").await;
    }

    /// A connection that may do everything; it waits for the server.
    pub async fn root(&self, database: &str) -> Conn {
        let opts = Opts::from_url(&self.url("root", "", database)).unwrap();
        let mut tries = 0;
        loop {
            match Conn::new(opts.clone()).await {
                Ok(connection) => return connection,
                Err(_) if tries < 600 => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}: {:?}", fs::read_to_string(self.folder.path().join("log"))),
            }
            tries += 1;
        }
    }

    /// The address for this user.
    pub fn url(&self, user: &str, password: &str, database: &str) -> String {
        let password = password.replace('/', "%2F");
        format!("mysql://{user}:{password}@localhost/{database}?socket={}", self.folder.path().join("socket").display())
    }

    /// The address on loopback for the user with the least privileges.
    pub fn url_under_tls(&self, host: &str) -> String {
        format!("mysql://oncegate:only%2Freads@{host}:{}/ninja?require_ssl=true", self.port.unwrap())
    }

    /// What the configuration says of it; with time enough for the slowest machine.
    pub fn asked(&self) -> String {
        let url = self.url("oncegate", "only/reads", "ninja");
        format!("[lookup]\ntimeout = '5s'\nurl = {{ value = '{url}' }}\n")
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// A folder with the system's own tables in it, made once.
fn template() -> PathBuf {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mariadb");
    if !kept.exists() {
        let new = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let made = Command::new(find("mariadb-install-db"))
            .args(["--no-defaults", "--user=root", "--auth-root-authentication-method=normal", "--skip-test-db"])
            .arg(format!("--datadir={}", new.path().display()))
            .arg("--innodb-log-file-size=4M")
            .output()
            .expect("mariadb-install-db is here: test.sh puts it in place");
        assert!(made.status.success(), "{made:?}");
        // Another test may have been faster.
        if fs::rename(new.path(), &kept).is_ok() {
            let _ = new.keep();
        }
    }
    kept
}

/// A server that is stopped when the test ends.
pub struct Postgres {
    server: Child,
    folder: tempfile::TempDir,
    /// In the name of its socket, and where it listens besides, if it shows a certificate.
    port: u16,
}

/// The user as whom it runs where the test is root, whom it refuses.
const NOBODY: u32 = 65534;

impl Postgres {
    /// With these statements run by its owner.
    pub async fn start(statements: &[&str]) -> Self {
        Self::showing(None, statements).await
    }

    /// The same on loopback too, under TLS.
    pub async fn under_tls(pair: &Pair, statements: &[&str]) -> Self {
        Self::showing(Some(pair), statements).await
    }

    async fn showing(pair: Option<&Pair>, statements: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        if is_root() {
            chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let made = as_nobody(&find("initdb"))
            .args([
                "--no-sync",
                "--auth-host=scram-sha-256",
                "--auth-local=scram-sha-256",
                "--username=owner",
                "--locale=C",
            ])
            .args(["--encoding=UTF8", "--pwfile=/dev/stdin", "--pgdata"])
            .arg(&data)
            .stdin(Stdio::from(pipe_of("owns\n")))
            .output()
            .expect("initdb is here: test.sh puts it in place");
        assert!(made.status.success(), "{made:?}");
        let port = free_port();
        let listening = match pair {
            None => vec!["listen_addresses=".to_owned()],
            Some(pair) => {
                // The server's own, or it would not start.
                for (from, to) in [(&pair.certificate, "server.crt"), (&pair.key, "server.key")] {
                    let to = data.join(to);
                    fs::copy(from, &to).unwrap();
                    fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
                    if is_root() {
                        chown(&to, Some(NOBODY), Some(NOBODY)).unwrap();
                    }
                }
                vec!["listen_addresses=127.0.0.1".to_owned(), "ssl=on".to_owned()]
            }
        };
        let settings = ["fsync=off".to_owned(), "shared_buffers=8MB".to_owned(), format!("port={port}")];
        let server = as_nobody(&find("postgres"))
            .args(listening.iter().chain(&settings).flat_map(|setting| ["-c", setting]))
            .arg("-k")
            .arg(&data)
            .arg("-D")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let database = Self { server, folder, port };
        let owner = database.owner().await;
        for statement in statements {
            owner.batch_execute(statement).await.unwrap();
        }
        database
    }

    /// A connection that may do everything; it waits for the server.
    pub async fn owner(&self) -> tokio_postgres::Client {
        let mut tries = 0;
        loop {
            match tokio_postgres::connect(&self.url("owner", "owns"), tokio_postgres::NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return client;
                }
                Err(_) if tries < 600 => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
            tries += 1;
        }
    }

    /// The address for this user.
    pub fn url(&self, user: &str, password: &str) -> String {
        let folder = self.folder.path().join("data").display().to_string().replace('/', "%2F");
        format!("postgresql://{user}:{password}@{folder}:{}/postgres", self.port)
    }

    /// The address on loopback for this user.
    pub fn url_under_tls(&self, host: &str, user: &str, password: &str) -> String {
        format!("postgresql://{user}:{password}@{host}:{}/postgres?sslmode=require", self.port)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

fn as_nobody(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let id = NOBODY.to_string();
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program).current_dir("/");
    command
}

fn pipe_of(text: &str) -> fs::File {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

/// Debian keeps servers out of the way of users.
fn find(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<_> = versions.map(|version| version.path().join("bin")).collect();
    folders.extend(["/usr/sbin", "/usr/bin", "/usr/local/bin"].map(PathBuf::from));
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.exists()).unwrap_or_else(|| program.into())
}
