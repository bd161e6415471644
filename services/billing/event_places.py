"""The place of a usage event in order of time."""

from datetime import datetime
from typing import NamedTuple


class EventPlace(NamedTuple):
    """The primary key of a usage event, by which events are read in order."""

    time: datetime
    id: str
    source: str
