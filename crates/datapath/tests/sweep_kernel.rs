//! The sweep through the loaded programs. Needs root and the eBPF object.

mod bpffs;
mod clients;

use std::sync::Arc;

use bpffs::BpfFs;
use clients::{SYN, frame, furnish};
use xlvs_core::conn::word::{Tick, Word};
use xlvs_datapath::conns;
use xlvs_datapath::engine::Engine;
use xlvs_datapath::sweep::{Sweeper, Swept};
use xlvs_datapath::tables::Sizes;
use xlvs_datapath::xdp::{Pins, Xdp};

#[test]
fn one_slice_removes_all_that_has_expired_however_much_it_is() {
    const CONNS: usize = 5000;
    let fs = BpfFs::new("sweep");
    let sizes = Sizes::for_site(10_000, 16, 64, 2);
    let xdp = Xdp::load(Pins::on(&fs.0).expect("a BPF file system"), sizes, 42).expect("the programs load");
    let tables = Arc::clone(xdp.tables());
    let mut engine = Engine::new(Arc::clone(&tables));
    furnish(&mut engine);
    for client in 0..CONNS as u32 {
        xdp.try_packet(&frame(0x0b00_0000 + client, 80, Some(SYN))).expect("the packet runs");
    }
    let now = xdp.now().expect("the clock runs");
    let hour_ago = |cell: &xlvs_core::cell::Cell64| {
        let word = Word(cell.load());
        if word.is_live() {
            cell.store(word.seen_at(Tick::new(now.count().wrapping_sub(3600 * Tick::PER_SECOND))).0);
        }
    };
    tables.conns_v4.iter().flat_map(|bucket| &bucket.words).for_each(hour_ago);
    let swept = Sweeper::default().slice(&tables, now, usize::MAX / 2, &xdp);
    assert_eq!(swept, Swept { live: CONNS, removed: CONNS, finished: true });
    assert_eq!(conns::discrepancies(&tables), []);
}
