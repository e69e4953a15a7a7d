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
        .env_remove("SUDO_USER")
        .env("USER", "ada")
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
    let again = ["key", "rotate", id, "--grace", "0"];
    refused(folder.path(), &again, text(&rotated, "key_id"));
    json(folder.path(), &["key", "revoke", text(&rotated, "key_id")]);
    let revoked = ["key", "rotate", text(&rotated, "key_id")];
    refused(folder.path(), &revoked, "is revoked: make a new key");
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
    // Adding an owner to a project leaves them an owner; what is said of them is done.
    for (said, role) in [
        (&[][..], "reader"),
        (&["--org-role", "owner"], "owner"),
        (&[], "owner"),
        (&["--org-role", "reader"], "reader"),
    ] {
        let added = json(folder.path(), &[&create, &within[..], said].concat());
        assert_eq!(added["role"], role, "{said:?}");
        let listed = json(folder.path(), &[&["user", "list"], &within[..]].concat());
        assert_eq!(listed[0]["role"], role, "{said:?}");
    }
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

/// Like [`json`], of a command that prints a document on each line.
fn lines(data_dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = admin(data_dir, arguments);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[track_caller]
fn refused(data_dir: &Path, arguments: &[&str], reason: &str) {
    let output = admin(data_dir, arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(message.contains(reason), "{message}");
}

#[test]
fn what_the_operator_does_is_in_the_organization_s_log() {
    let folder = folder();
    let up = Up::start(folder.path());
    let run = |arguments: &[&str]| json(folder.path(), &[arguments, &["--org", "acme"]].concat());
    json(folder.path(), &["org", "create", "--name", "Acme"]);
    run(&["project", "create", "--name", "Legal"]);
    run(&["project", "limits", "legal", "--max-queued-jobs", "3"]);
    run(&["project", "settings", "legal", "--speaks-openai", "on"]);
    let user = ["user", "create", "--email", "a@b.c", "--project", "legal"];
    let user = run(&user);
    run(&["user", "revoke", text(&user, "user_id")]);
    let key = run(&["key", "create", "--name", "ci", "--project", "legal"]);
    let key = run(&["key", "rotate", text(&key, "key_id")]);
    run(&["key", "revoke", text(&key, "key_id")]);
    let head = json(folder.path(), &["audit", "verify", "--org", "acme"]);
    let head = text(&head[0], "head");
    // What only looks writes nothing, nor does what fails.
    run(&["project", "limits", "legal"]);
    run(&["key", "list"]);
    let no_key = format!("key_{}", "0".repeat(32));
    refused(
        folder.path(),
        &["key", "revoke", &no_key, "--org", "acme"],
        "has no key",
    );
    let revoked = run(&["project", "revoke", "legal"]);
    assert_eq!(revoked["cancelled_jobs"], 0);
    run(&["project", "create", "--name", "Second"]);
    json(folder.path(), &["org", "revoke", "acme"]);

    let log = lines(folder.path(), &["audit", "export", "--org", "acme"]);
    let actions: Vec<&str> = log.iter().map(|row| text(row, "action")).collect();
    let expected = [
        "organization.created",
        "admin_api_key.created",
        "project.created",
        "api_key.created",
        "rate_limit.updated",
        "project.updated",
        "user.added",
        "project.user.added",
        "user.deleted",
        "api_key.created",
        "api_key.rotated",
        "api_key.deleted",
        "project.archived",
        "project.created",
        "api_key.created",
        "project.archived",
        "organization.archived",
    ];
    assert_eq!(actions, expected);
    assert!(text(&log[10], "details").contains(text(&key, "key_id")));
    for row in &log {
        assert_eq!(
            (text(row, "actor_kind"), text(row, "actor_name")),
            ("operator", "ada")
        );
        assert_eq!(
            (&row["address"], &row["key_id"]),
            (&Value::Null, &Value::Null)
        );
    }
    let verify = ["audit", "verify", "--org", "acme", "--head"];
    let verified = json(folder.path(), &[&verify[..], &[head]].concat());
    assert_eq!(verified[0]["n_rows"], expected.len());
    let other = "f".repeat(64);
    refused(
        folder.path(),
        &[&verify[..], &[&other]].concat(),
        "is broken",
    );
    assert!(up.terminate().success());
}

#[test]
fn a_service_account_gets_keys_until_it_is_revoked() {
    let folder = folder();
    let up = Up::start(folder.path());
    let run = |arguments: &[&str]| {
        json(
            folder.path(),
            &[arguments, &["--project", "default"]].concat(),
        )
    };
    let create = ["service-account", "create", "--name", "ci"];
    let viewer = run(&[&create[..], &["--role", "viewer", "--scopes", "files"]].concat());
    assert_eq!(up.get("/v1/files", text(&viewer, "api_key")), 200);
    assert_eq!(
        up.get("/v1/fine_tuning/jobs", text(&viewer, "api_key")),
        403
    );

    let made = run(&[&create[..], &["--no-key"]].concat());
    assert_eq!(
        (&made["role"], &made["key_id"], &made["api_key"]),
        (&"member".into(), &Value::Null, &Value::Null)
    );
    let id = text(&made, "service_account_id");
    let create_key = ["key", "create", "--name", "k", "--service-account"];
    let key = run(&[&create_key[..], &[id]].concat());
    assert_eq!(key["service_account_id"], id);
    assert_eq!(up.get("/v1/files", text(&key, "api_key")), 200);
    let listed = run(&["service-account", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["service_account_id"], id);

    let revoked = run(&["service-account", "revoke", id]);
    assert_eq!(revoked["revoked"], true);
    assert_eq!(up.get("/v1/files", text(&key, "api_key")), 401);
    for arguments in [
        &[&create_key[..], &[id]].concat(),
        &vec!["service-account", "revoke", id],
    ] {
        let arguments = [arguments, &["--project", "default"][..]].concat();
        refused(folder.path(), &arguments, "has no service account");
    }
    let log = lines(folder.path(), &["audit", "export"]);
    let actions: Vec<&str> = log.iter().map(|row| text(row, "action")).collect();
    let expected = [
        "service_account.created",
        "api_key.created",
        "service_account.created",
        "api_key.created",
        "service_account.deleted",
    ];
    assert!(actions.ends_with(&expected), "{actions:?}");
    assert!(up.terminate().success());
}

#[test]
fn limits_and_secrets_are_the_operators() {
    let folder = folder();
    let up = Up::start(folder.path());
    let limits = |change: &[&str]| {
        json(
            folder.path(),
            &[&["project", "limits", "default"], change].concat(),
        )
    };
    let before = limits(&[]);
    assert_eq!(
        (&before["max_requests_per_minute"], &before["weight"]),
        (&Value::Null, &1.0.into())
    );
    limits(&[
        "--max-requests-per-minute",
        "2",
        "--weight",
        "3",
        "--priority",
        "-1",
    ]);
    let set = limits(&[]);
    assert_eq!(
        (
            &set["max_requests_per_minute"],
            &set["weight"],
            &set["priority"]
        ),
        (&2.into(), &3.0.into(), &(-1).into())
    );
    let codes = [(); 3].map(|()| up.get("/v1/models", up.api_key()));
    assert_eq!(codes, [200, 200, 429]);
    limits(&["--max-requests-per-minute", "none"]);
    assert_eq!(limits(&[])["max_requests_per_minute"], Value::Null);
    for (change, reason) in [
        (["--weight", "0"], "--weight"),
        (["--max-requests-per-minute", "0"], "a limit per minute"),
    ] {
        let arguments = [&["project", "limits", "default"], &change[..]].concat();
        refused(folder.path(), &arguments, reason);
    }
    let rotated = json(folder.path(), &["secrets", "rotate"]);
    assert_eq!(rotated["resealed"], 0);
    let log = lines(folder.path(), &["audit", "export"]);
    let last = log.last().unwrap();
    assert_eq!(
        (text(last, "action"), text(last, "object_id")),
        ("secrets.rotated", text(&rotated, "key"))
    );
    assert_eq!(text(last, "details"), r#"{"complete":true}"#);
    assert!(up.terminate().success());
}

#[test]
fn a_project_s_account_of_weights_and_biases_is_the_operators() {
    let folder = folder();
    let up = Up::start(folder.path());
    let key = "0123456789abcdef0123456789abcdef01234567";
    let file = folder.path().join("wandb-key");
    std::fs::write(&file, format!("{key}\n")).unwrap();
    let show = ["project", "wandb", "show", "default"];
    refused(folder.path(), &show, "admin project wandb set");

    let set = [
        "project",
        "wandb",
        "set",
        "default",
        "--api-key-file",
        file.to_str().unwrap(),
    ];
    let account = json(folder.path(), &set);
    assert_eq!(
        (&account["base_url"], &account["entity"]),
        (&"https://api.wandb.ai".into(), &Value::Null)
    );
    let ours = [
        "--base-url",
        "https://wandb.example.com/",
        "--entity",
        "team",
    ];
    json(folder.path(), &[&set[..], &ours].concat());
    let shown = json(folder.path(), &show);
    assert_eq!(
        (&shown["base_url"], &shown["entity"]),
        (&"https://wandb.example.com".into(), &"team".into())
    );
    assert!(!shown.to_string().contains(&key[..8]));
    let wrong = ["--base-url", "wandb.example.com"];
    refused(folder.path(), &[&set[..], &wrong].concat(), "--base-url");
    let missing = [&set[..5], &["/no/such/file"]].concat();
    refused(folder.path(), &missing, "/no/such/file");
    let rotated = json(folder.path(), &["secrets", "rotate"]);
    assert_eq!(rotated["resealed"], 0, "it is sealed with the first key");

    let remove = ["project", "wandb", "remove", "default"];
    assert_eq!(json(folder.path(), &remove)["removed"], true);
    refused(folder.path(), &remove, "admin project wandb set");
    let log = lines(folder.path(), &["audit", "export"]);
    let of_account: Vec<&Value> = log
        .iter()
        .filter(|row| text(row, "action").starts_with("wandb_account."))
        .collect();
    let actions: Vec<&str> = of_account.iter().map(|row| text(row, "action")).collect();
    assert_eq!(
        actions,
        [
            "wandb_account.updated",
            "wandb_account.updated",
            "wandb_account.deleted"
        ]
    );
    assert!(text(of_account[1], "details").contains("team"));
    assert!(!log.iter().any(|row| row.to_string().contains(key)));
    assert!(up.terminate().success());
}
