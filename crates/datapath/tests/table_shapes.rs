//! How full tables of several shapes get: what the connection table's shape was decided by (`docs/adr/0002`), and what is
//! promised of the one that was chosen.

use xlvs_core::conn::key::{self, Kind};
use xlvs_core::conn::table::{self, Memory, New, Probe, Refused};
use xlvs_core::conn::word::Word;
use xlvs_core::conn::{Bucket, LANES};
use xlvs_datapath::tables::{Buckets, Sizes};

/// Slots of each table.
const SLOTS: usize = 1 << 17;

/// Marsaglia's xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

/// How far a table gets.
#[derive(Debug)]
struct Filling {
    /// Fill at the first refusal, per mille.
    first_refusal: usize,
    /// Keys refused of a thousand that came while the fill went from 80 to 85 %.
    refused_at_85: usize,
}

/// Fills buckets of so many slots, each key having so many candidates; the emptier one takes it.
fn fill(lanes: usize, candidates: usize) -> Filling {
    let mut counts = vec![0usize; SLOTS / lanes];
    let mut random = Random(42);
    let (mut held, mut first_refusal, mut came, mut refused) = (0, None, 0, 0);
    while held < SLOTS * 85 / 100 {
        let picks: Vec<_> = (0..candidates).map(|_| (random.next() >> 16) as usize % counts.len()).collect();
        let emptiest = picks.into_iter().min_by_key(|bucket| counts[*bucket]).unwrap_or(0);
        let fits = counts[emptiest] < lanes;
        if held >= SLOTS * 80 / 100 {
            came += 1;
            refused += usize::from(!fits);
        }
        if fits {
            counts[emptiest] += 1;
            held += 1;
        } else {
            first_refusal.get_or_insert(held * 1000 / SLOTS);
        }
    }
    Filling { first_refusal: first_refusal.unwrap_or(1000), refused_at_85: refused * 1000 / came }
}

#[test]
fn two_buckets_of_eight_get_fullest() {
    let shapes = [(4, 1), (8, 1), (4, 2), (8, 2)].map(|(lanes, candidates)| {
        let filling = fill(lanes, candidates);
        println!("{candidates} x {lanes}: {filling:?}");
        filling
    });
    for pair in shapes.windows(2) {
        assert!(pair[0].first_refusal < pair[1].first_refusal, "{shapes:?}");
        assert!(pair[0].refused_at_85 >= pair[1].refused_at_85, "{shapes:?}");
    }
}

/// With `--max-conns` connections no two full buckets are met.
#[test]
fn a_table_takes_every_key_that_it_is_made_for() {
    const CONNS: u32 = 1_000_000;
    let sizes = Sizes::for_site(CONNS, 1, 1, 1);
    let buckets: Vec<Bucket<2>> = (0..sizes.conns).map(|_| Bucket::default()).collect();
    let memory = Buckets(&buckets);
    for i in 0..CONNS {
        let key = key::v4(i.to_be_bytes(), [0, 80], [10, 0, 0, 100], [0, 80], 6, Kind::Conn);
        let probe = Probe::new(key, 42, memory.buckets());
        let put = table::insert(&memory, &probe, &New { word: Word(0), entry: u64::from(i), link: 0 });
        assert!(put.is_ok(), "key {i} was refused: {:?}", put.err());
    }
}

#[test]
fn a_full_table_refuses_and_leaves_what_it_has() {
    let buckets: Vec<Bucket<2>> = (0..16).map(|_| Bucket::default()).collect();
    let memory = Buckets(&buckets);
    let probe = |i: u32| {
        let key = key::v4(i.to_be_bytes(), [0, 80], [10, 0, 0, 100], [0, 80], 6, Kind::Conn);
        Probe::new(key, 42, memory.buckets())
    };
    let insert =
        |i: u32| table::insert(&memory, &probe(i), &New { word: Word(0), entry: u64::from(i), link: 0 });
    let mut taken = Vec::new();
    for i in 0..10_000 {
        match insert(i) {
            Ok(_) => taken.push(i),
            Err(why) => assert_eq!(why, Refused::Full),
        }
    }
    assert_eq!(taken.len(), 16 * LANES, "every slot is taken in the end");
    for i in &taken {
        let found = table::find(&memory, &probe(*i)).expect("it is still there");
        assert_eq!(found.body.entry.load(), u64::from(*i));
    }
    // One that goes makes room for one that comes to the same place.
    let gone = table::find(&memory, &probe(taken[0])).expect("it is there");
    assert!(table::remove(&gone));
    let newcomer =
        (10_000..).find(|i| probe(*i).candidates().contains(&gone.id.bucket())).expect("there is one");
    assert!(insert(newcomer).is_ok());
}
