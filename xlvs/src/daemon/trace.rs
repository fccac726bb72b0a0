//! Tracing: while somebody watches, the edition of the programs that tells is in the place of the other, and what it tells of
//! each packet is put together here and into words.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use nix::time::{ClockId, clock_gettime};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, sleep_until};
use xlvs_core::conn::Word;
use xlvs_core::director::Stage;
use xlvs_core::family::slot_of;
use xlvs_core::trace::{Note, RecordView};
use xlvs_core::verdict::{PassReason, Verdict};
use xlvs_datapath::conns;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::trace::Tracer;
use xlvs_datapath::xdp::Ring;
use xlvs_model::view::ConnView;

use super::Daemon;
use super::explain::{REWRITTEN, drop_because, interface, pass, place_of, service_of};
use crate::explain::Fate;
use crate::protocol::Answer;
use crate::sketch;
use crate::trace::{Step, Traced, Wanted};

/// Records that are read before others have their turn.
const AT_ONCE: usize = 256;

/// Tells of packets until nobody reads any more or there has been enough. The other edition is back in its place then.
pub async fn trace(daemon: &Daemon, wanted: Wanted, to: Sender<Answer>) {
    let answer = if daemon.tracing.replace(true) {
        Answer::Failed("packets are being traced already; one trace at a time: end the other".to_owned())
    } else {
        let told = tell(daemon, wanted, &to).await;
        end(daemon);
        told.map_or_else(
            |why| Answer::Failed(format!("packets cannot be traced: {why:#}")),
            |()| Answer::Done,
        )
    };
    // Nobody may be there to hear it.
    let _gone = to.send(answer).await;
}

async fn tell(daemon: &Daemon, wanted: Wanted, to: &Sender<Answer>) -> anyhow::Result<()> {
    let (mut tracer, ring) = load(daemon, wanted).await?;
    daemon.xdp.borrow().begin_trace(&mut tracer)?;
    tracing::info!(clients = %wanted.clients, "packets are traced");
    Telling::new(daemon, wanted, ring).run(&tracer, to).await
}

/// Puts the other edition back, if packets are being traced.
pub fn end(daemon: &Daemon) {
    if !daemon.tracing.replace(false) {
        return;
    }
    match daemon.xdp.borrow_mut().end_trace() {
        Ok(()) => tracing::info!("packets are not traced any more"),
        Err(why) => tracing::error!(
            %why,
            "programs that trace stay on an interface; they forward all the same, more slowly; a restart of the daemon ends that"
        ),
    }
}

/// The verifier takes its time, during which the daemon has other things to do.
async fn load(daemon: &Daemon, wanted: Wanted) -> anyhow::Result<(Tracer, AsyncFd<Ring>)> {
    let (pins, sizes, hook) = {
        let xdp = daemon.xdp.borrow();
        (xdp.pins().clone(), xdp.tables().sizes, xdp.hook())
    };
    let Wanted { clients, every, .. } = wanted;
    let mut tracer =
        tokio::task::spawn_blocking(move || Tracer::load(&pins, &sizes, hook, clients, every)).await??;
    let ring = tracer.take_ring().context("the object has no ring")?;
    // SAFETY: the ring owns its descriptor, which stays open and the same for as long as the ring lives.
    let ring = unsafe { AsyncFd::register(ring) }?;
    Ok((tracer, ring))
}

/// A trace under way.
struct Telling<'d> {
    daemon: &'d Daemon,
    ring: AsyncFd<Ring>,
    /// By processor, what has come in and not left.
    under_way: HashMap<u32, UnderWay>,
    /// From the beginning of 1970 to that of the monotonic clock.
    epoch: Duration,
    /// So many more packets; none: all.
    left: Option<u64>,
    until: Option<Instant>,
    lost: u64,
}

/// A packet that has come in.
struct UnderWay {
    number: u64,
    time: u64,
    traced: Traced,
}

impl<'d> Telling<'d> {
    fn new(daemon: &'d Daemon, wanted: Wanted, ring: AsyncFd<Ring>) -> Self {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        Self {
            daemon,
            ring,
            under_way: HashMap::new(),
            epoch: since_1970.saturating_sub(monotonic),
            left: wanted.count,
            until: wanted.limit.and_then(|limit| Instant::now().checked_add(limit)),
            lost: 0,
        }
    }

    async fn run(mut self, tracer: &Tracer, to: &Sender<Answer>) -> anyhow::Result<()> {
        to.send(Answer::Tracing).await?;
        while self.left != Some(0) {
            let until = self.until.unwrap_or_else(Instant::now);
            tokio::select! {
                found = self.next() => {
                    for traced in found? {
                        to.send(Answer::Traced(Box::new(traced))).await?;
                    }
                    let lost = tracer.lost();
                    if lost != self.lost {
                        to.send(Answer::Missed(lost - self.lost)).await?;
                        self.lost = lost;
                    }
                }
                () = sleep_until(until), if self.until.is_some() => break,
                () = to.closed() => break,
            }
        }
        Ok(())
    }

    /// Waits for what is told, and returns the packets whose fate is known now.
    async fn next(&mut self) -> io::Result<Vec<Traced>> {
        let mut ready = self.ring.readable_mut().await?;
        let engine = self.daemon.engine.borrow();
        let mut words = Words { engine: &engine, epoch: self.epoch, under_way: &mut self.under_way };
        let mut told = Vec::new();
        let mut read = 0;
        while read < AT_ONCE
            && self.left != Some(0)
            && let Some(record) = ready.get_inner_mut().next()
        {
            read += 1;
            let traced = RecordView::from_bytes(&record).and_then(|record| words.hear(&record));
            if let Some(traced) = traced {
                told.push(traced);
                self.left = self.left.map(|left| left - 1);
            }
        }
        if read < AT_ONCE {
            ready.clear_ready();
        }
        Ok(told)
    }
}

