"""Hours of ordinary work, and what has grown by the end: ``python -m bench.soak --minutes 30``.

Sensors come and go: each opens a session of a short life on a socket of its own, sends steps, loses its connection half
way, comes back, leaves, and its session expires. Together they send a share of what the service can carry, measured
first. Resident memory, open files and Redis' keys and memory are sampled; what matters is their slope over the second
half, by least squares: everything has filled up by then, and what still grows is a leak.
"""

import asyncio
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import redis as client
import typer
import uvloop

from bench import machine
from bench.arrivals import Answered, SocketLine, frame
from bench.encodings import ENCODINGS
from bench.load import family, rss
from bench.measure import measure
from bench.reference import MODEL_NAME, rows
from bench.scenarios import CONVEYOR, Scenario
from bench.servers import Servers, running
from bench.soak_chart import write_chart

RESULTS = Path(__file__).resolve().parent / "results"
SENSORS = 600
LIFE_S = 30.0
TTL_S = 15
TICK_S = 0.005
ANSWER_S = 10.0
AGAIN_S = 1.0
"""After which a sensor comes back whose connection was cut."""
SAMPLES = 600
QUANTITIES = {
    "resident memory of the service, MiB": lambda s: s.rss_mb,
    "open files of the service": lambda s: s.files,
    "keys in Redis": lambda s: s.keys,
    "memory used by Redis, MiB": lambda s: s.redis_mb,
}


class Sample(msgspec.Struct, frozen=True):
    """What was seen `at_s` seconds after the start; steps and cuts are counted from there."""

    at_s: float
    rss_mb: float
    files: int
    keys: int
    redis_mb: float
    taken: int
    refused: int
    opened: int
    reconnected: int
    cut: int


class Slope(msgspec.Struct, frozen=True):
    """A quantity over the second half: its mean, and by how much of it a straight line rises from end to end."""

    quantity: str
    mean: float
    rise: float


class Soak(msgspec.Struct, frozen=True):
    command: str
    machine: dict[str, str]
    carried_per_s: float
    sent_per_s: float
    samples: list[Sample]
    slopes: list[Slope]


class Sensor:
    """A session with a socket of its own, for `LIFE_S` seconds."""

    def __init__(self, soaking: "Soaking") -> None:
        self._soaking = soaking
        self._path = f"/v1/sessions/soak-{uuid.uuid4().hex}/stream?model={MODEL_NAME}&ttl_s={TTL_S}"
        self.line: SocketLine | None = None

    async def live(self) -> None:
        soaking = self._soaking
        until = time.monotonic() + LIFE_S
        soaking.opened += 1
        await self._connect(until - LIFE_S / 2)
        while time.monotonic() < until:
            soaking.reconnected += 1
            await self._connect(until)

    async def _connect(self, until: float) -> None:
        """Stay connected for so long, or until the connection is cut."""
        line = SocketLine(self._soaking.answered, greeted=True)
        try:
            await line.connect(self._soaking.url, self._path)
            self.line = line
            with suppress(TimeoutError):
                await asyncio.wait_for(line.ended.wait(), until - time.monotonic())
            self.line = None
            with suppress(TimeoutError):
                await asyncio.wait_for(line.settled(), ANSWER_S)
        except (OSError, TimeoutError):
            line.closed = True
        if line.closed or line.failed:
            self._soaking.cut += 1
            self._soaking.reasons.add(line.failed or "closed")
            await asyncio.sleep(AGAIN_S)
        line.close()


