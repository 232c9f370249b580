"""WebSocket frames of all kinds: whatever comes, the socket answers, refuses or is closed, and the service goes on."""

import json
import random
import struct
from contextlib import suppress
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.sync.client import connect

from tests.api.wire import readings
from tests.budget import examples
from tests.fuzz.conftest import SESSIONS
from tests.servers import ConveyorServer
from tests.test_websocket import BINARY, CONTINUATION, PING, TEXT, RawClient, frame

PATHS = ("/v1/sessions/a/stream", "/v1/stream")
STEP = {"x": readings(1)[0], "session_id": "a"}
DEFECTS = {1011}
"""Close codes that say that the service is broken."""

numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([2**53, 2**63, 2**64 - 1, 10**400, -(10**400), 1e308, 1e18, 1.0000001e18, 5e-324, -0.0]),
)
json_like = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=9), st.dictionaries(st.text(max_size=9), inner, max_size=5)),
    max_leaves=30,
)
rows = st.lists(numbers, min_size=8, max_size=8)
messages = st.fixed_dictionaries(
    {"x": st.one_of(rows, st.lists(rows, max_size=3), st.just(STEP["x"]), json_like)},
    optional={
        "session_id": st.one_of(st.sampled_from(SESSIONS), st.text(max_size=10), json_like),
        "step": st.one_of(st.integers(0, 9), json_like),
        "outputs": st.one_of(st.sampled_from(["last", "all"]), json_like),
        "surplus": json_like,
    },
)
documents = st.one_of(json_like, messages, st.lists(messages, max_size=4))


@st.composite
def mutated(draw: st.DrawFn, content: st.SearchStrategy[bytes]) -> bytes:
    """Valid content with some bytes changed, cut, doubled."""
    whole = bytearray(draw(content))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(whole)))
        stop = draw(st.integers(start, min(len(whole), start + 6)))
        whole[start:stop] = draw(st.one_of(st.binary(max_size=6), st.just(bytes(whole[start:stop]) * 2)))
    return bytes(whole)


def as_json(value: Any) -> bytes:
    """JSON as Python's own encoder writes it: with NaN and Infinity, and integers of any length."""
    return json.dumps(value).encode()


def as_msgpack(value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError):  # it ends at 64 bits, and at whole characters
        return b"\xc1"


tensors = st.fixed_dictionaries(
    {
        "x": st.fixed_dictionaries(
            {
                "shape": st.lists(st.integers(-1, 2**64 - 1) | st.integers(0, 9), max_size=3),
                "data": st.binary(max_size=64),
            }
        )
    },
    optional={"session_id": st.sampled_from(SESSIONS)},
)
crafted = st.sampled_from(
    [
        b"[" * 100_000,
        b'{"x":' * 50_000,
        b"\x91" * 100_000,
        b"\x81\xa1x" * 50_000,
        b'{"x":[NaN,1,2,3,4,5,6,7]}',
        b'{"x":[Infinity,-Infinity,2,3,4,5,6,7]}',
        b'{"x":[1e999,1,2,3,4,5,6,7]}',
        b'{"x":[' + b"9" * 100_000 + b",1,2,3,4,5,6,7]}",
        b'{"x":[1],"x":[1,2,3,4,5,6,7,8],"step":9,"step":null}',
        b'{"session_id":"a","session_id":"b","x":[1,2,3,4,5,6,7,8]}',
        b'{"x":[1,2,3,4,5,6,7,8],"session_id":"\\ud800"}',
        b"\xef\xbb\xbf{}",
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million
        b"\xc6\xff\xff\xff\xff",
        b"\x81\xa1x\x82\xa5shape\x92\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xa4data\xc4\x00",
        b"",
    ]
)
contents = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    crafted,
    mutated(documents.map(as_json)),
    mutated(documents.map(as_msgpack)),
    mutated(tensors.map(as_msgpack)),
)


@given(
    path=st.sampled_from(PATHS),
    protocol=st.sampled_from(["conveyor.v1.json", "conveyor.v1.msgpack"]),
    frames=st.lists(st.tuples(contents, st.booleans()), min_size=1, max_size=5),
)
@examples(250)
def test_every_message_is_answered_or_its_socket_is_closed(
    fuzzed: ConveyorServer, path: str, protocol: str, frames: list[tuple[bytes, bool]]
) -> None:
    with suppress(WebSocketException):
        with connect(fuzzed.ws_url + path, subprotocols=[protocol], max_size=None, compression=None) as socket:  # type: ignore[list-item]
            try:
                if path != "/v1/stream":
                    socket.recv(timeout=20)
                for content, text in frames:
                    socket.send(content, text=text)
                    answer = socket.recv(timeout=20)
                    require_answer(answer)
            finally:
                assert socket.close_code not in DEFECTS, frames


def require_answer(content: str | bytes) -> None:
    answer: Any = json.loads(content) if isinstance(content, str) else msgspec.msgpack.decode(content)
    for one in answer if isinstance(answer, list) else [answer]:
        assert ("outputs" in one) != ("error" in one), one
        assert one.get("error", {"status": 0})["status"] < 500, one


raw_frames = st.one_of(
    st.builds(
        frame,
        st.integers(0, 15),
        contents.map(lambda content: content[:300]),
        fin=st.booleans(),
        masked=st.sampled_from([True, True, True, False]),
    ),
    st.builds(frame, st.sampled_from([TEXT, BINARY, CONTINUATION, PING]), st.just(as_json(STEP)), fin=st.booleans()),
    # Lengths that lie: beyond the limit, beyond what 63 bits hold, longer than what follows.
    st.sampled_from([2**16, 2**24, 2**40, 2**63, 2**64 - 1]).map(
        lambda n: struct.pack("!BBQ", 0x82, 0xFF, n) + b"mask"
    ),
    st.binary(max_size=40),
)


@given(
    path=st.sampled_from(PATHS),
    frames=st.lists(raw_frames, min_size=1, max_size=6),
    cuts=st.randoms(use_true_random=False),
)
@examples(150)
def test_frames_against_the_protocol_harm_nobody(
    fuzzed: ConveyorServer, path: str, frames: list[bytes], cuts: random.Random
) -> None:
    """In pieces cut anywhere, and then the client is gone."""
    whole, pieces = b"".join(frames), []
    while whole:  # before anything is sent: when the server hangs up is not drawn
        size = cuts.randint(1, len(whole))
        pieces.append(whole[:size])
        whole = whole[size:]
    client = RawClient(fuzzed, path)
    with client.socket, suppress(OSError):
        client.send(*pieces)
        client.socket.settimeout(0.01)
        client.socket.recv(65536)


@given(
    path=st.one_of(st.sampled_from(PATHS), st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)),
    query=st.sampled_from(
        ["", "?model=hotspot", "?model=", "?model=hotspot&ttl_s=-1", "?ttl_s=%00&model=%ff", "?" + "a" * 3000]
    ),
    protocols=st.lists(st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,30}", fullmatch=True), max_size=4),
)
@examples(60)
def test_a_handshake_of_any_kind_is_accepted_or_refused(
    fuzzed: ConveyorServer, path: str, query: str, protocols: list[str]
) -> None:
    url = f"{fuzzed.ws_url}/{path.lstrip('/').replace('#', '').replace('?', '')}{query}"
    try:
        with connect(url, subprotocols=protocols or None, open_timeout=20) as socket:  # type: ignore[arg-type]
            assert socket.subprotocol is None or socket.subprotocol in protocols
    except InvalidHandshake as refused:
        response = getattr(refused, "response", None)
        assert response is None or response.status_code < 500
