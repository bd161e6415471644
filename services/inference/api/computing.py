"""Run a request on one version, or on the canary or the live version of a trial."""

import time
from collections.abc import Callable

import structlog

from registry.runtimes.runtime import InferenceResponse
from services.inference.api.codec import EncodedResponse, InferenceRequest
from services.inference.api.reading import Abandoned
from services.inference.models.engine import Engine, is_quick, run_model
from services.inference.models.table import LoadedModel
from services.inference.rollouts.canary import Canaries, Trial

log = structlog.get_logger()


def compute_now(
    model: LoadedModel, request: InferenceRequest
) -> tuple[InferenceResponse, EncodedResponse] | None:
    """Run a quick request in place and encode the response; return None if it needs a thread.

    Raises:
        BodyInvalid: the values are so extreme that the output is not finite.
    """
    if request.explains or not is_quick(model, request.rows):
        return None
    response = run_model(model, request.arrays, probabilities=request.probabilities)
    return response, request.encode(model, response)


async def compute(
    engine: Engine, model: LoadedModel, request: InferenceRequest, *, check: Callable[[], None]
) -> tuple[InferenceResponse, EncodedResponse]:
    """Run a request on one version, in a thread unless it is quick, and encode the response.

    Args:
        check: raises Abandoned if nobody waits for the answer when a thread becomes free.

    Raises:
        BodyInvalid: the values are so extreme that the output is not finite.
        Abandoned: see `check`.
    """
    arrays, rows = request.arrays, request.rows
    if request.explains:
        response = await engine.explain(model, arrays, rows=rows, check=check)
    else:
        response = await engine.predict(
            model, arrays, rows=rows, probabilities=request.probabilities, check=check
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
    check: Callable[[], None],
) -> tuple[LoadedModel, InferenceResponse, EncodedResponse]:
    """Run a request on the version assigned to the account, and record the outcome.

    If the canary fails, the live version answers instead. The failure counts against the canary
    only if the live version succeeds: a request that both fail is not the canary's fault.
    """
    name = live.manifest.model
    as_one_row = live.latency.expected_s(1) / live.latency.expected_s(request.rows)
    canary = await canaries.pick(name, account)
    if canary is not None and not request.suits(canary):
        canary = None
    if request.explains:
        return await _explain_in_trial(engine, canary, live, request, check=check)
    began = time.perf_counter()
    if canary is not None:
        try:
            computed = await compute(engine, canary, request, check=check)
        except Abandoned:
            raise
        except Exception as error:
            computed = await compute(engine, live, request, check=check)
            canaries.failed(trial, canary, canary=True)
            log.warning("canary_failed", model=name, error=repr(error))
            return live, *computed
    else:
        try:
            computed = await compute(engine, live, request, check=check)
        except Abandoned:
            raise
        except Exception:
            canaries.failed(trial, live, canary=False)
            raise
    seconds = (time.perf_counter() - began) * as_one_row
    answering = canary or live
    canaries.answered(trial, answering, seconds, canary=canary is not None)
    return answering, *computed


async def _explain_in_trial(
    engine: Engine,
    canary: LoadedModel | None,
    live: LoadedModel,
    request: InferenceRequest,
    *,
    check: Callable[[], None],
) -> tuple[LoadedModel, InferenceResponse, EncodedResponse]:
    """Do the same for an explanation, which takes longer and so counts for no version."""
    if canary is not None:
        try:
            return canary, *await compute(engine, canary, request, check=check)
        except Abandoned:
            raise
        except Exception as error:
            log.warning("canary_failed", model=live.manifest.model, error=repr(error))
    return live, *await compute(engine, live, request, check=check)
