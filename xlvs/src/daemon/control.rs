//! The control socket.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter, Lines};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use xlvs_datapath::conns::{self, Discrepancy};
use xlvs_datapath::engine::ApplyError;
use xlvs_health::OperatorWord;
use xlvs_health::keeper::ServerId;
use xlvs_model::view::{ConnView, Info};
use xlvs_model::{Change, Config, Tunable, wanted};

use super::configure::Wish;
use super::{Daemon, configure, events, explain, site, status, trace, upkeep};
use crate::event::By;
use crate::paths::Paths;
use crate::protocol::{Answer, Request};
use crate::trace::Wanted;

/// Opens the socket, for root only, unless it is given. The lock is held, so a socket that is there belongs to nobody.
pub fn listen(
    paths: &Paths,
    given: Option<std::os::unix::net::UnixListener>,
) -> anyhow::Result<UnixListener> {
    if let Some(listener) = given {
        let taken = listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener));
        return taken.context("take the socket that was given");
    }
    let path = paths.socket();
    match std::fs::remove_file(&path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("remove the old socket {}", path.display())),
    }
    let listener =
        UnixListener::bind(&path).with_context(|| format!("open the socket {}", path.display()))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("close the socket {} to others", path.display()))?;
    Ok(listener)
}

/// Serves commands until the socket breaks.
pub async fn serve(daemon: Rc<Daemon>, listener: UnixListener) -> anyhow::Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("take a command")?;
        let daemon = Rc::clone(&daemon);
        tokio::task::spawn_local(async move {
            if let Err(why) = converse(&daemon, stream).await {
                tracing::debug!(%why, "a command hung up");
            }
        });
    }
}

/// A change of many services is megabytes long.
const AT_ONCE: usize = 256 << 10;

async fn converse(daemon: &Daemon, stream: UnixStream) -> io::Result<()> {
    let (read, write) = stream.into_split();
    let mut lines = BufReader::with_capacity(AT_ONCE, read).lines();
    let mut out = BufWriter::new(write);
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line) {
            Ok(Request::Connections) => connections(daemon, &mut out).await?,
            Ok(Request::Watch { last, follow: true }) => {
                return watch(daemon, last, &mut lines, &mut out).await;
            }
            Ok(Request::Trace(wanted)) => return traced(daemon, wanted, &mut lines, &mut out).await,
            Ok(Request::Watch { last, follow: false }) => past(daemon, last, &mut out).await?,
            Ok(request) => say(&mut out, &answer(daemon, request).await).await?,
            Err(e) => say(&mut out, &Answer::Failed(format!("the command was not understood: {e}"))).await?,
        }
        out.flush().await?;
    }
    Ok(())
}

async fn say<W: AsyncWriteExt + Unpin>(out: &mut W, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    out.write_all(&line).await
}

/// Answers a question that has one answer.
pub async fn answer(daemon: &Daemon, request: Request) -> Answer {
    match request {
        Request::Apply(mut changes) => {
            for change in &mut changes {
                if let Change::EditService(said) = change {
                    *said = wanted::with_segments_of(daemon.engine.borrow().model(), said);
                }
            }
            let events = events::of_changes(&changes, daemon.engine.borrow().model(), |_| By::Operator);
            let applied = daemon.engine.borrow_mut().apply(&changes);
            let accepted = match &applied {
                Ok(()) => changes.len(),
                Err(ApplyError::Refused(at, _)) => *at,
                Err(ApplyError::Journal(_)) => 0,
            };
            daemon.checks.heard(&changes[..accepted], &daemon.options.paths);
            daemon.events.tell_all(events.into_iter().take(accepted).flatten());
            follow(daemon, &changes).await;
            answer_of(applied)
        }
        Request::Become { changes, in_order, only_plan, by } => {
            become_this(daemon, &changes, (in_order, only_plan, by)).await
        }
        Request::Configure { text, in_order, only_plan, by } => {
            configure_this(daemon, &text, (in_order, only_plan, by)).await
        }
        Request::Reload => planned(configure::reload(daemon, "reload").await),
        Request::Difference(text) => planned(configure::since_file(daemon, text)),
        Request::Rollback { number, only_plan } => {
            planned(configure::rollback(daemon, number, only_plan).await)
        }
        Request::Say(service, server, word) => say_of(daemon, (service, server), word),
        Request::Agent { service, server, agent } => {
            planned(configure::set_agent(daemon, service, server, agent).await)
        }
        Request::Alter { what, only_plan, by } => {
            planned(configure::alter(daemon, &what, only_plan, by).await)
        }
        Request::Standings => Answer::Standings(
            daemon.checks.keeper.borrow().standings(daemon.engine.borrow().model(), Instant::now()),
        ),
        Request::Saved => Answer::Text(site::stated(daemon).to_toml()),
        Request::History => daemon.site.borrow().revisions.list().map_or_else(failed, Answer::History),
        Request::Model => Answer::Model(Box::new(site::stated(daemon).model)),
        Request::Overview => Answer::Overview(Box::new(status::overview(daemon).await)),
        Request::Services(only) => Answer::Services(daemon.engine.borrow().services(only.as_ref())),
        Request::Timeouts => Answer::Timeouts(daemon.engine.borrow().model().timeouts()),
        Request::Info => {
            let engine = daemon.engine.borrow();
            let daemons = engine.model().daemons().to_vec();
            Answer::Info(Info { table_size: engine.tables().sizes.conns, daemons })
        }
        Request::Check => Answer::Check(check(daemon).await),
        Request::Explain(question) => match explain::explain(daemon, &question).await {
            Ok(explanation) => Answer::Explanation(Box::new(explanation)),
            Err(why) => Answer::Failed(why),
        },
        Request::Connections | Request::Watch { .. } | Request::Trace(_) => {
            Answer::Failed("it is answered by a stream".to_owned())
        }
    }
}

