//! What each program costs before a packet has come: instructions, stack, and what the verifier had to look at. `ebpf/budget.txt`
//! keeps the figures, so that a change of them is seen in the diff; `cargo xtask budget` writes it anew.
//!
//! Needs root and the eBPF object. Compilers and kernels differ a little, so a test only fails when a program has
//! outgrown its figures by a tenth, or the stack.

mod bpffs;
mod budget_parts;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bpffs::BpfFs;
use budget_parts::{Functions, stack};
use xlvs_datapath::objects;
use xlvs_datapath::tables::Sizes;
use xlvs_datapath::xdp::{Pins, Xdp};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ebpf/budget.txt");
const STACK: u64 = 512;

#[derive(Clone, Copy, Debug)]
struct Cost {
    instructions: u64,
    stack: u64,
    verified: u64,
}

fn costs() -> BTreeMap<String, Cost> {
    let fs = BpfFs::new("budget");
    let sizes = Sizes::for_site(1000, 16, 64, 2);
    let xdp = Xdp::load(Pins::on(&fs.0).expect("a BPF file system"), sizes, 42).expect("the programs load");
    let functions = Functions::of(objects::DIRECTOR);
    let programs = xdp.verified().expect("the kernel tells of its programs");
    let cost = |name: &str, verified| Cost {
        instructions: functions.instructions(name),
        stack: stack(&functions.deepest(name)),
        verified: u64::from(verified),
    };
    programs.into_iter().map(|(name, verified)| (name.to_owned(), cost(name, verified))).collect()
}

fn table(costs: &BTreeMap<String, Cost>) -> String {
    let mut text = String::from(
        "# What each program costs: its instructions with all that it calls, the stack of its deepest chain of calls (of 512\n\
         # bytes), and the instructions that the verifier looked at (of 1,000,000). Made by `cargo xtask budget`.\n\
         # program          instructions  stack  verified\n",
    );
    for (name, cost) in costs {
        let Cost { instructions, stack, verified } = cost;
        writeln!(text, "{name:<18} {instructions:>13} {stack:>6} {verified:>9}").expect("text takes text");
    }
    text
}

fn kept() -> BTreeMap<String, Cost> {
    let text =
        std::fs::read_to_string(FILE).expect("ebpf/budget.txt is there: `cargo xtask budget` makes it");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let cost = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |i: usize| words[i].parse().unwrap_or_else(|_| panic!("ebpf/budget.txt: {line}"));
        (words[0].to_owned(), Cost { instructions: number(1), stack: number(2), verified: number(3) })
    };
    lines.map(cost).collect()
}

#[test]
fn no_program_takes_more_of_the_stack_than_the_oldest_kernel_has() {
    for object in [objects::DIRECTOR, objects::TRACED] {
        let functions = Functions::of(object);
        for name in kept().into_keys() {
            let chain = functions.deepest(&name);
            assert!(stack(&chain) <= STACK, "{name} takes {} bytes: {chain:#?}", stack(&chain));
        }
    }
}

/// It asks for a later kernel, which rounds less up; so this leaves some room.
#[test]
fn the_program_at_egress_takes_no_more_of_the_stack_than_there_is() {
    let chain = Functions::of(objects::TC).deepest("xlvs_outgoing");
    assert!(stack(&chain) <= STACK, "it takes {} bytes: {chain:#?}", stack(&chain));
    assert!(chain.len() > 2, "it calls others: {chain:#?}");
}

#[test]
fn no_program_outgrows_its_budget() {
    let costs = costs();
    print!("{}", table(&costs));
    if std::env::var_os("XLVS_WRITE_BUDGET").is_some() {
        std::fs::write(FILE, table(&costs)).expect("write ebpf/budget.txt");
    }
    let kept = kept();
    let names = |costs: &BTreeMap<String, Cost>| costs.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&costs), names(&kept), "other programs than in ebpf/budget.txt: `cargo xtask budget`");
    for (name, cost) in &costs {
        let before = kept[name];
        for (what, now, before) in [
            ("instructions", cost.instructions, before.instructions),
            ("verified instructions", cost.verified, before.verified),
        ] {
            assert!(
                now <= before + before / 10,
                "{name} has {now} {what}, {before} before: make it smaller, or `cargo xtask budget` and say why"
            );
        }
    }
}
