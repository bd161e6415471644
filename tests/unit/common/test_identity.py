"""Forged tokens: each gets the same 401, without side effects."""

import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st
from jose.backends.base import Key

from harness.issuer import ISSUER, Issuer, base64url
from services.common.errors import Unauthenticated
from services.common.identity import tokens
from services.common.identity.caller import Caller
from services.common.identity.issuer_keys import public_key
from services.common.identity.tokens import TokenVerifier, token_digest

OURS, OTHER = Issuer(), Issuer()


class Ring:
    """A service's own keys, and the ids that were requested."""

    def __init__(self) -> None:
        self.keys = dict([public_key(OURS.jwk())])
        self.requested: list[str] = []

    async def find(self, kid: str) -> Key | None:
        self.requested.append(kid)
        return self.keys.get(kid)


@pytest.fixture
def ring() -> Ring:
    return Ring()


@pytest.fixture
def verifier(ring: Ring) -> TokenVerifier:
    return TokenVerifier(ring, issuer=ISSUER)


async def assert_refused(verifier: TokenVerifier, token: bytes) -> None:
    for _ in range(2):  # the token is not cached
        with pytest.raises(Unauthenticated) as refused:
            await verifier.verify(token)
        assert refused.value.detail == Unauthenticated.detail
    assert verifier.recall(token_digest(token)) is None


class TestGoodTokens:
    async def test_a_valid_token_identifies_the_caller(self, verifier: TokenVerifier) -> None:
        claims = OURS.claims()

        caller = await verifier.verify(OURS.sign(claims=claims))

        scopes = frozenset({"predict", "usage:read"})
        assert caller == Caller(
            "an account",
            "tests",
            scopes,
            claims["exp"],
            token_id=claims["jti"],
            issued_at=claims["iat"],
        )

    async def test_a_cached_token_needs_no_key(self, verifier: TokenVerifier, ring: Ring) -> None:
        token = OURS.sign()
        first = await verifier.verify(token)
        requested = len(ring.requested)

        assert verifier.recall(token_digest(token)) == await verifier.verify(token) == first
        assert len(ring.requested) == requested

    async def test_the_cache_entry_expires_with_the_token(self, ring: Ring) -> None:
        now = [time.time()]
        verifier = TokenVerifier(ring, issuer=ISSUER, clock=lambda: now[0])
        token = OURS.sign()
        await verifier.verify(token)

        now[0] += 3600

        await assert_refused(verifier, token)

    async def test_the_number_of_cached_tokens_is_limited(self, ring: Ring) -> None:
        verifier = TokenVerifier(ring, issuer=ISSUER, max_cached=2)
        tokens = [OURS.sign(claims=OURS.claims(jti=str(n))) for n in range(3)]
        for token in tokens:
            await verifier.verify(token)

        assert [verifier.recall(token_digest(token)) is not None for token in tokens] == [
            False,
            True,
            True,
        ]

    @pytest.mark.parametrize("ahead_s", [-119, -31, 0, 31, 119])
    async def test_clocks_may_differ_by_two_minutes(self, ring: Ring, ahead_s: int) -> None:
        now = int(time.time())
        verifier = TokenVerifier(ring, issuer=ISSUER, clock=lambda: now + ahead_s)

        await verifier.verify(OURS.sign(claims=OURS.claims(iat=now, exp=now + 3600)))
        await verifier.verify(OURS.sign(claims=OURS.claims(iat=now, nbf=now, exp=now + 120)))

    async def test_the_tolerance_does_not_extend_a_token(self, ring: Ring) -> None:
        now = int(time.time())
        verifier = TokenVerifier(ring, issuer=ISSUER, clock=lambda: now)
        times = {"iat": now - 600}

        await verifier.verify(OURS.sign(claims=OURS.claims(**times, exp=now + 1)))
        await assert_refused(verifier, OURS.sign(claims=OURS.claims(**times, exp=now)))

    @pytest.mark.parametrize(
        ("ahead_s", "times"),
        [
            (-121, {"iat": 0}),
            (-121, {"iat": -600, "nbf": 0}),
        ],
    )
    async def test_clocks_may_not_differ_by_more(
        self, ring: Ring, ahead_s: int, times: dict[str, int]
    ) -> None:
        now = int(time.time())
        verifier = TokenVerifier(ring, issuer=ISSUER, clock=lambda: now + ahead_s)
        off = OURS.claims(iat=now, exp=now + 3600) | {name: now + s for name, s in times.items()}

        await assert_refused(verifier, OURS.sign(claims=off))

    @pytest.mark.parametrize("nbf", [None, "0", 0.5, True])
    async def test_a_fractional_start_time_is_rejected(
        self, verifier: TokenVerifier, nbf: Any
    ) -> None:
        await assert_refused(verifier, OURS.sign(claims=OURS.claims(nbf=nbf)))


