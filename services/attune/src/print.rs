//! What a command says to the person who typed it, on standard output. Logs go to standard error.
#![expect(clippy::print_stdout, reason = "a command line's answers belong there")]

/// One line of an answer.
pub fn line(text: &str) {
    println!("{text}");
}
