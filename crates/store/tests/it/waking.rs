//! Word of new jobs, as workers hear it.

use std::time::Duration;

use sqlx::PgPool;
use store::Store;

/// Longer than anything takes here on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// Long after whatever was to be said has been said.
const SILENCE: Duration = Duration::from_secs(1);

#[sqlx::test(migrator = "store::MIGRATOR")]
async fn what_comes_together_is_announced_once_and_what_comes_later_again(pool: PgPool) {
    let store = Store::from_pool(pool);
    let mut wakeups = store.wakeups().await.unwrap();
    for _ in 0..2 {
        store.wake_workers();
        store.clone().wake_workers();
        let heard = tokio::time::timeout(PATIENCE, wakeups.next()).await;
        heard.expect("the wake is heard").unwrap();
        let again = tokio::time::timeout(SILENCE, wakeups.next()).await;
        assert!(again.is_err(), "both were announced");
    }
}
