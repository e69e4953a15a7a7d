"""OpenAI's strict client in each of its ways: what is managed rather than trained, with an admin key where one is needed."""

import openai
import pytest

ORGANIZATION, PROJECTS = "admin.organization", "admin.organization.projects"


@pytest.fixture
def project(call):
    made = call(f"{PROJECTS}.create", name="Strict")
    yield made
    assert call(f"{PROJECTS}.archive", made.id).status == "archived"


def ids(objects):
    return [each.id for each in objects]


def test_checkpoint_permissions(call, project, tuned):
    model = f"{tuned.fine_tuned_model}:ckpt-step-5"
    permissions = "fine_tuning.checkpoints.permissions"
    made = call(f"{permissions}.create", model, project_ids=[project.id])
    assert [each.project_id for each in made] == [project.id]
    for order in ("ascending", "descending"):
        assert made[0].id in ids(call(f"{permissions}.list", model, order=order, limit=1, project_id=project.id))
    with pytest.warns(DeprecationWarning):
        page = call(f"{permissions}.retrieve", model, limit=1)
    # Its cursor is `last_id`.
    assert page.last_id == page.data[-1].id
    assert call(f"{permissions}.delete", made[0].id, fine_tuned_model_checkpoint=model).deleted
    assert call(f"{permissions}.list", model, project_id=project.id) == []


def test_projects(call, project):
    assert call(f"{PROJECTS}.retrieve", project.id) == project
    assert call(f"{PROJECTS}.update", project.id, name="Renamed").name == "Renamed"
    assert project.id in ids(call(f"{PROJECTS}.list", limit=3))


def test_service_accounts_and_keys(call, project):
    accounts, keys = f"{PROJECTS}.service_accounts", f"{PROJECTS}.api_keys"
    account = call(f"{accounts}.create", project.id, name="ci")
    assert account.api_key.value.startswith("sk-attune-")
    assert call(f"{accounts}.retrieve", account.id, project_id=project.id).name == "ci"
    assert ids(call(f"{accounts}.list", project.id)) == [account.id]
    assert ids(call(f"{keys}.list", project.id)) == [account.api_key.id]
    key = call(f"{keys}.retrieve", account.api_key.id, project_id=project.id)
    assert account.api_key.value not in key.to_json()
    assert call(f"{keys}.delete", key.id, project_id=project.id).deleted
    assert call(f"{accounts}.delete", account.id, project_id=project.id).deleted


def test_people(call, project):
    members, people = f"{PROJECTS}.users", f"{ORGANIZATION}.users"
    member = call(f"{members}.create", project.id, email=f"{project.id}@example.com", role="member")
    assert ids(call(f"{members}.list", project.id)) == [member.id]
    assert call(f"{members}.retrieve", member.id, project_id=project.id) == member
    assert call(f"{members}.update", member.id, project_id=project.id, role="owner").role == "owner"
    assert member.id in ids(call(f"{people}.list"))
    assert call(f"{people}.retrieve", member.id).email == member.email
    assert call(f"{people}.update", member.id, role="owner").role == "owner"
    assert call(f"{members}.delete", member.id, project_id=project.id).deleted
    assert call(f"{people}.delete", member.id).deleted
    with pytest.raises(openai.NotFoundError):
        call(f"{people}.retrieve", member.id)


def test_limits(call, project):
    limits = f"{PROJECTS}.rate_limits"
    changed = call(
        f"{limits}.update_rate_limit", "rl-project", project_id=project.id,
        max_requests_per_1_minute=1000, max_tokens_per_1_minute=100_000,
    )
    assert call(f"{limits}.list_rate_limits", project.id) == [changed]


def test_admin_keys_and_the_audit_log(call):
    keys = f"{ORGANIZATION}.admin_api_keys"
    key = call(f"{keys}.create", name="strict")
    assert key.value.startswith("sk-attune-admin-")
    assert key.value not in call(f"{keys}.retrieve", key.id).to_json()
    assert key.id in ids(call(f"{keys}.list", limit=2))
    assert call(f"{keys}.delete", key.id).deleted
    logged = call(f"{ORGANIZATION}.audit_logs.list", limit=100, event_types=["admin_api_key.deleted"])
    assert "admin_api_key.deleted" == logged[0].type


def test_webhook_endpoints(call, receiver):
    url = f"http://127.0.0.1:{receiver.server_address[1]}/hook"
    event = "fine_tuning.job.failed"
    endpoint = call("webhooks.create", name="strict", url=url, event_types=[event])
    assert call("webhooks.retrieve", endpoint.id).url == url
    assert call("webhooks.update", endpoint.id, name="renamed").name == "renamed"
    assert endpoint.id in ids(call("webhooks.list", limit=1))
    listed = call("webhooks.event_types.list")
    assert event in listed.data
    secret = call("webhooks.rotate_secret", endpoint.id).signing_secret
    assert call("webhooks.test", endpoint.id, event_type=event).success
    body, headers = receiver.received.get(timeout=10)
    call("webhooks.verify_signature", body, headers, secret=secret)
    assert call("webhooks.unwrap", body, headers, secret=secret).type == event
    with pytest.raises(openai.InvalidWebhookSignatureError):
        call("webhooks.verify_signature", body + " ", headers, secret=secret)
    assert call("webhooks.delete", endpoint.id).deleted
