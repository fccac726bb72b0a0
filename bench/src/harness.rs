//! Runs programs in the kernel, again and again, on prepared frames.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData, ProgramArray};
use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramFd, ProgramInfo, TestRun, TestRunAttrs, TestRunOptions, Xdp as XdpProgram};
use aya::{Ebpf, EbpfLoader};
use xlvs_datapath::mapping::Mapping;
use xlvs_lab::Netns;

use crate::frames::{LONG, SHORT};
use crate::site::{VIPS, port};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("XLVS_BENCH_OBJECT_FOUND"));

/// The programs of the harness that do one thing.
pub const PRIMITIVES: [(&str, &str); 3] = [
    ("hash hit, 16-byte key", "hash_hit"),
    ("coarse clock", "coarse_clock"),
    ("adjust_head, there and back", "adjust_head_twice"),
];

/// The program that does nothing but call what a balancer over the kernel's own maps must call.
pub const FLOOR: &str = "only_helpers";

/// The loaded harness.
pub struct Harness {
    ebpf: Ebpf,
    /// Of programs that take frames of several buffers, and of such that do not.
    under_test: [ProgramArray<MapData>; 2],
    course: Array<MapData, [u32; 4]>,
    /// Room for frames of 64 and of 128 bytes.
    rooms: [Mapping; 2],
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Run {
    /// Nanoseconds a packet, the harness's own among them.
    pub ns: u64,
    /// The last packet's XDP action.
    pub action: u32,
    /// The last packet as it was.
    pub before: Vec<u8>,
    /// The last packet as it became.
    pub after: Vec<u8>,
}

impl Harness {
    /// Loads it, with room for that many frames of each length, and twice as many flows as short frames.
    pub fn load(short: u32, long: u32) -> Result<Self> {
        ensure!(
            !OBJECT.is_empty(),
            "this binary was built without the harness's object; run `cargo xtask bench`"
        );
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("FRAMES_64", short)
            .map_max_entries("FRAMES_128", long)
            .map_max_entries("FLOWS", short * 2)
            .load(OBJECT)
            .context("load the harness")?;
        for name in [
            "front_64",
            "front_128",
            "front_64_plain",
            "front_128_plain",
            "nothing",
            "generate",
            "swallow",
            FLOOR,
        ]
        .into_iter()
        .chain(PRIMITIVES.map(|(_, name)| name))
        {
            program_mut(&mut ebpf, name)?.load().with_context(|| format!("load the harness's {name}"))?;
        }
        let rooms = [
            room(&ebpf, "FRAMES_64", short as usize * SHORT)?,
            room(&ebpf, "FRAMES_128", long as usize * LONG)?,
        ];
        let mut array =
            |name| anyhow::Ok(ProgramArray::try_from(ebpf.take_map(name).context("the harness's array")?)?);
        let under_test = [array("UNDER_TEST")?, array("UNDER_TEST_PLAIN")?];
        let course = Array::try_from(ebpf.take_map("COURSE").context("the harness's course")?)?;
        fill_hash(&mut ebpf)?;
        fill_vips(&mut ebpf)?;
        Ok(Self { ebpf, under_test, course, rooms })
    }

    /// The frames of this length, to be written.
    pub fn frames(&mut self, length: usize) -> &mut [u8] {
        let room = &mut self.rooms[usize::from(length == LONG)];
        // SAFETY: the mapping is that long, belongs to this value, and no program runs while it is borrowed: running takes
        // the value mutably too.
        unsafe { std::slice::from_raw_parts_mut(room.start().as_ptr(), room.size()) }
    }

    /// Runs a program `repeat` times on the first `count` of the frames of this length, in turn.
    pub fn run(&mut self, program: &ProgramFd, length: usize, count: u32, repeat: u32) -> Result<Run> {
        self.run_beside(0, program, length, count, repeat)
    }

    /// The same with a number written beside, which [`FLOOR`] takes for a part of each flow.
    pub fn run_beside(
        &mut self,
        beside: u32,
        program: &ProgramFd,
        length: usize,
        count: u32,
        repeat: u32,
    ) -> Result<Run> {
        let [of_several, of_one] = &mut self.under_test;
        let is_plain = of_several.set(0, program, 0).is_err();
        if is_plain {
            of_one.set(0, program, 0).context("put the program behind the harness; is it one of XDP?")?;
        }
        self.course.set(0, [0, count, length as u32, beside], 0)?;
        let at = |frames: &[u8], number: u32| frames[number as usize * length..][..length].to_vec();
        let frames = self.frames(length);
        let (first, before) = (at(frames, 0), at(frames, (repeat - 1) % count));
        let front = match (length == LONG, is_plain) {
            (false, false) => "front_64",
            (true, false) => "front_128",
            (false, true) => "front_64_plain",
            (true, true) => "front_128_plain",
        };
        let front = program_ref(&self.ebpf, front)?;
        let mut after = vec![0; length + 256];
        let options = TestRunOptions {
            data_in: Some(&first),
            data_out: Some(&mut after),
            repeat,
            ..TestRunOptions::new()
        };
        let result = front.test_run(options).context("run the harness")?;
        let (ns, action) = (result.duration.as_nanos() as u64, result.return_value);
        after.truncate(result.data_size_out as usize);
        Ok(Run { ns, action, before, after })
    }

