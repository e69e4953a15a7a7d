//! The input of a batch: read once from end to end in constant memory, apart from where each line lies.

use std::collections::HashSet;

use artifacts::{ArtifactError, ByteStream};
use bytes::BytesMut;
use domain::batch::InputError;
use domain::limits::{MAX_BATCH_LINES, MAX_CUSTOM_ID_CHARS, MAX_LINE_BYTES};
use futures::TryStreamExt as _;
use serde_json::Value;
use store::batches::lines::Line;

use super::ENDPOINT;

/// Faults that are listed; a file that has more has told enough.
const MAX_ERRORS: usize = 100;

/// What the input says.
#[derive(Debug, Default)]
pub(super) struct Input {
    pub(super) lines: Vec<Line>,
    /// The model of the first line.
    pub(super) model: String,
    /// If there are any, the batch fails and nothing of it is answered.
    pub(super) errors: Vec<InputError>,
    custom_ids: HashSet<String>,
    n_lines: u64,
}

/// Why a line cannot be used: code, field at fault, text.
struct Fault(&'static str, Option<&'static str>, String);

/// Reads the whole input.
///
/// # Errors
/// The bucket failed.
pub(super) async fn read(mut file: ByteStream) -> Result<Input, ArtifactError> {
    let mut input = Input::default();
    let mut pending = BytesMut::new();
    let mut start_byte = 0;
    while let Some(chunk) = file.try_next().await? {
        let mut searched = pending.len();
        pending.extend_from_slice(&chunk);
        while let Some(end) = pending[searched..].iter().position(|byte| *byte == b'\n') {
            let line = pending.split_to(searched + end + 1);
            input.add(&line[..line.len() - 1], start_byte);
            start_byte += line.len() as u64;
            searched = 0;
        }
        if pending.len() > MAX_LINE_BYTES {
            input.add(&pending, start_byte);
            return Ok(input);
        }
        if input.has_told_enough() {
            return Ok(input);
        }
    }
    input.add(&pending, start_byte);
    if input.lines.is_empty() && input.errors.is_empty() {
        input.refuse(
            None,
            "empty_file",
            None,
            "The file holds no requests.".to_owned(),
        );
    }
    Ok(input)
}

impl Input {
    /// The error for an input that is not there any more.
    pub(super) fn gone() -> Self {
        let mut input = Self::default();
        let message = "The input file was deleted before it was read.".to_owned();
        input.refuse(None, "input_file_not_found", Some("input_file_id"), message);
        input
    }

    fn has_told_enough(&self) -> bool {
        self.errors.len() >= MAX_ERRORS || self.lines.len() as u64 > MAX_BATCH_LINES
    }

    fn add(&mut self, line: &[u8], start_byte: u64) {
        self.n_lines += 1;
        if line.trim_ascii().is_empty() || self.has_told_enough() {
            return;
        }
        match request(line) {
            Ok((custom_id, model)) => self.accept(custom_id, model, line.len(), start_byte),
            Err(Fault(code, param, message)) => {
                self.refuse(Some(self.n_lines), code, param, message);
            }
        }
    }

    fn accept(&mut self, custom_id: String, model: String, n_bytes: usize, start_byte: u64) {
        let line = Some(self.n_lines);
        if !self.custom_ids.insert(custom_id.clone()) {
            let message = "Another line before this one has the same `custom_id`.".to_owned();
            self.refuse(line, "duplicate_custom_id", Some("custom_id"), message);
            return;
        }
        if self.lines.is_empty() {
            self.model = model;
        }
        self.lines.push(Line {
            line: self.n_lines,
            custom_id,
            start_byte,
            n_bytes: n_bytes as u64,
        });
        if self.lines.len() as u64 == MAX_BATCH_LINES + 1 {
            let message = format!(
                "A batch may have {MAX_BATCH_LINES} requests; this is one more. Make several batches."
            );
            self.refuse(line, "too_many_requests", None, message);
        }
    }

    fn refuse(
        &mut self,
        line: Option<u64>,
        code: &'static str,
        param: Option<&'static str>,
        message: String,
    ) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(InputError {
                code: code.to_owned(),
                line,
                message,
                param: param.map(str::to_owned),
            });
        }
    }
}

/// The `custom_id` and the model of a line, if it is a request that can be sent. What else may be wrong with the
/// body becomes the line's own error, when it is answered.
fn request(line: &[u8]) -> Result<(String, String), Fault> {
    if line.len() > MAX_LINE_BYTES {
        let message = format!("The line is longer than {MAX_LINE_BYTES} bytes.");
        return Err(Fault("line_too_long", None, message));
    }
    let not_json = |text: String| Fault("invalid_json_line", None, text);
    let value: Value = serde_json::from_slice(line).map_err(|error| {
        not_json(format!(
            "The line is not valid JSON at column {}.",
            error.column()
        ))
    })?;
    if !value.is_object() {
        return Err(not_json("The line is not a JSON object.".to_owned()));
    }
    let custom_id = text(&value["custom_id"], "custom_id")?;
    if custom_id.chars().count() > MAX_CUSTOM_ID_CHARS || custom_id.contains('\0') {
        let message =
            format!("`custom_id` may have {MAX_CUSTOM_ID_CHARS} characters, none of which is NUL.");
        return Err(Fault("invalid_value", Some("custom_id"), message));
    }
    only(&value["method"], "method", "POST", "invalid_method")?;
    only(&value["url"], "url", ENDPOINT, "mismatched_endpoint")?;
    if !value["body"].is_object() {
        let message = "`body` must be a JSON object: the request itself.".to_owned();
        return Err(Fault("missing_required_parameter", Some("body"), message));
    }
    let model = text(&value["body"]["model"], "body.model")?;
    if value["body"]["stream"] == Value::Bool(true) {
        let message = "The answers of a batch are not streamed: leave `stream` out.".to_owned();
        return Err(Fault("invalid_value", Some("body.stream"), message));
    }
    Ok((custom_id.to_owned(), model.to_owned()))
}

