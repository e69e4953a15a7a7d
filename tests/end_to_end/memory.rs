//! Jobs that need more memory than their worker may take.

use tests::Installation;

use crate::{create_job, rows, tiny_base};

#[tokio::test]
async fn a_job_that_does_not_fit_is_refused_with_the_numbers_before_its_base_is_loaded() {
    let installation = Installation::start_with(&[("ATTUNE_MAX_MEMORY_MB", "50")]).await;
    installation.import(tiny_base().path(), "tiny");
    let file = installation.upload(&rows(8)).await;
    let job = create_job(&installation, &file).await;

    let ended = installation.finished(&job).await;
    assert_eq!(ended["status"], "failed", "{ended}");
    assert_eq!(ended["error"]["code"], "does_not_fit");
    let message = ended["error"]["message"].as_str().unwrap();
    for part in [
        "would need at least",
        "for the base model",
        "for the process",
    ] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
    assert_eq!(ended["attune"]["attempt"], 1, "it is not tried again");
}
