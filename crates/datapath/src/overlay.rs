//! A record array that can be written without being changed: each record is copied when it is first looked at.

use std::cell::OnceCell;

use xlvs_core::cell::Cell64;
use xlvs_core::conn::{Bucket, Memory};

use crate::tables::Region;

/// Records whose copies are kept together.
const PAGE: usize = 1024;
/// A record that changes so often while it is copied is taken as it is.
const LOOKS: usize = 16;

type Page<T> = Vec<OnceCell<Region<T>>>;
type Pages<T> = Vec<OnceCell<Page<T>>>;

/// See the module. Lives for one packet, on one thread.
pub struct Overlay<'t, T: 'static> {
    live: &'t [T],
    /// Made for the first record: of most tables none is looked at, and a large one has many pages.
    pages: OnceCell<Pages<T>>,
}

impl<'t, T> Overlay<'t, T> {
    /// Nothing is copied yet.
    pub fn over(live: &'t [T]) -> Self {
        Self { live, pages: OnceCell::new() }
    }

    /// The copy of a record.
    pub fn get(&self, index: usize) -> Option<&T> {
        let live = self.live.get(index)?;
        let pages = self.pages.get_or_init(|| nothing_yet(self.live.len().div_ceil(PAGE)));
        let copies = pages.get(index / PAGE)?.get_or_init(|| nothing_yet(PAGE));
        copies.get(index % PAGE)?.get_or_init(|| copy_of(live)).first()
    }
}

/// So many places in which nothing is.
fn nothing_yet<T>(places: usize) -> Vec<OnceCell<T>> {
    std::iter::repeat_with(OnceCell::new).take(places).collect()
}

impl<const K: usize> Memory<K> for Overlay<'_, Bucket<K>> {
    fn buckets(&self) -> u32 {
        self.live.len() as u32
    }

    fn bucket(&self, index: u32) -> Option<&Bucket<K>> {
        self.get(index as usize)
    }
}

/// A copy in which no half of a change is seen: packets may be writing the record meanwhile.
fn copy_of<T>(live: &T) -> Region<T> {
    let copy = Region::<T>::zeroed(1);
    let (from, to) = (words(live), words(&copy[0]));
    for _ in 0..LOOKS {
        from.iter().zip(to).for_each(|(from, to)| to.store(from.load()));
        if from.iter().zip(to).all(|(from, to)| from.load() == to.load()) {
            break;
        }
    }
    copy
}

/// A record as the words that it consists of.
fn words<T>(record: &T) -> &[Cell64] {
    const {
        assert!(align_of::<T>() >= align_of::<Cell64>() && size_of::<T>().is_multiple_of(size_of::<Cell64>()))
    };
    let len = size_of::<T>() / size_of::<Cell64>();
    // SAFETY: records in `Region`s consist of cells only, any bits of which are valid and which may be read and written
    // through shared references; size and alignment were checked above; the borrow lasts as long as the record's.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast::<Cell64>(), len) }
}

#[cfg(test)]
mod tests {
    use xlvs_core::service::Service;

    use super::*;

    #[test]
    fn what_is_written_to_a_copy_stays_there() {
        let live = Region::<Service>::zeroed(3 * PAGE);
        live[PAGE + 1].cursor.store(7);
        let overlay = Overlay::over(&live);
        let copy = overlay.get(PAGE + 1).expect("it is there");
        assert_eq!(copy.cursor.load(), 7);
        copy.cursor.store(8);
        assert_eq!(overlay.get(PAGE + 1).map(|copy| copy.cursor.load()), Some(8));
        assert_eq!(live[PAGE + 1].cursor.load(), 7);
        assert!(overlay.get(3 * PAGE).is_none());
    }
}
