"""What the model store holds, as JSON records; the names that are safe in its paths; its errors.

    StoreError              the store cannot be used, or does not hold what was asked for
    ├── VersionNotFound     no `manifest.sig`, hence no version
    ├── VersionRefused      it is there but does not hold: signature, digest, manifest, name, …
    └── ReleaseTaken        another record already has that number

Fields that a later Tollgate added to a record are ignored, so that an older reader can go on.
"""

import re
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    model_validator,
)

from services.common.features import ValueRules

LAST_NUMBER = 99_999_999
MAX_GAP = 1_000
"""Records whose number is further than this above the one before are ignored."""
MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VERSION_NAME = re.compile(r"[0-9]{8}t[0-9]{6}z-[0-9a-f]{8}")


def is_model_name(name: str) -> bool:
    """Whether `name` is safe as a folder's name and in a URL."""
    return MODEL_NAME.fullmatch(name) is not None and ".." not in name


def is_version_name(name: str) -> bool:
    """Whether `name` has the form of a version's name."""
    return VERSION_NAME.fullmatch(name) is not None


def new_version_name(now: datetime) -> str:
    """A fresh version name. Names sort by time, to the second; `now` must be aware."""
    return f"{now.astimezone(UTC):%Y%m%dt%H%M%Sz}-{secrets.token_hex(4)}"


def split_sequence(numbers: Iterable[int]) -> tuple[list[int], list[int]]:
    """Split the numbers of records into those in sequence and those far beyond it, both ascending.

    Readers and writers ignore the second list: one stray file with a huge number must not end the
    sequence. A gap of up to `MAX_GAP` is part of the sequence.
    """
    ordered = sorted(numbers)
    before = 0
    for position, number in enumerate(ordered):
        if number - before > MAX_GAP:
            return ordered[:position], ordered[position:]
        before = number
    return ordered, []


def _checked_model_name(name: str) -> str:
    if not is_model_name(name):
        raise ValueError("not a model name")
    return name


def _checked_moment(moment: datetime) -> datetime:
    try:
        moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("no time in UTC") from error
    return moment


ModelName = Annotated[str, AfterValidator(_checked_model_name)]
Moment = Annotated[AwareDatetime, AfterValidator(_checked_moment)]
"""A time that exists in UTC: the first and the last day of the calendar may not."""
VersionName = Annotated[str, Field(pattern=f"^{VERSION_NAME.pattern}$")]
FileName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# Strict, so that a class `True` does not come back as 1, nor 1 as "1".
Label = StrictBool | StrictInt | StrictStr
Value = Label | StrictFloat


class Record(BaseModel):
    """Base of all records."""

    model_config = ConfigDict(frozen=True)


class Column(Record):
    """A feature: its name in the data, and the kind of its values."""

    name: str
    kind: Literal["number", "boolean", "text"]


class Signature(Record):
    """What a model takes and gives.

    Args:
        classes: in the order of the probabilities; None for regression.
        value_rules: how text and missing values were read in training, and are in requests; None
            in versions from before they were stated, which take text as it comes.
    """

    task: Literal["classification", "regression"]
    target: str
    columns: list[Column]
    classes: list[Label] | None
    value_rules: ValueRules | None = None


class FileEntry(Record):
    """A file of a version; `size` in bytes."""

    sha256: Sha256
    size: int = Field(ge=0)


class DataObject(Record):
    """A file that a model was trained on; `generation` where the store counts them."""

    name: str
    generation: str | None
    size: int
    sha256: Sha256


class WarmUp(Record):
    """Rows in signature order (null: missing), and what the model as served answered to them.

    Predictions are classes, as in the signature, or numbers; `probabilities` is None for
    regression.
    """

    rows: list[list[Value | None]]
    predictions: list[Value]
    probabilities: list[list[float]] | None


class ColumnStatistics(Record):
    """How the values of a column, or of answers, were distributed in training.

    Args:
        count: rows, those without a value included.
        missing: the share of rows without a value; all other figures are about the rest.
        edges: of a number: ascending inner edges of its bins; a bin holds its upper edge.
        categories: of text, booleans and classes: the most frequent values.
        shares: of each bin, or of each category and then of all others; they add up to 1.
    """

    name: str
    kind: Literal["number", "boolean", "text"]
    count: int
    missing: float
    mean: float | None = None
    std: float | None = None
    min: float | None = None
    max: float | None = None
    edges: list[float] | None = None
    categories: list[Label] | None = None
    shares: list[float] = []


