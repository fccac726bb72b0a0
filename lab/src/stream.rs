//! The bytes of a download: the same for everybody who asks for that many, and known to both sides.

/// A stream of bytes that never repeats a block, so that a lost, doubled or swapped segment shows.
pub(crate) struct Stream {
    state: u64,
    left: u64,
}

impl Stream {
    /// The first `length` bytes of it.
    pub(crate) fn new(length: u64) -> Stream {
        Stream { state: 0x9e37_79b9_7f4a_7c15, left: length }
    }

    /// Fills as much of the buffer as there is left to say.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let length = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for word in buffer[..length].chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
        self.left -= length as u64;
        length
    }

    // xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators").
    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// Digest of what has been seen: order and value of every byte count (FNV-1a, taken by words).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Digest {
    sum: u64,
    length: u64,
    pending: Vec<u8>,
}

impl Digest {
    pub(crate) fn new() -> Digest {
        Digest { sum: 0xcbf2_9ce4_8422_2325, length: 0, pending: Vec::new() }
    }

    /// Takes in more bytes; how they are cut into pieces does not matter.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        self.pending.extend_from_slice(bytes);
        let whole = self.pending.len() / 8 * 8;
        for word in self.pending[..whole].chunks_exact(8) {
            let value = word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
            self.sum = (self.sum ^ value).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.pending.drain(..whole);
    }

    /// How many bytes there were.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The digest that a download of `length` bytes must have.
    pub(crate) fn of_stream(length: u64) -> Digest {
        let (mut stream, mut digest, mut buffer) = (Stream::new(length), Digest::new(), vec![0; 1 << 16]);
        loop {
            match stream.fill(&mut buffer) {
                0 => return digest,
                filled => digest.update(&buffer[..filled]),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_does_not_depend_on_how_the_bytes_are_cut() {
        let mut bytes = vec![0; 1003];
        assert_eq!(Stream::new(1003).fill(&mut bytes), 1003);
        let mut digest = Digest::new();
        bytes.chunks(7).for_each(|piece| digest.update(piece));
        assert_eq!(digest, Digest::of_stream(1003));
    }

    #[test]
    fn digest_sees_a_swapped_pair_of_segments_and_a_missing_end() {
        let mut bytes = vec![0; 4096];
        Stream::new(4096).fill(&mut bytes);
        let (mut swapped, mut short) = (Digest::new(), Digest::new());
        swapped.update(&bytes[1448..2896]);
        swapped.update(&bytes[..1448]);
        swapped.update(&bytes[2896..]);
        short.update(&bytes[..4095]);
        assert_ne!(swapped, Digest::of_stream(4096));
        assert_ne!(short, Digest::of_stream(4096));
    }
}
