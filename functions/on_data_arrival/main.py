"""The function as it is deployed: a bucket's event starts a training."""

import functions_framework
from cloudevents.exceptions import GenericException
from cloudevents.http import CloudEvent

from functions.common.answer import answer, reject
from functions.common.pipeline import Pipeline
from functions.common.settings import PipelineSettings
from functions.on_data_arrival.handler import handle

# Here, so that a function with a bad setting does not start.
pipeline = Pipeline(PipelineSettings.load())
functions_framework.errorhandler(GenericException)(reject)
functions_framework.errorhandler(400)(reject)


@functions_framework.cloud_event
def on_data_arrival(event: CloudEvent) -> None:
    """Answer one event; raising means "deliver it again"."""
    answer(event, handle, pipeline)
