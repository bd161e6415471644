"""The tags and the API key of usage events: stored with the event, no part of its identity."""

from typing import Any

import pytest
from httpx import AsyncClient
from sqlalchemy import select

from harness.issuer import Headers
from harness.usage_events import deliver, event
from services.billing.models import TAGS_CHARS, UsageEvent
from services.common.db.database import Database


def tagged(*, api_key: str | None = None, tags: Any = None, **members: Any) -> dict[str, Any]:
    """Return a usage event with an API key and tags."""
    sent = event(**members)
    more = {"api_key": api_key, "tags": tags}
    sent["data"] |= {name: value for name, value in more.items() if value is not None}
    return sent


async def stored(database: Database) -> list[tuple[str | None, str | None]]:
    async with database.snapshot() as session:
        found = select(UsageEvent.api_key, UsageEvent.tags).order_by(UsageEvent.id)
        return [(api_key, tags) for api_key, tags in await session.execute(found)]


async def test_they_are_stored_and_the_order_of_tags_does_not_matter(
    client: AsyncClient, service: Headers, database: Database
) -> None:
    one = tagged(id="e1", api_key="key-1", tags={"team": "a", "project": "b"})
    other = tagged(id="e2", tags={"project": "b", "team": "a"})

    await deliver(client, service, [one, other, tagged(id="e3", tags={}), event(id="e4")])

    both = '{"project":"b","team":"a"}'
    assert await stored(database) == [("key-1", both), (None, both), (None, None), (None, None)]


async def test_the_longest_tags_fit(
    client: AsyncClient, service: Headers, database: Database
) -> None:
    longest = {f"{number}{'n' * 63}": "v" * 64 for number in range(5)}

    await deliver(client, service, [tagged(tags=longest)])

    [(_, tags)] = await stored(database)
    assert tags is not None
    assert len(tags) <= TAGS_CHARS


async def test_a_repeat_with_others_is_a_duplicate_and_no_conflict(
    client: AsyncClient, service: Headers
) -> None:
    sent = tagged(id="e1", api_key="key-1", tags={"team": "a"})

    await deliver(client, service, [sent])
    repeat = tagged(id="e1", tags={"team": "b"}, time=sent["time"])
    result = await deliver(client, service, [repeat])

    assert (result["duplicates"], result["conflicts"]) == (1, 0)


@pytest.mark.any_database
@pytest.mark.parametrize(
    "tags",
    [
        [],
        "team=a",
        {"team": 1},
        {"team": None},
        {"": "a"},
        {"team": "a b"},
        {"täam": "a"},
        {"team": "x" * 65},
        {str(number): "a" for number in range(6)},
    ],
)
async def test_malformed_tags_are_rejected(
    client: AsyncClient, service: Headers, tags: Any
) -> None:
    result = await deliver(client, service, [tagged(tags=tags)])

    assert result["accepted"] == 0
    assert result["rejected"][0]["reason"].startswith("data.tags")
