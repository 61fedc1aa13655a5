//! `oncegate health`: asks the gate that runs whether it is ready, so that no container needs curl.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, bail};

use super::print;
use crate::config::{Loaded, World};

/// How long the gate may take over each step: to accept, to be asked, to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// An answer is a few lines; whoever says more is no gate.
const ANSWER_BYTES: u64 = 64 * 1024;

/// What `health` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It asks /readyz at `admin.listen` of the configuration and prints the answer.
Exit codes: 0 if the gate is ready, 1 if it isn't or can't be reached, 2 on wrong usage.")]
pub struct Args {
    /// Ask this address instead of the configuration's
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub address: Option<SocketAddr>,
}

/// Asks the gate.
///
/// # Errors
///
/// When there is no gate to ask, or it does not answer.
pub fn run(args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    let address = match args.address {
        Some(address) => address,
        None => configured(config)?,
    };
    let answer = ask(address).with_context(|| format!("the gate does not answer at {address}"))?;
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = head.parse(&answer) else {
        bail!("what answers at {address} is no gate");
    };
    print(&answer[length..])?;
    Ok(if head.code == Some(200) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the gate of this configuration is asked. A fault elsewhere in the file is not its fault: it runs with what it
/// read when it started.
fn configured(config: &Path) -> anyhow::Result<SocketAddr> {
    let loaded = Loaded::from_file(config, &World::real());
    let in_the_way = |path: &str| path.is_empty() || path.starts_with("admin");
    if let Some(fault) = loaded.faults.iter().find(|fault| in_the_way(&fault.path)) {
        bail!("nobody knows where the gate is to be asked: {fault}");
    }
    let Some(address) = loaded.admin().listen else {
        bail!("`admin.listen` is \"off\" in {}, so that nobody can be asked", config.display());
    };
    Ok(reachable(address))
}

/// "Any address" can be listened on, not spoken to: of this machine it means loopback.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn ask(address: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut gate = TcpStream::connect_timeout(&address, PATIENCE)?;
    gate.set_read_timeout(Some(PATIENCE))?;
    gate.set_write_timeout(Some(PATIENCE))?;
    gate.write_all(format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    gate.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_listens_everywhere_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9090", "127.0.0.1:9090"),
            ("[::]:9090", "[::1]:9090"),
            ("192.0.2.1:9090", "192.0.2.1:9090"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
