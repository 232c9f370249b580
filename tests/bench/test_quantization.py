"""`bench.quantization` measures what it says, on networks small enough for a test."""

import pytest

from bench import quantization


def test_it_prints_a_row_for_each_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(quantization, "HIDDEN", (8,))
    monkeypatch.setattr(quantization, "SHAPES", ((1, 1), (4, 2)))
    monkeypatch.setattr(quantization, "ROUNDS", 1)
    monkeypatch.setattr(quantization, "ROUND_S", 0.02)
    quantization.main()
    machine, _, head, rule, *rows = capsys.readouterr().out.splitlines()
    assert "ONNX Runtime" in machine
    assert [head.count("|"), rule.count("|")] == [6, 6]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[:2] for row in cells] == [["8", "float32"], ["8", "int8"], ["8", "dynamic int8, row by row"]]
    assert all(float(row[4].split()[0].replace(",", "")) > 0 for row in cells)
    assert all("×" in figure for row in cells[1:] for figure in row[3:])
