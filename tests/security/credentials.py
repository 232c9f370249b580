"""What the tests of the gate come with: API keys in a file, and an issuer of tokens with its key set on a real port."""

import http.server
import json
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from service.adapters import key_file
from service.adapters.jwt_tokens import JwtTokens, Terms
from service.adapters.key_file import PREFIX, StoredKey
from service.adapters.signing_keys import SigningKeys
from service.core.access import Scope

ISSUER, AUDIENCE = "https://issuer.example", "conveyor"
TERMS = Terms(ISSUER, AUDIENCE)
ALL = tuple(Scope)


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


class KeyRing:
    """A file of API keys that a test writes to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: list[StoredKey] = []
        key_file.write(path, [])

    def add(self, tenant: str, *scopes: Scope, name: str = "", expires_in_s: float | None = None, **fields: Any) -> str:
        """Make a key and return it, as `conveyor keys create` does."""
        drawn, now = key_file.draw(), datetime.now(UTC)
        expires_at = None if expires_in_s is None else now + timedelta(seconds=expires_in_s)
        stored = StoredKey(
            drawn.id, drawn.sha256, tenant, name or f"a key of {tenant}", list(scopes), now, expires_at, **fields
        )
        self._keys.append(stored)
        key_file.write(self.path, self._keys)
        return drawn.key

    def remove(self, key: str) -> None:
        self._keys = [kept for kept in self._keys if not key.startswith(PREFIX + kept.id)]
        key_file.write(self.path, self._keys)


_ALGORITHMS = {
    "RS256": (RSAAlgorithm, lambda: generate_rsa(65537, 2048)),
    "PS256": (RSAAlgorithm, lambda: generate_rsa(65537, 2048)),
    "ES256": (ECAlgorithm, lambda: generate_ec(SECP256R1())),
    "ES384": (ECAlgorithm, lambda: generate_ec(SECP384R1())),
    "EdDSA": (OKPAlgorithm, Ed25519PrivateKey.generate),
}


class Issuer:
    """Signs tokens, and publishes the keys to verify them with."""

    def __init__(self, *algorithms: str) -> None:
        self.private: dict[str, tuple[str, Any]] = {}
        for algorithm in algorithms or ("ES256",):
            self.add(algorithm.lower(), algorithm)

    def add(self, key_id: str, algorithm: str = "ES256") -> None:
        self.private[key_id] = (algorithm, _ALGORITHMS[algorithm][1]())

    def public(self, key_id: str) -> dict[str, Any]:
        algorithm, private = self.private[key_id]
        published: dict[str, Any] = _ALGORITHMS[algorithm][0].to_jwk(private.public_key(), as_dict=True)
        return published | {"kid": key_id, "use": "sig", "alg": algorithm}

    def key_set(self) -> dict[str, Any]:
        return {"keys": [self.public(key_id) for key_id in self.private]}

    def publish(self, path: Path) -> Path:
        """Put the key set into a file, at once."""
        new = path.with_suffix(".new")
        new.write_text(json.dumps(self.key_set()))
        return new.replace(path)

    def token(self, *scopes: Scope, key_id: str = "es256", lasts_s: float = 60, **claims: Any) -> str:
        """Sign a token. A claim of None is left out."""
        algorithm, private = self.private[key_id]
        now = time.time()
        said = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "a-client",
            "tenant": "a",
            "scope": " ".join(scopes),
            "iat": int(now),
            "exp": int(now + lasts_s),
        } | claims
        kept = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(kept, private, algorithm, headers={"kid": key_id})


def tokens_of(issuer: Issuer, folder: Path, **options: Any) -> JwtTokens:
    """What a service makes of an issuer's keys in a file of that folder, `keys.json`."""
    return JwtTokens(SigningKeys(str(issuer.publish(folder / "keys.json")), ("ES256", "RS256")), TERMS, **options)


class KeySetServer:
    """Serves an issuer's key set over HTTP, counts who asks, and fails as it is told."""

    def __init__(self, issuer: Issuer) -> None:
        self.requests = 0
        self.answers: Mapping[str, Any] | bytes | None = None
        """Instead of the key set; None answers with it."""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                answer = outer.answers if outer.answers is not None else issuer.key_set()
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/keys"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: object, _traceback: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
