"""`tollgate models feedback`: turn reported outcomes into training data."""

import typer

from cli.options import AsJson, Model
from cli.output import print_json
from cli.stores import failures_as_one_line, load_settings
from registry.feedback import FeedbackStore


def feedback(model: Model, as_json: AsJson = False) -> None:
    """Export rows with reported outcomes to the model's folder in the data store.

    Each row is exported once. Like any new data, it may start a training run.
    """
    with failures_as_one_line():
        settings = load_settings()
        store = FeedbackStore(settings.feedback_store_url)
        written = store.export(model, settings.data_store_url)
    if as_json:
        print_json({"model": model, "files": written})
    else:
        typer.echo("\n".join(written) or f"{model}: no new labelled rows")
