//! Between `u64` here and `bigint` there, which has no sign to spare.

use crate::StoreError;

/// For a column.
pub(crate) fn to_bigint(field: &'static str, number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Number { field })
}

/// For a column that may be empty.
pub(crate) fn to_optional_bigint(
    field: &'static str,
    number: Option<u64>,
) -> Result<Option<i64>, StoreError> {
    number.map(|number| to_bigint(field, number)).transpose()
}

/// From a column. Its CHECK keeps it from being negative.
pub(crate) fn from_bigint(what: &'static str, number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|error| StoreError::corrupt(what, error))
}
