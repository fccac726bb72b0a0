//! The eBPF objects in this binary.

/// The director's programs and maps. Empty when the crate was built without the object.
pub static DIRECTOR: &[u8] = aya::include_bytes_aligned!(env!("XLVS_DIRECTOR_OBJECT"));

/// The same, in the edition that tells what becomes of packets.
pub static TRACED: &[u8] = aya::include_bytes_aligned!(env!("XLVS_TELLING_OBJECT"));

/// The director's programs at the tc hook. Empty likewise.
pub static TC: &[u8] = aya::include_bytes_aligned!(env!("XLVS_TC_DIRECTOR_OBJECT"));

/// These in the edition that tells.
pub static TC_TRACED: &[u8] = aya::include_bytes_aligned!(env!("XLVS_TC_TELLING_OBJECT"));
