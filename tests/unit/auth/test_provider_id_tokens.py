"""Which ID tokens of other providers are trusted."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jose import jwk, jwt

from harness.auth_keys import key_ring_of
from services.auth.keys import LoadedKey, new_key
from services.auth.providers.id_tokens import IdTokenInvalid, has_key, verify_id_token

ISSUER, CLIENT_ID, NONCE, NOW = "https://example.com", "tollgate", "the nonce", 1_800_000_000
RSA_KEY = rsa.generate_private_key(65537, 2048)
RING = key_ring_of([LoadedKey(RSA_KEY)])
KEYS = RING.document["keys"]
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "sub": "person-1",
    "aud": CLIENT_ID,
    "exp": NOW + 300,
    "iat": NOW,
    "nonce": NONCE,
}


def verify(token: str, keys: Any = KEYS) -> dict[str, Any]:
    return verify_id_token(
        token, keys=keys, issuer=ISSUER, client_id=CLIENT_ID, nonce=NONCE, now=NOW
    )


def signed(**changes: Any) -> str:
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not None}
    return RING.sign(claims, token_type="JWT")


def pem(key: Any) -> str:
    text: bytes = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return text.decode()


def forged(header: dict[str, Any]) -> str:
    parts = [json.dumps(each).encode() for each in (header, CLAIMS)]
    encoded = [base64.urlsafe_b64encode(each).rstrip(b"=").decode() for each in parts]
    return ".".join([*encoded, ""])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"aud": [CLIENT_ID]} | {"azp": CLIENT_ID},
        {"aud": [CLIENT_ID, "another"], "azp": CLIENT_ID},
        {"exp": NOW - 60},
        {"iat": NOW + 60},
    ],
)
def test_a_valid_token_is_trusted(changes: dict[str, Any]) -> None:
    assert verify(signed(**changes))["sub"] == "person-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example.com"},
        {"iss": f"{ISSUER}/"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"aud": ["another", "third"]},
        {"aud": [CLIENT_ID, "another"]},
        {"azp": "another"},
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": 7},
        {"exp": 1},
        {"exp": NOW - 200},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"iat": NOW + 200},
        {"iat": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
    ],
)
def test_a_wrong_claim_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(IdTokenInvalid):
        verify(signed(**changes))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "x.y.z",
        "é.é.é",
        "a" * 40_000,
        forged({"alg": "none"}),
        forged({"alg": "None"}),
        forged({}),
        forged({"alg": ["RS256"]}),
        forged({"alg": "RS256", "crit": ["exp"]}),
        signed()[:-2],
        signed().replace(".", "..", 1),
        jwt.encode(CLAIMS, "client secret", "HS256"),
        RING.sign(CLAIMS),  # the type of access tokens
    ],
)
def test_a_forged_token_is_refused(token: str) -> None:
    with pytest.raises(IdTokenInvalid):
        verify(token)


def test_a_public_key_is_no_shared_secret() -> None:
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()
    body = signed().split(".")[1]
    key = jwk.construct({"kty": "oct", "k": base64.urlsafe_b64encode(pem(RSA_KEY.public_key())
        .encode()).decode()}, "HS256")  # fmt: skip
    mac = base64.urlsafe_b64encode(key.sign(f"{header}.{body}".encode())).rstrip(b"=").decode()

    with pytest.raises(IdTokenInvalid):
        verify(f"{header}.{body}.{mac}")


def test_a_token_without_a_key_id_needs_a_single_fitting_key() -> None:
    token = jwt.encode(CLAIMS, RSA_KEY, "RS256")
    other = key_ring_of([new_key()]).document["keys"]

    assert verify(token)["sub"] == "person-1"
    for keys in ([], [*KEYS, *other], other, [KEYS[0] | {"use": "enc"}]):
        with pytest.raises(IdTokenInvalid):
            verify(token, keys)


def test_elliptic_keys_of_the_right_curve_are_accepted() -> None:
    for curve, accepted in ((ec.SECP256R1(), True), (ec.SECP384R1(), False)):
        key = ec.generate_private_key(curve)
        algorithm = "ES256" if accepted else "ES384"
        document = jwk.construct(pem(key.public_key()), algorithm).to_dict()
        document = {name: str(value) for name, value in document.items() if name != "alg"}
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        token = jwt.encode(CLAIMS, private, algorithm)

        if accepted:
            assert verify(token, [document])["sub"] == "person-1"
        else:
            with pytest.raises(IdTokenInvalid):
                verify(token, [document])


def test_an_unknown_key_id_is_noticed() -> None:
    other = key_ring_of([new_key()])

    assert has_key(KEYS, signed())
    assert not has_key(other.document["keys"], signed())
    assert has_key([], "no token")  # verifying reports it
