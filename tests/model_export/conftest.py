import os
from pathlib import Path

import pytest
from small_runs import small_config, waves

from model_export.run import Run
from model_export.train import train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Path]:
    """A finished run, and its folder."""
    folder = tmp_path_factory.mktemp("runs") / "small"
    return train(small_config(), waves(600), folder, "waves"), folder


@pytest.fixture(scope="session")
def etth1() -> Path:
    """The ETTh1 table, which is not the project's to distribute."""
    folder = Path(os.environ.get("CONVEYOR_SHARED_DATA", ROOT / "../shared/data"))
    if not (folder / "ETTh1.csv").is_file():
        pytest.skip(f"no ETTh1.csv in {folder}; set CONVEYOR_SHARED_DATA to the folder that holds it")
    return folder / "ETTh1.csv"
