"""Turn an arrival in a bucket into one workflow run: claim → dispatch → completion record.

Eventarc delivers events at least once, in any order, and again while the function fails; the
function may die between any two steps. An arrival that is claimed but neither done nor given up
(records.py) is dispatched again, unless GitHub already has the run. A duplicate run does no harm:
its idempotency key makes it a no-op.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from functions.common.events import Arrival, Ignored
from functions.common.github import GitHub, GitHubError, RateLimited
from functions.common.log import Severity, log
from functions.common.records import Records
from functions.common.settings import PipelineSettings
from functions.common.storage import AccessToken, Storage, StoredObject

EventType = Literal["data-arrived", "model-released"]

POLL_S = 0.25


class Pipeline:
    """The clients and records of both functions, one per process, shared by threads.

    Args:
        token: the access token of a caller outside Google Cloud; default: the metadata server's.
    """

    def __init__(self, settings: PipelineSettings, *, token: AccessToken | None = None) -> None:
        self.settings = settings
        self.storage = Storage(
            emulator=settings.storage_emulator_host,
            metadata_host=settings.metadata_host,
            token=token,
        )
        self.records = Records(self.storage, settings.record_store)
        self._github = GitHub(settings)

    def close(self) -> None:
        """Close the connections; a function keeps them open until it ends."""
        self.storage.close()
        self._github.close()

    def get_current(self, arrival: Arrival) -> StoredObject:
        """Return the current object of an arrival.

        Raises:
            Ignored: the object was deleted or replaced, or is too old.
            StorageError: the bucket cannot be read.
        """
        stored = self.storage.find(arrival.bucket, arrival.name)
        # Generations need not ascend; the current generation has its own event.
        if stored is None or stored.generation != arrival.generation:
            raise Ignored("The object was deleted or replaced.", decision="replaced")
        if age_s(stored) > self.settings.max_event_age_seconds:
            raise Ignored("The object is too old.", severity="WARNING")
        return stored

    def dispatch_once(
        self,
        event_type: EventType,
        arrival: Arrival,
        stored: StoredObject,
        *,
        deadline: float,
        check: Callable[[], None] = lambda: None,
        gives_up: bool = True,
    ) -> None:
        """Start the workflow for an arrival, unless it was already dispatched or given up.

        Args:
            deadline: end of the whole delivery, on the monotonic clock.
            check: raises Ignored if the dispatch is no longer needed; called right before it.
            gives_up: whether a lasting failure ends in a dead letter.

        Raises:
            Ignored: the arrival was already dispatched or given up.
            Unfinished: the event must be delivered again.
        """
        title = f"{event_type} {arrival.identity}"
        is_first = self.records.claim(arrival)
        claimed = None if is_first else self._await_other(arrival, stored, deadline)

        def check_again() -> None:
            self.records.check(arrival, stored)
            check()

        try:
            if claimed and self._has_run(arrival, title, since=claimed, deadline=deadline):
                self.records.finish(arrival, stored)
                raise Ignored("GitHub had already accepted it.", decision="dispatched_before")
            self._github.dispatch(event_type, arrival.payload, deadline=deadline, check=check_again)
        except RateLimited:
            raise
        except GitHubError as error:
            if not gives_up or age_s(stored) < self.settings.give_up_seconds:
                raise
            self.records.give_up(arrival, str(error))
            _log("ERROR", f"Given up: {error}", arrival, decision="given_up")
            return
        self.records.finish(arrival, stored)
        _log("INFO", f"Dispatched {event_type}.", arrival, decision="dispatched")

    def _await_other(self, arrival: Arrival, stored: StoredObject, deadline: float) -> datetime:
        """Wait for the delivery that claimed an event, while it may be alive.

        Returns:
            When the event was claimed.

        Raises:
            Ignored: the event is done or given up.
        """
        claimed = self.records.claimed_at(arrival) or datetime.now(UTC)
        left_s = self.settings.claim_seconds - (datetime.now(UTC) - claimed).total_seconds()
        wait_until = min(time.monotonic() + min(left_s, self.settings.claim_seconds), deadline)
        while True:
            self.records.check(arrival, stored)
            if time.monotonic() >= wait_until:
                return claimed
            time.sleep(POLL_S)

    def _has_run(self, arrival: Arrival, title: str, *, since: datetime, deadline: float) -> bool:
        """Return whether an earlier attempt succeeded although its response was lost.

        Raises:
            GitHubError: the runs could not be listed.
        """
        try:
            return self._github.has_run(title, since=since, deadline=deadline)
        except GitHubError as error:
            if error.status not in (403, 404):
                raise
            # The token lacks the permission to read runs. A duplicate run is better than none.
            message = f"Cannot look for an earlier run: GitHub responded {error.status}. "
            message += "Give the function the permission 'actions: read'."
            _log("WARNING", message, arrival, decision="cannot_look")
            return False


def _log(severity: Severity, message: str, arrival: Arrival, *, decision: str) -> None:
    log(severity, message, decision=decision, model=arrival.model, drop=arrival.identity)


def age_s(stored: StoredObject) -> float:
    """Return the seconds since an object was written."""
    return (datetime.now(UTC) - stored.created).total_seconds()
