"""`tollgate models report`: how a model's versions perform, from the metrics of live processes."""

from pathlib import Path
from typing import Annotated

import typer

from cli.models.live_metrics import summarise
from cli.models.live_page import render
from cli.options import AsJson, Model
from cli.output import counted, print_json
from cli.serving.processes import scrape
from cli.stores import failures_as_one_line, open_store
from registry.pins import find_pin
from registry.records import StoreError


def report(
    model: Model,
    urls: Annotated[
        list[str], typer.Option("--url", help="An inference process; may be repeated.")
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("live-report.html"),
    as_json: AsJson = False,
) -> None:
    """Write a page on drift, predictions and live accuracy of each recently used version."""
    with failures_as_one_line():
        texts = {url: scrape(url) for url in urls}
        failed = [url for url, text in texts.items() if text is None]
        if failed:
            raise StoreError(f"Cannot fetch metrics from {', '.join(failed)}.")
        found = summarise(model, [text for text in texts.values() if text is not None])
        if not found:
            raise StoreError(f"No process has metrics of model '{model}'.")
        store, trusted = open_store(read_only=True)
        manifests = {each: store.open_version(model, each, trusted) for each in found}
        pin = find_pin(store, model, trusted)
    if as_json:
        document = {"model": model, "pin": pin.describe() if pin else None, "versions": found}
        print_json(document)
        return
    out.write_text(render(model, found, manifests, pin))
    processes = counted(len(urls), "process", "processes")
    typer.echo(f"{out}: {counted(len(found), 'version')}, {processes}")
