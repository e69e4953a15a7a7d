//! Python's `strftime`, as far as chat templates use it, over a time that is given.

use minijinja::{Error, ErrorKind};
use time::OffsetDateTime;

/// `now` written as `format` says.
///
/// # Errors
/// A directive that no published template uses, by name.
pub(super) fn format(now: OffsetDateTime, format: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(format.len() + 16);
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut directive = characters.next();
        let unpadded = directive == Some('-');
        if unpadded {
            directive = characters.next();
        }
        let text = directive
            .and_then(|directive| field(now, directive))
            .ok_or_else(|| {
                let problem =
                    format!("strftime_now: `{format}` has a directive that is not supported");
                Error::new(ErrorKind::InvalidOperation, problem)
            })?;
        out.push_str(if unpadded { unpad(&text) } else { &text });
    }
    Ok(out)
}

fn unpad(number: &str) -> &str {
    match number.trim_start_matches('0') {
        "" => "0",
        digits => digits,
    }
}

fn field(now: OffsetDateTime, directive: char) -> Option<String> {
    let hour_12 = (now.hour() + 11) % 12 + 1;
    Some(match directive {
        'Y' => now.year().to_string(),
        'y' => format!("{:02}", now.year().rem_euclid(100)),
        'm' => format!("{:02}", u8::from(now.month())),
        'd' => format!("{:02}", now.day()),
        'e' => format!("{:2}", now.day()),
        'j' => format!("{:03}", now.ordinal()),
        'B' => now.month().to_string(),
        'b' => now.month().to_string()[..3].to_owned(),
        'A' => now.weekday().to_string(),
        'a' => now.weekday().to_string()[..3].to_owned(),
        'H' => format!("{:02}", now.hour()),
        'I' => format!("{hour_12:02}"),
        'p' => if now.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        'M' => format!("{:02}", now.minute()),
        'S' => format!("{:02}", now.second()),
        '%' => "%".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn the_directives_of_published_templates_are_known() {
        let now = datetime!(2026-03-07 15:04:09 UTC);
        let cases = [
            ("%d %b %Y", "07 Mar 2026"),
            ("%B %-d, %Y", "March 7, 2026"),
            ("%Y-%m-%d %H:%M:%S", "2026-03-07 15:04:09"),
            ("%A %I %p 100%%", "Saturday 03 PM 100%"),
        ];
        for (pattern, expected) in cases {
            assert_eq!(format(now, pattern).unwrap(), expected);
        }
        assert!(format(now, "%Q").is_err());
        assert!(format(now, "%").is_err());
    }
}
