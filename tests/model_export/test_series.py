"""CSV files are checked line by line; splits keep the order of time; scaling sees the train rows alone."""

from pathlib import Path

import numpy as np
import pytest

from model_export.errors import InputError
from model_export.series import demo_series, read_csv, write_csv
from model_export.split import Split, chronological_split, fit_scaling

GOOD = [
    "2024-01-01 00:00:00,1.0,5",
    "2024-01-01 01:00:00,2.0,6",
    "2024-01-01 02:00:00,3.0,7",
    "2024-01-01 03:00:00,4.0,8",
]


def table(tmp_path: Path, rows: list[str]) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["time,load,oil", *rows]) + "\n", encoding="utf-8")
    return path


def test_a_good_table(tmp_path: Path) -> None:
    series = read_csv(table(tmp_path, GOOD), "time", ["oil", "load", "oil"])
    assert list(series.columns) == ["oil", "load"]
    assert (len(series), series.period_s) == (4, 3600.0)
    assert series.matrix(["load", "oil"]).tolist() == [[1, 5], [2, 6], [3, 7], [4, 8]]
    assert series.matrix(["load"]).dtype == np.float32


@pytest.mark.parametrize(
    ("row", "text", "message"),
    [
        (2, "2024-01-01 02:00:00,,7", "line 4, column load: a value is missing"),
        (1, "2024-01-01 01:00:00,high,6", "line 3, column load: 'high' is not a finite number"),
        (3, "2024-01-01 03:00:00,inf,8", "line 5, column load: .*not a finite number"),
        (1, "2024-01-01 00:00:00,2.0,6", "line 3: time .* is there twice"),
        (3, "2023-12-31 03:00:00,4.0,8", "line 5: time .* is before the row above it"),
        (3, "2024-01-01 03:30:00,4.0,8", "line 5: time .* comes 5400 s after .* every 3600 s"),
        (2, "yesterday,3.0,7", "line 4: time 'yesterday' is no timestamp"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, row: int, text: str, message: str) -> None:
    rows = [*GOOD[:row], text, *GOOD[row + 1 :]]
    with pytest.raises(InputError, match=message):
        read_csv(table(tmp_path, rows), "time", ["load", "oil"])


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_csv(tmp_path / "absent.csv", "time", ["load"])
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match="not a readable CSV"):
        read_csv(tmp_path / "empty.csv", "time", ["load"])
    with pytest.raises(InputError, match="no column 'gas'; the file has time, load, oil"):
        read_csv(table(tmp_path, GOOD), "time", ["gas"])
    with pytest.raises(InputError, match="no column 'when'"):
        read_csv(table(tmp_path, GOOD), "when", ["load"])
    with pytest.raises(InputError, match="2 rows; at least 3"):
        read_csv(table(tmp_path, GOOD[:2]), "time", ["load"])


def test_zoned_timestamps_are_compared_in_utc(tmp_path: Path) -> None:
    # An hour passes between each two of these, although the clock was put forward.
    times = ["2024-03-31T00:30:00+01:00", "2024-03-31T01:30:00+01:00", "2024-03-31T03:30:00+02:00"]
    series = read_csv(table(tmp_path, [f"{time},1,2" for time in times]), "time", ["load"])
    assert series.period_s == 3600
    assert str(series.times[0]).startswith("2024-03-30T23:30:00")


def test_a_period_below_a_second(tmp_path: Path) -> None:
    rows = [f"2024-01-01T00:00:00.{tenth}00,{tenth},2" for tenth in range(5)]
    assert read_csv(table(tmp_path, rows), "time", ["load"]).period_s == pytest.approx(0.1)


def test_written_tables_read_back(tmp_path: Path) -> None:
    series = demo_series(days=2, seed=1)
    write_csv(series, tmp_path / "folder" / "demo.csv")
    back = read_csv(tmp_path / "folder" / "demo.csv", "time", list(series.columns))
    assert back.period_s == series.period_s == 900
    assert (back.times == series.times).all()
    assert all(np.array_equal(back.columns[name], values) for name, values in series.columns.items())


def test_splits_are_chronological() -> None:
    assert chronological_split(17420, (8640, 2880, 2880)) == Split(8640, 11520, 14400)
    split = chronological_split(1000, (0.6, 0.2, 0.2))
    assert split == Split(600, 800, 1000)
    parts = [split.rows(part) for part in ("train", "validation", "test")]
    assert [row for part in parts for row in part] == list(range(1000))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0.6, 0.3, 0.2), "sum to 1 at most"),
        ((0.6, 0.4, 0.0), "above 0"),
        ((0.6, float("nan"), 0.2), "above 0"),
        ((800, 200, 100), "1100 rows are needed, the series has 1000"),
        ((800, 0.1, 0.1), "fractions that sum to 1"),
    ],
)
def test_nonsense_splits(sizes: tuple[float, float, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        chronological_split(1000, sizes)


def test_scaling_is_that_of_the_rows_given() -> None:
    train = np.array([[1.0, 10.0], [3.0, 30.0]], np.float32)
    scaling = fit_scaling(train, ("a", "b"))
    assert (scaling["a"].mean, scaling["a"].std) == (2.0, 1.0)
    assert (scaling["b"].mean, scaling["b"].std) == (20.0, 10.0)


def test_a_constant_column_is_refused() -> None:
    train = np.array([[1.0, 0.1], [3.0, 0.1], [5.0, 0.1]], np.float32)
    with pytest.raises(InputError, match=r"column 'b' is 0\.1 in all 3 train rows"):
        fit_scaling(train, ("a", "b"))
