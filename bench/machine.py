"""What the figures were measured on: they mean nothing without it."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

_PACKAGES = (
    "conveyor",
    "fastapi",
    "uvicorn",
    "uvloop",
    "httptools",
    "websockets",
    "redis",
    "onnxruntime",
    "numpy",
    "picows",
)


def describe(redis: Path) -> dict[str, str]:
    """Return the machine and the versions, that of a redis-server among them, by name."""
    return {
        "processor": f"{_processor()}, {psutil.cpu_count()} logical cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "Python": platform.python_version(),
        "redis-server": _version(redis),
        **{package: version(package) for package in _PACKAGES},
    }


def _version(redis: Path) -> str:
    told = subprocess.run([redis, "--version"], capture_output=True, text=True, check=True).stdout
    return next((word[2:] for word in told.split() if word.startswith("v=")), told.strip())


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
