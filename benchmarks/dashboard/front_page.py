"""The front page: what the results say, in one look, as plain HTML."""

import json
from html import escape
from pathlib import Path
from string import Template

from benchmarks.dashboard import report
from benchmarks.dashboard.history import ALL

TEMPLATE = Template(Path(__file__).with_name("front_page.html").read_text(encoding="utf-8"))


def render(history, site):
    """Return the page for asv's finished site."""
    latest = history.latest
    regressions = json.loads((site / "regressions.json").read_text())["regressions"]
    machine = history.machine
    return TEMPLATE.substitute(
        commit=f'<a href="#{latest.hash[:8]}">{latest.hash[:8]}</a>',
        subject=escape(latest.subject),
        date=f"{latest.date:%Y-%m-%d %H:%M} UTC",
        machine=escape(f"{machine['cpu']}, {machine['num_cpu']} CPUs"),
        headlines="\n".join(map(headline, report.headlines(history))),
        sections="\n".join(map(section, report.sections(history))),
        n_regressions=len(regressions),
        commits="\n".join(commit_rows(history)),
    )


def anchor(cell):
    text = escape(cell.text)
    return f'<a href="graphs.html{escape(cell.link)}">{text}</a>' if cell.link else text


def headline(entry):
    what, cell, explanation = entry
    kind = ' class="bad"' if cell.bad else ""
    return f"<li{kind}><h2>{what}</h2><p>{anchor(cell)}</p>{explanation}</li>"


def table_cell(cell):
    kind = ' class="bad"' if cell.bad else ""
    bar = "" if cell.share is None else f' style="--share: {cell.share:.0%}"'
    return f"<td{kind}{bar}>{anchor(cell)}</td>"


def unbroken(label):
    return escape(label).replace(" × ", "&nbsp;×&nbsp;")


def section(s):
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in s.columns)
    rows = "\n".join(
        f'<tr><th scope="row">{unbroken(label)}</th>{"".join(map(table_cell, cells))}</tr>'
        for label, *cells in s.rows
    )
    title, body = (
        f"<h2>{escape(s.title)}</h2>",
        f"<p>{escape(s.note)}</p>\n<table><thead><tr><td></td>{head}</tr></thead>\n"
        f"<tbody>{rows}</tbody></table>",
    )
    if s.folded:
        return f"<details><summary>{title}</summary>{body}</details>"
    return f"<section>{title}{body}</section>"


def commit_rows(history):
    """Yield a table row for each commit, the latest first; asv's pages link to its id."""
    benchmark = report.TO_COPY.format("")
    series = history.series(benchmark, ALL, "float32", 8192 * 1000)
    for commit, ratio in zip(history.commits[::-1], series[::-1], strict=True):
        cell = report.to_copy(ratio, report.graph(benchmark, elements=8192 * 1000, dtype="float32"))
        yield (
            f'<tr id="{commit.hash[:8]}"><th scope="row"><code>{commit.hash[:8]}</code></th>'
            f"<td>{commit.date:%Y-%m-%d %H:%M}</td><td>{escape(commit.subject)}</td>"
            f"{table_cell(cell)}</tr>"
        )
