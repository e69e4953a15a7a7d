"""OpenAI's client, method by method: which it has, and how a test calls one in each of the ways that it offers.

Validation is strict: a missing key or one of another type fails.
"""

import asyncio
import contextlib
import inspect
from collections import defaultdict

import openai
from openai._base_client import BaseAsyncPage, BaseSyncPage
from openai._legacy_response import HttpxBinaryResponseContent, LegacyAPIResponse
from openai._resource import AsyncAPIResource, SyncAPIResource
from openai._response import AsyncStreamedBinaryAPIResponse, BaseAPIResponse, StreamedBinaryAPIResponse

CLIENTS = {"sync": openai.OpenAI, "async": openai.AsyncOpenAI}
# Each method as it is, with the raw response around it, and with a response that is read as it comes.
WAYS = [f"{client}{variant}" for client in CLIENTS for variant in ("", "-raw", "-streaming")]
GROUPS = ["admin", "batches", "chat", "files", "fine_tuning", "models", "uploads", "webhooks"]
# A paused job is outside the client's enum of statuses.
SETTINGS = dict(max_retries=0, default_headers={"attune-compat": "openai"})

STORED = "answers of chat are not stored"
BILLING = "nobody is billed"
PROVIDER = "the identity provider and the operator decide this, not the service"
ORGANIZATION, PROJECTS = "admin.organization", "admin.organization.projects"
NOT_SERVED = {
    "chat.completions.delete": STORED,
    "chat.completions.list": STORED,
    "chat.completions.messages": STORED,
    "chat.completions.retrieve": STORED,
    "chat.completions.update": STORED,
    f"{ORGANIZATION}.certificates": PROVIDER,
    f"{ORGANIZATION}.data_retention": PROVIDER,
    f"{ORGANIZATION}.external_keys": PROVIDER,
    f"{ORGANIZATION}.external_storage": PROVIDER,
    f"{ORGANIZATION}.groups": PROVIDER,
    f"{ORGANIZATION}.invites": "adding a user by address is the invitation",
    f"{ORGANIZATION}.roles": "roles are fixed",
    f"{ORGANIZATION}.spend_alerts": BILLING,
    f"{ORGANIZATION}.spend_limit": BILLING,
    f"{ORGANIZATION}.usage": BILLING,
    f"{ORGANIZATION}.users.roles": "roles are fixed",
    f"{ORGANIZATION}.workload_identity_providers": PROVIDER,
    f"{PROJECTS}.api_keys.update": "a key is rotated or revoked; what it may do does not change under its user",
    f"{PROJECTS}.certificates": PROVIDER,
    f"{PROJECTS}.data_retention": PROVIDER,
    f"{PROJECTS}.groups": PROVIDER,
    f"{PROJECTS}.hosted_tool_permissions": "there are no hosted tools",
    f"{PROJECTS}.model_permissions": "a base model is everybody's, a tuned one its project's",
    f"{PROJECTS}.roles": "roles are fixed",
    f"{PROJECTS}.service_accounts.api_keys": "a further key of an account is a key of the project with `service_account_id`",
    f"{PROJECTS}.service_accounts.update": "an account is replaced by another",
    f"{PROJECTS}.service_tier_settings": "there is one tier",
    f"{PROJECTS}.spend_alerts": BILLING,
    f"{PROJECTS}.spend_limit": BILLING,
    f"{PROJECTS}.users.roles": "roles are fixed",
}
# Served, and not as the client's types have it.
LOOSE = {f"{ORGANIZATION}.audit_logs.list": "what is done here has names outside OpenAI's closed list"}

# What was answered, by way.
CALLED = defaultdict(set)


def methods(resource, path=()):
    """The methods of a resource and those below it, as `files.list`."""
    for name in dir(type(resource)):
        if name.startswith("_") or name.startswith("with_"):
            continue
        if inspect.isfunction(getattr(type(resource), name)):
            yield ".".join((*path, name))
        elif isinstance(below := getattr(resource, name), (SyncAPIResource, AsyncAPIResource)):
            yield from methods(below, (*path, name))


def served(way):
    """The methods that the client has for what we serve."""
    client = CLIENTS[way.split("-")[0]](api_key="x", base_url="http://localhost")
    for group in GROUPS:
        for path in methods(getattr(client, group), (group,)):
            if not any(path == out or path.startswith(f"{out}.") for out in NOT_SERVED):
                yield path


class Call:
    """Calls a method by its path, for instance `files.list`, in one of the ways. Pages and streams come as lists, content as
    bytes."""

    def __init__(self, server, way):
        self.server, self.way = server, way
        self.client, _, self.variant = way.partition("-")

    def __call__(self, path, *args, **kwargs):
        answer = asyncio.run(self.perform(path, args, kwargs))
        CALLED[self.way].add(path)
        return answer

    async def perform(self, path, args, kwargs):
        # The client sends its other key only where OpenAI has the route under `/organization`.
        is_admins = path.startswith("fine_tuning.checkpoints")
        client = CLIENTS[self.client](
            base_url=self.server["OPENAI_BASE_URL"],
            api_key=self.server["OPENAI_ADMIN_KEY" if is_admins else "OPENAI_API_KEY"],
            admin_api_key=self.server["OPENAI_ADMIN_KEY"],
            _strict_response_validation=path not in LOOSE,
            **SETTINGS,
        )
        async with entered(client):
            *groups, name = path.split(".")
            resource = client
            for group in groups:
                resource = getattr(resource, group)
            method = getattr(resource, name)
            if self.variant:
                # Some helpers have no such form.
                method = getattr(getattr(resource, f"with_{self.variant}_response"), name, method)
            async with entered(await settled(method(*args, **kwargs))) as answer:
                return await whole(answer)


async def settled(answer):
    return await answer if inspect.isawaitable(answer) else answer


@contextlib.asynccontextmanager
async def entered(answer):
    if hasattr(answer, "__aenter__"):
        async with answer as inner:
            yield inner
    elif hasattr(answer, "__enter__"):
        with answer as inner:
            yield inner
    else:
        yield answer


async def whole(answer):
    if isinstance(answer, (LegacyAPIResponse, BaseAPIResponse)):
        assert answer.headers["x-request-id"].startswith("req_") and int(answer.headers["openai-processing-ms"]) >= 0
        if isinstance(answer, (StreamedBinaryAPIResponse, AsyncStreamedBinaryAPIResponse)):
            return await settled(answer.read())
        answer = await settled(answer.parse())
    if hasattr(answer, "get_final_completion"):
        return await settled(answer.get_final_completion())
    if isinstance(answer, HttpxBinaryResponseContent):
        return answer.content
    if isinstance(answer, (BaseSyncPage, openai.Stream)):
        return list(answer)
    if isinstance(answer, (BaseAsyncPage, openai.AsyncStream)):
        return [each async for each in answer]
    return answer
