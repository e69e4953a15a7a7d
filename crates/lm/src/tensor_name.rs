//! Which tensor names a file may use.
//!
//! A name is only ever a key of a map here, never part of a path. Odd names are refused all the
//! same: they travel into logs, error messages and the files that we write.

/// Longer than any real name (GGUF itself stops at 64).
const MAX_BYTES: usize = 512;

/// What is wrong with `name`, in words that follow "tensor name …"; `None` when it is fine.
pub(crate) fn fault(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("is empty");
    }
    if name.len() > MAX_BYTES {
        return Some("is too long");
    }
    if name.chars().any(char::is_control) {
        return Some("holds a control character");
    }
    if name.contains(['/', '\\']) || name.contains("..") {
        return Some("looks like a path");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::fault;

    #[test]
    fn real_names_pass() {
        for name in [
            "model.layers.0.self_attn.q_proj.weight",
            "blk.29.ffn_down.weight",
        ] {
            assert_eq!(fault(name), None, "{name}");
        }
    }

    #[test]
    fn paths_control_characters_and_giants_are_refused() {
        let giant = "x".repeat(MAX_PLUS_ONE);
        for name in [
            "",
            "../../etc/x",
            "a/b",
            "a\\b",
            "a\0b",
            "a\nb",
            "..",
            &giant,
        ] {
            assert!(fault(name).is_some(), "{name:?}");
        }
    }

    const MAX_PLUS_ONE: usize = super::MAX_BYTES + 1;
}
