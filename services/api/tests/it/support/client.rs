//! A client with one key.

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::{Form, ROWS, document};

/// Sends requests as one key's holder.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
    key: Option<String>,
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// The body of an answer that must be a 200.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()
    }

    /// Status, `param` and `code` of an error.
    #[track_caller]
    pub(crate) fn refusal(&self) -> (u16, Option<String>, Option<String>) {
        let error = &self.json()["error"];
        assert!(error.is_object(), "{}", self.text);
        let text = |name: &str| error[name].as_str().map(str::to_owned);
        (self.status, text("param"), text("code"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

impl Client {
    pub(crate) fn new(url: &str, key: Option<&str>) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            http,
            url: url.to_owned(),
            key: key.map(str::to_owned),
        }
    }

    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self {
            key: Some(key.to_owned()),
            ..self.clone()
        }
    }

    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    pub(crate) fn key(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Fails the test if the document of the API has no such answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let (http, request) = request.build_split();
        let request = request.unwrap();
        let method = request.method().clone();
        let response = http.execute(request).await.unwrap();
        let path = response.url().path().to_owned();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = Answer {
            status,
            headers,
            text: response.text().await.unwrap(),
        };
        document::hold(&method, &path, &answer);
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, body.to_string()).await
    }

    /// A POST that says it is JSON, whatever it is.
    pub(crate) async fn post_text(&self, path: &str, body: impl Into<reqwest::Body>) -> Answer {
        self.send(
            self.request(Method::POST, path)
                .header(CONTENT_TYPE, "application/json")
                .body(body),
        )
        .await
    }

    pub(crate) async fn upload(&self, form: Form) -> Answer {
        self.post_form("/v1/files", form).await
    }

    pub(crate) async fn post_form(&self, path: &str, form: Form) -> Answer {
        let request = self
            .request(Method::POST, path)
            .header(CONTENT_TYPE, Form::CONTENT_TYPE);
        self.send(request.body(form.finish())).await
    }

    /// The id of a new file to train on.
    pub(crate) async fn training_file(&self) -> String {
        let answer = self.upload(Form::of("fine-tune", ROWS)).await;
        answer.ok()["id"].as_str().unwrap().to_owned()
    }

    /// A new job, as the API answered it.
    pub(crate) async fn job(&self, body: Value) -> Value {
        let mut request =
            serde_json::json!({"model": "tiny", "training_file": self.training_file().await});
        let Value::Object(fields) = body else {
            panic!("a job is an object")
        };
        request.as_object_mut().unwrap().extend(fields);
        self.post("/v1/fine_tuning/jobs", &request).await.ok()
    }
}
