//! What the weights of a list have in common.

/// The greatest common divisor of those weights that are not 0; 0 when all are.
pub fn common_divisor(weights: impl Iterator<Item = u32>) -> u32 {
    weights.fold(0, |divisor, weight| {
        let (mut a, mut b) = (divisor, weight);
        while b != 0 {
            (a, b) = (b, a.checked_rem(b).unwrap_or(0));
        }
        a
    })
}
