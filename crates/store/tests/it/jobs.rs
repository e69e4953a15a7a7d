//! Jobs as their tenant stores, finds and lists them.

use std::collections::BTreeMap;

use domain::Job;
use sqlx::PgPool;
use store::jobs::{self, JobListing, MetadataFilter};
use store::{Store, StoreError};
use time::Duration;

use crate::given::{Tenant, found, job, now, request, stored, two_tenants};

fn notes(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

async fn listed(store: &Store, tenant: Tenant, metadata: MetadataFilter) -> usize {
    let mut tx = store.tenant_tx(tenant.project_id).await.unwrap();
    let listing = JobListing {
        after: None,
        limit: 10,
        metadata,
    };
    jobs::list(&mut tx, &listing).await.unwrap().data.len()
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_job_comes_back_as_it_was_stored(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let full = Job {
        suffix: Some("tickets".to_owned()),
        validation_file: Some(domain::FileId::new()),
        metadata: Some(notes(&[("team", "support"), ("empty", "")])),
        ..job(acme)
    };
    let job = stored(&store, full).await;
    assert_eq!(found(&store, &job).await, job);
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    assert_eq!(
        jobs::find(&mut tx, job.id).await.unwrap().unwrap().request,
        request()
    );
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn pages_run_newest_first_and_know_their_end(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let mut made = Vec::new();
    // The last two at one instant: the id decides.
    for seconds in [0, 1, 2, 2] {
        let created_at = now() + Duration::seconds(seconds);
        made.push(
            stored(
                &store,
                Job {
                    created_at,
                    ..job(acme)
                },
            )
            .await
            .id,
        );
    }
    made.reverse();
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let mut seen = Vec::new();
    let mut more = Vec::new();
    let mut after = None;
    for _ in 0..2 {
        let listing = JobListing {
            after,
            limit: 2,
            metadata: MetadataFilter::Any,
        };
        let page = jobs::list(&mut tx, &listing).await.unwrap();
        seen.extend(page.data.iter().map(|stored| stored.job.id));
        more.push(page.has_more);
        after = seen.last().copied();
    }
    assert_eq!((seen, more), (made, vec![true, false]));
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_cursor_of_another_tenant_is_unknown(pool: PgPool) {
    let (store, [acme, umbrella]) = two_tenants(&pool).await;
    let theirs = stored(&store, job(umbrella)).await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let listing = JobListing {
        after: Some(theirs.id),
        limit: 2,
        metadata: MetadataFilter::Any,
    };
    let refused = jobs::list(&mut tx, &listing).await.unwrap_err();
    assert!(matches!(refused, StoreError::UnknownCursor), "{refused:?}");
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn notes_filter_jobs(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    stored(&store, job(acme)).await;
    stored(
        &store,
        Job {
            metadata: Some(notes(&[("a", "1"), ("b", "")])),
            ..job(acme)
        },
    )
    .await;
    stored(
        &store,
        Job {
            metadata: Some(notes(&[("a", "2")])),
            ..job(acme)
        },
    )
    .await;
    let contains = |pairs| MetadataFilter::Contains(notes(pairs));
    assert_eq!(listed(&store, acme, MetadataFilter::Any).await, 3);
    assert_eq!(listed(&store, acme, MetadataFilter::None).await, 1);
    assert_eq!(listed(&store, acme, contains(&[("a", "1")])).await, 1);
    assert_eq!(
        listed(&store, acme, contains(&[("a", "1"), ("b", "")])).await,
        1
    );
    assert_eq!(listed(&store, acme, contains(&[("a", "")])).await, 0);
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_nul_character_is_refused_by_field(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let named = Job {
        suffix: Some("a\u{0}".to_owned()),
        ..job(acme)
    };
    let noted = Job {
        metadata: Some(notes(&[("k\u{0}", "v")])),
        ..job(acme)
    };
    for (job, field) in [(named, "suffix"), (noted, "metadata")] {
        let refused = jobs::create(&mut tx, &job, &request())
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.starts_with(&format!("`{field}`")), "{refused}");
    }
}

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn a_job_for_a_base_model_that_is_gone_is_refused(pool: PgPool) {
    let (store, [acme, _]) = two_tenants(&pool).await;
    let mut tx = store.tenant_tx(acme.project_id).await.unwrap();
    let lost = Job {
        base_model: "gone".to_owned(),
        ..job(acme)
    };
    let refused = jobs::create(&mut tx, &lost, &request()).await.unwrap_err();
    assert!(
        matches!(refused, StoreError::MissingReference { .. }),
        "{refused:?}"
    );
}
