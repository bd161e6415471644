"""From what arrived in a bucket to one run of a workflow: claim → dispatch → done marker.

Eventarc delivers an event at least once, in no order, and again for as long as the function
fails; the function may die between any two of its steps. Each `<bucket>/<name>#<generation>` has
three records, all written once and named by the digest of that identity:

    claims/<sha256>.json    a delivery has begun
    done/<sha256>.json      GitHub has taken it: nothing is done any more
    dead/<sha256>.json      given up: nothing is done any more, a person looks at it

and what is done has a mark by which the dispatches of a model are found in the order of time:

    dispatched/<model>/<microseconds since 1970 at which the object was written>-<generation>.json

Claimed but neither done nor dead is dispatched again, unless GitHub already shows the run. What
slips through that look costs nothing: the second training is a no-op by its key.
"""

import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

from functions.common.events import Arrival, Ignored
from functions.common.github import GitHub, GitHubError, RateLimited
from functions.common.log import Severity, log
from functions.common.settings import PipelineSettings
from functions.common.storage import AccessToken, Storage, StoredObject

EventType = Literal["data-arrived", "model-released"]

LOOK_S = 0.25
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Pipeline:
    """What both functions need to answer an event; built once a process, shared by its threads.

    Args:
        token: instead of the metadata server's, where the caller is no function.
    """

    def __init__(self, settings: PipelineSettings, *, token: AccessToken | None = None) -> None:
        self.settings = settings
        self.storage = Storage(
            emulator=settings.storage_emulator_host,
            metadata_host=settings.metadata_host,
            token=token,
        )
        self._github = GitHub(settings)

    def close(self) -> None:
        """Close the connections; a function keeps them for its whole life."""
        self.storage.close()
        self._github.close()

    def look_at(self, arrival: Arrival) -> StoredObject:
        """The object as it lies there.

        Raises:
            Ignored: it has gone, is another generation now, or has been there for too long.
            StorageError: the bucket cannot be read.
        """
        found = self.storage.find(arrival.bucket, arrival.name)
        # Generations need not ascend: another one than the present has an event of its own.
        if found is None or found.generation != arrival.generation:
            raise Ignored("The object is no longer the one that arrived.", decision="replaced")
        if age_s(found) > self.settings.max_event_age_seconds:
            raise Ignored("The object has been there for too long.", severity="WARNING")
        return found

    def covered_until(self, model: str, *, since: datetime) -> datetime | None:
        """When the newest object was written that a dispatch of a model named, or None.

        Args:
            since: dispatches of objects that were written before are not looked at.
        """
        place = self.settings.memory
        folder = f"{place.prefix}dispatched/{model}/"
        start = f"{folder}{_microseconds(since):017d}"
        names = self.storage.list_names(place.bucket, folder, start=start)
        if not names:
            return None
        written = int(max(names).removeprefix(folder).partition("-")[0])
        return EPOCH + timedelta(microseconds=written)

    def dispatch_once(
        self,
        event_type: EventType,
        arrival: Arrival,
        found: StoredObject,
        *,
        deadline: float,
        check: Callable[[], None] = lambda: None,
        gives_up: bool = True,
    ) -> None:
        """Start the workflow for an arrival, whatever was done about it before.

        Args:
            deadline: on the monotonic clock, of the whole delivery.
            check: raises Ignored if there is no need any more; called right before the dispatch.
            gives_up: whether lasting failure ends in a dead letter.

        Raises:
            Ignored: it has been dispatched, or given up.
            Unfinished: to be delivered again.
        """
        title = f"{event_type} {arrival.identity}"
        is_first = self._record("claims", arrival)
        if not is_first:
            claimed = self._await_other(arrival, found, deadline=deadline)

        def check_again() -> None:
            self._check_records(arrival, found)
            check()

        try:
            if not is_first and self._has_run(title, since=claimed, deadline=deadline):
                self._finish(arrival, found)
                raise Ignored("GitHub had taken it already.", decision="dispatched_before")
            self._github.dispatch(event_type, arrival.payload, deadline=deadline, check=check_again)
        except RateLimited:
            raise
        except GitHubError as error:
            if not gives_up or age_s(found) < self.settings.give_up_seconds:
                raise
            self._record("dead", arrival, reason=str(error))
            self._log("ERROR", f"Given up: {error}", arrival, decision="given_up")
            return
        self._finish(arrival, found)
        self._log("INFO", f"Dispatched {event_type}.", arrival, decision="dispatched")

    def _finish(self, arrival: Arrival, found: StoredObject) -> None:
        """Record that GitHub has taken it."""
        self._record("done", arrival)
        self._mark(arrival, found)

    def _mark(self, arrival: Arrival, found: StoredObject) -> None:
        name = f"{_microseconds(found.created):017d}-{arrival.generation}.json"
        self._write(f"dispatched/{arrival.model}/{name}", arrival)

    def _check_records(self, arrival: Arrival, found: StoredObject) -> None:
        """Make sure that an arrival is neither done nor dead.

        Raises:
            Ignored: it is.
        """
        place = self.settings.memory
        if self.storage.find(place.bucket, self._path("done", arrival)):
            self._mark(arrival, found)  # the writer of the record may have died before
            raise Ignored("It was dispatched before.", decision="dispatched_before")
        if self.storage.find(place.bucket, self._path("dead", arrival)):
            raise Ignored("It was given up before.", decision="given_up_before")

    def _await_other(self, arrival: Arrival, found: StoredObject, *, deadline: float) -> datetime:
        """Leave an event to the delivery that claimed it, for as long as that may be alive.

        Returns:
            When it was claimed.

        Raises:
            Ignored: it is done, or given up.
        """
        place = self.settings.memory
        claim = self.storage.find(place.bucket, self._path("claims", arrival))
        claimed = claim.created if claim else datetime.now(UTC)
        left = self.settings.claim_seconds - (datetime.now(UTC) - claimed).total_seconds()
        patience = min(time.monotonic() + min(left, self.settings.claim_seconds), deadline)
        while True:
            self._check_records(arrival, found)
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
            message = f"Cannot look for an earlier run: GitHub answered {error.status}."
            log("WARNING", message, decision="cannot_look")
            return False

    def _record(self, kind: str, arrival: Arrival, **more: str) -> bool:
        """Write a record; False if it was there."""
        return self._write(self._record_name(kind, arrival), arrival, **more)

    def _write(self, name: str, arrival: Arrival, **more: str) -> bool:
        place = self.settings.memory
        record = {**arrival.payload, "time": datetime.now(UTC).isoformat(), **more}
        return self.storage.create(
            place.bucket, f"{place.prefix}{name}", json.dumps(record).encode()
        )

    def _log(self, severity: Severity, message: str, arrival: Arrival, *, decision: str) -> None:
        log(severity, message, decision=decision, model=arrival.model, drop=arrival.identity)

    def _path(self, kind: str, arrival: Arrival) -> str:
        return f"{self.settings.memory.prefix}{self._record_name(kind, arrival)}"

    @staticmethod
    def _record_name(kind: str, arrival: Arrival) -> str:
        digest = hashlib.sha256(arrival.identity.encode()).hexdigest()
        return f"{kind}/{digest}.json"


def _microseconds(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def age_s(found: StoredObject) -> float:
    """Seconds since an object was written."""
    return (datetime.now(UTC) - found.created).total_seconds()
