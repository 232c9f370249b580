"""The keys that an issuer signs with: they change, they are at a URL that may be away, they are not all to be used."""

import json
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from service.adapters.jwt_tokens import JwtTokens
from service.adapters.signing_keys import REFRESH_S, RETRY_S, SigningKeys, SigningKeysError
from service.core.access import Scope
from service.core.errors import AuthenticationUnavailable, Unauthenticated
from service.settings import Settings
from tests.api.wire import require_problem, require_problem_body, stream
from tests.security.credentials import ALL, AUDIENCE, ISSUER, TERMS, Issuer, KeySetServer, bearer, tokens_of
from tests.servers import ConveyorServer, RedisServer, wait_until

NOTICED_WITHIN_S = 30.0


async def test_what_was_verified_is_forgotten_when_the_issuer_changes_its_keys(tmp_path: Path) -> None:
    issuer = Issuer("ES256")
    tokens = tokens_of(issuer, tmp_path)
    old = issuer.token(Scope.STEP)
    principal = await tokens.authenticate(old.encode())
    await tokens.refresh()
    assert tokens.known(old.encode()) is principal

    issuer.add("next")
    issuer.publish(tmp_path / "keys.json")
    await tokens.refresh()
    assert tokens.known(old.encode()) is None
    assert await tokens.authenticate(old.encode()) == principal  # still one of the issuer's keys
    assert tokens.holds(principal)

    del issuer.private["es256"]
    issuer.publish(tmp_path / "keys.json")
    await tokens.refresh()
    assert tokens.known(old.encode()) is None
    assert not tokens.holds(principal)
    with pytest.raises(Unauthenticated, match="trusted here"):
        await tokens.authenticate(old.encode())
    assert await tokens.authenticate(issuer.token(Scope.STEP, key_id="next").encode())


async def refreshed(keys: SigningKeys) -> None:
    """Refresh, and wait for the fetch that has begun."""
    await keys.refresh()
    await keys.look_again()


async def test_a_key_that_is_not_known_is_fetched_at_a_bounded_rate(tmp_path: Path) -> None:
    issuer, now = Issuer("ES256"), 1000.0
    with KeySetServer(issuer) as server:
        keys = SigningKeys(server.url, ("ES256",), clock=lambda: now)
        tokens = JwtTokens(keys, TERMS)
        await refreshed(keys)
        assert server.requests == 1
        issuer.add("next")
        token = issuer.token(Scope.STEP, key_id="next").encode()
        for _ in range(20):
            with pytest.raises(Unauthenticated):
                await tokens.authenticate(token)
        assert server.requests == 1
        now += RETRY_S
        assert (await tokens.authenticate(token)).tenant == "a"
        assert server.requests == 2
        for number in range(20):
            invented = Issuer("ES256")
            invented.add(f"invented-{number}")
            with pytest.raises(Unauthenticated):
                await tokens.authenticate(invented.token(key_id=f"invented-{number}").encode())
        assert server.requests == 2
        # A key that the issuer withdraws goes, though nobody misses one.
        del issuer.private["next"]
        now += REFRESH_S
        await refreshed(keys)
        assert tokens.known(token) is None
        assert server.requests == 3


@pytest.mark.parametrize(
    "answer", [b"", b"{", b"[]", b"\xff", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AA"}]}']
)
async def test_an_issuer_that_answers_nonsense_or_is_away_changes_nothing(answer: bytes) -> None:
    issuer, now = Issuer("ES256"), 1000.0
    with KeySetServer(issuer) as server:
        keys = SigningKeys(server.url, ("ES256",), clock=lambda: now)
        tokens = JwtTokens(keys, TERMS)
        server.answers = answer
        await refreshed(keys)
        with pytest.raises(AuthenticationUnavailable) as refused:
            await tokens.authenticate(issuer.token(Scope.STEP).encode())
        assert refused.value.retry_after_s > 0
        server.answers = None
        now += RETRY_S
        await refreshed(keys)
        token = issuer.token(Scope.STEP).encode()
        principal = await tokens.authenticate(token)
        server.answers = answer
        now += REFRESH_S
        await refreshed(keys)
        assert tokens.known(token) is principal
    now += REFRESH_S  # nobody listens any more
    await refreshed(keys)
    assert tokens.known(token) is principal
    assert tokens.holds(principal)


async def test_a_set_of_one_key_is_for_tokens_that_name_none_too(tmp_path: Path) -> None:
    issuer = Issuer("ES256")
    private = issuer.private["es256"][1]
    claims = jwt.decode(issuer.token(Scope.STEP), options={"verify_signature": False})
    tokens = tokens_of(issuer, tmp_path)
    assert (await tokens.authenticate(jwt.encode(claims, private, "ES256").encode())).tenant == "a"


@pytest.mark.parametrize("use", ["enc", "wrap"])
def test_a_key_that_is_not_for_signatures_is_not_used(use: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [Issuer("ES256").public("es256") | {"use": use}]}))
    with pytest.raises(SigningKeysError, match="no public key for ES256"):
        SigningKeys(str(path), ("ES256",))


