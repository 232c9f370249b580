"""`ModelRepository`: finds what can be served, and names what cannot."""

from pathlib import Path

import pytest

from service.adapters.model_repository import ModelRepository
from service.core.errors import ModelMismatch, ModelNotFound
from service.core.ports import Failure
from service.core.session import ModelRef
from tests.adapters.graphs import accumulator, save


def load(folder: Path) -> ModelRepository:
    return ModelRepository.load(folder, max_batch=2)


def test_the_latest_version_is_the_largest_number(tmp_path: Path) -> None:
    for version in ("2", "10", "1"):
        save(accumulator(), tmp_path, "sum", version)
    repository = load(tmp_path)
    assert list(repository.versions("sum")) == ["1", "2", "10"]
    assert repository.find("sum").ref.version == "10"
    assert repository.find("sum", "2").ref.version == "2"


def test_what_is_broken_is_named_and_does_not_stop_the_others(tmp_path: Path) -> None:
    save(accumulator(), tmp_path, "good")
    save(accumulator(), tmp_path, "broken").write_bytes(b"garbage")
    save(accumulator(), tmp_path, "good", "latest")
    save(accumulator(), tmp_path, "bad name")
    (tmp_path / "empty" / "1").mkdir(parents=True)
    repository = load(tmp_path)
    assert [model.ref.name for model in repository] == ["good"]
    reasons = {failure.path: failure.reason for failure in repository.failures}
    assert set(reasons) == {
        "broken/1/model.onnx",
        "good/latest/model.onnx",
        "bad name/1/model.onnx",
        "empty/1/model.onnx",
    }
    assert "a version is a whole number" in reasons["good/latest/model.onnx"]
    assert "a model's name is" in reasons["bad name/1/model.onnx"]
    assert "holds a file model.onnx" in reasons["empty/1/model.onnx"]


def test_what_is_not_there_is_answered_with_what_is(tmp_path: Path) -> None:
    save(accumulator(), tmp_path, "sum", "3")
    repository = load(tmp_path)
    with pytest.raises(ModelNotFound, match="no model 'product'; there is: sum"):
        repository.find("product")
    with pytest.raises(ModelNotFound, match="'sum' has no version '4'; it has: 3"):
        repository.find("sum", "4")


def test_a_state_is_run_by_the_very_file_that_computed_it(tmp_path: Path) -> None:
    save(accumulator(), tmp_path, "sum")
    repository = load(tmp_path)
    ref = repository.find("sum").ref
    assert repository.holding(ref).ref == ref
    with pytest.raises(ModelMismatch, match="not being served"):
        repository.holding(ModelRef("sum", "1", b"another!"))


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert list(load(tmp_path)) == []
    assert list(load(tmp_path / "missing")) == []


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "No such file or directory"),
        ("file", "Not a directory"),
        ("circle", "Too many levels of symbolic links"),
        ("a" * 300, "File name too long"),
    ],
)
def test_a_folder_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "circle").symlink_to("circle")
    repository = load(tmp_path / name)
    assert repository.failures == [Failure(".", f"the folder cannot be read: {says}")]
