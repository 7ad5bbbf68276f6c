"""Tables in Markdown, and the place between two marks where a task writes them."""

import re


def row(cells):
    return f"| {' | '.join(cells)} |"


def table(heads, rows):
    """Return a table as lines."""
    return [row(heads), f"|{'---|' * len(heads)}", *map(row, rows)]


def marks(task):
    """Return what stands before and after the lines that `make task` writes."""
    return f"<!-- make {task}: begin -->", f"<!-- make {task}: end -->"


def replaced(task, text, lines):
    """Return a document with the lines between the marks of a task."""
    begin, end = marks(task)
    between = "\n".join([begin, *lines, end])
    text, count = re.subn(f"{begin}.*?{end}", lambda _: between, text, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"error: there must be one {begin} ... {end}; found {count}")
    return text
