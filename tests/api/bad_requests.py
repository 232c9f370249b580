"""Requests that must be refused by the routes that carry no timesteps, as a table.

In a path, ``{session_id}`` is a session at step 2, ``{missing}`` an id that no session has.
"""

import base64
import json
from typing import NamedTuple

from tests.api.bad_steps import HUGE, ROW

JSON = "application/json"
CREATE, OPEN, FORK = "POST /v1/sessions", "PUT /v1/sessions/{session_id}", "POST /v1/sessions/{session_id}/fork"
LIST = "GET /v1/sessions"


class BadRequest(NamedTuple):
    """`route` is the method and the path as OpenAPI has it; `path` is what is asked for where that differs."""

    what: str
    route: str
    body: str | bytes | None
    status: int
    code: str
    says: tuple[str, ...]
    path: str | None = None
    content_type: str | None = JSON

    @property
    def method(self) -> str:
        return self.route.split()[0]

    @property
    def url(self) -> str:
        return self.path or self.route.split()[1]


def _model(fields: str) -> str:
    return f'{{"model": "hotspot", {fields}}}'


def _cursor(content: object) -> str:
    return "/v1/sessions?cursor=" + base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


_BODIES: list[tuple[str, str | bytes, str, tuple[str, ...]]] = [
    ("an empty body", "", "invalid_request", ("body: Field required",)),
    ("half a body", '{"model": ', "invalid_request", ("not JSON",)),
    ("a body that is not UTF-8", b'{"model": "\xff"}', "invalid_request", ("not JSON",)),
    ("deep nesting", "[" * 100_000, "invalid_request", ("nested",)),
    ("more digits than are read", _model('"ttl_s": ' + "9" * 5000), "invalid_request", ("not JSON",)),
    ("null", "null", "invalid_request", ("body:", "valid dictionary")),
    ("a list", "[]", "invalid_request", ("body:", "valid dictionary")),
    ("no model", "{}", "invalid_request", ("body.model: Field required",)),
    ("a model that is a number", '{"model": 5}', "invalid_request", ("body.model:", "valid string")),
    ("an unknown field", _model('"modell": 1'), "invalid_request", ("body.modell: Extra inputs",)),
    ("a field that is not Unicode", _model('"\\ud800": 1'), "invalid_request", ("body",)),
    ("a version that is a number", _model('"version": 1'), "invalid_request", ("body.version:", "valid string")),
    ("a version that cannot be", _model('"version": "01"'), "invalid_request", ("body.version:", "[1-9][0-9]")),
    ("a ttl_s of zero", _model('"ttl_s": 0'), "invalid_request", ("body.ttl_s:", "greater than 0")),
    ("a ttl_s with a fraction", _model('"ttl_s": 1.5'), "invalid_request", ("body.ttl_s:", "valid integer")),
    ("a ttl_s in words", _model('"ttl_s": "60"'), "invalid_request", ("body.ttl_s:", "valid integer")),
    ("a ttl_s that is a boolean", _model('"ttl_s": true'), "invalid_request", ("body.ttl_s:", "valid integer")),
    ("a ttl_s beyond the limit", _model('"ttl_s": 31536001'), "invalid_request", ("31536001", "1 to 31536000")),
    ("a ttl_s beyond all limits", _model(f'"ttl_s": {HUGE}'), "invalid_request", ("ttl_s is 999", "1 to 31536000")),
    ("a ttl_s that is NaN", _model('"ttl_s": NaN'), "invalid_request", ("body.ttl_s:",)),
    ("a history of numbers", _model('"history": [1]'), "invalid_request", ("body.history.0:", "valid list")),
    ("a history that is none", _model('"history": 5'), "invalid_request", ("body.history:", "valid list")),
    ("no history", _model('"history": []'), "invalid_request", ("history has 0 timesteps", "1 to 4096")),
    ("too long a history", _model('"history": [' + "[]," * 4096 + "[]]"), "invalid_request", ("4097", "1 to 4096")),
    ("a null in the history", _model('"history": [[null]]'), "invalid_request", ("body.history.0.0:",)),
    ("a string in the history", _model('"history": [["1"]]'), "invalid_request", ("body.history.0.0:",)),
    ("a ragged history", _model(f'"history": [{ROW}, [1]]'), "invalid_timestep", ("history[1] has 1", "takes 8")),
    (
        "a NaN in the history",
        _model(f'"history": [{ROW}, [1, NaN, 3, 4, 5, 6, 7, 8]]'),
        "invalid_timestep",
        ("ambient is nan", "timestep 2 of 2", "finite"),
    ),
]
_IDS = {"a space": "a b", "a slash": "a/b", "nothing": "", "one dot": ".", "two dots": "..", "129 letters": "x" * 129}
_PATH_IDS = {"a space": "a%20b", "two dots": "%2E%2E", "a byte that is not UTF-8": "%FF", "129 letters": "x" * 129}

