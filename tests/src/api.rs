//! A client of the public HTTP API.

use reqwest::{Client, Method, Response};
use serde_json::Value;

/// An address and a key.
pub struct Api {
    base: String,
    key: String,
    http: Client,
}

impl Api {
    pub(crate) fn new(port: u16) -> Self {
        Self {
            base: format!("http://127.0.0.1:{port}"),
            key: String::new(),
            http: Client::new(),
        }
    }

    pub(crate) fn set_key(&mut self, key: &str) {
        key.clone_into(&mut self.key);
    }

    pub(crate) async fn is_ready(&self) -> bool {
        let answer = self.http.get(format!("{}/readyz", self.base)).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    /// One request.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        let url = format!("{}/v1{path}", self.base);
        let request = self.http.request(method, url).bearer_auth(&self.key);
        match body {
            Some(body) => request.json(&body).send().await.unwrap(),
            None => request.send().await.unwrap(),
        }
    }

    /// One request that must succeed; its JSON answer.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let answer = self.send(method, path, body).await;
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Uploads a dataset and returns its id.
    pub async fn upload(&self, rows: &str) -> String {
        let boundary = "a-boundary-that-no-row-holds";
        let body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"rows.jsonl\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n{rows}\r\n--{boundary}--\r\n"
        );
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let request = self.http.post(format!("{}/v1/files", self.base));
        let answer = request
            .bearer_auth(&self.key)
            .header("content-type", content_type)
            .body(body)
            .send()
            .await
            .unwrap();
        let value: Value = answer.json().await.unwrap();
        value["id"]
            .as_str()
            .unwrap_or_else(|| panic!("{value}"))
            .to_owned()
    }

    /// The job's events, oldest first.
    pub async fn events(&self, job: &str) -> Vec<Value> {
        let mut events = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/fine_tuning/jobs/{job}/events?limit=100{after}");
            let page = self.call(Method::GET, &path, None).await;
            let data = page["data"].as_array().unwrap();
            events.extend(data.iter().cloned());
            if page["has_more"] == false {
                events.reverse();
                return events;
            }
            after = format!("&after={}", data[data.len() - 1]["id"].as_str().unwrap());
        }
    }
}
