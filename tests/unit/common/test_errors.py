"""Errors and their documentation, without an app."""

from typing import Any

from services.common.errors import (
    MAX_FIELD_ERRORS,
    BadRequest,
    BodyInvalid,
    InsufficientScope,
    NotFound,
    ServiceError,
    Unauthenticated,
    Unavailable,
    error_responses,
)


class Taken(ServiceError):
    """The name is taken.

    More about it.
    """

    status = 409
    code = "taken"
    detail = "The name is taken already."


class Busy(ServiceError):
    """The resource is in use."""

    status = 409
    code = "busy"
    media_type = "application/json"

    def body(self, *, path: str, request_id: str) -> dict[str, Any]:
        return {"error": self.code}


def test_the_code_is_the_type_and_the_sentence_the_detail() -> None:
    assert Taken(name="x").body(path="/things", request_id="r1") == {
        "type": "urn:tollgate:problem:taken",
        "title": "Conflict",
        "status": 409,
        "detail": "The name is taken already.",
        "instance": "/things",
        "request_id": "r1",
        "name": "x",
    }


def test_challenges_follow_rfc_6750() -> None:
    assert Unauthenticated(token_given=False).headers == {"WWW-Authenticate": "Bearer"}
    assert Unauthenticated().headers == {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    assert InsufficientScope("admin").headers == {
        "WWW-Authenticate": 'Bearer error="insufficient_scope", scope="admin"'
    }


def test_a_temporary_error_has_retry_after() -> None:
    assert Unavailable("Busy.", retry_after_s=9).headers == {"Retry-After": "9"}


def test_no_more_than_fifty_fields_are_named() -> None:
    errors = [{"loc": ["body", n], "msg": "no"} for n in range(80)]

    entries = BodyInvalid(errors).body(path="/", request_id="")["errors"]

    assert entries == errors[:MAX_FIELD_ERRORS]


def test_instances_do_not_change_their_class() -> None:
    BadRequest("Something else.")

    assert NotFound().detail == NotFound.detail
    assert BadRequest().detail == BadRequest.detail


def test_a_route_documents_its_errors_by_status() -> None:
    described = error_responses(Taken, Busy, NotFound, Taken)

    assert described[409]["description"] == "The name is taken. Or: The resource is in use."
    assert set(described) == {404, 409}
