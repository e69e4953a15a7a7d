//! What a person or a script reads of us, apart from the log.

use std::io::Write;

/// Prints one line to standard output. A reader that has gone away, as `head` does, is no reason to stop a server.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
