"""`dataset.json`: the settings of a model's data."""

import codecs
import difflib
from importlib.util import find_spec
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from registry.cards import Card
from registry.value_rules import BLANKS, MISSING, ValueRules
from trainer.data.dates import DateOrder
from trainer.data.number_formats import Decimal, Thousands
from trainer.errors import DataError
from trainer.types import Family, Kind, Metric, Task

MAX_TEXT_CHARS = 2000
MAX_LIMITATIONS = 20
BOOSTERS: tuple[Family, ...] = ("lightgbm", "xgboost")
MIN_ROWS_OF_BOOSTERS = 1_000
"""With fewer, more families only make it likelier that chance chooses one of them."""


def is_installed(family: Family) -> bool:
    """Return whether the packages of a booster are installed, with its way to ONNX."""
    return all(find_spec(package) is not None for package in (family, "onnxmltools"))


def _checked_encoding(name: str) -> str:
    try:
        "".encode(name)
        return codecs.lookup(name).name
    except LookupError as error:
        raise ValueError(f"unknown encoding {name[:40]!r}") from error


class CsvSettings(BaseModel):
    """The dialect of the CSV parts; a field that is not set is detected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delimiter: Annotated[str, Field(pattern=r'^[^"\r\n]$')] | None = None
    decimal: Decimal | None = None
    thousands: Thousands | None = None
    encoding: Annotated[str, AfterValidator(_checked_encoding)] | None = None
    dates: DateOrder | None = None

    @model_validator(mode="after")
    def _signs_differ(self) -> Self:
        if self.decimal is not None and self.decimal == self.thousands:
            raise ValueError("decimal and thousands must differ")
        return self


def _checked_text(text: str) -> str:
    if not all(each.isprintable() or each == "\n" for each in text):
        raise ValueError("must not contain control characters")
    return text.strip()


def _checked_line(text: str) -> str:
    if "\n" in text:
        raise ValueError("must be one line")
    return text


def _checked_limitations(given: Any) -> str | list[str]:
    texts = given if isinstance(given, list) else [given]
    if len(texts) > MAX_LIMITATIONS or not all(
        isinstance(text, str) and len(text) <= MAX_TEXT_CHARS for text in texts
    ):
        raise ValueError(
            f"must be a text of at most {MAX_TEXT_CHARS} characters, or a list of at most "
            f"{MAX_LIMITATIONS} such texts"
        )
    texts = [_checked_text(text) for text in texts]
    return texts if isinstance(given, list) else texts[0]


_Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS), AfterValidator(_checked_text)]
_Line = Annotated[
    str, Field(max_length=100), AfterValidator(_checked_line), AfterValidator(_checked_text)
]


class CardSettings(BaseModel):
    """The seller's part of the model's card; see `registry.cards.Card`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    public: bool = False
    title: _Line = ""
    summary: _Text = ""
    limitations: Annotated[str | list[str], BeforeValidator(_checked_limitations)] = ""

    @property
    def card(self) -> Card:
        """Return the card as the manifest has it."""
        return Card.model_validate(self.model_dump())


class DatasetConfig(BaseModel):
    """The contents of `dataset.json`; every field is optional. See docs/data.md.

    Unknown fields are kept separately, so that training can warn about them.
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
    card: CardSettings | None = None

    @property
    def unknown(self) -> list[str]:
        """Return the names of unknown fields."""
        return [name[:80] for name in self.model_extra or {}]

    def families(self, *, rows: int) -> list[Family]:
        """Return the families to try: as configured, else with the boosters that are installed.

        Args:
            rows: to compare the families on; with few of them, the boosters are left out.
        """
        if "estimators" in self.model_fields_set or rows < MIN_ROWS_OF_BOOSTERS:
            return self.estimators
        return [*self.estimators, *filter(is_installed, BOOSTERS)]

    @property
    def value_rules(self) -> ValueRules:
        """Return the rules for text and missing values, in training and in requests."""
        spellings = (text.strip(BLANKS) for text in self.missing)
        return ValueRules(missing=tuple(dict.fromkeys(filter(None, spellings))))

    @model_validator(mode="after")
    def _classes_differ(self) -> Self:
        trimmed = [label.strip(BLANKS) for label in self.classes or ()]
        if len(set(trimmed)) < len(trimmed):
            raise ValueError(
                "two classes differ only in white space at their ends, which is removed"
            )
        return self

    @model_validator(mode="after")
    def _boosters_are_installed(self) -> Self:
        for family in BOOSTERS:
            if family in self.estimators and not is_installed(family):
                raise ValueError(
                    f"the family {family!r} needs packages that are not installed: pip install "
                    "'tollgate[boosters]'"
                )
        return self

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Self:
        if self.group is not None and self.time is not None:
            raise ValueError("group and time are mutually exclusive")
        return self


def parse_dataset_config(raw: bytes) -> DatasetConfig:
    """Parse `dataset.json`, with or without a byte-order mark.

    Raises:
        DataError: the document is invalid, or a field looks misspelled (a misspelled `group` would
            let rows leak); the message names the first problem.
    """
    try:
        config = DatasetConfig.model_validate_json(raw.removeprefix(codecs.BOM_UTF8))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        if not place and first["type"] != "value_error":  # our own errors name several fields
            place = "the document"
        message = str(first["msg"]).removeprefix("Value error, ")
        raise DataError(": ".join(filter(None, ("dataset.json", place, f"{message}.")))) from error

    for field in config.unknown:
        if meant := difflib.get_close_matches(field, DatasetConfig.model_fields, n=1):
            raise DataError(f"dataset.json: unknown field {field!r}; did you mean {meant[0]!r}?")
    return config