class Soaking:
    """All sensors, and the clock that makes them speak."""

    def __init__(self, servers: Servers, rate: float) -> None:
        self.url = servers.subjects[CONVEYOR].url
        self._rate = rate
        self._service = family(servers.subjects[CONVEYOR].pid)
        self._redis: Any = client.Redis.from_url(servers.redis.url)
        encode = ENCODINGS["json"].encode
        self._messages = [frame(encode({"x": row})) for row in rows()]
        self.taken = self.refused = self.opened = self.reconnected = self.cut = 0
        self.reasons: set[str] = set()

    def answered(self, _line: object, answer: Answered) -> None:
        self.taken += answer.taken
        self.refused += answer.refused

    async def run(self, seconds: float) -> list[Sample]:
        samples: list[Sample] = []
        started = time.monotonic()
        sensors: set[asyncio.Task[None]] = set()
        speaking: list[Sensor] = []
        born = sent = 0
        while (past := time.monotonic() - started) < seconds:
            while born < past * SENSORS / LIFE_S:
                speaking.append(Sensor(self))
                task = asyncio.create_task(speaking[-1].live())
                sensors.add(task)
                task.add_done_callback(sensors.discard)
                born += 1
            if len(speaking) > SENSORS:
                speaking = speaking[-SENSORS:]
            share = self._rate * min(len(speaking) / SENSORS, 1.0)
            for _ in range(int(share * TICK_S + 1)):
                sent = self._speak(speaking, sent)
            if past >= len(samples) * seconds / SAMPLES:
                samples.append(self._sample(past))
            await asyncio.sleep(TICK_S)
        for task in sensors:
            task.cancel()
        await asyncio.gather(*sensors, return_exceptions=True)
        return samples

    def _speak(self, speaking: list[Sensor], sent: int) -> int:
        line = speaking[sent % len(speaking)].line if speaking else None
        if line is not None and not line.closed:
            line.send([self._messages[sent % len(self._messages)]], [time.perf_counter_ns()])
        return sent + 1

    def _sample(self, past: float) -> Sample:
        return Sample(
            at_s=past,
            rss_mb=rss(self._service) / 2**20,
            files=sum(process.num_fds() for process in self._service),
            keys=self._redis.dbsize(),
            redis_mb=self._redis.info("memory")["used_memory"] / 2**20,
            taken=self.taken,
            refused=self.refused,
            opened=self.opened,
            reconnected=self.reconnected,
            cut=self.cut,
        )


def slopes(samples: list[Sample]) -> list[Slope]:
    """Fit a line to the second half of each quantity."""
    half = samples[len(samples) // 2 :]
    at = np.array([sample.at_s for sample in half])
    found = []
    for quantity, read in QUANTITIES.items():
        values = np.array([read(sample) for sample in half], float)
        slope, _ = np.polyfit(at, values, 1)
        found.append(Slope(quantity, float(values.mean()), float(slope * (at[-1] - at[0]) / values.mean())))
    return found


def soak(
    minutes: Annotated[float, typer.Option(help="How long.")] = 30.0,
    load: Annotated[float, typer.Option(help="Share of what the service carries that is sent.")] = 0.7,
    results: Annotated[Path, typer.Option(help="Folder for the JSON and the chart.")] = RESULTS,
) -> None:
    """Keep the service at work, and see what grows."""
    with running((CONVEYOR,), patient=True) as patient:
        scenario = Scenario("soak", "", "websocket", SENSORS)
        carried = measure(scenario, CONVEYOR, patient, warm_up_s=1, seconds=5).steps_per_s
    with running((CONVEYOR,)) as servers:
        soaking = Soaking(servers, load * carried)
        samples = uvloop.run(soaking.run(60 * minutes))
    command = " ".join(["python -m bench.soak", *sys.argv[1:]])
    found = Soak(command, machine.describe(servers.redis.binary), carried, load * carried, samples, slopes(samples))
    results.mkdir(parents=True, exist_ok=True)
    (results / "soak.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    write_chart([(name, [(s.at_s / 60, read(s)) for s in samples]) for name, read in QUANTITIES.items()], results)
    last = samples[-1]
    print(f"{minutes:g} min at {load * carried:,.0f} of {carried:,.0f} steps/s: {last.taken:,} steps taken,")
    print(f"{last.refused:,} refused; {last.opened:,} sessions, {last.reconnected:,} reconnections, {last.cut} cuts")
    for slope in found.slopes:
        print(f"{slope.quantity}: {slope.mean:,.1f}, over the second half {100 * slope.rise:+.2f} %")
    for reason in sorted(soaking.reasons):
        print(f"cut: {reason}")
    print(f"written: {results / 'soak.json'} and {results / 'soak.png'}")


if __name__ == "__main__":
    typer.run(soak)
