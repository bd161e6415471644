"""For any changes in a folder and any order of events, nothing is lost or dispatched twice."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from functions.common.storage import StoredObject
from functions.on_data_arrival.drops import Dispatch, Skip, decide, find_drop
from registry.data_names import kind_of

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
QUIET_S = 60
LOOK_S = 5
NAMES = ("a.csv", "b.csv", "dataset.json", "_SUCCESS", "a\u00a0b.csv")


@dataclass(frozen=True)
class Change:
    """A change of an object: it is written (a size) or deleted (None)."""

    at_s: int
    name: str
    size: int | None
    delays_s: tuple[int, ...]
    """Delays of its event's deliveries, of which there may be several."""


@dataclass
class Delivery:
    """An event that a function handles."""

    name: str
    generation: str
    arrived: StoredObject | None = None
    has_begun: bool = False


@dataclass
class Folder:
    """A model's folder with its events and dispatches; time is in whole seconds."""

    objects: dict[str, StoredObject] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    covered: datetime | None = None
    dispatched: list[StoredObject] = field(default_factory=list)

    def change(self, change: Change, number: int) -> None:
        if change.size is None:
            self.objects.pop(change.name, None)
            return
        written_at = NOON + timedelta(seconds=change.at_s, microseconds=number)
        self.objects[change.name] = StoredObject(
            f"wine/{change.name}", str(number), change.size, written_at
        )

    def deliver(self, now_s: int) -> None:
        """Let every delivery check once, as the function's handler does."""
        self.deliveries = [each for each in self.deliveries if self._is_pending(each, now_s)]

    def _is_pending(self, delivery: Delivery, now_s: int) -> bool:
        if not delivery.has_begun:
            delivery.has_begun = True
            kind = kind_of(delivery.name)
            if kind in ("unsupported", "other"):
                return False
            current = self.objects.get(delivery.name)
            if current is not None and current.generation != delivery.generation:
                return False
            empty = current is not None and current.size == 0 and kind != "success"
            delivery.arrived = None if empty else current
        drop = find_drop(self.objects.values(), "wine/")
        decision = decide(
            drop,
            arrived=delivery.arrived,
            covered=self.covered,
            now=NOON + timedelta(seconds=now_s),
            quiet_s=QUIET_S,
        )
        if drop is None or isinstance(decision, Skip):
            return False
        if isinstance(decision, Dispatch):
            self.dispatched.append(drop.newest)
            self.covered = max(self.covered or drop.newest.created, drop.newest.created)
            return False
        delivery.arrived = drop.newest
        return True

    def is_lost(self) -> bool:
        """Return whether the folder has data that no dispatch covers."""
        drop = find_drop(self.objects.values(), "wine/")
        if drop is None or drop.newest_part is None or not drop.has_data:
            return False
        return self.covered is None or drop.newest_part.created > self.covered


CHANGES = st.lists(
    st.builds(
        Change,
        at_s=st.integers(0, 300),
        name=st.sampled_from(NAMES),
        size=st.sampled_from([None, 0, 8, 8]),
        delays_s=st.lists(st.integers(0, 200), min_size=1, max_size=3).map(tuple),
    ),
    max_size=12,
)


def run(changes: list[Change]) -> Folder:
    """Apply changes and deliver their events until nothing is pending."""
    folder = Folder()
    due: list[tuple[int, Delivery]] = []
    ordered = sorted(changes, key=lambda change: change.at_s)
    for number, change in enumerate(ordered):
        if change.size is not None:
            due += [
                (change.at_s + delay_s, Delivery(change.name, str(number)))
                for delay_s in change.delays_s
            ]
    for now_s in range(0, 1200, LOOK_S):
        for number, change in enumerate(ordered):
            if now_s - LOOK_S < change.at_s <= now_s:
                folder.change(change, number)
        folder.deliveries += [each for at_s, each in due if now_s - LOOK_S < at_s <= now_s]
        folder.deliver(now_s)
    return folder


@given(CHANGES)
def test_all_data_is_dispatched_after_all_events(changes: list[Change]) -> None:
    folder = run(changes)

    assert folder.deliveries == []
    assert not folder.is_lost()


@given(CHANGES)
def test_no_object_is_dispatched_twice(changes: list[Change]) -> None:
    folder = run(changes)

    named = [(each.name, each.generation) for each in folder.dispatched]
    assert len(named) == len(set(named))
