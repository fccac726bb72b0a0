//! The editions of the programs that tell of packets, before the verifier: they need more of what it grants than the others. Needs root
//! and the eBPF objects. That what they tell is true is asked of real traffic.

mod bpffs;

use bpffs::BpfFs;
use xlvs_datapath::kernel::runs_at_tc;
use xlvs_datapath::tables::Sizes;
use xlvs_datapath::trace::Tracer;
use xlvs_datapath::xdp::{Pins, Xdp};
use xlvs_model::config::Hook;

/// Loads both editions of a hook over the same tables.
fn load(hook: Hook, name: &str) {
    let fs = BpfFs::new(name);
    let sizes = Sizes::for_site(256, 16, 64, 2);
    let pins = Pins::on(&fs.0).expect("a BPF file system");
    let mut xdp = Xdp::load(pins, sizes, 42).expect("the programs load");
    if hook == Hook::Tc {
        xdp.load_for_tc().expect("the programs of the tc hook load");
    }
    let clients = "10.0.0.0/8".parse().expect("a prefix");
    let mut tracer = Tracer::load(xdp.pins(), &sizes, hook, clients, 1).expect("the telling edition loads");
    assert!(tracer.take_ring().is_some());
    assert_eq!(tracer.lost(), 0);
}

#[test]
fn the_telling_edition_loads_beside_the_other() {
    load(Hook::Xdp, "traced");
}

#[test]
fn so_does_that_of_the_tc_hook() {
    match runs_at_tc() {
        Ok(()) => load(Hook::Tc, "traced-tc"),
        Err(why) => println!("left out: {why}"),
    }
}
