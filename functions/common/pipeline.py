"""From what arrived in a bucket to one run of a workflow: claim → dispatch → done marker.

Eventarc delivers an event at least once, in no order, and again for as long as the function
fails; the function may die between any two of its steps. Each (bucket, object, generation) has
three records, all written once and named by the digest of that identity:

    claims/<sha256>.json    somebody has begun
    done/<sha256>.json      GitHub has taken it: nothing is done any more
    dead/<sha256>.json      given up: nothing is done any more, a person looks at it

Claimed but neither done nor dead is dispatched again, unless GitHub already shows the run. What
slips through that look costs nothing: the second training is a no-op by its key.
"""

import hashlib
import json
import time
from datetime import UTC, datetime
from typing import Literal

from functions.common.events import Arrival, Ignored
from functions.common.github import GitHub, GitHubError
from functions.common.log import log
from functions.common.settings import PipelineSettings
from functions.common.storage import Storage, StoredObject

EventType = Literal["data-arrived", "model-released"]

LOOK_S = 0.25


class Pipeline:
    """What both functions need to answer an event; built once a process, shared by its threads."""

    def __init__(self, settings: PipelineSettings) -> None:
        self.settings = settings
        self.storage = Storage(
            emulator=settings.storage_emulator_host, metadata_host=settings.metadata_host
        )
        self._github = GitHub(settings)

    def look_at(self, arrival: Arrival) -> StoredObject:
        """The object as it lies there.

        Raises:
            Ignored: it has gone, is another generation now, or has been there for too long.
            StorageError: the bucket cannot be read.
        """
        found = self.storage.find(arrival.bucket, arrival.name)
        # Generations need not ascend: another one than the present has an event of its own.
        if found is None or found.generation != arrival.generation:
            raise Ignored("The object is no longer the one that arrived.")
        if age_s(found) > self.settings.max_event_age_seconds:
            raise Ignored("The object has been there for too long.", severity="WARNING")
        return found

    def dispatch_once(
        self, event_type: EventType, arrival: Arrival, found: StoredObject, *, deadline: float
    ) -> None:
        """Start the workflow for an arrival, whatever was done about it before.

        Args:
            deadline: on the monotonic clock, of the whole delivery.

        Raises:
            Ignored: it has been dispatched, or given up.
            GitHubError, StorageError: to be delivered again.
        """
        title = f"{event_type} {arrival.identity}"
        is_first = self._record("claims", arrival)
        if not is_first:
            claimed = self._await_other(arrival, deadline=deadline)
        try:
            if not is_first and self._has_run(title, since=claimed, deadline=deadline):
                self._record("done", arrival)
                raise Ignored("GitHub had taken it already.")
            self._github.dispatch(event_type, arrival.payload, deadline=deadline)
        except GitHubError as error:
            if age_s(found) < self.settings.give_up_seconds:
                raise
            self._record("dead", arrival, reason=str(error))
            log("ERROR", f"Given up: {error}", object=arrival.identity)
            return
        self._record("done", arrival)
        log("INFO", f"Dispatched {event_type}.", model=arrival.model, object=arrival.identity)

    def _await_other(self, arrival: Arrival, *, deadline: float) -> datetime:
        """Leave an event to the delivery that claimed it, for as long as that may be alive.

        Returns:
            When it was claimed.

        Raises:
            Ignored: it is done, or given up.
        """
        place = self.settings.memory
        claim = self.storage.find(place.bucket, self._record_name("claims", arrival))
        claimed = claim.created if claim else datetime.now(UTC)
        left = self.settings.claim_seconds - (datetime.now(UTC) - claimed).total_seconds()
        patience = min(time.monotonic() + min(left, self.settings.claim_seconds), deadline)
        while True:
            for kind, reason in (("done", "dispatched before"), ("dead", "given up before")):
                if self.storage.find(place.bucket, self._record_name(kind, arrival)):
                    raise Ignored(f"It was {reason}.")
            if time.monotonic() >= patience:
                return claimed
            time.sleep(LOOK_S)

    def _has_run(self, title: str, *, since: datetime, deadline: float) -> bool:
        """Whether an attempt whose answer was lost had come through.

        Raises:
            GitHubError: GitHub cannot tell now.
        """
        try:
            return self._github.has_run(title, since=since, deadline=deadline)
        except GitHubError as error:
            if error.status not in (403, 404):
                raise
            # A token that may not read runs: a run too many is better than none.
            log("WARNING", f"Cannot look for an earlier run: {error}")
            return False

    def _record(self, kind: str, arrival: Arrival, **more: str) -> bool:
        """Write a record; False if it was there."""
        record = {**arrival.payload, "time": datetime.now(UTC).isoformat(), **more}
        name = self._record_name(kind, arrival)
        return self.storage.create(self.settings.memory.bucket, name, json.dumps(record).encode())

    def _record_name(self, kind: str, arrival: Arrival) -> str:
        digest = hashlib.sha256(arrival.identity.encode()).hexdigest()
        return f"{self.settings.memory.prefix}{kind}/{digest}.json"


def age_s(found: StoredObject) -> float:
    """Seconds since an object was written."""
    return (datetime.now(UTC) - found.created).total_seconds()