fn answer_of(applied: Result<(), ApplyError>) -> Answer {
    match applied {
        Ok(()) => Answer::Done,
        Err(ApplyError::Refused(at, why)) => Answer::Refused(at, why),
        Err(why @ ApplyError::Journal(_)) => Answer::Failed(why.to_string()),
    }
}

/// Becomes what these changes make of nothing.
async fn become_this(
    daemon: &Daemon,
    changes: &[Change],
    (in_order, only_plan, by): (bool, bool, String),
) -> Answer {
    let stated = site::stated(daemon);
    let model = match wanted::desired(changes, &stated.model) {
        Ok(model) => model,
        Err((at, why)) => return Answer::Refused(at, why),
    };
    let config = Config { model, ..stated }.pruned();
    planned(configure::fulfil(daemon, Wish { config, in_order, only_plan, by }).await)
}

/// An operator's word about a server that is stated.
fn say_of(daemon: &Daemon, server: ServerId, word: OperatorWord) -> Answer {
    let stated = site::stated(daemon).model;
    if stated.service(&server.0).is_none_or(|service| service.server(&server.1).is_none()) {
        return Answer::Failed("there is no such server (any more)".to_owned());
    }
    daemon.checks.operator_said(server, word, &daemon.options.paths);
    Answer::Done
}

fn planned(outcome: anyhow::Result<Vec<String>>) -> Answer {
    outcome.map_or_else(failed, Answer::Plan)
}

fn failed(why: anyhow::Error) -> Answer {
    Answer::Failed(format!("{why:#}"))
}

async fn configure_this(
    daemon: &Daemon,
    text: &str,
    (in_order, only_plan, by): (bool, bool, String),
) -> Answer {
    match Config::read(text) {
        Ok(config) => planned(configure::fulfil(daemon, Wish { config, in_order, only_plan, by }).await),
        Err(mistakes) => Answer::Failed(mistakes.in_file(&by)),
    }
}

/// What a change set asks for besides the tables.
pub async fn follow(daemon: &Daemon, changes: &[Change]) {
    seek(daemon, changes).await;
    if changes.iter().any(|change| matches!(change, Change::Tune(..))) {
        upkeep::raise_defences(daemon);
    }
    let removes = |change: &Change| {
        matches!(change, Change::DeleteServer(..) | Change::DeleteService(_) | Change::Flush)
    };
    let expires = daemon.engine.borrow().model().tunables().is_on(Tunable::ExpireNodestConn);
    if expires && changes.iter().any(removes) {
        upkeep::expire_nodest(daemon).await;
    }
}

/// Has the next hops looked for of servers that were added or changed.
async fn seek(daemon: &Daemon, changes: &[Change]) {
    let wanted = {
        let engine = daemon.engine.borrow();
        let destination = |change: &Change| match change {
            Change::AddServer(key, spec) | Change::EditServer(key, spec) => {
                engine.destination(key, &spec.key)
            }
            _ => None,
        };
        changes.iter().filter_map(destination).collect()
    };
    daemon.hops.want_also(wanted).await;
}

/// So many connections are taken from the table before they are written out.
const CONNECTIONS_AT_ONCE: u32 = 4096;

