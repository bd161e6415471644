"""The id of a usage event decides what is a repeat."""

import uuid
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from services.common.contracts import UsageCloudEvent
from services.inference.metering import events
from services.inference.metering.events import with_sequence

text = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=50)
request = st.tuples(text, text, text, st.binary(max_size=50))


def _id(parts: tuple[str, str, str, bytes]) -> str:
    account, key, path, body = parts
    return events.keyed_id(account=account, key=key, path=path, body_sha256=sha256(body).digest())


@given(request, request)
def test_keyed_ids_are_equal_only_for_equal_requests(
    one: tuple[str, str, str, bytes], other: tuple[str, str, str, bytes]
) -> None:
    assert (_id(one) == _id(other)) == (one == other)
    assert _id(one) == _id(one)
    assert uuid.UUID(_id(one)).version == 8


def test_new_ids_are_version_7_and_sort_by_time() -> None:
    ids = [events.new_id() for _ in range(50)]

    assert {uuid.UUID(i).version for i in ids} == {7}
    assert {uuid.UUID(i).variant for i in ids} == {uuid.RFC_4122}
    assert [i[:13] for i in ids] == sorted(i[:13] for i in ids)
    assert len(set(ids)) == 50


def test_billing_can_read_an_event() -> None:
    account, journal = str(uuid.uuid4()), str(uuid.uuid4())
    event = events.encode(
        event_id="id-1",
        account=account,
        client_id="web",
        journal=journal,
        model="wine",
        version="v1",
        rows=3,
        price_id="p",
        input_sha256="0" * 64,
        latency_ms=1.23456,
        now=0.25,
    )

    read = UsageCloudEvent.model_validate_json(with_sequence(event, 7))

    assert (read.id, read.subject, read.journal, read.sequence) == ("id-1", account, journal, 7)
    assert (read.data.model, read.data.version, read.data.rows) == ("wine", "v1", 3)
    assert read.time.isoformat() == "1970-01-01T00:00:00.250000+00:00"
