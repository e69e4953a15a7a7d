//! What a word is.

/// The words of a text: runs of letters and digits, in lower case. Chinese characters, kana and hangul syllables are a
/// word each, since no space tells where a word ends; otherwise a whole sentence would be one.
pub fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in text.chars() {
        if stands_alone(c) {
            words.push(c.to_string());
            words.push(String::new());
        } else if c.is_alphanumeric() {
            if let Some(word) = words.last_mut() {
                word.extend(c.to_lowercase());
            }
        } else {
            words.push(String::new());
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn stands_alone(c: char) -> bool {
    matches!(c,
        '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3134f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_and_without_signs() {
        assert_eq!(
            words("The cat's  mat, 3.5!"),
            ["the", "cat", "s", "mat", "3", "5"]
        );
        assert_eq!(words("ÄRGER–Größe"), ["ärger", "größe"]);
        assert_eq!(words(" ,. "), Vec::<String>::new());
    }

    #[test]
    fn writing_without_spaces_is_cut_into_characters() {
        assert_eq!(words("日本語ab"), ["日", "本", "語", "ab"]);
    }
}