    /// Sends `count` packets, the first `frames` of the short frames in turn, out of a device of this namespace, as a network
    /// card would hand them over at its other end.
    pub fn generate(&mut self, frames: u32, count: u32, ifindex: u32) -> Result<()> {
        self.course.set(0, [0, frames, SHORT as u32, ifindex], 0)?;
        let first = self.frames(SHORT)[..SHORT].to_vec();
        let options = TestRunOptions {
            data_in: Some(&first),
            repeat: count,
            attrs: TestRunAttrs::new().xdp_live_frames(64),
            ..TestRunOptions::new()
        };
        program_ref(&self.ebpf, "generate")?.test_run(options).context("run the generator")?;
        Ok(())
    }

    /// Frames that the sink has swallowed so far, and the beginning of one of the last.
    pub fn swallowed(&self) -> Result<(u64, [u8; SHORT])> {
        let map = Array::<_, [u64; 9]>::try_from(self.ebpf.map("SWALLOWED").context("the sink's map")?)?;
        let [count, frame @ ..] = map.get(&0, 0)?;
        let mut bytes = [0; SHORT];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(frame) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Ok((count, bytes))
    }

    /// Attaches one of the harness's programs to a device, as long as that exists.
    pub fn attach(&mut self, name: &str, netns: &Netns, device: &str) -> Result<()> {
        let program = program_mut(&mut self.ebpf, name)?;
        let attached = netns.run(|| program.attach(device, XdpMode::Driver));
        attached.map(drop).with_context(|| format!("attach {name} to {device} in {}", netns.name()))
    }

    /// One of the harness's own programs.
    pub fn own(&self, name: &str) -> Result<ProgramFd> {
        Ok(program_ref(&self.ebpf, name)?.fd()?.try_clone()?)
    }
}

/// A program that somebody pinned.
pub fn pinned(path: &Path) -> Result<ProgramFd> {
    let program = ProgramInfo::from_pin(path);
    let program = program.with_context(|| format!("{}: no pinned program", path.display()))?;
    Ok(program.fd()?)
}

fn room(ebpf: &Ebpf, name: &str, bytes: usize) -> Result<Mapping> {
    use std::os::fd::AsFd;
    let Some(Map::Array(data)) = ebpf.map(name) else { bail!("the harness has no map {name}") };
    Mapping::of(data.fd().as_fd(), bytes).with_context(|| format!("map {name}"))
}

fn fill_hash(ebpf: &mut Ebpf) -> Result<()> {
    let mut hash: HashMap<_, [u64; 2], u64> =
        HashMap::try_from(ebpf.map_mut("HASH").context("the harness's hash")?)?;
    for length in 0..4096 {
        hash.insert([length, 0], length, 0)?;
    }
    Ok(())
}

/// The services of [`FLOOR`]: those of the rows for rivals.
fn fill_vips(ebpf: &mut Ebpf) -> Result<()> {
    let mut vips: HashMap<_, [u32; 5], [u32; 4]> =
        HashMap::try_from(ebpf.map_mut("VIPS").context("the harness's VIPs")?)?;
    let IpAddr::V4(vip) = VIPS[0] else { bail!("the first VIP is of IPv4") };
    for protocol in [6, 17] {
        let port = u32::from(port::TUNNEL.to_be());
        vips.insert([u32::from_ne_bytes(vip.octets()), 0, 0, 0, port | protocol << 16], [0; 4], 0)?;
    }
    Ok(())
}

fn program_ref<'e>(ebpf: &'e Ebpf, name: &str) -> Result<&'e XdpProgram> {
    Ok(<&XdpProgram>::try_from(ebpf.program(name).with_context(|| format!("the harness has no {name}"))?)?)
}

fn program_mut<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut XdpProgram> {
    Ok(<&mut XdpProgram>::try_from(
        ebpf.program_mut(name).with_context(|| format!("the harness has no {name}"))?,
    )?)
}
