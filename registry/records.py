"""The model store's JSON records, the names that are safe in its paths, and its errors.

    StoreError              the store cannot be used, or does not contain what was requested
    ├── VersionNotFound     the version has no `manifest.sig`, so it does not exist
    ├── VersionRefused      invalid signature, digest, manifest, name, …
    └── ReleaseTaken        another record already has that number

Readers ignore unknown fields, so that they can read records written by a later Tollgate.
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

from registry.calibration import Calibration
from registry.cards import Card
from registry.explainer_kinds import ExplainerKind
from registry.origins import Origin
from registry.value_rules import ValueRules

LAST_NUMBER = 99_999_999
MAX_GAP = 1_000
"""A record whose number exceeds the previous one by more than this is ignored."""
MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
VERSION_NAME = re.compile(r"[0-9]{8}t[0-9]{6}z-[0-9a-f]{8}")


def is_model_name(name: str) -> bool:
    """Return whether `name` is safe as a folder name and in a URL."""
    return MODEL_NAME.fullmatch(name) is not None and ".." not in name


def is_version_name(name: str) -> bool:
    """Return whether `name` has the form of a version name."""
    return VERSION_NAME.fullmatch(name) is not None


def new_version_name(now: datetime) -> str:
    """Return a new version name. Names sort by time, to the second; `now` must be aware."""
    return f"{now.astimezone(UTC):%Y%m%dt%H%M%Sz}-{secrets.token_hex(4)}"


def split_sequence(numbers: Iterable[int]) -> tuple[list[int], list[int]]:
    """Split record numbers into the sequence and the strays far beyond it, both ascending.

    Readers and writers ignore strays: one file with a huge number must not end the sequence. The
    sequence may contain gaps of up to `MAX_GAP`.
    """
    ordered = sorted(numbers)
    previous_number = 0
    for position, number in enumerate(ordered):
        if number - previous_number > MAX_GAP:
            return ordered[:position], ordered[position:]
        previous_number = number
    return ordered, []


def next_number(numbers: list[int]) -> int:
    """Return the number that follows those in sequence.

    Raises:
        StoreError: the last possible number is taken.
    """
    number = max(numbers, default=0) + 1
    if number > LAST_NUMBER:
        raise StoreError("No record number is left.")
    return number


def _checked_model_name(name: str) -> str:
    if not is_model_name(name):
        raise ValueError("not a valid model name")
    return name


def _checked_moment(moment: datetime) -> datetime:
    try:
        moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("does not exist in UTC") from error
    return moment


ModelName = Annotated[str, AfterValidator(_checked_model_name)]
Moment = Annotated[AwareDatetime, AfterValidator(_checked_moment)]
"""A time that exists in UTC; one on the first or last day of the calendar may not."""
VersionName = Annotated[str, Field(pattern=f"^{VERSION_NAME.pattern}$")]
FileName = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# Strict, so that class `True` is not read as 1, nor 1 as "1".
Label = StrictBool | StrictInt | StrictStr
Value = Label | StrictFloat


class Record(BaseModel):
    """Base of all records."""

    model_config = ConfigDict(frozen=True)


ColumnKind = Literal["number", "boolean", "text", "datetime", "sentence"]
"""Text is a category; a sentence counts by its words."""


class Column(Record):
    """A feature's name in the data and the kind of its values."""

    name: str
    kind: ColumnKind


class Signature(Record):
    """A model's inputs and outputs.

    Args:
        classes: in the order of the probabilities; None for regression.
        value_rules: how text and missing values are read, in training and in requests; None in
            versions that predate the rules, which use text unchanged.
        starts: the oldest time in training of each `datetime` column that was not empty.
    """

    task: Literal["classification", "regression"]
    target: str
    columns: list[Column]
    classes: list[Label] | None
    value_rules: ValueRules | None = None
    starts: dict[str, Moment] = {}

    def start_of(self, column: str) -> float:
        """Return the oldest time of a `datetime` column in training, in seconds since 1970."""
        start = self.starts.get(column)
        return 0.0 if start is None else start.timestamp()


