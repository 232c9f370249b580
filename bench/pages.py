"""Tables in a page's own language, put between markers."""

from collections.abc import Sequence


def between_markers(page: str, name: str, content: str) -> str:
    """Return `page` with `content` between its two markers of this name. Raises ValueError where it has none."""
    begin, end = markers(name)
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the page has no {begin} … {end}")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Return a table whose first `left` columns hold words, the others figures."""
    rule = ["---" if index < left else "---:" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
