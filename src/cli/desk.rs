//! The admin API of the gate that runs, asked from the command line.

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};

use super::{enough, health::reachable};
use crate::{
    config::{Loaded, World},
    provider::contract::{Secret, SecretKind},
};

/// How long the gate may take to accept, and over an answer's head.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of an answer that is read whole.
const ANSWER: usize = 64 << 20;
/// Lines of an export that are asked for at once.
const LINES: usize = 10_000;

/// Which gate is asked, and who asks.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Where {
    /// Ask the gate at this address instead of the configuration's `admin.listen`
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// Take the token from this file instead of the configuration's `admin.token`
    #[arg(long, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub token_file: Option<PathBuf>,
}

/// How it is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Human,
    /// One JSON object a line
    Json,
}

/// The desk at which the gate is asked.
pub struct Desk {
    runtime: Runtime,
    /// `host:port`, as it is connected to.
    authority: String,
    token: Secret,
}

impl Desk {
    /// Finds out where the gate is, and what it wants to hear.
    ///
    /// # Errors
    ///
    /// When nobody knows where the gate is, or there is no token.
    pub fn find(place: &Where, config: &Path) -> anyhow::Result<Self> {
        let loaded = match place {
            Where { url: Some(_), token_file: Some(_) } => None,
            _ => Some(Loaded::from_file(config, &World::real())),
        };
        let authority = match (&place.url, &loaded) {
            (Some(url), _) => authority(url)?,
            (None, Some(loaded)) => configured(loaded, config)?.to_string(),
            (None, None) => bail!("nobody knows where the gate is"),
        };
        let token = match (&place.token_file, &loaded) {
            (Some(file), _) => read_token(file)?,
            (None, Some(loaded)) => configured_token(loaded, config)?,
            (None, None) => bail!("there is no token"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { runtime, authority, token })
    }

    /// What the gate says at this path of the API.
    ///
    /// # Errors
    ///
    /// When it can't be reached, or refuses; with the remedy that it tells.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.runtime.block_on(async { read(self.ask(Method::GET, path, None).await?).await })
    }

    /// What the gate says to this.
    ///
    /// # Errors
    ///
    /// As [`Self::get`].
    pub fn post(&self, path: &str, said: &Value) -> anyhow::Result<Value> {
        self.runtime.block_on(async { read(self.ask(Method::POST, path, Some(said)).await?).await })
    }

    /// Writes the lines of history for this query, all of them, as they come. Says how many.
    ///
    /// # Errors
    ///
    /// As [`Self::get`], and when they can't be written; a reader that has read enough is no error.
    pub fn write_lines(&self, query: &str, out: &mut impl Write) -> anyhow::Result<usize> {
        let (mut all, mut after) = (0, 0);
        loop {
            let path = format!("/history?{query}&limit={LINES}&after={after}");
            let lines = self.runtime.block_on(self.copy(&path, out))?;
            all += lines.count;
            match lines.last {
                Some(last) if lines.count == LINES => after = last,
                _ => return Ok(all),
            }
        }
    }

    /// Gives what the gate says at this path to `take`, piece by piece as it comes.
    ///
    /// # Errors
    ///
    /// As [`Self::get`], and those of `take`.
    pub fn take(&self, path: &str, mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let mut body = refused(self.ask(Method::GET, path, None).await?).await?.into_body();
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame.context("the gate broke off")?.into_data() {
                    take(&data)?;
                }
            }
            Ok(())
        })
    }

    async fn copy(&self, path: &str, out: &mut impl Write) -> anyhow::Result<Copied> {
        let mut body = refused(self.ask(Method::GET, path, None).await?).await?.into_body();
        let (mut copied, mut rest) = (Copied { count: 0, last: None }, Vec::new());
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.context("the gate broke off")?.into_data() else { continue };
            rest.extend_from_slice(&data);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                let said: Value = serde_json::from_slice(&line).context("what the gate says is no JSON")?;
                if let Some(error) = said["error"].as_str() {
                    bail!("the gate could not read its history to the end: {error}");
                }
                enough(out.write_all(&line))?;
                copied.count += 1;
                copied.last = said["number"].as_u64();
            }
        }
        Ok(copied)
    }

    async fn ask(&self, method: Method, path: &str, said: Option<&Value>) -> anyhow::Result<Response<Incoming>> {
        let lost = || {
            format!(
                "no gate answers at http://{}: is `oncegate run` running, and does its admin.listen say that?",
                self.authority
            )
        };
        let stream = timeout(PATIENCE, TcpStream::connect(&self.authority)).await.map_err(|_| anyhow!(lost()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream.with_context(lost)?)).await?;
        // It ends with the answer, or with the runtime.
        tokio::spawn(connection);
        let mut request = Request::new(Full::new(Bytes::from(said.map(Value::to_string).unwrap_or_default())));
        *request.method_mut() = method;
        *request.uri_mut() = format!("/api/v1{path}").parse().context("this can't be asked")?;
        let mut bearer = HeaderValue::from_bytes(&[b"Bearer ", self.token.expose()].concat())?;
        bearer.set_sensitive(true);
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_str(&self.authority)?);
        headers.insert(AUTHORIZATION, bearer);
        if said.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        match timeout(PATIENCE, sender.send_request(request)).await {
            Ok(answer) => answer.with_context(lost),
            Err(_) => bail!("the gate at http://{} does not answer", self.authority),
        }
    }
}

