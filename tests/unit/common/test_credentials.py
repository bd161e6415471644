"""The headers in which credentials are given."""

import pytest

from services.common.errors import Unauthenticated
from services.common.identity.guards import read_credentials


class TestBearerHeader:
    def test_the_scheme_is_case_insensitive(self) -> None:
        assert read_credentials([(b"authorization", b"bEARER abc")]) == b"abc"

    @pytest.mark.parametrize(
        "value", [b"", b"Bearer", b"Bearer ", b"Basic Og==", b"abc", b"Token a"]
    )
    def test_anything_else_is_rejected(self, value: bytes) -> None:
        with pytest.raises(Unauthenticated) as refused:
            read_credentials([(b"authorization", value)])
        assert 'error="invalid_token"' in refused.value.headers["WWW-Authenticate"]

    def test_two_headers_are_rejected(self) -> None:
        with pytest.raises(Unauthenticated):
            read_credentials([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")])

    def test_a_missing_header_gets_its_own_challenge(self) -> None:
        with pytest.raises(Unauthenticated) as refused:
            read_credentials([(b"host", b"x")])
        assert refused.value.headers["WWW-Authenticate"] == "Bearer"