UNUSABLE_SETS = {
    "no file": ("absent.json", "cannot be read: No such file"),
    "no JSON": ("text", "is no JSON Web Key Set"),
    "an address without TLS": ("http://issuer.example/keys", "https:// is needed"),
    "an address of files": ("file:///etc/passwd", "https:// is needed"),
}


@pytest.mark.parametrize("case", UNUSABLE_SETS)
def test_a_key_set_that_cannot_be_used_or_trusted_is_refused_at_the_start(case: str, tmp_path: Path) -> None:
    source, fragment = UNUSABLE_SETS[case]
    (tmp_path / "text").write_text("keys")
    with pytest.raises(SigningKeysError, match=fragment):
        SigningKeys(source if "://" in source else str(tmp_path / source), ("ES256",))


@pytest.mark.parametrize("algorithms", ["HS256", "none", "RS256,HS256", ""])
def test_no_algorithm_is_taken_with_which_who_verifies_can_forge(algorithms: str) -> None:
    with pytest.raises(ValueError, match="jwt_algorithms"):
        Settings(jwt_algorithms=algorithms)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="jwt_issuer and jwt_audience"):
        Settings(jwt_keys="keys.json", jwt_issuer=ISSUER)


def test_a_service_whose_issuer_is_away_starts_says_so_and_lets_tokens_in_when_it_is_back(redis: RedisServer) -> None:
    issuer = Issuer("ES256")
    with KeySetServer(issuer) as server:
        server.answers = b"not now"
        settings = {"jwt_keys": server.url, "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_algorithms": "ES256"}
        with ConveyorServer(redis_url=redis.url, **settings) as service:
            token = bearer(issuer.token(*ALL))
            response = httpx.get(service.url + "/v1/models", headers=token)
            require_problem(response, 503, "authentication_unavailable")
            with stream(service, "s", "?model=hotspot", additional_headers=token) as socket:
                require_problem_body(socket.receive()["error"], 503, "authentication_unavailable")
                assert socket.closed().code == 1013
            require_problem(httpx.get(service.url + "/v1/models"), 401, "unauthenticated")
            server.answers = None

            def let_in() -> bool:
                return httpx.get(service.url + "/v1/models", headers=token, timeout=30).status_code == 200

            assert wait_until(let_in, NOTICED_WITHIN_S, every_s=0.5)
            require_problem(
                httpx.get(service.url + "/v1/models", headers=bearer("cvy_x")),
                401,
                "unauthenticated",
                "a token is needed",
            )


@pytest.mark.parametrize("named", [True, False], ids=["by its id", "by none"])
async def test_who_connected_with_a_token_of_a_key_that_was_replaced_is_no_longer_good(
    tmp_path: Path, named: bool
) -> None:
    issuer = Issuer("ES256")
    tokens = tokens_of(issuer, tmp_path)
    token = issuer.token(*ALL)
    if not named:
        claims = jwt.decode(token, options={"verify_signature": False})
        token = jwt.encode(claims, issuer.private["es256"][1], "ES256")
    principal = await tokens.authenticate(token.encode())
    await tokens.refresh()
    assert tokens.holds(principal)
    issuer.add("es256")  # another key of the same id
    issuer.publish(tmp_path / "keys.json")
    await tokens.refresh()
    assert not tokens.holds(principal)


async def test_a_token_that_was_verified_while_its_key_was_withdrawn_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = Issuer("ES256")
    keys = SigningKeys(str(issuer.publish(tmp_path / "keys.json")), ("ES256",))
    tokens = JwtTokens(keys, TERMS)
    token = issuer.token(*ALL).encode()
    decode = jwt.decode

    def decode_slowly(*args: Any, **options: Any) -> Any:
        claims = decode(*args, **options)
        issuer.add("es256")
        issuer.publish(tmp_path / "keys.json")
        keys._refresh_file(keys._file)  # type: ignore[arg-type]  # what the watching thread does, at the worst moment
        return claims

    monkeypatch.setattr(jwt, "decode", decode_slowly)
    await tokens.authenticate(token)
    assert tokens.known(token) is None
