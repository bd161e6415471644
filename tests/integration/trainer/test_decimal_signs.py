"""Each file has its own decimal sign, and an unclear one is refused rather than guessed."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.config import DatasetConfig
from trainer.data.decimal_signs import DecimalEvidence, settle_signs
from trainer.data.formats import open_part
from trainer.data.table import Table, read_table
from trainer.errors import DataError

GERMAN = "a;b\n1,5;x\n2,25;x\n"


def read(folder: Path, files: dict[str, str], **settings: Any) -> Table:
    config = DatasetConfig.model_validate(settings)
    parts = []
    for name, text in files.items():
        (folder / name).write_text(text)
        parts.append(open_part(name, folder / name, settings=config.csv))
    return read_table(parts, config=config, precise=["a"])


class TestAFile:
    def test_may_have_another_decimal_sign_than_the_others(self, tmp_path: Path) -> None:
        table = read(tmp_path, {"a.csv": GERMAN, "b.csv": "a,b\n1.234,x\n50.01,x\n"})

        assert table.frame["a"].tolist() == [1.5, 2.25, 1.234, 50.01]
        assert table.notes == [
            "Read as semicolon-separated, UTF-8, decimal comma: a.csv.",
            "Read as comma-separated, UTF-8, decimal point: b.csv.",
            "Column 'a' is read as numbers with a decimal comma (in a.csv).",
        ]

    def test_is_settled_by_its_other_columns_first(self, tmp_path: Path) -> None:
        files = {"a.csv": 'a,b\n"1,5",1\n"2,5",2\n', "b.csv": "a,b\n1.234,0.5\n"}

        assert read(tmp_path, files).frame["a"].tolist() == [1.5, 2.5, 1.234]

    def test_is_settled_by_other_files_of_its_dialect(self, tmp_path: Path) -> None:
        table = read(tmp_path, {"a.csv": GERMAN, "b.csv": "a;b\n1.234;x\n"})

        assert table.frame["a"].tolist() == [1.5, 2.25, 1234]
        assert (
            "Column 'a' is read as numbers with a decimal comma and thousands separators."
            in table.notes
        )

    def test_of_another_dialect_is_refused_if_nothing_settles_it(self, tmp_path: Path) -> None:
        files = {"a.csv": GERMAN, "b.csv": "a,b\n1,x\n1.234,x\n"}

        with pytest.raises(DataError) as error:
            read(tmp_path, files)

        assert str(error.value) == (
            "Column 'a': its points may be decimal points or thousands separators: "
            'b.csv line 3: "1.234". Set "csv": {"decimal": ","} or {"decimal": "."} in '
            "dataset.json."
        )
        assert read(tmp_path, files, csv={"decimal": ","}).frame["a"].tolist()[-1] == 1234

    def test_with_points_that_may_separate_thousands_says_how_it_is_read(
        self, tmp_path: Path
    ) -> None:
        table = read(tmp_path, {"a.csv": "a;b\n1.234;x\n12.500;x\n"})

        assert table.frame["a"].tolist() == [1.234, 12.5]
        assert (
            "Column 'a': all points are followed by three digits, and are read as decimal points. "
            'If they separate thousands, set "csv": {"decimal": ","} in dataset.json.'
        ) in table.notes

    def test_with_both_signs_in_a_column_is_refused_with_the_place(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"1 cell that is not a number.*: a\.csv line 4: "):
            read(tmp_path, {"a.csv": GERMAN + "3.75;x\n"})


signs = st.sampled_from([None, ".", ","])
evidence = st.builds(DecimalEvidence, signs, st.booleans(), st.booleans())
files = st.dictionaries(
    st.sampled_from(["f1", "f2", "f3"]),
    st.dictionaries(st.sampled_from(["a", "b", "c"]), evidence, min_size=1),
    min_size=1,
)
dialects = st.fixed_dictionaries(dict.fromkeys(["f1", "f2", "f3"], st.sampled_from([",", ";"])))


@given(files, dialects)
def test_a_guess_never_contradicts_what_is_certain(
    found: dict[str, dict[str, DecimalEvidence]], written: dict[str, str]
) -> None:
    settled = settle_signs(found, written)

    everywhere = {each.sign for columns in found.values() for each in columns.values()} - {None}
    for file, columns in found.items():
        in_file = {each.sign for each in columns.values()} - {None}
        for column, each in columns.items():
            sign = settled[file][column].sign
            if each.sign is not None:
                assert sign == each.sign
            elif len(in_file) == 1:
                assert sign in in_file
            elif each.has_commas:
                assert sign is None or sign in everywhere
