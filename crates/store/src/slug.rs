//! A slug made of a name that people chose.

use sqlx::types::Uuid;

/// Characters of a slug: it is part of the names of models.
const MAX_CHARS: usize = 40;

/// Two slugs for `name`: the plain one, and one that the id tells apart. `fallback` is for a name without letters.
pub(crate) fn candidates(name: &str, fallback: &str, id: Uuid) -> [String; 2] {
    let mut slug = String::new();
    for c in name.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(MAX_CHARS);
    let slug = match slug.trim_end_matches('-') {
        "" => fallback,
        slug => slug,
    };
    // The end of a UUIDv7 is random; its beginning is the time.
    let digits = id.simple().to_string();
    [slug.to_owned(), format!("{slug}-{}", &digits[24..])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_plain_whatever_the_name() {
        let slug = |name: &str| candidates(name, "project", Uuid::nil())[0].clone();
        assert_eq!(slug("Legal & Tax: 2026"), "legal-tax-2026");
        assert_eq!(slug("  -x- "), "x");
        assert_eq!(slug("日本"), "project");
        assert_eq!(slug(&"ab ".repeat(40)).len(), MAX_CHARS);
    }

    #[test]
    fn the_second_one_carries_the_id() {
        let [plain, distinct] = candidates("Main", "project", Uuid::nil());
        assert_eq!(distinct, format!("{plain}-00000000"));
    }
}
