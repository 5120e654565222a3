//! Long lists in pages.

/// One page of a list.
#[derive(Clone, Debug)]
pub(super) struct Paged<T> {
    pub(super) items: Vec<T>,
    /// How many there are on all pages.
    pub(super) all: usize,
    /// Which page this is, counted from 1.
    pub(super) page: usize,
    pub(super) pages: usize,
}

impl<T> Paged<T> {
    /// The page `page` of `items`, the last where there are fewer.
    pub(super) fn of(mut items: Vec<T>, a_page: usize, page: usize) -> Self {
        let all = items.len();
        let pages = all.div_ceil(a_page).max(1);
        let page = page.clamp(1, pages);
        let items = items.drain((page - 1) * a_page..all.min(page * a_page)).collect();
        Self { items, all, page, pages }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_on_one_page() {
        for (count, pages) in [(0, 1), (1, 1), (3, 1), (4, 2), (6, 2), (7, 3)] {
            let all: Vec<usize> = (0..count).collect();
            let seen: Vec<usize> =
                (1..=pages).flat_map(|page| Paged::of(all.clone(), 3, page).items).collect();
            assert_eq!((seen, Paged::of(all.clone(), 3, 1).pages), (all.clone(), pages));
            let last = Paged::of(all, 3, usize::MAX);
            assert_eq!(last.page, pages);
        }
    }
}
