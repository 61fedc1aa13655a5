//! Real databases of the test's own: MariaDB and PostgreSQL, each in a folder that goes away, at a socket in it.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use mysql_async::{Conn, Opts, prelude::Queryable};

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

/// A server that is stopped when the test ends.
pub struct MariaDb {
    server: Child,
    folder: tempfile::TempDir,
}

impl MariaDb {
    /// With an empty database `ninja`, and a user `oncegate` who has the least privileges.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let copied = Command::new("cp").arg("-a").arg(template()).arg(&data).status().unwrap();
        assert!(copied.success());
        let database = Self { server: Self::serve(folder.path()), folder };
        let mut root = database.root("mysql").await;
        root.query_drop("CREATE DATABASE ninja").await.unwrap();
        root.query_drop("USE ninja").await.unwrap();
        for statement in SCHEMA.iter().chain(&GRANTS) {
            root.query_drop(*statement).await.unwrap();
        }
        database
    }

    fn serve(folder: &Path) -> Child {
        let option = |name: &str, path: PathBuf| format!("--{name}={}", path.display());
        Command::new(find("mariadbd"))
            .args(["--no-defaults", "--user=root", "--skip-networking"])
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
        self.server = Self::serve(self.folder.path());
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
}

/// The user as whom it runs where the test is root, whom it refuses.
const NOBODY: u32 = 65534;

impl Postgres {
    /// With these statements run by its owner.
    pub async fn start(statements: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let data = folder.path().join("data");
        fs::create_dir(&data).unwrap();
        if is_root() {
            chown(&data, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let made = as_nobody(&find("initdb"))
            .args(["--no-sync", "--auth-host=reject", "--auth-local=scram-sha-256", "--username=owner", "--locale=C"])
            .args(["--encoding=UTF8", "--pwfile=/dev/stdin", "--pgdata"])
            .arg(&data)
            .stdin(Stdio::from(pipe_of("owns\n")))
            .output()
            .expect("initdb is here: test.sh puts it in place");
        assert!(made.status.success(), "{made:?}");
        let server = as_nobody(&find("postgres"))
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "shared_buffers=8MB", "-k"])
            .arg(&data)
            .arg("-D")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let database = Self { server, folder };
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
        format!("postgresql://{user}:{password}@{folder}/postgres")
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