/// Records become words.
struct Words<'a> {
    engine: &'a Engine,
    epoch: Duration,
    under_way: &'a mut HashMap<u32, UnderWay>,
}

impl Words<'_> {
    /// Takes a record in. The packet, if this was its last. Of a packet of which the beginning was lost, the rest is nothing.
    fn hear(&mut self, record: &RecordView) -> Option<Traced> {
        if record.note == Note::Arrived {
            self.under_way.insert(record.cpu, self.arrived(record));
            return None;
        }
        let is_same = self.under_way.get(&record.cpu).is_some_and(|packet| packet.number == record.packet);
        if !is_same {
            return None;
        }
        if let Note::Fate(verdict) = record.note {
            let UnderWay { time, traced, .. } = self.under_way.remove(&record.cpu)?;
            return Some(left(traced, verdict, record, time));
        }
        let step = self.step(record.note, record.word);
        self.under_way.get_mut(&record.cpu)?.traced.steps.extend(step);
        None
    }

    fn arrived(&self, record: &RecordView) -> UnderWay {
        let time = self.epoch + Duration::from_nanos(record.time);
        let traced = Traced {
            time_ms: time.as_millis() as u64,
            cpu: record.cpu,
            interface: interface(record.ifindex),
            packet: sketch::frame(record.frame, record.len),
            steps: Vec::new(),
            fate: Fate::Drop,
            reason: None,
            sentence: String::new(),
            leaves: None,
            took_ns: 0,
        };
        UnderWay { number: record.packet, time: record.time, traced }
    }

    fn step(&self, note: Note, word: Word) -> Option<Step> {
        Some(match note {
            Note::Arrived | Note::Fate(_) => return None,
            Note::Stage(stage) => Step::Stage { name: name_of(stage).to_owned() },
            Note::Connection(slot) => Step::Connection { connection: self.connection(slot, word) },
            Note::NoConnection => Step::NoConnection,
            Note::Ended => Step::Ended,
            Note::Service(id) => Step::Service { service: service_of(self.engine, id) },
            Note::Template => Step::Persistence,
            Note::Scheduled(id) => {
                Step::Scheduled { server: place_of(self.engine, id).map(|(_, server)| server) }
            }
            Note::NobodyScheduled => Step::NobodyScheduled,
            Note::Opened(slot) => Step::Opened { connection: self.connection(slot, word) },
            Note::Again => Step::Again,
        })
    }

    fn connection(&self, slot: u32, word: Word) -> Option<ConnView> {
        let tables = self.engine.tables();
        let (is_v6, slot) = slot_of(slot);
        conns::as_it_was(tables, tables.slot_of(is_v6, slot), word)
    }
}

fn left(traced: Traced, verdict: Verdict, record: &RecordView, came: u64) -> Traced {
    let (fate, reason, sentence) = match verdict {
        Verdict::Pass(reason) => pass(reason, "passed to the director's own stack"),
        Verdict::Local { .. } => pass(PassReason::Local, REWRITTEN),
        Verdict::Drop(reason) => drop_because(reason),
        Verdict::Transmit { ifindex } | Verdict::Redirect { ifindex } => {
            (Fate::Forward, None, format!("sent by {}", interface(ifindex)))
        }
        Verdict::Answer { ifindex } => (Fate::Answer, None, format!("answered by {}", interface(ifindex))),
        Verdict::Cut { ifindex } => {
            let sentence = format!("to the daemon, which cuts it and sends it by {}", interface(ifindex));
            (Fate::Forward, None, sentence)
        }
        Verdict::PutTogether { .. } => {
            (Fate::Forward, None, "a fragment: to the daemon, which puts the packet together".to_owned())
        }
    };
    let stays = matches!(verdict, Verdict::Pass(_) | Verdict::Drop(_) | Verdict::PutTogether { .. });
    let leaves = (!stays).then(|| sketch::frame(record.frame, record.len));
    let took_ns = record.time.saturating_sub(came);
    Traced { fate, reason: reason.map(str::to_owned), sentence, leaves, took_ns, ..traced }
}

/// At what a stage looks.
fn name_of(stage: Stage) -> &'static str {
    match stage {
        Stage::ReplyV4 | Stage::ReplyV6 => "packets from inside",
        Stage::RequestV4 | Stage::RequestV6 => "packets to virtual services",
        Stage::KnownV6 => "IPv6",
        Stage::RelatedV4 | Stage::RelatedV6 => "ICMP about connections",
        Stage::HearsayV4 | Stage::HearsayV6 => "ICMP about connections that have no entry",
        Stage::Fragments => "fragments",
        Stage::Unusual => "frames with VLAN tags or of several buffers",
    }
}
