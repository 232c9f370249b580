"""``docs/wire.md`` says what is so: its tables are the service's, its examples work."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.api.problems import WIRE, wire_of
from service.core.errors import ConveyorError
from tests.api.wire import readings, step, stream
from tests.servers import REPOSITORY, ConveyorServer

DOCUMENT = (REPOSITORY / "docs" / "wire.md").read_text()
OF_HTTP_ALONE = {
    code: (status, "–")
    for code, status in {
        "bad_request": 400,
        "method_not_allowed": 405,
        "request_timeout": 408,
        "body_too_large": 413,
        "url_too_long": 414,
        "head_too_large": 431,
    }.items()
}
"""Errors that are found before there is a step or a session; they have no class."""


def _classes(base: type[ConveyorError] = ConveyorError) -> Iterator[type[ConveyorError]]:
    for class_ in base.__subclasses__():
        yield class_
        yield from _classes(class_)


def _closes(class_: type[ConveyorError]) -> str:
    wire = wire_of(class_.__new__(class_))
    return "–" if wire.close is None else f"{wire.close} if pipelined" if wire.fragile else str(wire.close)


def test_the_table_of_errors_is_the_services() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| ([^|]+) \|", DOCUMENT, re.MULTILINE)
    told = {code: (int(status), close) for code, status, close in rows}
    kinds = {"invalid_input", "conflict", "unavailable"}  # never sent themselves
    known = {class_.code: (wire_of(class_.__new__(class_)).status.value, _closes(class_)) for class_ in _classes()}
    assert told == {code: wire for code, wire in known.items() if code not in kinds} | OF_HTTP_ALONE
    assert len(rows) == len(told)


def test_every_close_code_is_explained() -> None:
    told = {int(code) for codes in re.findall(r"^\| ([\d, ]+) \|", DOCUMENT, re.MULTILINE) for code in codes.split(",")}
    assert {wire.close for wire in WIRE.values()} - {None} <= told


def test_every_route_is_in_the_table(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert [path for path in paths if f"{path}`" not in DOCUMENT and f"{path}?" not in DOCUMENT] == []


def _alike(told: Any, real: Any) -> bool:
    """Whether an example is what was answered, but for the forecasts' numbers and the times."""
    if isinstance(told, dict):
        return told.keys() == real.keys() and all(
            key == "expires_at" or _alike(value, real[key]) for key, value in told.items()
        )
    if isinstance(told, list) and told[-1] == "…":
        return len(real) >= len(told) and all(map(_alike, told[:-1], real))
    if isinstance(told, list):
        return len(told) == len(real) and all(map(_alike, told, real))
    return type(told) is type(real) and (isinstance(told, float) or told == real)


def test_the_examples_work_in_their_order(client: httpx.Client, service: ConveyorServer) -> None:
    client.delete("/v1/sessions/pump-7")
    examples = re.findall(r"^```http\n(\w+) (\S+)\n(.*?)```\n```json\n(.*?)```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert len(examples) >= 4
    for method, path, body, answer in examples:
        real = client.request(method, path, content=body, headers={"content-type": "application/json"}).json()
        assert _alike(json.loads(answer), real), (path, real)
    (hello,) = re.findall(r"^```json\n(\{.*\})\n```\n\nThen step messages", DOCUMENT, re.MULTILINE)
    with stream(service, "pump-7") as socket:
        assert socket.receive() == json.loads(hello)


@pytest.mark.parametrize(
    ("number", "outcome"), [(4, "Applied"), (3, '`"replayed": true`'), (1, "`step_conflict`"), (9, "`step_gap`")]
)
def test_the_table_of_step_numbers_is_the_services(
    client: httpx.Client, session_id: str, number: int, outcome: str
) -> None:
    assert f"{outcome}" in DOCUMENT
    client.put(f"/v1/sessions/{session_id}", json={"model": "hotspot"})
    step(client, session_id, readings(3))
    answer = client.post(f"/v1/sessions/{session_id}/steps", json={"x": readings(1)[0], "step": number}).json()
    found = answer.get("code") or {True: '"replayed": true', False: "Applied"}[answer["replayed"]]
    assert found == outcome.strip("`")
