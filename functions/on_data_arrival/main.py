"""The deployed function: a bucket's event starts a training run, a schedule starts a sweep."""

import functions_framework
from cloudevents.http import CloudEvent

from functions.common.delivery import Redelivery, handle_event, redeliver, reject
from functions.common.pipeline import Pipeline
from functions.common.settings import PipelineSettings
from functions.on_data_arrival.handler import handle
from functions.on_data_arrival.sweep import run_sweep

# At import, so that a function with an invalid setting does not start.
pipeline = Pipeline(PipelineSettings.load())
functions_framework.errorhandler(Redelivery)(redeliver)
# Any other error means that the request could not be parsed as an event.
functions_framework.errorhandler(Exception)(reject)


@functions_framework.cloud_event
def on_data_arrival(event: CloudEvent) -> None:
    """Handle one event; an exception requests a redelivery."""
    handle_event(event, handle, pipeline, sweep=run_sweep)
