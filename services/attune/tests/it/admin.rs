//! `attune admin`, by itself and beside a running installation.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::up::{Up, attune, folder};

fn admin(data_dir: &Path, arguments: &[&str]) -> Output {
    attune(data_dir)
        .arg("admin")
        .args(arguments)
        .args(["--json", "--data-dir"])
        .arg(data_dir)
        .env_remove("DATABASE_URL")
        .env_remove("ATTUNE_MIGRATE_URL")
        .output()
        .unwrap()
}

/// The one JSON document that the command must print.
#[track_caller]
fn json(data_dir: &Path, arguments: &[&str]) -> Value {
    let output = admin(data_dir, arguments);
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text<'a>(document: &'a Value, field: &str) -> &'a str {
    document[field].as_str().unwrap()
}

#[test]
fn a_project_made_beside_a_running_installation_is_open_at_once() {
    let folder = folder();
    let up = Up::start(folder.path());
    assert_eq!(up.get("/healthz", ""), 200);
    let made = json(folder.path(), &["project", "create", "--name", "Legal"]);
    let fields: Vec<_> = made.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["api_key", "project_id"]);
    assert!(text(&made, "project_id").starts_with("proj_"));
    let key = text(&made, "api_key");
    assert_eq!(up.get("/v1/files", key), 200);

    let arguments = ["key", "create", "--name", "ci", "--project", "legal"];
    let limited = json(
        folder.path(),
        &[&arguments[..], &["--scopes", "files,read_only"]].concat(),
    );
    let limited_key = text(&limited, "api_key");
    assert_eq!(up.get("/v1/files", limited_key), 200);
    assert_eq!(up.get("/v1/fine_tuning/jobs", limited_key), 403);
    let id = text(&limited, "key_id");
    let rotated = json(folder.path(), &["key", "rotate", id, "--grace", "0"]);
    assert_eq!(up.get("/v1/files", limited_key), 401);
    assert_eq!(up.get("/v1/files", text(&rotated, "api_key")), 200);
    json(folder.path(), &["key", "revoke", text(&rotated, "key_id")]);
    assert_eq!(up.get("/v1/files", text(&rotated, "api_key")), 401);

    json(folder.path(), &["project", "revoke", "legal"]);
    assert_eq!(up.get("/v1/files", key), 401);
    assert!(up.terminate().success());
}

#[test]
fn organizations_and_users_are_made_without_a_running_installation() {
    let folder = folder();
    let org = json(folder.path(), &["org", "create", "--name", "Acme Corp"]);
    assert_eq!(text(&org, "slug"), "acme-corp");
    assert!(text(&org, "admin_key").starts_with("sk-attune-admin-"));
    let within = ["--org", "acme-corp"];
    let project = json(
        folder.path(),
        &[&["project", "create", "--name", "Main"], &within[..]].concat(),
    );
    let listed = json(folder.path(), &[&["project", "list"], &within[..]].concat());
    assert_eq!(listed[0]["project_id"], project["project_id"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let create = [
        "user",
        "create",
        "--email",
        "ada@example.com",
        "--project",
        "main",
    ];
    let user = json(folder.path(), &[&create, &within[..]].concat());
    let listed = json(folder.path(), &[&["user", "list"], &within[..]].concat());
    assert_eq!(listed[0]["user_id"], user["user_id"]);
    assert_eq!(
        json(folder.path(), &["org", "list"])
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let output = admin(folder.path(), &["project", "list", "--org", "nobody"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(message.contains("no organization `nobody`"), "{message}");
}