async fn connections<W: AsyncWriteExt + Unpin>(daemon: &Daemon, out: &mut W) -> io::Result<()> {
    each_connection(daemon, async |some| {
        for view in some {
            say(out, &Answer::Connection(view)).await?;
        }
        Ok(())
    })
    .await?;
    say(out, &Answer::Done).await
}

/// Hands the connections over some at a time, so that five million of them do not lie in memory at once; an error ends it.
pub async fn each_connection(
    daemon: &Daemon,
    mut take: impl AsyncFnMut(Vec<ConnView>) -> io::Result<()>,
) -> io::Result<()> {
    let now = daemon.xdp.borrow().now().map_err(io::Error::other)?;
    let tables = std::sync::Arc::clone(daemon.engine.borrow().tables());
    let slots = tables.slots();
    for first in (0..slots).step_by(CONNECTIONS_AT_ONCE as usize) {
        let mut found = Vec::new();
        conns::each_in(&tables, now, first..slots.min(first + CONNECTIONS_AT_ONCE), |view| found.push(view));
        take(found).await?;
    }
    Ok(())
}

/// Tells the last so many events.
async fn past<W: AsyncWriteExt + Unpin>(daemon: &Daemon, last: u64, out: &mut W) -> io::Result<()> {
    let found = {
        let ring = daemon.events.ring();
        ring.read(&mut ring.cursor(last), usize::MAX)
    };
    for event in found.events {
        say(out, &Answer::Event(event)).await?;
    }
    say(out, &Answer::Done).await
}

/// Packets that were traced and wait for the reader; beyond them the programs' ring fills.
const PACKETS_AT_ONCE: usize = 64;

/// Events that are copied from the ring before they are written out.
const EVENTS_AT_ONCE: usize = 256;

/// Streams events until the reader hangs up. While a slow one takes its time, the ring goes on without it.
async fn watch<R: AsyncBufRead + Unpin, W: AsyncWriteExt + Unpin>(
    daemon: &Daemon,
    last: u64,
    lines: &mut Lines<R>,
    out: &mut W,
) -> io::Result<()> {
    let mut cursor = daemon.events.ring().cursor(last);
    loop {
        let found = daemon.events.ring().read(&mut cursor, EVENTS_AT_ONCE);
        if found.missed != 0 {
            say(out, &Answer::Missed(found.missed)).await?;
        }
        if !found.events.is_empty() {
            for event in found.events {
                say(out, &Answer::Event(event)).await?;
            }
            out.flush().await?;
            continue;
        }
        tokio::select! {
            () = daemon.events.another() => {}
            // Whoever watches says nothing more.
            _ = lines.next_line() => return Ok(()),
        }
    }
}

/// Streams what becomes of packets until there has been enough or the reader hangs up.
async fn traced<R: AsyncBufRead + Unpin, W: AsyncWriteExt + Unpin>(
    daemon: &Daemon,
    wanted: Wanted,
    lines: &mut Lines<R>,
    out: &mut W,
) -> io::Result<()> {
    let (to, told) = mpsc::channel(PACKETS_AT_ONCE);
    let hand_on = async move {
        // Dropped when this ends, by which the other knows that nobody reads any more.
        let mut told = told;
        loop {
            tokio::select! {
                answer = told.recv() => match answer {
                    Some(answer) => {
                        say(out, &answer).await?;
                        out.flush().await?;
                    }
                    None => return Ok(()),
                },
                // Whoever watches says nothing more.
                _ = lines.next_line() => return Ok(()),
            }
        }
    };
    tokio::join!(trace::trace(daemon, wanted, to), hand_on).1
}

/// Counters and table move while packets flow: what differs is looked at again, and only what differs in the same way is
/// told.
async fn check(daemon: &Daemon) -> Vec<String> {
    let tables = std::sync::Arc::clone(daemon.engine.borrow().tables());
    let mut differing = conns::discrepancies(&tables);
    for _ in 0..20 {
        if differing.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        let again = conns::discrepancies(&tables);
        differing.retain(|d| again.iter().any(|a| a.server == d.server && difference(a) == difference(d)));
    }
    differing.iter().map(sentence).collect()
}

fn difference(d: &Discrepancy) -> [u32; 3] {
    [
        d.counted.active.wrapping_sub(d.found.active),
        d.counted.total.wrapping_sub(d.found.total),
        d.counted.persistent.wrapping_sub(d.found.persistent),
    ]
}

fn sentence(d: &Discrepancy) -> String {
    format!(
        "server {}: counted {} active, {} in all, {} persistent; the table holds {}, {}, {}",
        d.server,
        d.counted.active,
        d.counted.total,
        d.counted.persistent,
        d.found.active,
        d.found.total,
        d.found.persistent
    )
}
