"""The memory limit of an inference pod follows from the settings that limit its callers."""

import re

import pytest

from services.inference.api.grpc.service import READING_AT_ONCE
from services.inference.settings import InferenceSettings
from tests.integration.deploy.chart import ROOT, SCENARIOS, Rendered, render

MIB = 1 << 20
UNITS = {"Mi": MIB, "Gi": 1 << 30}
DEFAULTS_IN_FLIGHT = 32
LARGE_BODY = 36
"""Parsing a JSON body takes up to 33 times its size."""


def needed_bytes(environment: dict[str, str]) -> int:
    """Return the bytes that the settings of an inference pod allow it to use."""
    settings = InferenceSettings(
        client_id="inference",
        client_secret="secret",
        **{  # type: ignore[arg-type]  # text, as from the environment
            name: environment[f"INFERENCE_{name.upper()}"]
            for name in ("models_max_bytes", "max_body_bytes", "max_body_bytes_in_flight")
            if f"INFERENCE_{name.upper()}" in environment
        },
    )
    messages = READING_AT_ONCE if "INFERENCE_GRPC_PORT" in environment else 0
    return (
        256 * MIB
        + 3 * settings.models_max_bytes
        + settings.max_body_bytes_in_flight
        + (LARGE_BODY + messages) * settings.max_body_bytes
    )


def limit_bytes(rendered: Rendered) -> int:
    """Return the memory limit of an inference pod, in bytes."""
    number, unit = re.fullmatch(
        r"(\d+)(Mi|Gi)", rendered.container("inference")["resources"]["limits"]["memory"]
    ).groups()  # type: ignore[union-attr]  # an error if it is another unit
    return int(number) * UNITS[unit]


@pytest.mark.parametrize("scenario", [None, *SCENARIOS])
@pytest.mark.parametrize("grpc", ["false", "true"])
def test_the_limit_is_large_enough(scenario: str | None, grpc: str) -> None:
    rendered = render(f"inference.grpc.enabled={grpc}", scenario=scenario)

    assert needed_bytes(rendered.settings("inference")) <= limit_bytes(rendered)


def test_the_need_follows_the_settings() -> None:
    settings = render().settings("inference")
    larger = settings | {"INFERENCE_MAX_BODY_BYTES": str(16 * MIB)}
    fewer = settings | {"INFERENCE_MAX_BODY_BYTES_IN_FLIGHT": str(128 * MIB)}

    assert (
        needed_bytes(larger) - needed_bytes(settings) == (DEFAULTS_IN_FLIGHT + LARGE_BODY) * 8 * MIB
    )
    assert needed_bytes(settings) - needed_bytes(fewer) == 128 * MIB


def test_the_page_on_sizing_matches_the_chart() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    rendered = render()
    with_grpc = render("inference.grpc.enabled=true").settings("inference")

    assert f"{needed_bytes(with_grpc) // MIB} MiB with gRPC" in page
    assert f"| {READING_AT_ONCE} × `INFERENCE_MAX_BODY_BYTES`, if" in page
    assert f"the chart's defaults {needed_bytes(rendered.settings('inference')) // MIB} MiB" in page
    assert f"the limit is {limit_bytes(rendered) // MIB} MiB" in page
    assert f"| {LARGE_BODY} × `INFERENCE_MAX_BODY_BYTES` |" in page
