"""The answer to a query: by a canary if it is the caller's and can, else by the live version."""

import time

import structlog

from services.inference.engine.runtime import Answer, Engine
from services.inference.models.registry import LoadedModel
from services.inference.protocols.wire import Encoded, Query
from services.inference.rollouts.canary import Canaries, Trial

log = structlog.get_logger()


async def compute(engine: Engine, model: LoadedModel, query: Query) -> tuple[Answer, Encoded]:
    """Ask one version."""
    answer = await engine.predict(
        model.runtime,
        model.pace,
        query.arrays,
        rows=query.rows,
        probabilities=query.probabilities,
    )
    return answer, query.encode(model, answer)


async def compute_in_trial(
    engine: Engine,
    canaries: Canaries,
    trial: Trial,
    live: LoadedModel,
    query: Query,
    *,
    account: str,
) -> tuple[LoadedModel, Answer, Encoded]:
    """Ask the version that is the account's while a canary is on, and judge it by that.

    A request counts against the canary if it failed it and the live version could answer: what
    neither can is no fault of the canary.
    """
    name = live.manifest.model
    as_one_row = live.pace.expected_s(1) / live.pace.expected_s(query.rows)
    canary = await canaries.pick(name, account)
    began = time.perf_counter()
    if canary is not None:
        try:
            computed = await compute(engine, canary, query)
        except Exception as error:
            computed = await compute(engine, live, query)
            canaries.failed(trial, canary, canary=True)
            log.warning("canary_failed", model=name, error=repr(error))
            return live, *computed
    else:
        try:
            computed = await compute(engine, live, query)
        except Exception:
            canaries.failed(trial, live, canary=False)
            raise
    seconds = (time.perf_counter() - began) * as_one_row
    answering = canary or live
    canaries.answered(trial, answering, seconds, canary=canary is not None)
    return answering, *computed
