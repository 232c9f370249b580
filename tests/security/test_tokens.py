"""Tokens of an issuer: what is accepted, what is not, and what happens when the issuer changes its keys or is away."""

import base64
import hashlib
import hmac
import json
import math
import time
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.warnings import InsecureKeyLengthWarning

from service.adapters.jwt_tokens import JwtTokens, Terms
from service.adapters.signing_keys import SigningKeys
from service.core.access import Scope
from service.core.errors import Unauthenticated
from tests.api.wire import readings, require_problem, require_problem_body, stream
from tests.security.credentials import ALL, AUDIENCE, ISSUER, TERMS, Issuer, bearer, tokens_of
from tests.servers import ConveyorServer

ROW = readings(1)[0]


@pytest.mark.parametrize("key_id", ["es256", "rs256"])
def test_a_token_steps_a_session_of_its_tenant(guarded: ConveyorServer, issuer: Issuer, key_id: str) -> None:
    headers = bearer(issuer.token(Scope.STEP, Scope.SESSIONS, key_id=key_id, tenant=key_id))
    with httpx.Client(base_url=guarded.url, headers=headers, timeout=30) as client:
        assert client.put("/v1/sessions/s", json={"model": "hotspot"}).status_code == 201
        for number in (1, 2):
            assert client.post("/v1/sessions/s/steps", json={"x": ROW}).json()["step"] == number
        with stream(guarded, "s", additional_headers=headers) as socket:
            assert socket.receive()["step"] == 2
        require_problem(client.get("/metrics"), 403, "forbidden")
        assert client.delete("/v1/sessions/s").status_code == 204


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def resigned(issuer: Issuer, header: dict[str, Any], secret: bytes | None) -> str:
    """A good token's claims under another header, signed with a secret that everybody knows, or not at all."""
    claims = issuer.token(*ALL).split(".")[1]
    signed = f"{encoded(header)}.{claims}"
    signature = b"" if secret is None else hmac.digest(secret, signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


@cache
def an_impostor() -> Issuer:
    return Issuer("ES256", "RS256")


def forged(issuer: Issuer) -> dict[str, tuple[str, str]]:
    """Tokens that must not be accepted, and what is said of them."""
    impostor = an_impostor()
    public = issuer.private["es256"][1].public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    good = issuer.token(*ALL)
    head, claims, signature = good.split(".")
    others = encoded(jwt.decode(good, options={"verify_signature": False}) | {"tenant": "b"})
    untrusted, unsigned = "not signed with a key and an algorithm that are trusted", "cannot be accepted"
    return {
        "another's key under a known id": (impostor.token(*ALL), unsigned),
        "another's key of another kind": (impostor.token(*ALL, key_id="rs256"), unsigned),
        "no signature": (f"{head}.{claims}.", unsigned),
        "other claims": (f"{head}.{others}.{signature}", unsigned),
        "alg none": (resigned(issuer, {"alg": "none", "kid": "es256"}, None), untrusted),
        "alg None": (resigned(issuer, {"alg": "None", "kid": "es256"}, None), untrusted),
        "alg null": (resigned(issuer, {"alg": None, "kid": "es256"}, None), "does not say"),
        "no alg": (resigned(issuer, {"kid": "es256"}, None), "does not say"),
        "the public key as a secret": (resigned(issuer, {"alg": "HS256", "kid": "es256"}, pem), untrusted),
        "an algorithm that is not allowed": (issuer.token(*ALL, key_id="es384"), untrusted),
        "an algorithm that is not its key's": (resigned(issuer, {"alg": "RS256", "kid": "es256"}, pem), untrusted),
        "a key that nobody knows": (resigned(issuer, {"alg": "ES256", "kid": "x"}, pem), untrusted),
        "no key, where there are several": (resigned(issuer, {"alg": "ES256"}, pem), untrusted),
        "a key's id that is no text": (resigned(issuer, {"alg": "ES256", "kid": 1}, pem), "neither"),
        "a key of its own": (
            resigned(issuer, {"alg": "ES256", "kid": "y", "jwk": impostor.public("es256")}, pem),
            untrusted,
        ),
        "something critical that nobody knows": (
            resigned(issuer, {"alg": "ES256", "kid": "es256", "crit": ["x"], "x": 1}, pem),
            "neither",
        ),
        "expired": (issuer.token(*ALL, lasts_s=-31), "has expired"),
        "not yet": (issuer.token(*ALL, nbf=int(time.time()) + 60), "cannot be accepted"),
        "issued tomorrow": (issuer.token(*ALL, iat=int(time.time()) + 86_400), "cannot be accepted"),
        "without an end": (issuer.token(*ALL, exp=None), "cannot be accepted"),
        "an end that is no time": (issuer.token(*ALL, exp="soon"), "cannot be accepted"),
        "an end beyond numbers": (issuer.token(*ALL, exp=math.inf), "cannot be accepted"),
        "another issuer": (issuer.token(*ALL, iss=ISSUER + "/"), "not of the issuer"),
        "no issuer": (issuer.token(*ALL, iss=None), "cannot be accepted"),
        "another audience": (issuer.token(*ALL, aud="somewhere"), "for another service"),
        "no audience": (issuer.token(*ALL, aud=None), "cannot be accepted"),
        "no subject": (issuer.token(*ALL, sub=None), "cannot be accepted"),
        "no tenant": (issuer.token(*ALL, tenant=None), "its claim 'tenant'"),
        "an empty tenant": (issuer.token(*ALL, tenant=""), "its claim 'tenant'"),
        "a tenant with a colon": (issuer.token(*ALL, tenant="a:b"), "its claim 'tenant'"),
        "a tenant with a line's end": (issuer.token(*ALL, tenant="a\n"), "its claim 'tenant'"),
        "two tenants": (issuer.token(*ALL, tenant=["a", "b"]), "its claim 'tenant'"),
        "too long": (issuer.token(*ALL, more="x" * 9000), "longer than 8192 bytes"),
        "two parts": ("a.b", "neither an API key nor a token"),
        "no token": ("nonsense", "neither an API key nor a token"),
        "a header that is nested without end": (f"{base64.urlsafe_b64encode(b'[' * 6000).decode()}.x.x", "neither"),
    }


@pytest.mark.parametrize("case", forged(Issuer("ES256", "RS256", "ES384")))
def test_a_token_that_is_not_good_is_refused(guarded: ConveyorServer, issuer: Issuer, case: str) -> None:
    token, fragment = forged(issuer)[case]
    with httpx.Client(base_url=guarded.url) as client:
        response = client.get("/v1/models", headers=bearer(token))
        require_problem(response, 401, "unauthenticated", fragment)
        assert token not in response.text
        assert client.get("/v1/models", headers=bearer(issuer.token())).status_code == 200


async def test_a_key_that_is_short_enough_to_be_broken_is_not_trusted(tmp_path: Path) -> None:
    issuer = Issuer("RS256")
    issuer.private["weak"] = ("RS256", generate_private_key(65537, 1024))
    tokens = tokens_of(issuer, tmp_path)
    with pytest.warns(InsecureKeyLengthWarning):
        token = issuer.token(Scope.STEP, key_id="weak")
    with pytest.raises(Unauthenticated, match="cannot be accepted"):
        await tokens.authenticate(token.encode())
    assert await tokens.authenticate(issuer.token(Scope.STEP, key_id="rs256").encode())


GRANTS: dict[str, tuple[object, set[Scope]]] = {
    "one": ("step", {Scope.STEP}),
    "several": ("sessions  step openid", {Scope.STEP, Scope.SESSIONS}),
    "a list": (["metrics", "step"], {Scope.METRICS, Scope.STEP}),
    "none": (None, set()),
    "parts of words": ("steps xstep STEP", set()),
    "a list of all sorts": (["step", 1, None, ["sessions"]], {Scope.STEP}),
    "an object": ({"step": True}, set()),
    "a number": (1, set()),
}


@pytest.mark.parametrize("case", GRANTS)
async def test_scopes_are_those_of_the_claim(case: str, issuer: Issuer, tmp_path: Path) -> None:
    claim, granted = GRANTS[case]
    principal = await tokens_of(issuer, tmp_path).authenticate(issuer.token(scope=claim).encode())
    assert principal.scopes == granted
    assert (principal.tenant, principal.name) == ("a", "a-client")


async def test_the_claims_for_tenant_and_scopes_may_have_other_names(issuer: Issuer, tmp_path: Path) -> None:
    keys = SigningKeys(str(issuer.publish(tmp_path / "keys.json")), ("ES256",))
    tokens = JwtTokens(keys, Terms(ISSUER, AUDIENCE, "https://example/org", "roles"))
    token = issuer.token(Scope.METRICS, roles=["step"], **{"https://example/org": "b"})
    principal = await tokens.authenticate(token.encode())
    assert (principal.tenant, principal.scopes) == ("b", {Scope.STEP})


async def test_a_token_is_verified_once_and_remembered_until_it_expires(issuer: Issuer, tmp_path: Path) -> None:
    now = time.time()
    tokens = tokens_of(issuer, tmp_path, clock=lambda: now)
    token = issuer.token(Scope.STEP, lasts_s=60).encode()
    assert tokens.known(token) is None
    principal = await tokens.authenticate(token)
    assert tokens.known(token) is principal
    assert tokens.holds(principal)
    assert principal.expires_at is not None
    assert abs(principal.expires_at - (time.time() + 60 + TERMS.leeway_s)) < 5
    now = principal.expires_at
    assert tokens.known(token) is None
    assert not tokens.holds(principal)


async def test_only_so_many_tokens_are_remembered(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.adapters.jwt_tokens._REMEMBERED", 3)
    tokens = tokens_of(issuer, tmp_path)
    several = [issuer.token(Scope.STEP, jti=str(number)).encode() for number in range(5)]
    for token in several:
        await tokens.authenticate(token)
    assert [tokens.known(token) is not None for token in several] == [False, False, True, True, True]


def test_a_socket_ends_with_its_token(guarded: ConveyorServer, issuer: Issuer) -> None:
    # The clocks may be 30 s apart: this token is good for 5 s more.
    token = issuer.token(Scope.STEP, Scope.SESSIONS, lasts_s=5 - TERMS.leeway_s)
    with stream(guarded, "ends", "?model=hotspot", additional_headers=bearer(token)) as socket:
        assert socket.receive()["step"] == 0
        assert socket.ask({"x": ROW})["step"] == 1
        require_problem_body(socket.receive()["error"], 401, "unauthenticated", "no longer good")
        closed = socket.closed()
        assert (closed.code, closed.reason) == (1008, "unauthenticated")


async def test_a_subject_of_half_characters_is_a_name_that_can_be_written(issuer: Issuer, tmp_path: Path) -> None:
    principal = await tokens_of(issuer, tmp_path).authenticate(issuer.token(*ALL, sub="a\ud800").encode())
    assert principal.name.encode() == b"a\\ud800"
