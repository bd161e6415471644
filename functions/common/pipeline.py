"""From what arrived in a bucket to one run of a workflow: claim → dispatch → completion record.

Eventarc delivers an event at least once, in no order, and again for as long as the function
fails; the function may die between any two of its steps. What is claimed but neither done nor
given up (records.py) is dispatched again, unless GitHub already shows the run. What slips through
that look costs nothing: the second training is a no-op by its key.
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

LOOK_S = 0.25


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
        self.records = Records(self.storage, settings.memory)
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
        is_first = self.records.claim(arrival)
        claimed = None if is_first else self._await_other(arrival, found, deadline)

        def check_again() -> None:
            self.records.check(arrival, found)
            check()

        try:
            if claimed and self._has_run(arrival, title, since=claimed, deadline=deadline):
                self.records.finish(arrival, found)
                raise Ignored("GitHub had taken it already.", decision="dispatched_before")
            self._github.dispatch(event_type, arrival.payload, deadline=deadline, check=check_again)
        except RateLimited:
            raise
        except GitHubError as error:
            if not gives_up or age_s(found) < self.settings.give_up_seconds:
                raise
            self.records.give_up(arrival, str(error))
            _log("ERROR", f"Given up: {error}", arrival, decision="given_up")
            return
        self.records.finish(arrival, found)
        _log("INFO", f"Dispatched {event_type}.", arrival, decision="dispatched")

    def _await_other(self, arrival: Arrival, found: StoredObject, deadline: float) -> datetime:
        """Leave an event to the delivery that claimed it, for as long as that may be alive.

        Returns:
            When it was claimed.

        Raises:
            Ignored: it is done, or given up.
        """
        claimed = self.records.claimed_at(arrival) or datetime.now(UTC)
        left = self.settings.claim_seconds - (datetime.now(UTC) - claimed).total_seconds()
        patience = min(time.monotonic() + min(left, self.settings.claim_seconds), deadline)
        while True:
            self.records.check(arrival, found)
            if time.monotonic() >= patience:
                return claimed
            time.sleep(LOOK_S)

    def _has_run(self, arrival: Arrival, title: str, *, since: datetime, deadline: float) -> bool:
        """Whether an attempt whose answer was lost had come through.

        Raises:
            GitHubError: that is unknown now.
        """
        try:
            return self._github.has_run(title, since=since, deadline=deadline)
        except GitHubError as error:
            if error.status not in (403, 404):
                raise
            # A token that may not read runs: a run too many is better than none.
            message = f"Cannot look for an earlier run: GitHub answered {error.status}. "
            message += "Give the function the permission 'actions: read'."
            _log("WARNING", message, arrival, decision="cannot_look")
            return False


def _log(severity: Severity, message: str, arrival: Arrival, *, decision: str) -> None:
    log(severity, message, decision=decision, model=arrival.model, drop=arrival.identity)


def age_s(found: StoredObject) -> float:
    """Seconds since an object was written."""
    return (datetime.now(UTC) - found.created).total_seconds()
