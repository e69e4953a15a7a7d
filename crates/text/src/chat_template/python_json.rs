//! JSON written byte for byte as Python's `json.dumps(ensure_ascii=False)` writes it.
//!
//! The models have seen that spelling, spaces after commas and colons included.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// `value` as JSON; `indent` as Python's, spaces per level.
pub(super) fn to_string(
    value: &impl Serialize,
    indent: Option<usize>,
) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    let style = PythonStyle {
        indent,
        depth: 0,
        is_empty: true,
    };
    value.serialize(&mut Serializer::with_formatter(&mut bytes, style))?;
    Ok(String::from_utf8(bytes).expect("serde_json writes UTF-8"))
}

struct PythonStyle {
    indent: Option<usize>,
    depth: usize,
    /// Whether the innermost open bracket has nothing in it yet: Python closes it on the same line.
    is_empty: bool,
}

impl PythonStyle {
    fn open(&mut self, writer: &mut (impl ?Sized + Write), bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.is_empty = true;
        writer.write_all(bracket)
    }

    fn close(&mut self, writer: &mut (impl ?Sized + Write), bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if !self.is_empty {
            self.new_line(writer)?;
        }
        self.is_empty = false;
        writer.write_all(bracket)
    }

    fn separate(&mut self, writer: &mut (impl ?Sized + Write), first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(if self.indent.is_some() { b"," } else { b", " })?;
        }
        self.is_empty = false;
        self.new_line(writer)
    }

    fn new_line(&self, writer: &mut (impl ?Sized + Write)) -> io::Result<()> {
        match self.indent {
            Some(width) => write!(writer, "\n{:1$}", "", width * self.depth),
            None => Ok(()),
        }
    }
}

impl Formatter for PythonStyle {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.separate(w, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        self.separate(w, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn write_f64<W: ?Sized + Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        let shortest = format!("{value:?}");
        match shortest.split_once('e') {
            // Python writes 1e-05 where Rust writes 1e-5, and 1e+16 where Rust writes 1e16.
            Some((mantissa, exponent)) => {
                let (sign, digits) = match exponent.strip_prefix('-') {
                    Some(digits) => ('-', digits),
                    None => ('+', exponent),
                };
                write!(writer, "{mantissa}e{sign}{digits:0>2}")
            }
            None => writer.write_all(shortest.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spaces_and_characters_are_as_python_writes_them() {
        let value = json!({"a": [1, 2.0, "é<&>'", null], "b": {}, "c": []});
        let expected = r#"{"a": [1, 2.0, "é<&>'", null], "b": {}, "c": []}"#;
        assert_eq!(to_string(&value, None).unwrap(), expected);
    }

    #[test]
    fn indentation_is_as_python_writes_it() {
        let value = json!({"a": [1, {}], "b": []});
        let expected = "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}";
        assert_eq!(to_string(&value, Some(2)).unwrap(), expected);
    }

    #[test]
    fn exponents_are_as_python_writes_them() {
        let value = json!([1e-5, 1e16, 0.0001, -2.5e-7]);
        assert_eq!(
            to_string(&value, None).unwrap(),
            "[1e-05, 1e+16, 0.0001, -2.5e-07]"
        );
    }
}
