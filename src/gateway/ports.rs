//! The addresses that callers use: what was asked for, what was got, and the sockets in our hands.

use std::{io, net::SocketAddr};

use anyhow::Context;
use socket2::{SockRef, Socket};
use tokio::net::TcpListener;

use super::passed::Passed;
use crate::{
    config::change::Door,
    ingress::listener::{self, BindError, bind_beside, bind_shared},
};

/// Every open address.
#[derive(Debug, Default)]
pub(super) struct Ports(Vec<Port>);

/// An open address; the socket is the same that is listened on.
#[derive(Debug)]
struct Port {
    asked: Door,
    bound: SocketAddr,
    socket: Socket,
}

/// How addresses are had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'p> {
    /// What is bound already.
    pub passed: &'p Passed,
    /// Whether other processes may have them too.
    pub shared: bool,
}

impl Ports {
    /// Opens addresses, of which some may stand where one of `leaving` does now; `key` says under which key each stands.
    ///
    /// # Errors
    ///
    /// If one of them cannot be had; none is open then.
    pub(super) fn open(
        &self,
        asked: &[Door],
        leaving: &[Door],
        terms: Terms<'_>,
        key: impl Fn(Door) -> &'static str,
    ) -> anyhow::Result<(Self, Vec<TcpListener>)> {
        let leaving: Vec<_> = self.0.iter().filter(|port| leaving.contains(&port.asked)).map(|p| &p.socket).collect();
        let (mut ports, mut sockets) = (Vec::new(), Vec::new());
        for &asked in asked {
            let (port, socket) = Port::open(asked, &leaving, terms).with_context(|| key(asked))?;
            ports.push(port);
            sockets.push(socket);
        }
        Ok((Self(ports), sockets))
    }

    /// Takes these in.
    pub(super) fn extend(&mut self, more: Self) {
        self.0.extend(more.0);
    }

    /// Lets go of an address that was asked for, and says which one that is.
    pub(super) fn close(&mut self, asked: Door) -> Option<SocketAddr> {
        let at = self.0.iter().position(|port| port.asked == asked)?;
        Some(self.0.remove(at).bound)
    }

    /// The address that was got for one that was asked for.
    pub(super) fn bound(&self, asked: Door) -> Option<SocketAddr> {
        self.0.iter().find(|port| port.asked == asked).map(|port| port.bound)
    }

    /// The addresses, ports filled in.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|port| port.bound).collect()
    }
}

impl Port {
    fn open(asked: Door, leaving: &[&Socket], terms: Terms<'_>) -> Result<(Self, TcpListener), BindError> {
        let no = |source| BindError { address: asked.address, source };
        let backlog = listener::Options::default().backlog;
        let socket = match terms.passed.bound_to(asked.address).map_err(no)? {
            Some(socket) => socket,
            None if terms.shared => bind_shared(asked.address, backlog)?,
            None => bind_beside(asked.address, backlog, leaving)?,
        };
        Ok((Self::of(asked, &socket).map_err(no)?, socket))
    }

    fn of(asked: Door, socket: &TcpListener) -> io::Result<Self> {
        Ok(Self { asked, bound: socket.local_addr()?, socket: SockRef::from(socket).try_clone()? })
    }
}