class TestHeaders:
    @pytest.mark.parametrize(
        "alg",
        [
            "none",
            "None",
            "nOnE",
            "",
            "RS",
            "rs256",
            "RS384",
            "PS256",
            "ES256",
            "HS256",
            " RS256",
            None,
            1,
            True,
            ["RS256"],
            {"RS256": 1},
        ],
    )
    async def test_any_other_algorithm_is_rejected(self, verifier: TokenVerifier, alg: Any) -> None:
        token = OURS.sign(header=OURS.header(alg=alg))

        await assert_refused(verifier, token)
        await assert_refused(verifier, token.rpartition(b".")[0] + b".")

    @pytest.mark.parametrize("missing", ["alg", "typ", "kid"])
    async def test_each_member_is_required(self, verifier: TokenVerifier, missing: str) -> None:
        head = OURS.header()
        del head[missing]

        await assert_refused(verifier, OURS.sign(header=head))

    @pytest.mark.parametrize("typ", ["JWT", "at+JWT ", "application/at+jwt", None, ["at+jwt"]])
    async def test_any_other_type_is_rejected(self, verifier: TokenVerifier, typ: Any) -> None:
        await assert_refused(verifier, OURS.sign(header=OURS.header(typ=typ)))

    @pytest.mark.parametrize(
        "extra",
        [
            {"jku": "http://127.0.0.1:9/keys"},
            {"x5u": "http://127.0.0.1:9/cert"},
            {"jwk": OTHER.jwk()},
            {"x5c": ["MIIB"]},
            {"crit": ["exp"]},
            {"crit": ["b64"], "b64": False},
            {"b64": True},
            {"zip": "DEF"},
            {"cty": "JWT"},
        ],
    )
    async def test_members_that_name_other_keys_or_rules_are_rejected(
        self, verifier: TokenVerifier, ring: Ring, extra: dict[str, Any]
    ) -> None:
        await assert_refused(verifier, OURS.sign(header=OURS.header(**extra)))
        await assert_refused(verifier, OTHER.sign(header=OURS.header(**extra)))
        assert ring.requested == []

    @pytest.mark.parametrize(
        "kid",
        [
            "../../etc/passwd",
            "' OR 1=1 --",
            "x" * 900,
            "x" * 10_000,
            "",
            "\0",
            "é",
            "\ud800",
            None,
            1,
            ["key-1"],
            {"key-1": 1},
        ],
    )
    async def test_an_unknown_key_id_is_rejected(self, verifier: TokenVerifier, kid: Any) -> None:
        await assert_refused(verifier, OURS.sign(header=OURS.header(kid=kid)))

    async def test_the_public_key_is_not_accepted_as_a_shared_secret(
        self, verifier: TokenVerifier
    ) -> None:
        public = OURS.private_key.public_key()
        info = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = public.public_bytes(serialization.Encoding.PEM, info)
        der = public.public_bytes(serialization.Encoding.DER, info)
        ssh = public.public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        jwk = json.dumps(OURS.jwk()).encode()

        for secret in (pem, pem.strip(), der, ssh, jwk, b""):
            await assert_refused(verifier, OURS.sign_as_shared_secret(secret))

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"null",
            b"[]",
            b'"alg"',
            b"{",
            b"\xff\xfe",
            b"[" * 1000,
            b'{"a":' * 180,
            b"\xef\xbb\xbf" + json.dumps(OURS.header()).encode(),
            b'{"alg":"none","typ":"at+jwt","kid":"key-1","alg":"RS256"}',
            b'{"alg":"RS256","typ":"at+jwt","kid":"other","kid":"key-1"}',
            json.dumps(OURS.header()).encode() + b" " * 1024,
        ],
    )
    async def test_a_non_canonical_header_is_rejected(
        self, verifier: TokenVerifier, raw: bytes
    ) -> None:
        await assert_refused(verifier, OURS.sign(header=raw))