class FileEntry(Record):
    """A file of a version; `size` in bytes."""

    sha256: Sha256
    size: int = Field(ge=0)


class DataObject(Record):
    """A file that a model was trained on; `generation` if the store counts generations."""

    name: str
    generation: str | None
    size: int
    sha256: Sha256


class WarmUp(Record):
    """Rows in signature order (null: missing), and the served model's predictions for them.

    Predictions are classes of the signature, or numbers. Regression has no `probabilities`.
    """

    rows: list[list[Value | None]]
    predictions: list[Value]
    probabilities: list[list[float]] | None


class ColumnStatistics(Record):
    """The distribution of a column's values, or of predictions, in training.

    Args:
        count: number of rows, including those without a value.
        missing: share of rows without a value; all other figures exclude these rows.
        mean, std, min, max: for numbers, times (in seconds since 1970), and sentences (in words).
        edges: for numbers and sentences, the ascending inner edges of the bins; a bin includes its
            upper edge. Times have none: those of requests are newer than those of training.
        categories: for text, booleans and classes, the most frequent values.
        shares: of each bin, or of each category followed by all others; they add up to 1.
    """

    name: str
    kind: ColumnKind
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
    """The reference for drift: distributions of the training data and of held-out predictions."""

    columns: list[ColumnStatistics]
    target: ColumnStatistics
    predictions: ColumnStatistics


class Manifest(Record):
    """A version's full description; the signature covers its bytes.

    `forced_reason` says why a version that failed its gate was allowed anyway (`gate` is then
    `forced`). A model with too many columns for a manifest has no `statistics`, and one whose
    `dataset.json` describes none has no `card`. Versions that predate explanations and intervals
    have neither an `explainer`, whose file is `explainer.npz`, nor a `calibration`. A model that
    Tollgate chose and fitted itself has no `origin`.
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
    card: Card | None = None
    explainer: ExplainerKind | None = None
    calibration: Calibration | None = None
    origin: Origin | None = None


class Canary(Record):
    """A version that answers `percent` of the callers."""

    version: VersionName
    percent: float = Field(gt=0, le=100)


class Shadow(Record):
    """A version that is computed and compared but never answers."""

    version: VersionName


class Release(Record):
    """A decision about what is served: the whole state, not a change to the previous release."""

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
    """A decision that no version is live, because the first release was withdrawn.

    It has the fields of a release. An older Tollgate expects every release to have a version, so
    it refuses the record and uses the previous release.
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
    """A decision about automatic releases: `pin` stops them, `unpin` allows them.

    Args:
        version: the version to keep live; None for `unpin`.
        until: when the pin expires; None for never.
        release: the highest release number at the time; rollbacks up to it no longer pin.
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
            raise ValueError("a pin must have a version, an unpin must not")
        return self


class RunRecord(Record):
    """The outcome of a finished training run, stored under its idempotency key.

    Records of older runs have only the version.

    Args:
        key: the idempotency key.
        time: when the run finished.
        release: number of the release that made the version live; None if it did not go live.
        pinned: why a pin prevented the automatic release, as a sentence.
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
    """The version does not exist: its `manifest.sig`, which is written last, is missing."""


class VersionRefused(StoreError):
    """A version or release record is invalid and must not be served.

    Args:
        reason: one word, for metrics: `signature`, `digest`, `manifest`, `name`, `release`,
            `gate`, `columns`, `classes`, `joblib`, `runtime`, `sequence`, `run`, `pin`,
            `deprecation` or `unreadable`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ReleaseTaken(StoreError):
    """Another writer's record, `winner`, already has the number."""

    def __init__(self, winner: Release | Withdrawal) -> None:
        target = f"of version {winner.version}" if winner.version else "to no version"
        super().__init__(
            f"Release {winner.number} was written by {winner.by} in the meantime: "
            f"{winner.action} {target}."
        )
        self.winner = winner
