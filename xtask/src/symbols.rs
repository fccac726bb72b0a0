//! Guard: no path to a panic in an eBPF object. In the kernel there is nothing to unwind to, so a
//! panic would be an endless loop that the verifier may or may not notice.

use std::path::Path;

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSymbol};

/// Parts of the names that a path to a panic leaves behind.
const PANICS: [&str; 7] = [
    "panic",
    "unwrap_failed",
    "expect_failed",
    "slice_index",
    "slice_start_index",
    "slice_end_index",
    "bounds_check",
];

/// Fails when the object has such a symbol, and names it.
pub fn refuse_panics(object: &Path) -> Result<()> {
    let bytes = std::fs::read(object).with_context(|| format!("read {}", object.display()))?;
    let file =
        object::File::parse(&*bytes).with_context(|| format!("{} is no ELF object", object.display()))?;
    let names = file.symbols().filter_map(|symbol| symbol.name().ok().map(str::to_owned));
    if let Some(name) = names.into_iter().find(|name| can_panic(name)) {
        bail!(
            "{} can panic: it has the symbol {name}; find the index, slice or unwrap behind it",
            object.display()
        );
    }
    Ok(())
}

fn can_panic(symbol: &str) -> bool {
    PANICS.iter().any(|part| symbol.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_panic_paths_are_refused() {
        assert!(can_panic("_ZN4core9panicking18panic_bounds_check17h0123456789abcdefE"));
        assert!(can_panic("_RNvNtCs_4core6option13unwrap_failed"));
        assert!(!can_panic("xlvs_ingress"));
    }
}
