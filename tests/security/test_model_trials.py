"""A model is tried out in a process of its own: within limits, no more at once than allowed, and never left behind."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from service.adapters.model_repository import ModelRepository
from service.adapters.model_trial import Trial, Trials
from service.adapters.onnx_file import UnusableModel
from tests.adapters.graphs import accumulator, save
from tests.process import REPOSITORY, processes, wait_until
from tests.security import hostile_models as hostile

TRIAL = Trial(max_batch=4, max_bytes=10**6, max_memory=2 * 2**30, seconds=20.0)


def test_a_trial_leaves_a_good_model_alone_and_says_what_a_bad_one_did(tmp_path: Path) -> None:
    good = save(accumulator(), tmp_path, "good")
    turned = save(hostile.turned_outputs(), tmp_path, "turned")
    TRIAL.finish(TRIAL.start(good))
    with pytest.raises(UnusableModel, match="more than 10 bytes"):
        TRIAL.finish(TRIAL._replace(max_bytes=10).start(good))
    with pytest.raises(UnusableModel, match="'y' came with the shape"):
        TRIAL.finish(TRIAL.start(turned))


def trials(folder: Path, seconds: float, at_once: int) -> Trials:
    return Trials(folder, TRIAL._replace(seconds=seconds), at_once=at_once)


def trials_of(folder: Path) -> list[int]:
    """Return the processes in which models of a folder are tried."""

    def is_one(number: int) -> bool:
        command = Path(f"/proc/{number}/cmdline").read_text()
        return "run_trial" in command and str(folder) in command

    return processes(is_one)


def test_no_more_trials_go_on_at_once_than_were_allowed(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(hostile.going_round(), tmp_path, name)
    started = time.monotonic()
    with trials(tmp_path, seconds=0.5, at_once=1) as under_way:
        repository = ModelRepository.load(tmp_path, max_batch=2, trials=under_way)
    assert time.monotonic() - started >= 1.5
    assert [failure.reason for failure in repository.failures] == [
        "its trial took longer than 0.5 s, CONVEYOR_MODEL_TRIAL_S"
    ] * 3


def test_trials_end_with_who_began_them(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        save(hostile.going_round(), tmp_path, name)
    with trials(tmp_path, seconds=60, at_once=2):
        assert wait_until(lambda: len(trials_of(tmp_path)) == 2, 20), "both are under way"
        ended = time.monotonic()
    assert time.monotonic() - ended < 20
    assert trials_of(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a trial that is left alone ends by its limits")
def test_a_trial_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    path = save(hostile.going_round(), tmp_path)
    begin = (
        "import sys, pathlib, service.adapters.model_trial as t\n"
        "trial = t.Trial(2, 10**6, 2**31, 60).start(pathlib.Path(sys.argv[1]))\n"
        "print(trial.pid, flush=True), sys.stdin.read()"
    )
    command = [sys.executable, "-c", begin, path]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        trial = psutil.Process(int(parent.stdout.readline()))
        assert wait_until(lambda: trial.cpu_times().user > 1, 20), "it goes round"
        parent.kill()
    assert wait_until(lambda: not trial.is_running() or trial.status() == psutil.STATUS_ZOMBIE, 5)


@pytest.mark.skipif(sys.platform != "linux", reason="another way to choose who is killed")
def test_a_system_without_memory_ends_a_trial_before_all_others(tmp_path: Path) -> None:
    process = TRIAL.start(save(hostile.going_round(), tmp_path))
    score = Path(f"/proc/{process.pid}/oom_score_adj")
    try:
        assert wait_until(lambda: score.read_text() == "1000\n", TRIAL.seconds)
    finally:
        process.kill()
    with pytest.raises(UnusableModel, match="its trial ended by SIGKILL"):
        TRIAL.finish(process)
