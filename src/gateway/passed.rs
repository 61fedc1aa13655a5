//! Sockets that were bound before the gate was there, by systemd (`sd_listen_fds(3)`): what waits in their queues between
//! one gate and the next is lost to nobody.

use std::{io, net::SocketAddr};

use anyhow::{Context, bail};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use crate::config::change::Door;

/// The sockets, kept for as long as the gate runs, so that an address that a reload gives up can be had again.
#[derive(Debug, Default)]
pub struct Passed(Vec<(SocketAddr, Socket)>);

impl Passed {
    /// Those that the environment tells of. To be called once in a process.
    ///
    /// # Errors
    ///
    /// When the environment makes no sense, or one of them is no socket that callers can connect to over TCP.
    pub fn from_env() -> anyhow::Result<Self> {
        let passed = sd_listen_fds::get().context("LISTEN_FDS")?;
        let socket = |(place, (name, descriptor)): (usize, (Option<String>, sd_listen_fds::OwnedFd))| {
            let name = name.unwrap_or_else(|| "no name".to_owned());
            listening(Socket::from(descriptor.into_std()))
                .with_context(|| format!("systemd passes a socket that is of no use (the {}., {name})", place + 1))
        };
        passed.into_iter().enumerate().map(socket).collect::<anyhow::Result<_>>().map(Self)
    }

    /// The one that is bound to this address.
    ///
    /// # Errors
    ///
    /// When it can't be had once more.
    pub(super) fn bound_to(&self, address: SocketAddr) -> io::Result<Option<TcpListener>> {
        let Some((_, socket)) = self.0.iter().find(|(bound, _)| *bound == address) else { return Ok(None) };
        TcpListener::from_std(socket.try_clone()?.into()).map(Some)
    }

    /// Makes sure that each of them is wanted: callers would wait for ever at one that nobody listens on.
    ///
    /// # Errors
    ///
    /// When one is not.
    pub(super) fn all_wanted(&self, wanted: &[Door]) -> anyhow::Result<()> {
        match self.0.iter().find(|(address, _)| !wanted.iter().any(|door| door.address == *address)) {
            Some((address, _)) => bail!(
                "systemd listens on {address}, which stands neither in gateway.listen nor in tls.listen nor in admin.listen; write it there, or \
                 take it out of the socket unit"
            ),
            None => Ok(()),
        }
    }

    /// Whether systemd goes on listening at this address, whatever we do.
    pub(super) fn has(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|(bound, _)| *bound == address)
    }
}

fn listening(socket: Socket) -> anyhow::Result<(SocketAddr, Socket)> {
    let domain = socket.domain()?;
    if !matches!(domain, Domain::IPV4 | Domain::IPV6) || socket.r#type()? != Type::STREAM {
        bail!("it is not of TCP; write ListenStream= with an address and a port");
    }
    if !socket.is_listener()? {
        bail!("it is one caller's connection; write Accept=no");
    }
    let address = socket.local_addr()?.as_socket().context("it has no address")?;
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    Ok((address, socket))
}