/// What was copied of an export.
struct Copied {
    count: usize,
    last: Option<u64>,
}

async fn read(response: Response<Incoming>) -> anyhow::Result<Value> {
    let body = refused(response).await?.into_body();
    let body = Limited::new(body, ANSWER).collect().await.map_err(|error| anyhow!("the gate broke off: {error}"))?;
    serde_json::from_slice(&body.to_bytes()).context("what answers there is no gate: it says no JSON")
}

/// The answer, unless it is a refusal.
async fn refused(response: Response<Incoming>) -> anyhow::Result<Response<Incoming>> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER).collect().await.map(http_body_util::Collected::to_bytes);
    let said: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    match (said["error"].as_str(), said["remedy"].as_str()) {
        (Some(error), Some(remedy)) => bail!("{error}; {remedy}"),
        _ if status == StatusCode::NOT_FOUND => bail!("what answers there has no such API: is it an older gate?"),
        _ => bail!("the gate refuses ({status})"),
    }
}

fn authority(url: &str) -> anyhow::Result<String> {
    let form = || format!("`{url}` is no address of a gate: write http://127.0.0.1:9090");
    let uri: Uri =
        if url.contains("://") { url.parse() } else { format!("http://{url}").parse() }.with_context(form)?;
    let authority = uri.authority().map(http::uri::Authority::as_str).filter(|text| !text.contains('@'));
    match (uri.scheme_str(), authority, uri.path()) {
        (Some("http"), Some(authority), "" | "/") if uri.port().is_some() => Ok(authority.to_owned()),
        (Some("http"), Some(authority), "" | "/") => Ok(format!("{authority}:80")),
        _ => Err(anyhow!(form())),
    }
}

/// A fault elsewhere in the file is not in the way.
fn faultless(loaded: &Loaded, path: &str) -> anyhow::Result<()> {
    match loaded.faults.iter().find(|fault| fault.path.is_empty() || fault.path == path) {
        Some(fault) => bail!("{fault}"),
        None => Ok(()),
    }
}

fn configured(loaded: &Loaded, config: &Path) -> anyhow::Result<SocketAddr> {
    faultless(loaded, "admin.listen").context("nobody knows where the gate is to be asked; --url names it")?;
    let listen = loaded.admin().listen;
    let none = || anyhow!("`admin.listen` is \"off\" in {}, so that nobody can be asked", config.display());
    listen.map(reachable).ok_or_else(none)
}

fn configured_token(loaded: &Loaded, config: &Path) -> anyhow::Result<Secret> {
    faultless(loaded, "admin.token").context("the token can't be had; --token-file names another place")?;
    let none = || {
        anyhow!(
            "no token is configured in {}: write `token = {{ env = \"ONCEGATE_ADMIN_TOKEN\" }}` into [admin], set the \
             variable for the gate and for yourself to what `openssl rand -hex 32` makes, and restart the gate",
            config.display()
        )
    };
    loaded.admin().token.clone().ok_or_else(none)
}

fn read_token(file: &Path) -> anyhow::Result<Secret> {
    let bytes = std::fs::read(file).with_context(|| format!("the token in {} can't be read", file.display()))?;
    let token = bytes.trim_ascii();
    if token.is_empty() {
        bail!("{} is empty: put the token there", file.display());
    }
    Ok(Secret::new(SecretKind::Token, token))
}

/// A value as it stands in a query.
pub fn encoded(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

/// Writes text to standard output; whoever has read enough is not told the rest.
pub fn tell(text: &str) -> io::Result<()> {
    super::print(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_is_named_as_people_name_it() {
        for (typed, meant) in [
            ("http://127.0.0.1:9090", "127.0.0.1:9090"),
            ("http://127.0.0.1:9090/", "127.0.0.1:9090"),
            ("localhost:9090", "localhost:9090"),
            ("[::1]:9090", "[::1]:9090"),
            ("http://gate", "gate:80"),
        ] {
            assert_eq!(authority(typed).unwrap(), meant, "{typed}");
        }
        for wrong in ["", "https://gate:1", "http://user:pw@gate:1", "http://gate:1/api", "http://"] {
            assert!(authority(wrong).is_err(), "{wrong}");
        }
    }
}
