"""Print the results of the present commit: `python -m benchmarks.dashboard.summary`."""

import subprocess

from asv.config import Config

from benchmarks.dashboard import report
from benchmarks.dashboard.history import History


def lines(history):
    """Yield the sections as text."""
    commit = history.latest
    yield f"commit {commit.hash[:8]}, {commit.date:%Y-%m-%d %H:%M} UTC: {commit.subject}"
    for section in report.sections(history):
        yield f"\n{section.title}"
        yield f"{'':38}" + "".join(f"{column:>16}" for column in section.columns)
        for label, *cells in section.rows:
            yield f"{label:38}" + "".join(f"{cell.text:>16}" for cell in cells)


def main():
    command = ["git", "rev-parse", "HEAD"]
    head = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    print("\n".join(lines(History.load(Config.load(), {head: 0}))))


if __name__ == "__main__":
    main()
