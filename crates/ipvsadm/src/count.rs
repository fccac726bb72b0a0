//! Counters, as the columns of listings show them.

/// How large numbers are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counts {
    /// In thousands, millions, billions and trillions, cut off.
    Short,
    /// As they are, in columns that grow with them.
    Exact,
}

/// A counter with the blanks before it.
pub(crate) fn column(value: u64, counts: Counts) -> String {
    match (counts, value) {
        (Counts::Exact, 100_000_000..) => format!(" {value}"),
        (Counts::Exact, _) | (_, ..100_000_000) => format!("{value:>9}"),
        (_, ..1_000_000_000) => format!("{:>8}K", value / 1_000),
        (_, ..100_000_000_000) => format!("{:>8}M", value / 1_000_000),
        (_, ..100_000_000_000_000) => format!("{:>8}G", value / 1_000_000_000),
        (_, _) => format!("{:>8}T", value / 1_000_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, column};

    #[test]
    fn a_column_is_nine_wide_and_cut_off_at_three_digits_more() {
        let shown = [0, 99_999_999, 100_000_000, 999_999_999, 1_000_000_000, 99_999_999_999, 100_000_000_000];
        let texts =
            ["        0", " 99999999", "  100000K", "  999999K", "    1000M", "   99999M", "     100G"];
        assert_eq!(shown.map(|value| column(value, Counts::Short)), texts);
        assert_eq!(column(99_999_999_999_999, Counts::Short), "   99999G");
        assert_eq!(column(123_456_789_012_345_678, Counts::Short), "  123456T");
    }

    #[test]
    fn an_exact_column_grows() {
        assert_eq!(column(99_999_999, Counts::Exact), " 99999999");
        assert_eq!(column(100_000_000, Counts::Exact), " 100000000");
    }
}
