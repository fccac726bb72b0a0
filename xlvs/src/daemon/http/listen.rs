//! The sockets that HTTP is spoken on.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use nix::unistd::{Gid, Group, chown};
use xlvs_model::config::Http;

use super::tls::Identity;
use super::tokens::Tokens;
use crate::paths::Paths;

/// Sockets that are open, and who may ask over them.
pub struct Listening {
    /// Root, and members of a group for reading.
    pub unix: std::os::unix::net::UnixListener,
    /// Whoever has a token, or for reading whoever is on this host.
    pub tcp: Option<Tcp>,
    /// Metrics of each server too.
    pub per_server: bool,
}

/// A TCP socket.
pub struct Tcp {
    /// The socket.
    pub listener: std::net::TcpListener,
    /// With TLS, and then with tokens.
    pub secured: Option<(Identity, Tokens)>,
}

impl Listening {
    /// Opens them.
    pub fn open(paths: &Paths, settings: &Http) -> anyhow::Result<Self> {
        if let Some(mistake) = settings.mistake() {
            bail!("HTTP: {mistake}");
        }
        let unix = unix(&paths.api_socket(), settings.group.as_deref())?;
        let tcp = settings.listen.map(|at| tcp(at, settings)).transpose()?;
        Ok(Self { unix, tcp, per_server: settings.per_server })
    }
}

/// The daemon's lock is held, so a socket that is there belongs to nobody.
fn unix(path: &Path, group: Option<&str>) -> anyhow::Result<std::os::unix::net::UnixListener> {
    let name = path.display();
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("remove the old socket {name}")),
    }
    let group = group.map(members).transpose()?;
    let listener =
        std::os::unix::net::UnixListener::bind(path).with_context(|| format!("open the socket {name}"))?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    // Closed to all before it is given to a group.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .and_then(|()| Ok(chown(path, None, group)?))
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .with_context(|| format!("close the socket {name} to others"))?;
    listener.set_nonblocking(true).with_context(|| format!("open the socket {name}"))?;
    Ok(listener)
}

fn members(name: &str) -> anyhow::Result<Gid> {
    let found = Group::from_name(name).with_context(|| format!("look for the group {name}"))?;
    let group =
        found.with_context(|| format!("there is no group {name}; `groupadd --system {name}` makes it"))?;
    Ok(group.gid)
}

fn tcp(at: SocketAddr, settings: &Http) -> anyhow::Result<Tcp> {
    let secured = match (&settings.tls, &settings.tokens) {
        (Some((cert, key)), Some(tokens)) => Some((Identity::read(cert, key)?, Tokens::in_file(tokens)?)),
        _ => None,
    };
    let listener = std::net::TcpListener::bind(at).with_context(|| format!("listen at {at} for HTTP"))?;
    listener.set_nonblocking(true).with_context(|| format!("listen at {at} for HTTP"))?;
    match &secured {
        Some(_) => tracing::info!("HTTPS is served at {at}, to whoever shows a token"),
        None => tracing::info!(
            "HTTP is served at {at}, for reading only: changes take a certificate, a key and tokens, or the socket"
        ),
    }
    Ok(Tcp { listener, secured })
}
