//! The key-value part of a GGUF header: typed lookups with errors that name the key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::LoadError;

/// A metadata value. Integers and floats of all widths are widened; arrays that nothing here asks
/// for are skipped while reading.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Integer(i64),
    Float(f64),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    Integers(Vec<i64>),
    /// An array of another kind, or an integer beyond `i64`.
    Skipped,
}

/// All metadata of one file.
#[derive(Debug)]
pub(super) struct Metadata {
    path: PathBuf,
    values: BTreeMap<String, Value>,
}

impl Metadata {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            values: BTreeMap::new(),
        }
    }

    /// Adds a value.
    ///
    /// # Errors
    /// When `key` is there already.
    pub(super) fn insert(&mut self, key: String, value: Value) -> Result<(), LoadError> {
        if self.values.contains_key(&key) {
            return Err(self.corrupt(format!("metadata key `{key}` occurs twice")));
        }
        self.values.insert(key, value);
        Ok(())
    }

    pub(super) fn find_str(&self, key: &str) -> Result<Option<&str>, LoadError> {
        self.find(key, "a string", |value| match value {
            Value::String(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub(super) fn get_str(&self, key: &str) -> Result<&str, LoadError> {
        self.find_str(key)?.ok_or_else(|| self.absent(key))
    }

    pub(super) fn find_usize(&self, key: &str) -> Result<Option<usize>, LoadError> {
        self.find(
            key,
            "a whole number that is not negative",
            |value| match value {
                Value::Integer(number) => usize::try_from(*number).ok(),
                _ => None,
            },
        )
    }

    pub(super) fn get_usize(&self, key: &str) -> Result<usize, LoadError> {
        self.find_usize(key)?.ok_or_else(|| self.absent(key))
    }

    pub(super) fn find_f64(&self, key: &str) -> Result<Option<f64>, LoadError> {
        self.find(key, "a finite number", |value| match value {
            Value::Float(number) if number.is_finite() => Some(*number),
            _ => None,
        })
    }

    pub(super) fn get_f64(&self, key: &str) -> Result<f64, LoadError> {
        self.find_f64(key)?.ok_or_else(|| self.absent(key))
    }

    pub(super) fn find_bool(&self, key: &str) -> Result<Option<bool>, LoadError> {
        self.find(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
    }

    pub(super) fn get_strings(&self, key: &str) -> Result<&[String], LoadError> {
        let found = self.find(key, "a list of strings", |value| match value {
            Value::Strings(list) => Some(list.as_slice()),
            _ => None,
        })?;
        found.ok_or_else(|| self.absent(key))
    }

    pub(super) fn find_integers(&self, key: &str) -> Result<Option<&[i64]>, LoadError> {
        self.find(key, "a list of whole numbers", |value| match value {
            Value::Integers(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    /// The file contradicts itself or what a model needs.
    pub(super) fn corrupt(&self, what: impl Into<String>) -> LoadError {
        LoadError::corrupt(&self.path, what)
    }

    fn absent(&self, key: &str) -> LoadError {
        self.corrupt(format!("metadata key `{key}` is missing"))
    }

    fn find<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        pick: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, LoadError> {
        let Some(value) = self.values.get(key) else {
            return Ok(None);
        };
        match pick(value) {
            Some(picked) => Ok(Some(picked)),
            None => Err(self.corrupt(format!("metadata key `{key}` is not {expected}"))),
        }
    }
}
