//! Takes callers in, so many at once and for so long.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::api;
use super::ask::Asker;
use super::caller::Caller;
use super::history::History;
use super::listen::{Listening, Tcp};

/// Connections at once on each socket; callers beyond them wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// For TLS, and for the head of each request.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// A connection is asked to end after this, and is ended after as long again: whoever reads slowly does not hold his place.
const LIFE: Duration = Duration::from_secs(90);
/// Of a request's head.
const HEADERS: usize = 64;
/// Bytes of a request's head, and of what is written at once.
const BUFFER: usize = 64 << 10;
/// When no connection can be taken, for want of files perhaps, it is tried again after this.
const BREATH: Duration = Duration::from_millis(200);

/// Serves until the process ends.
pub fn run(listening: Listening, asker: Asker) {
    if let Err(why) = serve(listening, asker) {
        tracing::error!("HTTP is not served any more: {why:#}");
    }
}

fn serve(listening: Listening, asker: Asker) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    runtime.block_on(async {
        let Listening { unix, tcp, per_server } = listening;
        let history = History::default();
        tokio::spawn(history.clone().keep(asker.clone()));
        let routes = Arc::new(api::Routes::new(asker, history, per_server));
        let unix = UnixListener::from_std(unix).context("serve the unix socket")?;
        let over_unix = local(unix, Arc::clone(&routes));
        match tcp {
            Some(tcp) => _ = tokio::try_join!(over_unix, remote(tcp, routes))?,
            None => _ = over_unix.await?,
        }
        Ok(())
    })
}

async fn local(listener: UnixListener, routes: Arc<api::Routes>) -> anyhow::Result<Infallible> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        let Some(stream) = taken(listener.accept().await).await else { continue };
        // Whoever cannot be known may read what the socket's mode lets him.
        let user = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
        let router = routes.of(Caller::Local(user));
        tokio::spawn(converse(stream, router, place));
    }
}

async fn remote(tcp: Tcp, routes: Arc<api::Routes>) -> anyhow::Result<Infallible> {
    let Tcp { listener, mut secured } = tcp;
    let listener = TcpListener::from_std(listener).context("serve the TCP socket")?;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await?;
        let Some(stream) = taken(listener.accept().await).await else { continue };
        match &mut secured {
            None => _ = tokio::spawn(converse(stream, routes.of(Caller::Loopback), place)),
            Some((identity, tokens)) => {
                let (acceptor, router) = (identity.acceptor(), routes.of(Caller::Remote(tokens.clone())));
                tokio::spawn(async move {
                    if let Ok(Ok(stream)) = timeout(HEAD_PATIENCE, acceptor.accept(stream)).await {
                        converse(stream, router, place).await;
                    }
                });
            }
        }
    }
}

async fn taken<S, A>(accepted: io::Result<(S, A)>) -> Option<S> {
    match accepted {
        Ok((stream, _)) => Some(stream),
        Err(why) => {
            tracing::debug!(%why, "a caller was not taken in");
            sleep(BREATH).await;
            None
        }
    }
}

/// Until the caller hangs up or has been here for long enough.
async fn converse<S>(stream: S, router: Router, _place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    if timeout(LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        // Either it ends by itself now, or it is dropped.
        let _ended = bounded(connection).await;
    }
}

async fn bounded<F: Future>(ends: F) -> Option<F::Output> {
    timeout(LIFE, ends).await.ok()
}
