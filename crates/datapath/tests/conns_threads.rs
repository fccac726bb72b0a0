//! Several processors at once, with whole packets: no count goes astray, and no connection that is used is lost.

mod clients;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use clients::{ACK, FIN_ACK, RST, SYN, frame, furnish};
use xlvs_core::director;
use xlvs_core::packet::Frame;
use xlvs_core::verdict::{DropReason, Verdict};
use xlvs_datapath::conns;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::host::HostEnv;
use xlvs_datapath::sweep::Sweeper;
use xlvs_datapath::tables::{Sizes, Tables};
use xlvs_model::{Change, Timeouts};

/// The clock begins here.
const START: u32 = 1000;

fn send(env: &HostEnv<'_>, frame: &[u8]) -> Verdict {
    let mut buffer = vec![0; Frame::HEADROOM];
    buffer.extend(frame);
    director::balance(&mut Frame::new(&mut buffer, Frame::HEADROOM), env)
}

/// Sends as a client does: again, when the packet was lost. A thread may be put aside by the host while it inserts an entry,
/// which no program in the kernel is; another that has the same packet finds it half made for too long.
fn send_until_sent(env: &HostEnv<'_>, frame: &[u8]) {
    loop {
        match send(env, frame) {
            Verdict::Redirect { .. } => return,
            Verdict::Drop(DropReason::Contended) => thread::yield_now(),
            verdict => panic!("{verdict:?}"),
        }
    }
}

fn site(sizes: Sizes) -> (Arc<Tables>, Engine) {
    let tables = Arc::new(Tables::on_heap(sizes, 42));
    let mut engine = Engine::new(Arc::clone(&tables));
    furnish(&mut engine);
    (tables, engine)
}

fn conns_scheduled(tables: &Tables) -> u64 {
    tables.stats.iter().map(|stats| stats.conns.load()).sum()
}

#[test]
fn a_million_connections_come_and_go_and_nothing_is_left() {
    const THREADS: u32 = 4;
    const EACH: u32 = 250_000;
    let (tables, engine) = site(Sizes::for_site(1_600_000, 16, 64, THREADS));
    thread::scope(|scope| {
        for cpu in 0..THREADS {
            let tables = &tables;
            scope.spawn(move || {
                let env = HostEnv::new(tables, cpu as usize);
                env.set_now(START);
                for i in 0..EACH {
                    // Two threads share their clients, so they meet in the same entries.
                    let client = 0x0b00_0000 + (cpu / 2) * EACH * 2 + i * 2 + (cpu & 1);
                    let shared = client & !1;
                    let port = if i % 5 == 0 { 81 } else { 80 };
                    for flags in [SYN, ACK, FIN_ACK, RST] {
                        let client = if i % 7 == 0 { shared } else { client };
                        send_until_sent(&env, &frame(client, port, Some(flags)));
                    }
                }
            });
        }
    });
    assert!(conns_scheduled(&tables) >= u64::from(THREADS * EACH * 6 / 7));
    assert_eq!(conns::discrepancies(&tables), []);
    let env = HostEnv::new(&tables, 0);
    // Templates that controlled connections live on for a minute.
    for seconds in [200, 400] {
        env.set_now(START + seconds * 4);
        Sweeper::default().slice(&tables, xlvs_core::env::Env::now(&env), usize::MAX / 2, &env);
    }
    assert_eq!(conns::discrepancies(&tables), []);
    for service in engine.services(None) {
        for server in service.servers {
            assert_eq!((server.active, server.inactive, server.persistent), (0, 0, 0));
        }
    }
    let is_empty = |slot| tables.word(slot).is_none_or(|(word, _)| !word.is_live());
    assert!((0..tables.slots()).all(is_empty));
}

#[test]
fn ten_million_packets_at_the_last_moment_lose_no_connection() {
    const THREADS: usize = 2;
    const CLIENTS: u32 = 1000;
    const ROUNDS: u32 = 10_000;
    let (tables, mut engine) = site(Sizes::for_site(4000, 16, 64, THREADS as u32));
    // A second is four ticks: a packet that comes with the fourth comes at the last moment.
    engine.apply(&[Change::SetTimeouts(Timeouts { tcp: 0, tcp_fin: 0, udp: 1 })]).expect("a timeout");
    let (clock, done) = (AtomicU32::new(START), AtomicBool::new(false));
    let (together, touched) = (Barrier::new(THREADS), AtomicU32::new(0));
    let frames: Vec<_> = (0..CLIENTS).map(|client| frame(0x0b00_0000 + client, 53, None)).collect();
    thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let env = HostEnv::new(&tables, 0);
            let mut removed = 0;
            while !done.load(Ordering::SeqCst) {
                env.set_now(clock.load(Ordering::SeqCst));
                let now = xlvs_core::env::Env::now(&env);
                removed += Sweeper::default().slice(&tables, now, usize::MAX / 2, &env).removed;
            }
            removed
        });
        let threads: Vec<_> = (0..THREADS)
            .map(|cpu| {
                let (tables, clock, together, touched, frames) =
                    (&tables, &clock, &together, &touched, &frames);
                scope.spawn(move || {
                    let env = HostEnv::new(tables, cpu);
                    for round in 0..ROUNDS {
                        if together.wait().is_leader() && round > 0 {
                            clock.fetch_add(4, Ordering::SeqCst);
                        }
                        together.wait();
                        env.set_now(clock.load(Ordering::SeqCst));
                        for frame in frames.iter().skip(cpu).step_by(THREADS) {
                            let verdict = send(&env, frame);
                            assert!(matches!(verdict, Verdict::Redirect { .. }), "{verdict:?}");
                            touched.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no packet was lost"));
        done.store(true, Ordering::SeqCst);
        assert_eq!(sweeper.join().expect("the sweeper ends"), 0, "connections that were in use were removed");
    });
    assert_eq!(touched.load(Ordering::SeqCst), CLIENTS * ROUNDS);
    assert_eq!(conns_scheduled(&tables), u64::from(CLIENTS), "each connection was scheduled once");
    assert_eq!(conns::discrepancies(&tables), []);
}
