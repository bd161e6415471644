"""The report of a version: safe to open, whatever the data says."""

import warnings

import pytest

from tests.integration.trainer import samples
from tests.integration.trainer.conftest import Workshop

NAUGHTY = "<script>alert('$x$')</script>"


@pytest.mark.costly
class TestReport:
    def test_escapes_names_and_refers_to_no_other_host(self, workshop: Workshop) -> None:
        rows = [
            (size, colour, NAUGHTY if y == "big" else "ok")
            for size, _, colour, _, y in samples.rows(samples.text)
        ]
        workshop.put_rows("m", ["size", '"' + NAUGHTY + '"', "y"], rows)
        workshop.put("m", '{"target": "y", "estimators": ["linear"]}', name="dataset.json")

        manifest = workshop.manifest(workshop.train("m"))
        page = workshop.store.read_file(manifest, "report.html").decode()

        assert "<script" not in page
        assert "http" not in page
        assert "&lt;script&gt;" in page
        assert page.count("<svg") == 3
        assert len(page) < 300_000

    def test_is_drawn_without_warnings_for_names_in_any_script(self, workshop: Workshop) -> None:
        rows = [(i, i // 20) for i in range(40)]
        workshop.put_rows("m", ("\N{CJK UNIFIED IDEOGRAPH-8272}", "y"), rows)
        workshop.configure("m")

        with warnings.catch_warnings(action="error"):
            workshop.train("m", target="y")
