//! The OpenAPI document in the repository, and the page that shows it.

use crate::support::TestApp;

#[test]
fn the_document_in_the_repository_is_the_codes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi.yaml");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    let current = api::openapi::yaml();
    let changed = committed
        .lines()
        .zip(current.lines())
        .find(|(old, new)| old != new);
    assert!(
        committed == current,
        "openapi.yaml is not what the code says (first difference: {changed:?}); run script/openapi and commit it"
    );
}

#[tokio::test]
async fn the_document_and_its_page_are_served_without_a_key() {
    let app = TestApp::start().await;
    let yaml = app.anonymous.get("/openapi.yaml").await;
    assert_eq!(yaml.status, 200);
    assert_eq!(yaml.text, api::openapi::yaml());
    let json = app.anonymous.get("/openapi.json").await.ok();
    assert_eq!(json["openapi"], "3.1.0");
    let page = app.anonymous.get("/docs").await;
    assert_eq!(page.status, 200, "a redirection is followed");
    assert!(page.text.contains("swagger-ui"));
    // Everything that the page asks for is here.
    for part in page.text.split(['"', '\'']) {
        if matches!(part.rsplit_once('.'), Some((_, "js" | "css"))) {
            assert!(!part.contains("//"), "{part} is somewhere else");
            let path = format!("/docs/{}", part.trim_start_matches("./"));
            assert_eq!(app.anonymous.get(&path).await.status, 200, "{path}");
        }
    }
    let missing = app.anonymous.get("/docs/no-such.js").await;
    assert_eq!(missing.status, 404);
}
