//! What the gate tells systemd of itself: that it stands, takes up a configuration, or comes to its end.
//!
//! The protocol is that of `sd_notify(3)`: datagrams of `NAME=VALUE` lines, to the socket that the environment names.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use crate::time::since_boot;

/// Who has started the gate, and wants to hear of it; nobody, where the environment names none.
#[derive(Debug, Default)]
pub struct Supervisor(Option<UnixDatagram>);

impl Supervisor {
    /// The one that the environment names. One that can't be spoken to is left alone, with a line in the log: the gate
    /// does its work for others.
    #[must_use]
    pub fn from_env() -> Self {
        let Ok(name) = std::env::var("NOTIFY_SOCKET") else { return Self::default() };
        Self::at(&name).unwrap_or_else(|error| {
            tracing::warn!(socket = name, %error, "systemd can't be told of the gate");
            Self::default()
        })
    }

    /// The one at this socket: a path, or a name after `@`.
    ///
    /// # Errors
    ///
    /// When nobody is there.
    pub fn at(name: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // It reads at once, or is in trouble that shall not become ours.
        socket.set_write_timeout(Some(Duration::from_secs(1)))?;
        match name.strip_prefix('@') {
            Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
            None => socket.connect(name)?,
        }
        Ok(Self(Some(socket)))
    }

    /// The gate stands and takes callers in; `status` says more, for people.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// A configuration is being taken up; [`Self::ready`] says when that is over.
    pub fn reloading(&self) {
        // By its time systemd knows an answer to its own wish from an older one.
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", since_boot().as_micros()));
    }

    /// The gate takes nobody in any more.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Finishing what is under way");
    }

    fn tell(&self, lines: &str) {
        if let Some(socket) = &self.0
            && let Err(error) = socket.send(lines.as_bytes())
        {
            tracing::warn!(%error, "systemd could not be told of the gate");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn systemd_hears_each_turn_of_the_gate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let supervisor = Supervisor::at(path.to_str().unwrap()).unwrap();
        supervisor.ready("Well");
        assert_eq!(heard(&systemd), "READY=1\nSTATUS=Well");
        let before = since_boot();
        supervisor.reloading();
        let told = heard(&systemd);
        let time = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse::<u128>().unwrap();
        assert!((before.as_micros()..=since_boot().as_micros()).contains(&time), "{told}");
        supervisor.stopping();
        assert!(heard(&systemd).starts_with("STOPPING=1\n"));
        drop(systemd);
        supervisor.ready("Nobody listens, and nothing breaks");
    }

    #[test]
    fn an_abstract_socket_is_one_and_where_there_is_none_nobody_is_told() {
        let name = format!("oncegate-test-{}", std::process::id());
        let systemd = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Supervisor::at(&format!("@{name}")).unwrap().ready("Well");
        assert!(heard(&systemd).starts_with("READY=1"));
        assert!(Supervisor::at("/nowhere/notify").is_err());
        Supervisor::default().ready("Nobody asked");
    }
}
