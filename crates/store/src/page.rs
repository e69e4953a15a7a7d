//! One page of a list.

use crate::StoreError;

/// Part of a list, and whether there is more of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The elements, in the list's order.
    pub data: Vec<T>,
    /// Whether elements follow after the last one.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// The page of the first `limit` of `rows`, which were read with one more than that: whether it came says exactly
    /// whether there is more.
    pub(crate) fn cut<R>(
        mut rows: Vec<R>,
        limit: u32,
        read: impl FnMut(R) -> Result<T, StoreError>,
    ) -> Result<Self, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        Ok(Self {
            data: rows.into_iter().map(read).collect::<Result<_, _>>()?,
            has_more,
        })
    }

    /// The same page of something made from each element.
    pub fn map<U>(self, make: impl FnMut(T) -> U) -> Page<U> {
        Page {
            data: self.data.into_iter().map(make).collect(),
            has_more: self.has_more,
        }
    }
}

/// What `LIMIT` says for a page of `limit` elements.
pub(crate) fn one_more(limit: u32) -> i64 {
    i64::from(limit) + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_fits_exactly_has_no_more() {
        let cut = |rows: Vec<u8>| Page::cut(rows, 2, Ok).unwrap();
        assert_eq!(
            cut(vec![1, 2]),
            Page {
                data: vec![1, 2],
                has_more: false
            }
        );
        assert_eq!(
            cut(vec![1, 2, 3]),
            Page {
                data: vec![1, 2],
                has_more: true
            }
        );
    }
}