class Statistics(Record):
    """What a model was trained on and what it said of the rows held out, to measure drift from."""

    columns: list[ColumnStatistics]
    target: ColumnStatistics
    predictions: ColumnStatistics


class Manifest(Record):
    """All there is to know about a version; its bytes are what the signature covers.

    `forced_reason` is why a version that failed was let through (`gate` is `forced` then);
    `statistics` is None where a model has too many columns for a manifest.
    """

    model: ModelName
    version: VersionName
    gate: Literal["passed", "failed", "forced"]
    serving: Literal["onnx", "joblib"] = "onnx"
    forced_reason: str | None = None
    signature: Signature
    metrics: dict[str, Any]
    data: list[DataObject]
    warm_up: WarmUp
    environment: dict[str, str]
    files: dict[FileName, FileEntry]
    created_at: Moment
    statistics: Statistics | None = None


class Canary(Record):
    """A version that answers `percent` of the callers."""

    version: VersionName
    percent: float = Field(gt=0, le=100)


class Shadow(Record):
    """A version that is computed and compared, but never answers."""

    version: VersionName


class Release(Record):
    """A decision about what is served. Each is the whole state, not a change to the one before."""

    number: int = Field(ge=1, le=LAST_NUMBER)
    previous: int | None
    version: VersionName
    manifest_sha256: Sha256
    action: Literal["release", "canary", "shadow", "rollback"]
    canary: Canary | None
    shadow: Shadow | None
    by: str
    reason: str
    time: Moment


class Withdrawal(Record):
    """A decision that no version is live: the first release was withdrawn.

    It has the fields of a release. An older Tollgate, for which a release always has a version,
    refuses the record and continues with the release before it.
    """

    number: int = Field(ge=1, le=LAST_NUMBER)
    previous: int | None
    version: None
    manifest_sha256: None
    action: Literal["rollback"]
    canary: None
    shadow: None
    by: str
    reason: str
    time: Moment


class PinRecord(Record):
    """A decision about automatic releases: `pin` holds them back, `unpin` lets them go live.

    Args:
        version: the version to keep live; None for `unpin`.
        until: when the pin ends by itself; None if it does not.
        release: the highest release number at the time. Rollbacks up to it no longer count as pins.
    """

    number: int = Field(ge=1, le=LAST_NUMBER)
    action: Literal["pin", "unpin"]
    version: VersionName | None
    until: Moment | None
    release: int = Field(ge=0, le=LAST_NUMBER)
    by: str
    reason: str
    time: Moment

    @model_validator(mode="after")
    def _pins_a_version(self) -> Self:
        if (self.action == "pin") != (self.version is not None):
            raise ValueError("a pin has a version, an unpin has none")
        return self


class RunRecord(Record):
    """The outcome of a finished training, kept under its idempotency key.

    Records of older runs have only the version.

    Args:
        key: the idempotency key itself.
        time: when the run finished.
        release: number of the record that put the version live; None if it did not go live.
        pinned: why an automatic release was held back, as a sentence.
        refused: why inference would refuse the version, as a sentence.
    """

    version: VersionName
    key: str | None = None
    time: Moment | None = None
    gate: Literal["passed", "failed", "forced"] | None = None
    release: int | None = None
    pinned: str | None = None
    refused: str | None = None


class StoreError(Exception):
    """The store cannot be used; the message is one sentence without paths or secrets."""


class VersionNotFound(StoreError):
    """There is no such version: its `manifest.sig`, written last, is missing."""


class VersionRefused(StoreError):
    """A version or a release record that does not hold, and must not be served.

    Args:
        reason: one word, for metrics: `signature`, `digest`, `manifest`, `name`, `release`,
            `gate`, `columns`, `classes`, `joblib`, `sequence`, `run`, `pin` or `unreadable`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ReleaseTaken(StoreError):
    """Another writer's record, `winner`, has the number."""

    def __init__(self, winner: Release | Withdrawal) -> None:
        what = f"of version {winner.version}" if winner.version else "to no version"
        super().__init__(
            f"Release {winner.number} was written by {winner.by} in the meantime: "
            f"{winner.action} {what}."
        )
        self.winner = winner
