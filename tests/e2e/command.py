"""The command line, run to its end as a user would run it."""

import os
import subprocess
import sys

from tests.servers import REPOSITORY


def conveyor(*args: object, timeout_s: float = 30, **settings: object) -> subprocess.CompletedProcess[str]:
    """Run ``python -m service`` with `settings` as CONVEYOR_ variables, and return how it ended."""
    outer = {key: value for key, value in os.environ.items() if not key.startswith("CONVEYOR_")}
    return subprocess.run(
        [sys.executable, "-m", "service", *map(str, args)],
        env=outer | {f"CONVEYOR_{name.upper()}": str(value) for name, value in settings.items()},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
