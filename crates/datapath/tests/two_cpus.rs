//! A million connections through the loaded programs, from two processors at once, while the sweeper runs. Needs root and the
//! eBPF object.

mod bpffs;
mod clients;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bpffs::BpfFs;
use clients::{ACK, FIN_ACK, RST, SYN, frame, furnish};
use xlvs_datapath::conns;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::evict;
use xlvs_datapath::sweep::Sweeper;
use xlvs_datapath::tables::{Sizes, Tables};
use xlvs_datapath::xdp::{Pins, Xdp};
use xlvs_model::Change;

fn run_on(cpu: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(cpu).expect("a processor's number");
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).expect("the processor is ours to use");
}

/// Connections of each processor. Every second one is of both.
const EACH: u32 = 500_000;

/// Sends connections' packets, each connection's in an order of its own.
fn send_all(xdp: &Xdp, cpu: usize) {
    run_on(cpu);
    for i in 0..EACH {
        let client = 0x0b00_0000 + if i % 2 == 0 { i } else { i + EACH * (1 + cpu as u32) };
        let port = if i % 5 == 0 { 81 } else { 80 };
        let mut flags = [SYN, ACK, FIN_ACK, RST];
        // The first that opens the connection decides what those before it were good for.
        flags.rotate_left((i as usize + cpu) / 8 % 4);
        for flags in flags {
            let (action, _) = xdp.try_packet(&frame(client, port, Some(flags))).expect("the packet runs");
            assert!((1..=4).contains(&action), "the program returned {action}");
        }
    }
}

fn live(tables: &Tables) -> usize {
    (0..tables.slots()).filter(|slot| tables.word(*slot).is_some_and(|(word, _)| word.is_live())).count()
}

#[test]
fn a_million_connections_from_two_processors_leave_nothing_behind() {
    let fs = BpfFs::new("two");
    let cpus = thread::available_parallelism().map_or(1, |n| n.get()) as u32;
    let sizes = Sizes::for_site(1_200_000, 16, 64, cpus);
    let xdp = Xdp::load(Pins::on(&fs.0).expect("a BPF file system"), sizes, 42).expect("the programs load");
    let tables = Arc::clone(xdp.tables());
    let mut engine = Engine::new(Arc::clone(&tables));
    furnish(&mut engine);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (xdp, tables, done) = (&xdp, &tables, &done);
        let sweeper = scope.spawn(move || {
            let mut sweeper = Sweeper::default();
            while !done.load(Ordering::SeqCst) {
                let now = xdp.now().expect("the clock runs");
                sweeper.slice(tables, now, 16_384, xdp);
            }
        });
        let senders = [0, 1.min(cpus as usize - 1)].map(|cpu| scope.spawn(move || send_all(xdp, cpu)));
        senders.into_iter().for_each(|sender| sender.join().expect("all was sent"));
        done.store(true, Ordering::SeqCst);
        sweeper.join().expect("the sweeper ends");
    });
    let scheduled: u64 = tables.stats.iter().map(|stats| stats.conns.load()).sum();
    assert!(scheduled >= u64::from(EACH) * 3 / 2, "{scheduled} connections were scheduled");
    assert_eq!(conns::discrepancies(&tables), []);
    // Their servers go, and so do they: without waiting for their time.
    engine.apply(&[Change::Flush]).expect("no services");
    evict::drop_of_removed_servers(&tables, 0..tables.slots(), &xdp);
    assert_eq!(live(&tables), 0);
    for block in tables.blocks.iter() {
        for lane in 0..16 {
            let counts = [&block.active, &block.total, &block.persistent].map(|counts| counts[lane].load());
            assert_eq!(counts, [0, 0, 0]);
        }
    }
}