class TestClaims:
    @pytest.mark.parametrize("missing", list(OURS.claims()))
    async def test_each_claim_is_required(self, verifier: TokenVerifier, missing: str) -> None:
        incomplete = OURS.claims()
        del incomplete[missing]

        await assert_refused(verifier, OURS.sign(claims=incomplete))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"iss": "https://evil.test"},
            {"iss": ISSUER + "/"},
            {"iss": [ISSUER]},
            {"aud": "another"},
            {"aud": ["another"]},
            {"aud": None},
            {"sub": ""},
            {"sub": 7},
            {"sub": None},
            {"jti": ""},
            {"client_id": ""},
            {"client_id": ["web"]},
            {"scope": ["admin"]},
            {"scope": None},
            {"exp": None},
            {"exp": True},
            {"exp": "9999999999"},
            {"exp": 9999999999.5},
            {"exp": float("inf")},
            {"exp": float("nan")},
            {"exp": int(time.time()) - 3600},
            {"exp": int(time.time()) + 10 * 365 * 86400},
            {"exp": 10**400},
            {"exp": -1},
            {"iat": None},
            {"iat": "0"},
            {"iat": int(time.time()) + 3600},
            {"iat": int(time.time()) + 3600, "exp": int(time.time()) + 60},
            {"nbf": int(time.time()) + 3600},
        ],
    )
    async def test_a_wrong_claim_is_rejected(
        self, verifier: TokenVerifier, wrong: dict[str, Any]
    ) -> None:
        await assert_refused(verifier, OURS.sign(claims=OURS.claims(**wrong)))

    async def test_a_duplicate_claim_is_rejected(self, verifier: TokenVerifier) -> None:
        text = json.dumps(OURS.claims())
        twice = text[:-1] + ', "scope": "admin"}'

        await assert_refused(verifier, OURS.sign(claims=twice.encode()))

    @pytest.mark.parametrize("raw", [b"", b"[]", b"1", b"null", b"\xff", b"[" * 1000, b"1e999"])
    async def test_a_payload_that_is_not_an_object_is_rejected(
        self, verifier: TokenVerifier, raw: bytes
    ) -> None:
        await assert_refused(verifier, OURS.sign(claims=raw))


class TestEncoding:
    async def test_another_key_or_a_changed_byte_is_rejected(self, verifier: TokenVerifier) -> None:
        good = OURS.sign()
        head, body, signature = good.split(b".")
        richer = base64url(json.dumps(OURS.claims(scope="admin")).encode()).encode()

        for token in (
            OTHER.sign(),
            b".".join([head, richer, signature]),
            b".".join([head, body, base64url(b"\0" * 256).encode()]),
            b".".join([head, body, b""]),
            b".".join([head, body]),
        ):
            await assert_refused(verifier, token)

    async def test_only_the_canonical_encoding_is_accepted(self, verifier: TokenVerifier) -> None:
        good = OURS.sign()
        last = good[-1:]  # 256 bytes leave four unused bits in the last character
        alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        sibling = alphabet[alphabet.index(last) + 1 :][:1]

        for token in (good + b"==", good[:-1] + sibling, good + b"\n", b" " + good, good + b"."):
            await assert_refused(verifier, token)
        await verifier.verify(good)

    async def test_a_huge_token_is_rejected_before_it_is_parsed(
        self, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        huge = [b"a" * 1_000_000, OURS.sign(claims=OURS.claims(sub="x" * 1_000_000))]
        deep = OURS.sign(header=b"[" * 1000)
        parsed: list[bytes] = []
        decode = tokens._decode

        def record(segment: bytes) -> bytes:
            parsed.append(segment)
            return decode(segment)

        monkeypatch.setattr(tokens, "_decode", record)

        for token in huge:
            await assert_refused(verifier, token)
        assert parsed == []
        await assert_refused(verifier, deep)

    @given(st.binary(max_size=200) | st.text(alphabet=".abAB01-_=", max_size=200).map(str.encode))
    async def test_any_text_is_just_rejected(self, text: bytes) -> None:
        await assert_refused(TokenVerifier(Ring(), issuer=ISSUER), text)


class TestJwk:
    @pytest.mark.parametrize(
        "more",
        [
            {"kty": "EC"},
            {"kty": "oct", "k": "c2VjcmV0"},
            {"use": "enc"},
            {"alg": "RS512"},
            {"alg": "HS256"},
            {"kid": None},
            {"kid": 7},
            {"n": base64url(b"\x80" + b"\0" * 126 + b"\1")},
            {"n": base64url(b"\0" * 256 + b"\x80" + b"\0" * 126 + b"\1")},
        ],
    )
    def test_a_key_that_is_not_a_strong_rsa_signing_key_is_rejected(
        self, more: dict[str, Any]
    ) -> None:
        with pytest.raises(ValueError, match="key"):
            public_key(OURS.jwk(**more))
