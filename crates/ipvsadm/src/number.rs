//! Numbers as C's `strtol` reads them, since operators' scripts rely on what it lets through.

/// A whole decimal number between `least` and `most`: leading blanks and a sign are let through, nothing may follow.
pub(crate) fn whole(text: &[u8], least: i64, most: i64) -> Option<i64> {
    let (value, rest) = leading(text)?;
    (rest.is_empty() && (least..=most).contains(&value)).then_some(value)
}

/// The number at the start of a text, 0 when there is none, as `atoi` has it.
pub(crate) fn at_start(text: &[u8]) -> i64 {
    leading(text).map_or(0, |(value, _)| value)
}

/// Blanks in C.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn leading(text: &[u8]) -> Option<(i64, &[u8])> {
    let blanks = text.iter().take_while(|&&byte| is_space(byte)).count();
    let (negative, text) = match &text[blanks..] {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let magnitude = text[..digits]
        .iter()
        .fold(0_i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some((if negative { -magnitude } else { magnitude }, &text[digits..]))
}
