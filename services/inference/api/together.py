"""The steps of a prediction before it is recorded, for several requests to one version at once.

A request that cannot take a step now is declined.
"""

from services.common.errors import ServiceError
from services.inference.api import steps
from services.inference.api.collaborators import Admission
from services.inference.api.offers import Offer, decline
from services.inference.api.reading import check_deadline
from services.inference.api.steps import Call, DecodedBody, Prediction
from services.inference.metering.leases.manager import LeaseManager
from services.inference.models.engine import (
    PREDICT,
    PREDICT_PROBABILITIES,
    is_quick,
    run_together,
)
from services.inference.models.inputs import retained_bytes
from services.inference.models.table import LoadedModel

Decoded = tuple[Offer, Call, DecodedBody]
Answerable = tuple[Offer, Prediction]


def decode(
    offers: list[Offer], model: LoadedModel, admission: Admission
) -> tuple[list[Decoded], list[Decoded]]:
    """Take the steps before the model runs.

    Returns:
        Those that want no probabilities, and those that do: each can share one run of the model.
    """
    plain: list[Decoded] = []
    with_probabilities: list[Decoded] = []
    for offer in offers:
        _, (path, target, digest, head, _), content, started = offer
        try:
            caller = steps.recall_now(admission, digest, target.model)
            if caller is not None:
                check_deadline(head, started=started)
                call = Call(caller, target, path, head, content, started)
                body = steps.decode_body(call, model, admission.max_rows)
                if is_quick(model, body.request.rows):
                    alike = with_probabilities if body.request.probabilities else plain
                    alike.append((offer, call, body))
                    continue
        except Exception:  # noqa: S110  # the ordinary path meets it again, and reports it
            pass
        decline([offer])
    return plain, with_probabilities


def predict(decoded: list[Decoded], model: LoadedModel, leases: LeaseManager) -> list[Answerable]:
    """Run the model, then spend, which is the first step that has an effect."""
    if not decoded:
        return []
    requests = [body.request for _, _, body in decoded]
    try:
        responses = run_together(
            model,
            [(request.arrays, request.rows) for request in requests],
            PREDICT_PROBABILITIES if requests[0].probabilities else PREDICT,
        )
        encoded = [
            request.encode(model, response)
            for request, response in zip(requests, responses, strict=True)
        ]
    except Exception:  # the ordinary path finds out whose fault it is
        decline([offer for offer, *_ in decoded])
        return []
    answerable = []
    for (offer, call, body), response, answer in zip(decoded, responses, encoded, strict=True):
        request = body.request
        try:
            spending = leases.admit_and_spend(call.caller.account, call.target.model, request.rows)
        except ServiceError:
            spending = None
        if spending is None:
            decline([offer])
            continue
        size = len(call.content) + retained_bytes(request.arrays)
        prediction = steps.new_prediction(
            call, model, body, (response, answer), spending, size=size
        )
        answerable.append((offer, prediction))
    return answerable
