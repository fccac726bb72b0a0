//! What must hold for any bytes at all.
//!
//! Each function of [`TARGETS`] takes any bytes, makes packets and tables of them, and panics when something does not hold. The
//! directory `fuzz` has cargo-fuzz find bytes for them, and the property tests of this crate give them random ones, and the
//! ones that were found, spoilt a little.

mod fragments;
mod icmp;
mod input;
mod look;
mod packets;
mod parse;
mod site;
mod tunnels;
mod whole;

/// A target: takes any bytes, panics when something does not hold.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 5] = [
    ("parse", parse::parse),
    ("icmp", icmp::icmp),
    ("fragments", fragments::fragments),
    ("tunnels", tunnels::tunnels),
    ("whole", whole::whole),
];

/// The target of this name.
///
/// # Panics
/// When there is none.
pub fn target(name: &str) -> Target {
    let found = TARGETS.iter().find(|(target, _)| *target == name);
    found.unwrap_or_else(|| panic!("there is no target {name}")).1
}
