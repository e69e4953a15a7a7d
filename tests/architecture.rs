//! Who may depend on whom, as `docs/architecture.md` says, checked over what cargo knows.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Every package of ours and the ones of ours it may use, dev-dependencies aside.
const ALLOWED: [(&str, &[&str]); 15] = [
    ("domain", &[]),
    ("text", &[]),
    ("lm", &[]),
    ("grading", &[]),
    ("store", &["domain"]),
    ("artifacts", &["domain"]),
    ("buckets", &["domain", "store", "artifacts"]),
    ("dataset", &["domain", "text"]),
    ("training", &["domain", "text", "dataset", "lm"]),
    (
        "api",
        &[
            "domain",
            "store",
            "artifacts",
            "buckets",
            "text",
            "dataset",
            "grading",
        ],
    ),
    (
        "worker",
        &[
            "domain",
            "store",
            "artifacts",
            "buckets",
            "text",
            "dataset",
            "lm",
            "training",
        ],
    ),
    (
        "inference",
        &["domain", "store", "artifacts", "buckets", "text", "lm"],
    ),
    (
        "attune",
        &[
            "domain",
            "store",
            "artifacts",
            "buckets",
            "text",
            "dataset",
            "lm",
            "training",
            "grading",
            "api",
            "worker",
            "inference",
        ],
    ),
    // Test support may use what it supports.
    ("testkit", &["domain", "store", "artifacts", "api"]),
    ("tests", &[]),
];

fn metadata() -> Metadata {
    // Packages of other platforms need not be downloaded where the tests run.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let options = ["--offline", "--locked", "--filter-platform", &platform];
    MetadataCommand::new()
        .other_options(options.map(str::to_owned))
        .exec()
        .unwrap()
}

fn normal_dependencies(package: &Package) -> impl Iterator<Item = &str> {
    package
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind == DependencyKind::Normal)
        .map(|dependency| dependency.name.as_str())
}

/// Names of everything `package` links, directly or not.
fn linked(metadata: &Metadata, package: &str) -> BTreeSet<String> {
    let nodes: BTreeMap<&PackageId, _> = metadata
        .resolve
        .as_ref()
        .unwrap()
        .nodes
        .iter()
        .map(|node| (&node.id, node))
        .collect();
    let start = metadata
        .workspace_packages()
        .into_iter()
        .find(|p| p.name == package)
        .unwrap();
    let (mut queue, mut seen) = (vec![&start.id], BTreeSet::new());
    while let Some(id) = queue.pop() {
        if seen.insert(id) {
            let normal = nodes[id].deps.iter().filter(|dep| {
                dep.dep_kinds
                    .iter()
                    .any(|kind| kind.kind == DependencyKind::Normal)
            });
            queue.extend(normal.map(|dep| &dep.pkg));
        }
    }
    seen.into_iter()
        .map(|id| metadata[id].name.to_string())
        .collect()
}

#[test]
fn packages_use_only_what_they_may() {
    let metadata = metadata();
    let allowed: BTreeMap<_, _> = ALLOWED.into_iter().collect();
    for package in metadata.workspace_packages() {
        let may = allowed
            .get(package.name.as_str())
            .unwrap_or_else(|| panic!("{} is new: say here what it may use", package.name));
        for dependency in normal_dependencies(package).filter(|name| allowed.contains_key(name)) {
            assert!(
                may.contains(&dependency),
                "{} must not use {dependency}",
                package.name
            );
        }
    }
}

#[test]
fn only_store_names_sqlx_and_only_artifacts_names_the_s3_sdk() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        for dependency in normal_dependencies(package) {
            let owner = match dependency {
                "sqlx" => "store",
                "aws-sdk-s3" | "aws-config" | "s3s" | "s3s-fs" => "artifacts",
                _ => continue,
            };
            let is_support = package.name == "testkit";
            assert!(
                package.name == owner || is_support,
                "{} names {dependency}",
                package.name
            );
        }
    }
}

/// Files below a folder, by what they hold.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

#[test]
fn services_reach_a_projects_objects_only_through_buckets() {
    // A source of base models that is anyone's bucket, and a bucket that is tried before a project has it.
    let may = ["attune/src/models/source.rs", "attune/src/admin/bucket.rs"];
    let services = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services");
    let mut n_services = 0;
    for entry in fs::read_dir(services).unwrap() {
        n_services += 1;
        for (path, text) in sources(&entry.unwrap().path().join("src")) {
            assert!(
                !text.contains("ObjectStore::connect") || may.iter().any(|end| path.ends_with(end)),
                "{} opens a bucket by itself: ask `buckets` where the project's objects are",
                path.display()
            );
        }
    }
    assert_eq!(n_services, 4);
}

#[test]
fn the_training_side_knows_no_service() {
    let metadata = metadata();
    for package in ["domain", "text", "lm", "grading", "training"] {
        let linked = linked(&metadata, package);
        for foreign in [
            "tokio",
            "axum",
            "sqlx",
            "aws-sdk-s3",
            "reqwest",
            "store",
            "artifacts",
        ] {
            assert!(!linked.contains(foreign), "{package} links {foreign}");
        }
    }
}

#[test]
fn neither_the_api_nor_text_links_burn() {
    let metadata = metadata();
    for package in [
        "api",
        "text",
        "dataset",
        "grading",
        "store",
        "artifacts",
        "buckets",
    ] {
        let burn = linked(&metadata, package)
            .into_iter()
            .find(|name| name.starts_with("burn"));
        assert_eq!(burn, None, "{package} links burn");
    }
}
