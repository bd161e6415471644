"""The issuer's tokens are valid by default, and wrong exactly as wanted."""

import pytest

from harness.issuer import ISSUER, Issuer
from services.common.errors import Unauthenticated
from services.common.identity.tokens import TokenVerifier


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


async def test_a_token_is_valid_and_has_its_scopes(issuer: Issuer) -> None:
    headers = issuer.headers("predict", "usage:read", account="ada")

    token = headers["Authorization"].removeprefix("Bearer ").encode()
    caller = await TokenVerifier(issuer, issuer=ISSUER).verify(token)

    assert (caller.account, caller.scopes) == ("ada", frozenset({"predict", "usage:read"}))


async def test_a_token_with_one_wrong_claim_is_refused(issuer: Issuer) -> None:
    token = issuer.token(aud="another").encode()

    with pytest.raises(Unauthenticated):
        await TokenVerifier(issuer, issuer=ISSUER).verify(token)
