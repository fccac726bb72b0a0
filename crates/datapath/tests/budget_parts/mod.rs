//! What the functions of an eBPF object take of the stack, read from their instructions.

use std::collections::BTreeMap;

use object::{Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SymbolKind};

/// Bytes of an instruction.
const LEN: u64 = 8;
/// Register 10 points to the end of a function's frame.
const FRAME: u8 = 10;
/// The kernel gives each function of a chain a multiple of so many bytes (`check_max_stack_depth` of Linux 6.1; with the JIT, later ones
/// give multiples of 16).
const STEP: u64 = 32;

/// A function and what it may call, callbacks included.
#[derive(Default)]
struct Function {
    frame: u64,
    instructions: u64,
    calls: Vec<String>,
}

/// All functions of an object.
pub struct Functions(BTreeMap<String, Function>);

impl Functions {
    /// Reads them.
    pub fn of(elf: &[u8]) -> Self {
        let file = object::File::parse(elf).expect("an ELF object");
        let mut functions = BTreeMap::new();
        for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
            let Some(section) = symbol.section_index() else { continue };
            let name = symbol.name().expect("a function has a name").to_owned();
            functions.insert(name, read(&file, section, symbol.address(), symbol.size()));
        }
        Self(functions)
    }

    /// Instructions of this function and of all that it may call, each counted once.
    pub fn instructions(&self, name: &str) -> u64 {
        let mut seen = vec![name];
        let mut next = 0;
        while let Some(name) = seen.get(next).copied() {
            next += 1;
            for callee in self.0.get(name).into_iter().flat_map(|function| &function.calls) {
                if !seen.contains(&callee.as_str()) {
                    seen.push(callee);
                }
            }
        }
        seen.iter().filter_map(|name| self.0.get(*name)).map(|function| function.instructions).sum()
    }

    /// The deepest chain of calls from this function on, and what each function takes of the stack's 512 bytes, as the kernel
    /// reckons it.
    pub fn deepest(&self, name: &str) -> Vec<(String, u64)> {
        let Some(function) = self.0.get(name) else { return Vec::new() };
        let own = (name.to_owned(), function.frame.max(1).next_multiple_of(STEP));
        let behind =
            function.calls.iter().map(|callee| self.deepest(callee)).max_by_key(|chain| stack(chain));
        std::iter::once(own).chain(behind.unwrap_or_default()).collect()
    }
}

/// What a chain takes in all.
pub fn stack(chain: &[(String, u64)]) -> u64 {
    chain.iter().map(|(_, frame)| frame).sum()
}

fn read(file: &object::File<'_>, section: SectionIndex, address: u64, size: u64) -> Function {
    let section = file.section_by_index(section).expect("the section is there");
    let code = section.data().expect("its bytes");
    let begin = address - section.address();
    let relocations: BTreeMap<u64, RelocationTarget> =
        section.relocations().map(|(offset, relocation)| (offset, relocation.target())).collect();
    let mut function = Function { instructions: size / LEN, ..Function::default() };
    let mut pointer_to_frame = None;
    for at in (begin..begin + size).step_by(LEN as usize) {
        let instruction: [u8; 8] = code[at as usize..(at + LEN) as usize].try_into().expect("eight bytes");
        let [opcode, registers, ..] = instruction;
        let (to, from) = (registers & 0xf, registers >> 4);
        let offset = i16::from_le_bytes([instruction[2], instruction[3]]);
        let number = i32::from_le_bytes([instruction[4], instruction[5], instruction[6], instruction[7]]);
        let depth = match opcode & 7 {
            // Loads, and stores of a number or a register.
            1 if from == FRAME => -i64::from(offset),
            2 | 3 if to == FRAME => -i64::from(offset),
            // An address within the frame: a copy of register 10, and a number added to it.
            7 if opcode == 0x07 && pointer_to_frame == Some(to) => -i64::from(number),
            _ => 0,
        };
        pointer_to_frame = (opcode == 0xbf && from == FRAME).then_some(to);
        function.frame = function.frame.max(depth.max(0) as u64);
        let is_call = opcode == 0x85 && from == 1;
        let is_pointer_to_code = opcode == 0x18;
        if is_call || is_pointer_to_code {
            let target = match relocations.get(&at) {
                Some(RelocationTarget::Symbol(symbol)) => {
                    let symbol = file.symbol_by_index(*symbol).expect("the symbol is there");
                    let addend =
                        if is_call { (i64::from(number) + 1) * LEN as i64 } else { i64::from(number) };
                    match (symbol.kind(), symbol.section_index()) {
                        (SymbolKind::Text, _) => symbol.name().ok().map(str::to_owned),
                        (SymbolKind::Section, Some(index)) => named(file, index, addend as u64),
                        _ => None,
                    }
                }
                _ if is_call => {
                    named(file, section.index(), (at as i64 + (i64::from(number) + 1) * LEN as i64) as u64)
                }
                _ => None,
            };
            function.calls.extend(target);
        }
    }
    function
}

/// The function that begins there.
fn named(file: &object::File<'_>, section: SectionIndex, address: u64) -> Option<String> {
    let begins_there = |symbol: &object::Symbol<'_, '_>| {
        symbol.kind() == SymbolKind::Text
            && symbol.section_index() == Some(section)
            && symbol.address() == address
    };
    file.symbols().find(begins_there)?.name().ok().map(str::to_owned)
}
