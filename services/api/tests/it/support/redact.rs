//! Takes out of a body what differs from run to run: ids, random names and seeds. Times stand still anyway.

use serde_json::Value;

const IDS: [(&str, &str); 14] = [
    ("ftjob-", "[job]"),
    ("file-", "[file]"),
    ("ftevent-", "[event]"),
    ("ftckpt_", "[checkpoint]"),
    ("org-", "[org]"),
    ("proj_", "[project]"),
    ("upload_", "[upload]"),
    ("part_", "[part]"),
    ("batch_", "[batch]"),
    ("req_", "[request]"),
    ("key_", "[key]"),
    ("svc_acct_", "[service account]"),
    ("user-", "[user]"),
    ("cp_", "[permission]"),
];

/// The same body with ids replaced by their kind.
pub(crate) fn redacted(body: &Value) -> Value {
    match body {
        Value::String(text) => Value::String(redacted_text(text)),
        Value::Array(values) => values.iter().map(redacted).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), redacted(value)))
            .collect(),
        other => other.clone(),
    }
}

fn redacted_text(text: &str) -> String {
    let mut text = text.to_owned();
    for (prefix, word) in IDS {
        while let Some(start) = find_id(&text, prefix) {
            text.replace_range(start..start + prefix.len() + 32, word);
        }
    }
    text
}

fn find_id(text: &str, prefix: &str) -> Option<usize> {
    text.match_indices(prefix)
        .map(|(start, _)| start)
        .find(|start| {
            let digits = text.get(start + prefix.len()..start + prefix.len() + 32);
            digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        })
}