BAD_REQUESTS = [
    *(
        BadRequest(what, route, body, 422, code, says, path)
        for route, path in ((CREATE, None), (OPEN, "/v1/sessions/{missing}"))
        for what, body, code, says in _BODIES
    ),
    *(
        BadRequest(f"an unknown {part}", route, body, 404, "model_not_found", says)
        for route in (CREATE, OPEN)
        for part, body, says in [
            ("model", '{"model": "nope"}', ("no model 'nope'", "there is: hotspot")),
            ("version", _model('"version": "99"'), ("no version '99'", "it has: 1")),
        ]
    ),
    *(
        BadRequest(
            f"as {kind}", route, '{"model": "hotspot"}', 422, "invalid_request", ("application/json",), None, kind
        )
        for route in (CREATE, OPEN)
        for kind in ("text/plain", "application/x-www-form-urlencoded", None)
    ),
    *(
        BadRequest(
            f"an id of {what}",
            route,
            json.dumps(fields | {"session_id": id_}),
            422,
            "invalid_session_id",
            ("1 to 128 of A-Z a-z 0-9 . _ ~ : @ -",),
        )
        for route, fields in ((CREATE, {"model": "hotspot"}), (FORK, {}))
        for what, id_ in _IDS.items()
    ),
    *(
        BadRequest(f"an id of {what}", route, body, 422, "invalid_session_id", ("is not usable",), path.format(id_))
        for route, path, body in (
            (OPEN, "/v1/sessions/{}", '{"model": "hotspot"}'),
            ("PUT /v1/sessions/{session_id}/state", "/v1/sessions/{}/state", b"CVY"),
        )
        for what, id_ in _PATH_IDS.items()
    ),
    BadRequest("a taken id", CREATE, _model('"session_id": "{session_id}"'), 409, "session_exists", ("at step 2",)),
    BadRequest("onto a taken id", FORK, '{"session_id": "{session_id}"}', 409, "session_exists", ("at step 2",)),
    BadRequest("a ttl_s below 1", FORK, '{"ttl_s": -1}', 422, "invalid_request", ("body.ttl_s:", "greater than 0")),
    BadRequest("a ttl_s too long", FORK, '{"ttl_s": 99999999}', 422, "invalid_request", ("1 to 31536000",)),
    BadRequest("an unknown field", FORK, '{"model": "hotspot"}', 422, "invalid_request", ("body.model: Extra",)),
    BadRequest("a body that is a number", FORK, "5", 422, "invalid_request", ("body:", "valid dictionary")),
    *(
        BadRequest("an unknown session", route, body, 404, "session_not_found", ("no session", "expired"), path)
        for route, path, body in [
            (f"{method} /v1/sessions/{{session_id}}{end}", f"/v1/sessions/{{missing}}{end}", body)
            for method, end, body in [
                ("GET", "", None),
                ("DELETE", "", None),
                ("POST", "/reset", None),
                ("POST", "/fork", None),
                ("GET", "/state", None),
                ("POST", "/steps", f'{{"x": {ROW}}}'),
            ]
        ]
    ),
    BadRequest("an unknown model", "GET /v1/models/{name}", None, 404, "model_not_found", ("'x'",), "/v1/models/x"),
    *(
        BadRequest(
            f"version {version}",
            "GET /v1/models/{name}/versions/{version}",
            None,
            404,
            "model_not_found",
            ("it has: 1",),
            f"/v1/models/hotspot/versions/{version}",
        )
        for version in ("0", "99", "latest")
    ),
    *(
        BadRequest(
            f"a limit of {limit!r}",
            LIST,
            None,
            422,
            "invalid_request",
            ("query.limit:", says),
            f"{LIST.split()[1]}?limit={limit}",
        )
        for limit, says in {
            "0": "than or equal to 1",
            "1001": "than or equal to 1000",
            "x": "integer",
            "": "integer",
        }.items()
    ),
    *(
        BadRequest(f"a cursor of {what}", LIST, None, 422, "invalid_request", ("the cursor", "handed out"), path)
        for what, path in {
            "nothing": "/v1/sessions?cursor=",
            "no base64": "/v1/sessions?cursor=%FF",
            "a number": _cursor(5),
            "no position": _cursor([]),
            "a fraction": _cursor([["", 1.5]]),
            "a boolean": _cursor([["", True]]),
            "a position below zero": _cursor([["", -1]]),
            "a position beyond all": _cursor([["", 2**64]]),
            "ids that are numbers": _cursor([["", 0], 5]),
            "ids that are not Unicode": _cursor([["", 0], "\ud800"]),
            "deep nesting": "/v1/sessions?cursor=" + base64.urlsafe_b64encode(b"[" * 5000).decode(),
        }.items()
    ),
]
