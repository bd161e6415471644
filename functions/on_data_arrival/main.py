"""The function as it is deployed: a bucket's event starts a training; a schedule, a sweep."""

import functions_framework
from cloudevents.http import CloudEvent

from functions.common.answer import Redelivery, answer, redeliver, reject
from functions.common.pipeline import Pipeline
from functions.common.settings import PipelineSettings
from functions.on_data_arrival.handler import handle
from functions.on_data_arrival.sweep import run_sweep

# Here, so that a function with a bad setting does not start.
pipeline = Pipeline(PipelineSettings.load())
functions_framework.errorhandler(Redelivery)(redeliver)
# Whatever else is raised, is raised while a request is being read as an event.
functions_framework.errorhandler(Exception)(reject)


@functions_framework.cloud_event
def on_data_arrival(event: CloudEvent) -> None:
    """Answer one event; raising means "deliver it again"."""
    answer(event, handle, pipeline, sweep=run_sweep)