fn text<'a>(value: &'a Value, param: &'static str) -> Result<&'a str, Fault> {
    let missing = || {
        let message = format!("`{param}` must be a string that is not empty.");
        Fault("missing_required_parameter", Some(param), message)
    };
    value
        .as_str()
        .filter(|text| !text.is_empty())
        .ok_or_else(missing)
}

fn only(
    value: &Value,
    param: &'static str,
    wanted: &'static str,
    code: &'static str,
) -> Result<(), Fault> {
    if value == wanted {
        return Ok(());
    }
    Err(Fault(
        code,
        Some(param),
        format!("`{param}` must be `{wanted}`."),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde_json::json;

    async fn input(text: &str, chunk_bytes: usize) -> Input {
        let chunks: Vec<_> = text
            .as_bytes()
            .chunks(chunk_bytes)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        read(Box::pin(futures::stream::iter(chunks))).await.unwrap()
    }

    fn good(custom_id: &str) -> Value {
        json!({"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": {"model": custom_id}})
    }

    #[tokio::test]
    async fn lines_are_found_where_they_lie_however_the_bytes_arrive() {
        let text = format!("{}\n\n  \r\n{}\r\n{}", good("a"), good("b"), good("c"));
        for chunk_bytes in [1, 7, 64, 10_000] {
            let input = input(&text, chunk_bytes).await;
            assert_eq!((input.errors, input.model.as_str()), (vec![], "a"));
            let found: Vec<_> = input.lines.iter().map(|line| line.line).collect();
            assert_eq!(found, [1, 4, 5]);
            for line in input.lines {
                let start = usize::try_from(line.start_byte).unwrap();
                let end = start + usize::try_from(line.n_bytes).unwrap();
                let value: Value = serde_json::from_str(&text[start..end]).unwrap();
                assert_eq!(value["custom_id"], line.custom_id);
            }
        }
    }

    #[tokio::test]
    async fn each_fault_names_its_line_and_field() {
        let cases = [
            (json!([1]), "invalid_json_line", None),
            (
                json!({"custom_id": 3}),
                "missing_required_parameter",
                Some("custom_id"),
            ),
            (
                json!({"custom_id": ""}),
                "missing_required_parameter",
                Some("custom_id"),
            ),
            (
                json!({"custom_id": "x".repeat(513)}),
                "invalid_value",
                Some("custom_id"),
            ),
            (
                json!({"custom_id": "a\u{0}"}),
                "invalid_value",
                Some("custom_id"),
            ),
            (json!({"method": "GET"}), "invalid_method", Some("method")),
            (
                json!({"url": "/v1/embeddings"}),
                "mismatched_endpoint",
                Some("url"),
            ),
            (
                json!({"body": []}),
                "missing_required_parameter",
                Some("body"),
            ),
            (
                json!({"body": {}}),
                "missing_required_parameter",
                Some("body.model"),
            ),
            (
                json!({"body": {"model": "m", "stream": true}}),
                "invalid_value",
                Some("body.stream"),
            ),
            (
                json!({"custom_id": "first"}),
                "duplicate_custom_id",
                Some("custom_id"),
            ),
        ];
        for (change, code, param) in cases {
            let mut line = good("second");
            match change {
                Value::Object(fields) => line.as_object_mut().unwrap().extend(fields),
                other => line = other,
            }
            let input = input(&format!("{}\n{line}", good("first")), 100).await;
            let [error] = &input.errors[..] else {
                panic!("{line}: {:?}", input.errors)
            };
            let found = (error.code.as_str(), error.line, error.param.as_deref());
            assert_eq!(found, (code, Some(2), param), "{line}");
        }
    }

    #[tokio::test]
    async fn a_file_is_read_no_further_than_it_has_to_be() {
        let code = |input: Input| input.errors[0].code.clone();
        assert_eq!(code(input("", 10).await), "empty_file");
        assert_eq!(code(input("\n \n", 10).await), "empty_file");
        let long = "x".repeat(MAX_LINE_BYTES + 1);
        assert_eq!(code(input(&long, 1 << 16).await), "line_too_long");
        let bad = input(&"{\n".repeat(10_000), 1 << 16).await;
        assert_eq!(bad.errors.len(), MAX_ERRORS);
        let count = usize::try_from(MAX_BATCH_LINES).unwrap();
        let lines = |n: usize| (0..n).map(|n| format!("{}\n", good(&n.to_string())));
        let most = input(&lines(count).collect::<String>(), 1 << 16).await;
        assert_eq!((most.lines.len(), most.errors.len()), (count, 0));
        let more = input(&lines(count + 9).collect::<String>(), 1 << 16).await;
        assert_eq!(
            (more.errors.len(), code(more)),
            (1, "too_many_requests".to_owned())
        );
    }
}
