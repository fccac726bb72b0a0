//! Host against kernel: every scheduler chooses the same from the same pool, of 1 to 1,024 servers. Needs root and the
//! eBPF object.

mod bpffs;
mod pool;

use std::sync::Arc;

use aya::programs::{TestRun, TestRunOptions, Xdp as Program};
use aya::{Ebpf, EbpfLoader};
use bpffs::BpfFs;
use pool::Pool;
use xlvs_core::sched::Scheduler;
use xlvs_core::service::flag;
use xlvs_datapath::objects;
use xlvs_datapath::tables::Tables;
use xlvs_datapath::xdp::{Pins, Xdp};

/// The director's maps, and the program that asks a scheduler.
struct Kernel {
    xdp: Xdp,
    asking: Ebpf,
    _fs: BpfFs,
}

impl Kernel {
    fn load() -> Self {
        let fs = BpfFs::new("sched");
        let sizes = Pool::sizes();
        let xdp =
            Xdp::load(Pins::on(&fs.0).expect("a BPF file system"), sizes, 7).expect("the director loads");
        let mut asking = EbpfLoader::new()
            .default_map_pin_directory(fs.0.join("xlvs/maps"))
            .override_global("AFFINITY_BUCKETS", &sizes.affinity, true)
            .load(objects::DIRECTOR)
            .expect("the object opens");
        let program: &mut Program = asking.program_mut("xlvs_pick").expect("it is there").try_into().unwrap();
        program.load().expect("the program loads");
        Self { xdp, asking, _fs: fs }
    }

    fn tables(&self) -> &Arc<Tables> {
        self.xdp.tables()
    }

    fn pick(&self, client: [u8; 4], port: u16, dest: [u8; 4]) -> Option<u32> {
        let numbers = [0, u32::from_be_bytes(client), u32::from_be_bytes(dest), u32::from(port)];
        let mut data: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        data.resize(64, 0);
        let program: &Program = self.asking.program("xlvs_pick").expect("it is there").try_into().unwrap();
        let options = TestRunOptions { data_in: Some(&data), ..TestRunOptions::new() };
        let server = program.test_run(options).expect("the program runs").return_value;
        (server != u32::MAX).then_some(server)
    }
}

#[test]
fn host_and_kernel_choose_alike() {
    let kernel = Kernel::load();
    let mut seed = 1u32;
    for scheduler in Scheduler::ALL.into_iter().filter(|s| *s != Scheduler::Twos) {
        for servers in [1, 2, 3, 7, 15, 16, 17, 40, 64, 129, 256, 700, 1024] {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            compare(&kernel, scheduler, servers, seed);
        }
    }
}

fn compare(kernel: &Kernel, scheduler: Scheduler, servers: usize, seed: u32) {
    let mut host = Pool::new(scheduler);
    let mut twin = Pool::over(Arc::clone(kernel.tables()), scheduler);
    let random = |i: u32| (i.wrapping_add(1).wrapping_mul(seed | 1)).wrapping_mul(2_654_435_761) >> 8;
    for pool in [&mut host, &mut twin] {
        for i in 0..servers as u32 {
            let id = pool.add([10, 1, (i >> 8) as u8, i as u8], 80, random(i) % 9);
            pool.set_load(id, random(i + 5000) % 70, 70 + random(i + 9000) % 50);
            pool.set_overload(id, random(i + 13000) % 11 == 0);
        }
        pool.set_flags(if seed & 1 == 0 { flag::FALLBACK | flag::PORT } else { 0 });
    }
    for n in 0..48 {
        let (client, port) = ([192, 0, 2, n], 1000 + u16::from(n));
        let dest = [198, 51, 100, n % 6];
        let due = host.pick_for(client, port, dest);
        assert_eq!(
            kernel.pick(client, port, dest),
            due,
            "{scheduler:?}, {servers} servers, seed {seed}, packet {n}"
        );
        if let Some(id) = due {
            [&host, &twin].iter().for_each(|pool| pool.bind(id, n % 3 != 0));
        }
    }
}
