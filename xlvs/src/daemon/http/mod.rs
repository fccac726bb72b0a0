//! HTTP: what the control socket does, for programs and browsers.
//!
//! All of it runs in a thread of its own, so that neither TLS nor JSON nor a slow caller delays the daemon. It is to the daemon
//! what a command is: it asks [`Request`](crate::protocol::Request)s, over a channel instead of a socket ([`ask`]). Who may
//! ask what is decided in [`caller`], how much of everything there may be in [`serve`].

mod api;
mod ask;
mod caller;
mod history;
mod listen;
mod metrics;
mod options;
mod page;
mod problem;
mod serve;
mod sight;
mod tls;
mod tokens;

use std::convert::Infallible;
use std::rc::Rc;

use anyhow::Context;
use tokio::sync::mpsc;

use super::Daemon;
use listen::Listening;

pub use options::Options;

/// Calls that wait for the daemon; a caller beyond them waits with its call.
const WAITING: usize = 64;

/// Opens what is to be listened at, as the command line says or else the file.
pub fn listen(daemon: &Daemon) -> anyhow::Result<Listening> {
    let settings = daemon.options.http.over(&daemon.site.borrow().policy().http);
    Listening::open(&daemon.options.paths, &settings)
}

/// Begins to serve, and answers what is asked. Never ends.
pub async fn run(daemon: Rc<Daemon>, listening: Listening) -> anyhow::Result<Infallible> {
    let (calls, asked) = mpsc::channel(WAITING);
    let asker = ask::Asker::new(calls);
    let serve = move || serve::run(listening, asker);
    std::thread::Builder::new()
        .name("xlvs-http".to_owned())
        .spawn(serve)
        .context("start a thread for HTTP")?;
    ask::answer(daemon, asked).await;
    // The thread has ended, and said why. The daemon's work does not depend on it.
    std::future::pending().await
}
