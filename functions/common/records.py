"""The functions' records: small write-once objects.

Each `<bucket>/<name>#<generation>` has up to three, named by the digest of that identity:

    claims/<sha256>.json    a delivery has begun
    done/<sha256>.json      GitHub accepted the dispatch; no further action
    dead/<sha256>.json      given up; no further action, but a person must look at it

A done record also has a mark, which lists a model's dispatches in order of time:

    dispatched/<model>/<microseconds since 1970 at which the object was written>-<generation>.json
"""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Literal

from functions.common.events import Arrival, Ignored
from functions.common.settings import Place
from functions.common.storage import Storage, StoredObject

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Kind = Literal["claims", "done", "dead"]


class Records:
    """The records under a prefix of a bucket."""

    def __init__(self, storage: Storage, place: Place) -> None:
        self._storage, self._place = storage, place

    def claim(self, arrival: Arrival) -> bool:
        """Record that a delivery has begun; return False if an earlier one has."""
        return self._write(_name("claims", arrival), arrival)

    def claimed_at(self, arrival: Arrival) -> datetime | None:
        """Return when the first delivery began."""
        claim = self._find("claims", arrival)
        return claim.created if claim else None

    def finish(self, arrival: Arrival, stored: StoredObject) -> None:
        """Record that GitHub accepted the dispatch."""
        self._write(_name("done", arrival), arrival)
        self._mark(arrival, stored)

    def give_up(self, arrival: Arrival, reason: str) -> None:
        """Record that the arrival is given up, and why."""
        self._write(_name("dead", arrival), arrival, reason=reason)

    def check(self, arrival: Arrival, stored: StoredObject) -> None:
        """Check that an arrival was neither dispatched nor given up.

        Raises:
            Ignored: it was dispatched or given up.
        """
        if self._find("done", arrival):
            self._mark(arrival, stored)  # the record's writer may have died before this
            raise Ignored("It was already dispatched.", decision="dispatched_before")
        if self._find("dead", arrival):
            raise Ignored("It was already given up.", decision="given_up_before")

    def covered_until(self, model: str, *, since: datetime) -> datetime | None:
        """Return when the newest dispatched object of a model was written, or None.

        Args:
            since: ignore dispatches of objects that were written earlier.
        """
        folder = f"{self._place.prefix}dispatched/{model}/"
        start = f"{folder}{_microseconds(since):017d}"
        names = self._storage.list_names(self._place.bucket, folder, start=start)
        if not names:
            return None
        written_us = int(max(names).removeprefix(folder).partition("-")[0])
        return EPOCH + timedelta(microseconds=written_us)

    def _mark(self, arrival: Arrival, stored: StoredObject) -> None:
        name = f"{_microseconds(stored.created):017d}-{arrival.generation}.json"
        self._write(f"dispatched/{arrival.model}/{name}", arrival)

    def _find(self, kind: Kind, arrival: Arrival) -> StoredObject | None:
        name = f"{self._place.prefix}{_name(kind, arrival)}"
        return self._storage.find(self._place.bucket, name)

    def _write(self, name: str, arrival: Arrival, **extra: str) -> bool:
        """Write a record; return False if it existed."""
        record = {**arrival.payload, "time": datetime.now(UTC).isoformat(), **extra}
        content = json.dumps(record).encode()
        return self._storage.create(self._place.bucket, f"{self._place.prefix}{name}", content)


def _name(kind: Kind, arrival: Arrival) -> str:
    return f"{kind}/{hashlib.sha256(arrival.identity.encode()).hexdigest()}.json"


def _microseconds(moment: datetime) -> int:
    """Return the microseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)
