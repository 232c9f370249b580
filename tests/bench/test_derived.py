"""What is made of measurements: verdicts, capacity, pages and pictures of growth."""

from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs the bench extra")
pytest.importorskip("psutil", reason="needs the bench extra")

from bench import capacity, growth_page, report
from bench.goals import Comparison, Goal
from bench.growth_plot import plot
from bench.measure import Measurement
from bench.pages import between_markers
from bench.probes.memory import RECORD
from bench.scenarios import CONVEYOR, REDIS, REDIS_SPLIT
from bench.summary import Reading, Round, Run, ratios, readings
from bench.sweeps import Growth, Point, Sweep


def cell(scenario: str, subject: str, *, cpu_s: float = 0.0, redis_s: float = 0.0, speed: float = 1.0) -> Measurement:
    return Measurement(scenario, scenario, subject, speed, 1, 2, 3, cpu_s, redis_s, 100, 10, 0.1, 1000, 7)


def test_verdicts() -> None:
    least, most = Goal(1.2, 2.5), Goal(0.8, 0.5, at_most=True)
    assert [least.verdict(value) for value in (1.1, 1.2, 2.5)] == ["**missed**", "bar met", "aim met"]
    assert [most.verdict(value) for value in (0.9, 0.8, 0.5)] == ["**missed**", "bar met", "aim met"]


def test_readings_are_medians_over_the_rounds() -> None:
    rounds = [Round([], [Reading("start", "s", value)]) for value in (3.0, 1.0, 2.0)]
    ((reading, spread),) = readings(Run("", {}, 1.0, rounds, []))
    assert reading.title == "start"
    assert spread == (2.0, 1.0, 3.0)


def test_a_figure_may_have_a_goal_of_its_own() -> None:
    comparison = Comparison("frames", ("frames", CONVEYOR), None, Goal(25_000, 25_000))
    rounds = [Round([cell("frames", CONVEYOR, speed=speed)]) for speed in (20_000, 30_000, 26_000)] + [Round()]
    run = Run("", {}, 1.0, rounds, [])
    (ratio,) = ratios(run, [comparison])
    assert (ratio.figure, ratio.rounds) == ((26_000, 20_000, 30_000), 3)
    ((_, _, (row,)), _) = report.tables(run, [comparison])
    assert row == ["frames", "≥ 25,000", "≥ 25,000", "26,000 (20,000 to 30,000)", "aim met", "–", "3"]


def test_capacity_is_the_lesser_of_workers_and_shards() -> None:
    measured = [
        cell("ws-64", CONVEYOR, cpu_s=0.1, redis_s=0.01),
        cell("alone-64", REDIS, redis_s=0.01),
        cell("alone-64", REDIS_SPLIT, redis_s=0.02),
    ]
    run = Run("", {}, 1.0, [Round(measured, [Reading(RECORD, "B", 1000.0)])], [])
    (way,) = capacity.ways(run)
    assert way.workers_carry(1) == pytest.approx(capacity.UTILISATION * 10_000)
    assert way.shards_carry(1) == pytest.approx(capacity.UTILISATION * 100_000)
    assert way.shards_carry(4) == pytest.approx(capacity.UTILISATION * 200_000)
    page = capacity.page_part(run)
    assert "| ws-64 | 8 | 49,000 workers | 42,000 workers | 28,000 workers | – | – |" in page
    assert "| ws-64 | 64 | 70,000 Redis | 70,000 Redis | 140,000 Redis | 280,000 Redis | 336,000 workers |" in page
    assert "100 MB/s of append-only file (1,000 B a record)" in page
    assert "ws-64: 0.80 Gbit/s of answers" in page


def test_capacity_is_not_derived_from_parts_of_a_run() -> None:
    run = Run("", {}, 1.0, [Round([cell("ws-64", CONVEYOR, cpu_s=0.1, redis_s=0.01)])], [])
    assert capacity.page_part(run).startswith("Not derived")


def test_growth_becomes_a_table_and_a_picture(tmp_path: Path) -> None:
    points = [Point("conveyor", x, cell("any", CONVEYOR, speed=speed)) for x, speed in ((1, 10), (1, 30), (4, 100))]
    sweep = Sweep("workers", "Workers", "workers", points)
    growth = Growth("python -m bench.growth", {"processor": "any", "redis-server": "7"}, 1.0, [sweep], ["hidden: gone"])
    ((title, head, rows),) = growth_page.tables(growth)
    assert (title, head[:3]) == ("Workers", ("what", "workers", "steps/s"))
    assert [row[:3] for row in rows] == [["conveyor", "1", "20"], ["conveyor", "4", "100"]]
    part = growth_page.page_part(growth, tmp_path / "docs" / "images", tmp_path / "docs" / "page.md")
    assert "![Workers](images/growth-workers.png)" in part
    assert part.endswith("Not measured: hidden: gone")
    plot(sweep, tmp_path / growth_page.image_of(sweep))
    assert (tmp_path / growth_page.image_of(sweep)).read_bytes().startswith(b"\x89PNG")


def test_a_page_without_its_markers_is_told() -> None:
    with pytest.raises(ValueError, match="no <!-- growth: begin -->"):
        between_markers("nothing", "growth", "text")
