//! What is drawn at random when a job is made.

use domain::limits::MAX_SEED;

use crate::error::ApiError;

/// Letters and digits of a model's tag. Lower case only: people read names out to each other.
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const TAG_CHARS: usize = 8;

/// A seed that OpenAI's clients can read back.
pub(crate) fn seed() -> Result<u64, ApiError> {
    Ok(draw()? % (MAX_SEED + 1))
}

/// The end of a model's name, which tells two models of one suffix apart.
pub(crate) fn tag() -> Result<String, ApiError> {
    let mut rest = draw()?;
    let tag = std::iter::repeat_with(|| {
        let digit = usize::try_from(rest % 36).expect("below 36");
        rest /= 36;
        char::from(ALPHABET[digit])
    });
    Ok(tag.take(TAG_CHARS).collect())
}

fn draw() -> Result<u64, ApiError> {
    getrandom::u64().map_err(|error| ApiError::internal(format!("no randomness: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_has_eight_letters_or_digits() {
        let tag = tag().unwrap();
        assert_eq!(tag.len(), 8);
        assert!(tag.bytes().all(|byte| ALPHABET.contains(&byte)), "{tag}");
    }

    #[test]
    fn a_seed_fits_openais_range() {
        assert!(seed().unwrap() <= MAX_SEED);
    }
}
