//! Generation step by step against the whole forward pass.

use lm::session::SessionError;
use lm::{Adapter, CausalLm, Ragged};
use serde_json::json;

use crate::forward::values;
use crate::tiny::{self, families, largest_difference};

fn last_logits(model: &CausalLm, ids: &[u32], adapter: Option<&Adapter>) -> Vec<f32> {
    let hidden = model.hidden(&Ragged::single(ids), adapter, None);
    values(model.logits(hidden.narrow(0, ids.len() - 1, 1)))
}

fn sequence(n: u32) -> Vec<u32> {
    (0..n).map(|i| (i * i + 7 * i + 3) % 50).collect()
}

#[test]
fn steps_equal_the_whole_in_every_family() {
    let ids = sequence(12);
    for changes in families() {
        let model = tiny::model(changes.clone());
        let mut session = model.session();
        let mut fed = 0;
        for n in [3, 1, 1, 4, 1, 2] {
            let logits = session.feed(&ids[fed..fed + n], None).unwrap();
            fed += n;
            let expected = last_logits(&model, &ids[..fed], None);
            let difference = largest_difference(&logits, &expected);
            assert!(difference < 1e-4, "{changes} after {fed}: {difference}");
        }
        assert_eq!(session.n_tokens(), 12);
    }
}

#[test]
fn a_long_prompt_and_a_grown_cache_change_nothing() {
    let ids = sequence(700);
    let model = tiny::model(json!({}));
    let mut at_once = model.session();
    let mut in_parts = model.session();
    at_once.feed(&ids[..699], None).unwrap();
    for part in ids[..699].chunks(100) {
        in_parts.feed(part, None).unwrap();
    }
    let expected = last_logits(&model, &ids, None);
    for session in [&mut at_once, &mut in_parts] {
        let logits = session.feed(&ids[699..], None).unwrap();
        assert!(largest_difference(&logits, &expected) < 1e-4);
    }
}

#[test]
fn a_session_runs_under_an_adapter() {
    let model = tiny::model(json!({}));
    let adapter = crate::adapter::random_adapter(&model);
    let ids = sequence(9);
    let mut session = model.session();
    session.feed(&ids[..8], Some(&adapter)).unwrap();
    let logits = session.feed(&ids[8..], Some(&adapter)).unwrap();
    let expected = last_logits(&model, &ids, Some(&adapter));
    assert!(largest_difference(&logits, &expected) < 1e-4);
    assert!(largest_difference(&logits, &last_logits(&model, &ids, None)) > 1e-2);
}

#[test]
fn a_full_context_and_unknown_tokens_are_refused_and_change_nothing() {
    let model = tiny::model(json!({}));
    let mut session = model.session().with_limit(4);
    session.feed(&[1, 2], None).unwrap();
    let full = SessionError::ContextFull {
        wanted: 5,
        limit: 4,
    };
    assert_eq!(session.feed(&[3, 4, 5], None).unwrap_err(), full);
    assert_eq!(
        session.feed(&[50], None).unwrap_err(),
        SessionError::UnknownToken(50)
    );
    assert_eq!(session.feed(&[], None).unwrap_err(), SessionError::Empty);
    let logits = session.feed(&[3, 4], None).unwrap();
    let expected = last_logits(&model, &[1, 2, 3, 4], None);
    assert!(largest_difference(&logits, &expected) < 1e-4);
}
