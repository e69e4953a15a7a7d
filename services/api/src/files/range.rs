//! The `Range` header, as far as a download needs it: one range of bytes.

use std::ops::Range;

/// What a client wants of `size_bytes` bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Everything: no range, or one that we may ignore (RFC 9110 allows that for what is not understood).
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that are not there.
    Outside,
}

/// Reads the header's value.
pub(super) fn wanted(header: Option<&str>, size_bytes: u64) -> Wanted {
    let Some((first, last)) = header
        .and_then(|value| value.strip_prefix("bytes="))
        .and_then(|r| r.split_once('-'))
    else {
        return Wanted::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1)),
        (Some(first), None) if last.trim().is_empty() => (first, size_bytes),
        // The last so many bytes.
        (None, Some(count)) if first.trim().is_empty() => {
            (size_bytes.saturating_sub(count), size_bytes)
        }
        _ => return Wanted::Whole,
    };
    let end = end.min(size_bytes);
    if start < end {
        Wanted::Part(start..end)
    } else {
        Wanted::Outside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_understood_and_the_rest_is_ignored() {
        for (header, expected) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-5", Wanted::Part(2..6)),
            ("bytes=7-", Wanted::Part(7..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-99", Wanted::Part(0..10)),
            ("bytes=5-999", Wanted::Part(5..10)),
            ("bytes=0-18446744073709551615", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Outside),
            ("bytes=-0", Wanted::Outside),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
        ] {
            assert_eq!(wanted(Some(header), 10), expected, "{header}");
        }
        assert_eq!(wanted(None, 10), Wanted::Whole);
    }
}
