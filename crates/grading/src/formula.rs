//! `calculate_output`: arithmetic over the rewards of graders.
//!
//! ```text
//! sum      := product (("+" | "-") product)*
//! product  := signed (("*" | "/") signed)*
//! signed   := ("-" | "+") signed | power
//! power    := atom ("**" signed)?
//! atom     := number | name | function "(" sum ("," sum)* ")" | "(" sum ")"
//! ```
//!
//! `**` binds to the right and stronger than a sign before it, as in Python: `-2 ** 2` is -4.

use std::collections::BTreeMap;

/// Characters of a formula.
pub const MAX_CHARS: usize = 2_000;
/// How deep parentheses, signs and powers may stand in each other.
const MAX_DEPTH: usize = 50;

/// A formula that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormulaError {
    /// Longer than anybody needs.
    #[error("the formula is longer than {MAX_CHARS} characters")]
    TooLong,
    /// Nested deeper than anybody needs.
    #[error("the formula is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Something else stands where an operand or operator belongs.
    #[error("the formula has {found} at character {at}, where {wanted} belongs")]
    Unexpected {
        /// What is there.
        found: String,
        /// Where, from 1.
        at: usize,
        /// What should be there.
        wanted: &'static str,
    },
    /// A name that no grader has.
    #[error("the formula names `{0}`, which is neither a grader nor a function")]
    UnknownName(String),
    /// A function with too few or too many arguments.
    #[error("`{0}` does not take {1} arguments")]
    Arguments(&'static str, usize),
}

/// A formula, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula(Node);

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Number(f64),
    Name(String),
    Negated(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    Call(Function, Vec<Node>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Power,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Min,
    Max,
    Abs,
    Floor,
    Ceil,
    Exp,
    Sqrt,
    Log,
}

impl Function {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "min" => Self::Min,
            "max" => Self::Max,
            "abs" => Self::Abs,
            "floor" => Self::Floor,
            "ceil" => Self::Ceil,
            "exp" => Self::Exp,
            "sqrt" => Self::Sqrt,
            "log" => Self::Log,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Max => "max",
            Self::Abs => "abs",
            Self::Floor => "floor",
            Self::Ceil => "ceil",
            Self::Exp => "exp",
            Self::Sqrt => "sqrt",
            Self::Log => "log",
        }
    }

    fn takes(self, n_arguments: usize) -> bool {
        match self {
            Self::Min | Self::Max => n_arguments >= 1,
            _ => n_arguments == 1,
        }
    }

    fn of_values(self, values: &[f64]) -> f64 {
        let first = values[0];
        match self {
            // Not `f64::min`, which would lose a NaN.
            Self::Min => values
                .iter()
                .copied()
                .fold(first, |a, b| if b < a || b.is_nan() { b } else { a }),
            Self::Max => values
                .iter()
                .copied()
                .fold(first, |a, b| if b > a || b.is_nan() { b } else { a }),
            Self::Abs => first.abs(),
            Self::Floor => first.floor(),
            Self::Ceil => first.ceil(),
            Self::Exp => first.exp(),
            Self::Sqrt => first.sqrt(),
            Self::Log => first.ln(),
        }
    }
}

/// Whether a formula can name a grader of this name.
pub fn is_name(name: &str) -> bool {
    name.chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(is_name_char)
        && Function::of(name).is_none()
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

impl Formula {
    /// Reads a formula whose names are all among `names`.
    ///
    /// # Errors
    /// Says at which character it stops making sense.
    pub fn parse<'a>(
        text: &str,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, FormulaError> {
        if text.chars().count() > MAX_CHARS {
            return Err(FormulaError::TooLong);
        }
        let mut parser = Parser {
            chars: text.chars().collect(),
            at: 0,
            depth: 0,
            names: names.into_iter().collect(),
        };
        let node = parser.sum()?;
        match parser.peek() {
            None => Ok(Self(node)),
            Some(_) => Err(parser.unexpected("an operator or the end")),
        }
    }

    /// The value, which may be infinite or no number. A name without a value counts as no number.
    pub fn value(&self, values: &BTreeMap<String, f64>) -> f64 {
        self.0.value(values)
    }
}

impl Node {
    fn value(&self, values: &BTreeMap<String, f64>) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Name(name) => values.get(name).copied().unwrap_or(f64::NAN),
            Self::Negated(node) => -node.value(values),
            Self::Binary(operator, left, right) => {
                let (left, right) = (left.value(values), right.value(values));
                match operator {
                    Operator::Add => left + right,
                    Operator::Subtract => left - right,
                    Operator::Multiply => left * right,
                    Operator::Divide => left / right,
                    Operator::Power => left.powf(right),
                }
            }
            Self::Call(function, arguments) => {
                let values: Vec<f64> = arguments.iter().map(|node| node.value(values)).collect();
                function.of_values(&values)
            }
        }
    }
}

