//! The eBPF objects in this binary.

/// The director's programs and maps. Empty when the crate was built without the object.
pub static DIRECTOR: &[u8] = aya::include_bytes_aligned!(env!("XLVS_DIRECTOR_OBJECT"));

/// The same, in the edition that tells what becomes of packets.
pub static TRACED: &[u8] = aya::include_bytes_aligned!(env!("XLVS_TELLING_OBJECT"));
