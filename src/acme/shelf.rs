//! The folder in which the account and the certificates are kept, for nobody's eyes but ours.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};

use crate::ingress::tls::Certificate;

/// The folder.
#[derive(Debug)]
pub(super) struct Shelf(PathBuf);

/// An account, and with whom we have it.
#[derive(Deserialize, Serialize)]
struct Kept<C> {
    directory: String,
    credentials: C,
}

impl Shelf {
    pub(super) const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The account with this authority, if it is there and can be read.
    pub(super) fn account(&self, directory: &str) -> Option<AccountCredentials> {
        let text = fs::read(self.0.join("account.json")).ok()?;
        let kept: Kept<AccountCredentials> = serde_json::from_slice(&text).ok()?;
        (kept.directory == directory).then_some(kept.credentials)
    }

    /// Keeps an account; the one before goes.
    pub(super) fn keep_account(&self, directory: &str, credentials: &AccountCredentials) -> io::Result<()> {
        let text = serde_json::to_vec(&Kept { directory: directory.to_owned(), credentials })?;
        self.write("account.json", &text)
    }

    /// The certificate for these names, if it is there and can be read.
    pub(super) fn certificate(&self, names: &[String]) -> Option<Certificate> {
        let text = fs::read(self.0.join(file_for(names)?)).ok()?;
        Certificate::from_pem(&text, &text).ok()
    }

    /// Keeps a chain and its key, in one file so that they never part.
    pub(super) fn keep(&self, names: &[String], chain: &str, key: &str) -> io::Result<()> {
        let file = file_for(names).ok_or(io::ErrorKind::InvalidInput)?;
        self.write(&file, format!("{}\n{key}", chain.trim_end()).as_bytes())
    }

    /// Writes a file anew, whole or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let (path, new) = (self.0.join(name), self.0.join(format!("{name}.new")));
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        sync_folder(&self.0)
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Called by the first name, which holds letters, digits, dots, `-` and `_` only.
fn file_for(names: &[String]) -> Option<String> {
    names.first().map(|name| format!("{name}.pem"))
}
