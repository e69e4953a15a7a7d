//! Multipart forms written by hand: what a test is about is often their exact bytes.

/// A form under construction.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form(Vec<u8>);

impl Form {
    pub(crate) const CONTENT_TYPE: &str = "multipart/form-data; boundary=frontier";

    /// The form that Python's client sends: fields first.
    pub(crate) fn of(purpose: &str, content: impl AsRef<[u8]>) -> Self {
        Self::default()
            .field("purpose", purpose)
            .file("train.jsonl", content)
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        let part = format!(
            "--frontier\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
        self.0.extend_from_slice(part.as_bytes());
        self
    }

    pub(crate) fn file(self, filename: &str, content: impl AsRef<[u8]>) -> Self {
        self.upload("file", filename, content)
    }

    /// The form of an upload's part, as both clients send it.
    pub(crate) fn part(content: impl AsRef<[u8]>) -> Self {
        Self::default().upload("data", "upload", content)
    }

    fn upload(mut self, field: &str, filename: &str, content: impl AsRef<[u8]>) -> Self {
        let head = format!(
            "--frontier\r\ncontent-disposition: form-data; name=\"{field}\"; filename=\"{filename}\"\r\n\
             content-type: application/octet-stream\r\n\r\n"
        );
        self.0.extend_from_slice(head.as_bytes());
        self.0.extend_from_slice(content.as_ref());
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// The form that these bytes begin.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// With the line that ends a form.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"--frontier--\r\n");
        self.0
    }

    /// Without it.
    pub(crate) fn cut(self) -> Vec<u8> {
        self.0
    }
}
