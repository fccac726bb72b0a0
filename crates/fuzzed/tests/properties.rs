//! The fuzz targets as property tests: any bytes, and the corpus, as it is and spoilt a little. So they run on a stable compiler,
//! everywhere, within seconds.

use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use xlvs_fuzzed::{TARGETS, Target};

/// What was found for a target.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display()));
    entries.map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a file")).collect()
}

fn run(target: Target, bytes: impl Strategy<Value = Vec<u8>>, cases: u32) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let ran = TestRunner::new(config).run(&bytes, |bytes| {
        target(&bytes);
        Ok(())
    });
    ran.unwrap_or_else(|why| panic!("{why}"));
}

/// One of these with some bytes changed, and perhaps cut.
fn spoilt(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    (prop::sample::select(corpus), changes, any::<Option<prop::sample::Index>>()).prop_map(
        |(mut bytes, changes, cut)| {
            bytes.push(0);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()) + 1);
            }
            bytes
        },
    )
}

macro_rules! properties {
    ($($name:ident)*) => {$(
        mod $name {
            use super::*;

            fn target() -> Target {
                xlvs_fuzzed::target(stringify!($name))
            }

            #[test]
            fn what_was_found_holds() {
                let corpus = corpus(stringify!($name));
                assert!(!corpus.is_empty(), "there is a corpus");
                corpus.iter().for_each(|bytes| target()(bytes));
            }

            #[test]
            fn what_was_found_holds_spoilt_as_well() {
                run(target(), spoilt(corpus(stringify!($name))), 2000);
            }

            #[test]
            fn any_bytes_hold() {
                run(target(), prop::collection::vec(any::<u8>(), 0..400), 1000);
            }
        }

    )*

        #[test]
        fn every_target_is_a_property() {
            assert_eq!(TARGETS.map(|(name, _)| name), [$(stringify!($name)),*]);
        }
    };
}

properties! { parse icmp fragments tunnels whole }
