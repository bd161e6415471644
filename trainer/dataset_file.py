"""`dataset.json`: what the data's owner says about it."""

import codecs
import difflib
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from services.common.features import BLANKS, MISSING, ValueRules
from trainer.errors import DataError
from trainer.kinds import Family, Kind, Metric, Task
from trainer.written_numbers import Decimal, Thousands


def _checked_encoding(name: str) -> str:
    try:
        "".encode(name)
        return codecs.lookup(name).name
    except LookupError as error:
        raise ValueError(f"unknown encoding {name[:40]!r}") from error


class CsvSettings(BaseModel):
    """The dialect of the CSV parts; what is None is detected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delimiter: Annotated[str, Field(pattern=r'^[^"\r\n]$')] | None = None
    decimal: Decimal | None = None
    thousands: Thousands | None = None
    encoding: Annotated[str, AfterValidator(_checked_encoding)] | None = None

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.decimal is not None and self.decimal == self.thousands:
            raise ValueError("decimal and thousands must differ")
        return self


class DatasetFile(BaseModel):
    """The document; everything in it is optional. docs/data.md explains the fields.

    Fields that we do not know are kept apart, to warn of them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    target: str | None = None
    task: Task | None = None
    metric: Metric | None = None
    columns: dict[str, Kind] = {}
    ignore: list[str] = []
    missing: list[str] = list(MISSING)
    bad_cells: Literal["refuse", "missing"] = "refuse"
    csv: CsvSettings = CsvSettings()
    group: str | None = None
    time: str | None = None
    held_out: float = Field(default=0.25, ge=0.05, le=0.5)
    class_weight: Literal["balanced"] | None = None
    classes: list[str] | None = None
    estimators: list[Family] = Field(default=["linear", "random_forest", "boosting"], min_length=1)

    @property
    def unknown(self) -> list[str]:
        """Names of the fields that mean nothing here."""
        return [name[:80] for name in self.model_extra or {}]

    @property
    def value_rules(self) -> ValueRules:
        """How text and missing values are read, in training and in requests."""
        spellings = (text.strip(BLANKS) for text in self.missing)
        return ValueRules(missing=tuple(dict.fromkeys(filter(None, spellings))))

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        trimmed = [label.strip(BLANKS) for label in self.classes or ()]
        if len(set(trimmed)) < len(trimmed):
            raise ValueError("two classes differ only in blanks at their ends, which are removed")
        return self

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Self:
        if self.group is not None and self.time is not None:
            raise ValueError("group and time exclude each other")
        return self


def parse_dataset_file(raw: bytes) -> DatasetFile:
    """Read the document; a byte-order mark before it is skipped.

    Raises:
        DataError: it is no such document, or a field is misspelt (a misspelt `group` would let rows
            leak); the message names the first that is wrong.
    """
    try:
        stated = DatasetFile.model_validate_json(raw.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise DataError(f"dataset.json: {place}: {first['msg']}.") from error

    for field in stated.unknown:
        if meant := difflib.get_close_matches(field, DatasetFile.model_fields, n=1):
            raise DataError(f"dataset.json: unknown field {field!r}; is {meant[0]!r} meant?")
    return stated
