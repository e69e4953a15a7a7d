//! Stop sequences in text that arrives in pieces.
//!
//! A stop sequence may begin in one token and end in another, so text that could be the start of one is held back until
//! more text decides. What was let go is therefore final, streaming or not.

/// Lets text through up to the first stop sequence.
#[derive(Debug)]
pub(crate) struct StopFilter {
    sequences: Vec<String>,
    held: String,
    released_bytes: usize,
    stopped: bool,
}

impl StopFilter {
    /// A filter for these sequences; empty ones never match.
    pub(crate) fn new(sequences: &[String]) -> Self {
        let sequences = sequences
            .iter()
            .filter(|sequence| !sequence.is_empty())
            .cloned()
            .collect();
        Self {
            sequences,
            held: String::new(),
            released_bytes: 0,
            stopped: false,
        }
    }

    /// Takes more text and gives what is certain to precede any stop sequence. After a match, nothing.
    pub(crate) fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        if let Some(position) = self.first_match() {
            self.stopped = true;
            self.held.truncate(position);
            return self.release(position);
        }
        self.release(self.held.len() - self.undecided_bytes())
    }

    /// Gives what was held back: the text is over, so it was no stop sequence.
    pub(crate) fn finish(&mut self) -> String {
        self.release(self.held.len())
    }

    /// Whether a stop sequence was found.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    /// How many bytes were let through so far.
    pub(crate) fn released_bytes(&self) -> usize {
        self.released_bytes
    }

    fn first_match(&self) -> Option<usize> {
        self.sequences
            .iter()
            .filter_map(|sequence| self.held.find(sequence.as_str()))
            .min()
    }

    /// The length of the longest ending of the held text that some sequence begins with.
    fn undecided_bytes(&self) -> usize {
        let starts = self.held.char_indices().map(|(start, _)| start);
        starts
            .map(|start| &self.held[start..])
            .find(|ending| {
                self.sequences
                    .iter()
                    .any(|sequence| sequence.starts_with(ending))
            })
            .map_or(0, str::len)
    }

    fn release(&mut self, n_bytes: usize) -> String {
        self.released_bytes += n_bytes;
        self.held.drain(..n_bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sequences: &[&str], pieces: &[&str]) -> (Vec<String>, bool) {
        let sequences: Vec<_> = sequences.iter().map(ToString::to_string).collect();
        let mut filter = StopFilter::new(&sequences);
        let mut released: Vec<_> = pieces.iter().map(|piece| filter.push(piece)).collect();
        released.push(filter.finish());
        assert_eq!(filter.released_bytes(), released.concat().len());
        (released, filter.stopped())
    }

    #[test]
    fn a_sequence_across_pieces_is_found_and_none_of_it_leaks() {
        let (released, stopped) = run(&["\n\nUser:"], &["Hello\n", "\nUs", "er: again", "more"]);
        assert_eq!(released, ["Hello", "", "", "", ""]);
        assert!(stopped);
    }

    #[test]
    fn a_false_start_is_released_as_soon_as_it_is_known_to_be_one() {
        let (released, stopped) = run(&["abcd"], &["xab", "c", "x", "y"]);
        assert_eq!(released, ["x", "", "abcx", "y", ""]);
        assert!(!stopped);
    }

    #[test]
    fn a_start_inside_a_false_start_is_kept() {
        let (released, stopped) = run(&["aab"], &["aa", "a", "b!"]);
        assert_eq!(released, ["", "a", "", ""]);
        assert!(stopped);
    }

    #[test]
    fn the_end_of_the_text_releases_what_was_held() {
        assert_eq!(
            run(&["stop"], &["sto"]),
            (vec![String::new(), "sto".to_owned()], false)
        );
    }

    #[test]
    fn the_earliest_of_several_sequences_wins() {
        assert_eq!(
            run(&["cd", "bcd"], &["abcd"]),
            (vec!["a".to_owned(), String::new()], true)
        );
    }

    #[test]
    fn letters_of_several_bytes_are_never_split() {
        let (released, stopped) = run(&["äöü"], &["xä", "ö", "é"]);
        assert_eq!(released, ["x", "", "äöé", ""]);
        assert!(!stopped);
    }

    #[test]
    fn an_empty_sequence_never_matches() {
        assert_eq!(
            run(&[""], &["text"]),
            (vec!["text".to_owned(), String::new()], false)
        );
    }
}
