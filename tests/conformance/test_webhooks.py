"""Webhooks through the unmodified OpenAI client: endpoints managed with it, deliveries verified with it."""

import openai
import pytest

from conftest import chat_rows
from test_openai import finished, upload

EVENTS = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]


@pytest.fixture
def endpoint(client, receiver):
    url = f"http://127.0.0.1:{receiver.server_address[1]}/hook"
    made = client.webhooks.create(name="conformance", url=url, event_types=EVENTS)
    yield made
    assert client.webhooks.delete(made.id).deleted


def test_an_endpoint_is_managed_with_the_client(client, endpoint):
    assert endpoint.object == "webhook_endpoint" and endpoint.signing_secret.startswith("whsec_")
    shown = client.webhooks.retrieve(endpoint.id)
    assert shown.event_types == EVENTS and shown.signing_secret_hint[-4:] == endpoint.signing_secret[-4:]
    assert client.webhooks.update(endpoint.id, name="renamed").name == "renamed"
    assert endpoint.id in [each.id for each in client.webhooks.list(limit=1)]
    assert set(EVENTS) <= set(client.webhooks.event_types.list().data)
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve("we_" + "0" * 32)


def test_an_event_is_unwrapped_by_the_client_also_after_a_failure(client, endpoint, receiver):
    receiver.answers.append(500)
    file = upload(client, chat_rows(4))
    job = client.fine_tuning.jobs.create(model="tiny", training_file=file.id, extra_body={"attune": {"max_steps": 1}})
    assert finished(client, job.id).status == "succeeded"
    # The second comes after a pause of five seconds.
    deliveries = [receiver.received.get(timeout=60) for _ in range(2)]
    events = [client.webhooks.unwrap(body, headers, secret=endpoint.signing_secret) for body, headers in deliveries]
    assert [event.type for event in events] == ["fine_tuning.job.succeeded"] * 2
    assert events[0].id == events[1].id and events[0].data.id == job.id
    body, headers = deliveries[0]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body.replace("succeeded", "failed"), headers, secret=endpoint.signing_secret)


def test_both_secrets_verify_while_the_old_one_is_kept(client, endpoint, receiver):
    rotated = client.webhooks.rotate_secret(endpoint.id, keep_old_secret_active_for_24_hours=True)
    tested = client.webhooks.test(endpoint.id, event_type="fine_tuning.job.failed")
    assert tested.success and tested.status_code == 200
    body, headers = receiver.received.get(timeout=10)
    for secret in (endpoint.signing_secret, rotated.signing_secret):
        assert client.webhooks.unwrap(body, headers, secret=secret).type == "fine_tuning.job.failed"
    rotated = client.webhooks.rotate_secret(endpoint.id)
    client.webhooks.test(endpoint.id, event_type="fine_tuning.job.failed")
    body, headers = receiver.received.get(timeout=10)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body, headers, secret=endpoint.signing_secret)
    assert client.webhooks.unwrap(body, headers, secret=rotated.signing_secret)