struct Parser<'a> {
    chars: Vec<char>,
    at: usize,
    depth: usize,
    names: Vec<&'a str>,
}

impl Parser<'_> {
    fn sum(&mut self) -> Result<Node, FormulaError> {
        let mut left = self.product()?;
        loop {
            let operator = match self.peek() {
                Some('+') => Operator::Add,
                Some('-') => Operator::Subtract,
                _ => return Ok(left),
            };
            self.at += 1;
            left = Node::Binary(operator, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Result<Node, FormulaError> {
        let mut left = self.signed()?;
        loop {
            let operator = match self.peek() {
                Some('*') => Operator::Multiply,
                Some('/') => Operator::Divide,
                _ => return Ok(left),
            };
            self.at += 1;
            left = Node::Binary(operator, Box::new(left), Box::new(self.signed()?));
        }
    }

    /// Every way into a deeper level leads through here, so the depth is counted here.
    fn signed(&mut self) -> Result<Node, FormulaError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(FormulaError::TooDeep);
        }
        let node = match self.peek() {
            Some('-') => {
                self.at += 1;
                Node::Negated(Box::new(self.signed()?))
            }
            Some('+') => {
                self.at += 1;
                self.signed()?
            }
            _ => self.power()?,
        };
        self.depth -= 1;
        Ok(node)
    }

    fn power(&mut self) -> Result<Node, FormulaError> {
        let base = self.atom()?;
        if self.peek() == Some('*') && self.chars.get(self.at + 1) == Some(&'*') {
            self.at += 2;
            let exponent = self.signed()?;
            return Ok(Node::Binary(
                Operator::Power,
                Box::new(base),
                Box::new(exponent),
            ));
        }
        Ok(base)
    }

    fn atom(&mut self) -> Result<Node, FormulaError> {
        match self.peek() {
            Some('(') => {
                self.at += 1;
                let node = self.sum()?;
                self.expect(')', "`)`")?;
                Ok(node)
            }
            Some(c) if c.is_ascii_digit() || c == '.' => self.number(),
            Some(c) if is_name_char(c) => self.name(),
            _ => Err(self.unexpected("a number, a grader's name or `(`")),
        }
    }

    fn number(&mut self) -> Result<Node, FormulaError> {
        let start = self.at;
        let digits = |parser: &mut Self| {
            while parser.here().is_some_and(|c| c.is_ascii_digit()) {
                parser.at += 1;
            }
        };
        digits(self);
        if self.here() == Some('.') {
            self.at += 1;
            digits(self);
        }
        if self.here().is_some_and(|c| c == 'e' || c == 'E') {
            self.at += 1;
            if self.here().is_some_and(|c| c == '+' || c == '-') {
                self.at += 1;
            }
            digits(self);
        }
        let text: String = self.chars[start..self.at].iter().collect();
        text.parse().map(Node::Number).map_err(|_| {
            self.at = start;
            self.unexpected("a number")
        })
    }

    fn name(&mut self) -> Result<Node, FormulaError> {
        let start = self.at;
        while self.here().is_some_and(is_name_char) {
            self.at += 1;
        }
        let name: String = self.chars[start..self.at].iter().collect();
        if let Some(function) = Function::of(&name) {
            return self.call(function);
        }
        if self.names.contains(&name.as_str()) {
            return Ok(Node::Name(name));
        }
        Err(FormulaError::UnknownName(name))
    }

    fn call(&mut self, function: Function) -> Result<Node, FormulaError> {
        self.expect('(', "`(`")?;
        let mut arguments = vec![self.sum()?];
        while self.peek() == Some(',') {
            self.at += 1;
            arguments.push(self.sum()?);
        }
        self.expect(')', "`,` or `)`")?;
        if !function.takes(arguments.len()) {
            return Err(FormulaError::Arguments(function.name(), arguments.len()));
        }
        Ok(Node::Call(function, arguments))
    }

    fn here(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    /// The next character that is not a space.
    fn peek(&mut self) -> Option<char> {
        while self.here().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        self.here()
    }

    fn expect(&mut self, wanted: char, word: &'static str) -> Result<(), FormulaError> {
        if self.peek() != Some(wanted) {
            return Err(self.unexpected(word));
        }
        self.at += 1;
        Ok(())
    }

    fn unexpected(&mut self, wanted: &'static str) -> FormulaError {
        let found = self
            .peek()
            .map_or_else(|| "its end".to_owned(), |c| format!("`{c}`"));
        FormulaError::Unexpected {
            found,
            at: self.at + 1,
            wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Result<f64, FormulaError> {
        let values = BTreeMap::from([("a".to_owned(), 0.5), ("b_2".to_owned(), 3.0)]);
        Ok(Formula::parse(text, ["a", "b_2"])?.value(&values))
    }

    #[test]
    fn arithmetic_is_pythons() {
        for (text, expected) in [
            ("a", 0.5),
            ("1 + 2 * 3", 7.0),
            ("(1 + 2) * 3", 9.0),
            ("10 - 4 - 3", 3.0),
            ("12 / 4 / 3", 1.0),
            ("2 ** 3 ** 2", 512.0),
            ("-2 ** 2", -4.0),
            ("2 ** -1", 0.5),
            ("2 * -3", -6.0),
            ("--1", 1.0),
            ("0.7*a + 0.1 * b_2", 0.65),
            ("min(a, b_2, 0.1) + max(1, 2)", 2.1),
            ("abs(-a) + floor(1.9) + ceil(0.1)", 2.5),
            ("sqrt(9) + exp(0) + log(1)", 4.0),
            ("1e2 + .5 + 5.", 105.5),
        ] {
            let found = value(text).unwrap();
            assert!((found - expected).abs() < 1e-12, "{text}: {found}");
        }
    }

    #[test]
    fn what_has_no_value_is_not_finite() {
        for text in [
            "1 / 0",
            "0 / 0",
            "sqrt(-1)",
            "min(1, 0 / 0)",
            "10 ** 400",
            "log(0)",
        ] {
            assert!(!value(text).unwrap().is_finite(), "{text}");
        }
    }

    #[test]
    fn what_is_no_formula_is_refused_with_its_place() {
        for text in [
            "",
            " ",
            "a +",
            "a b_2",
            "a ** ",
            "(a",
            "a)",
            "min()",
            "min",
            "abs(1, 2)",
            "a % 2",
            "__import__('os')",
            "a.b",
            "1.2.3",
            "a[0]",
            "a == 1",
            "1e",
            "lambda",
            "a, a",
        ] {
            assert!(value(text).is_err(), "{text}");
        }
        let error = value("a + $").unwrap_err().to_string();
        assert!(error.contains("`$` at character 5"), "{error}");
        assert_eq!(value("c"), Err(FormulaError::UnknownName("c".to_owned())));
    }

    #[test]
    fn depth_and_length_are_bounded() {
        assert_eq!(value(&"(".repeat(1_000)), Err(FormulaError::TooDeep));
        assert_eq!(value(&"-".repeat(1_000)), Err(FormulaError::TooDeep));
        assert_eq!(value(&"2**".repeat(500)), Err(FormulaError::TooDeep));
        assert_eq!(
            value(&"1".repeat(MAX_CHARS + 1)),
            Err(FormulaError::TooLong)
        );
        // Long but flat is fine.
        assert!(value(&format!("{}1", "1+".repeat(900))).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_parser(text in r"[ab_2+\-*/(),. 0-9emin]{0,60}") {
            let _ = value(&text);
        }
    }
}
