"""Who may use which model."""

from typing import Annotated

from fastapi import Depends, Request

from services.common.errors import InsufficientScope, ServiceError
from services.common.identity.caller import Caller
from services.common.identity.guards import RequireScope

SCOPE = "predict"


class ModelNotAllowed(ServiceError):
    """The API key is limited to other models."""

    status = 403
    code = "model_not_allowed"
    detail = "This API key is limited to other models."


def check_scope(caller: Caller) -> None:
    """Check that a caller may predict.

    Raises:
        InsufficientScope: the credentials have no such scope.
    """
    if SCOPE not in caller.scopes:
        raise InsufficientScope(SCOPE)


def may_use(caller: Caller, model: str) -> bool:
    """Return whether a caller may use a model."""
    return caller.limits is None or caller.limits.allows_model(model)


def check_model(caller: Caller, model: str) -> None:
    """Check that a caller may use a model.

    Raises:
        ModelNotAllowed: the caller's API key is limited to other models.
    """
    if not may_use(caller, model):
        raise ModelNotAllowed()


class RequireModelAccess(RequireScope):
    """A dependency that returns the `Caller`, who may use the model in the path, if there is one.

    Raises:
        Unauthenticated, InsufficientScope, AddressNotAllowed: as `RequireScope`.
        ModelNotAllowed: the caller's API key is limited to other models.
    """

    def __init__(self) -> None:
        super().__init__(SCOPE)

    async def __call__(self, request: Request) -> Caller:
        caller = await super().__call__(request)
        model = request.path_params.get("model")
        if model is not None:
            check_model(caller, model)
        return caller


Predicting = Depends(RequireModelAccess())
PredictingCaller = Annotated[Caller, Predicting]
