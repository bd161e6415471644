"""Run a request on the canary or on the live version, and score the canary."""

import time

import structlog

from registry.runtimes.runtime import InferenceResponse
from services.inference.api.codec import EncodedResponse, InferenceRequest
from services.inference.models.engine import Engine
from services.inference.models.registry import LoadedModel
from services.inference.rollouts.canary import Canaries, Trial

log = structlog.get_logger()


async def compute(
    engine: Engine, model: LoadedModel, request: InferenceRequest
) -> tuple[InferenceResponse, EncodedResponse]:
    """Run a request on one version and encode the response."""
    response = await engine.predict(
        model.runtime,
        model.latency,
        request.arrays,
        rows=request.rows,
        probabilities=request.probabilities,
    )
    return response, request.encode(model, response)


async def compute_in_trial(
    engine: Engine,
    canaries: Canaries,
    trial: Trial,
    live: LoadedModel,
    request: InferenceRequest,
    *,
    account: str,
) -> tuple[LoadedModel, InferenceResponse, EncodedResponse]:
    """Run a request on the version assigned to the account, and record the outcome.

    If the canary fails, the live version answers instead. The failure counts against the canary
    only if the live version succeeds: a request that both fail is not the canary's fault.
    """
    name = live.manifest.model
    as_one_row = live.latency.expected_s(1) / live.latency.expected_s(request.rows)
    canary = await canaries.pick(name, account)
    began = time.perf_counter()
    if canary is not None:
        try:
            computed = await compute(engine, canary, request)
        except Exception as error:
            computed = await compute(engine, live, request)
            canaries.failed(trial, canary, canary=True)
            log.warning("canary_failed", model=name, error=repr(error))
            return live, *computed
    else:
        try:
            computed = await compute(engine, live, request)
        except Exception:
            canaries.failed(trial, live, canary=False)
            raise
    seconds = (time.perf_counter() - began) * as_one_row
    answering = canary or live
    canaries.answered(trial, answering, seconds, canary=canary is not None)
    return answering, *computed
