"""docs/operations.md lists every setting as it is defined; ``python -m tests.test_operations`` writes the list."""

import re
from pathlib import Path

from service.settings import Settings
from tests.process import REPOSITORY

PAGE = REPOSITORY / "docs/operations.md"
MARKED = re.compile(r"(?<=<!-- settings -->\n).*(?=<!-- /settings -->)", re.DOTALL)


def table() -> str:
    """The settings as Markdown, from their own definitions."""
    rows = ["| Variable | Default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        assert field.description, f"{name} has no docstring"
        meaning = " ".join(field.description.replace("``", "`").split())
        value = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        default = "" if value is None else f"`{value}`"
        rows.append(f"| `CONVEYOR_{name.upper()}` | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    return MARKED.sub(lambda _: table(), page)


def test_every_setting_is_listed_with_its_default() -> None:
    page = PAGE.read_text()
    assert MARKED.search(page), "the page has no place for the settings"
    assert page == with_table(page), "run: python -m tests.test_operations"


def test_every_variable_on_the_page_is_a_setting() -> None:
    named = set(re.findall(r"CONVEYOR_(\w+)", PAGE.read_text()))
    assert named <= {name.upper() for name in Settings.model_fields}


def test_every_file_on_the_page_exists() -> None:
    named = re.findall(r"`(docker/[\w./-]+)`", PAGE.read_text())
    assert named
    assert [path for path in named if not Path(REPOSITORY, path).exists()] == []


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
