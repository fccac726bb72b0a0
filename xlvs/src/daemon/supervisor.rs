//! Who supervises the daemon, systemd as a rule: it is told how the daemon fares (sd_notify(3)), and may have opened its socket
//! (sd_listen_fds(3)). Nobody need be there.

use std::os::unix::net::UnixListener;

use anyhow::Context;
use listenfd::ListenFd;
use sd_notify::NotifyState;

/// The director forwards, and takes commands.
pub fn told_ready(interfaces: &[String]) {
    let status = format!("directing by {}", interfaces.join(", "));
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The file is read again, until [`told_ready`].
pub fn told_reloading() {
    let now = NotifyState::monotonic_usec_now();
    let mut states = vec![NotifyState::Reloading];
    states.extend(now);
    tell(&states);
}

/// The daemon ends, as it was told to.
pub fn told_stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("ends; packets go on being forwarded")]);
}

/// Shows that the daemon's thread does not hang, twice in the time that it is given. Never ends.
pub async fn beat() {
    let Some(patience) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut beats = tokio::time::interval(patience / 2);
    loop {
        beats.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

/// The control socket, if somebody has opened it for us.
pub fn socket() -> anyhow::Result<Option<UnixListener>> {
    let mut given = ListenFd::from_env();
    if given.len() == 0 {
        return Ok(None);
    }
    let socket = given.take_unix_listener(0);
    socket.context("the first socket that the daemon was given (LISTEN_FDS) is no listening Unix socket")
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(why) = sd_notify::notify(states) {
        tracing::warn!(%why, "who supervises the daemon (NOTIFY_SOCKET) cannot be told how it fares");
    }
}
