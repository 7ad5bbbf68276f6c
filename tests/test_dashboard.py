"""The dashboard in a real browser: it shows data, and needs nothing but its own server."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browser import DESK, PHONE, picture, served

pytest.importorskip("asv")
pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.dashboard

ROOT = Path(__file__).parents[1]
SLOW = "speed.Softmax.time_call"
# A little of everything that the front page shows.
FEW = "|".join(
    [
        r"ratios.LossAndGradient.*327680\)",
        r"accuracy.*'softmax'.*'float32', 10\)",
        r"bits.*'float32', 10\)",
        r"overhead.Call.*_with_grad', 10\)",
        r"overhead.Import",
        r"track_scratch.*_with_grad', 327680\)",
        rf"{SLOW}\('float32', (327680|8192000)\)",
    ]
)


def run(folder, *command, **options):
    """Run a command in a folder and return its output; what it prints is shown if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def asv(folder, *arguments):
    return run(folder, str(Path(sys.executable).with_name("asv")), *arguments)


def clone(folder):
    """Clone this repository, with the benchmarks as they are now."""
    run(ROOT, "git", "clone", "--quiet", str(ROOT), str(folder))
    run(folder, "git", "config", "user.name", "A. Tester")
    run(folder, "git", "config", "user.email", "tester@example.org")
    for name in ("asv.conf.json", "Makefile"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "benchmarks", folder / "benchmarks", dirs_exist_ok=True)
    return folder


def commit(folder, subject):
    """Commit what has changed, or nothing; return the hash."""
    run(folder, "git", "commit", "--quiet", "--all", "--allow-empty", f"--message={subject}")
    return run(folder, "git", "rev-parse", "HEAD")


def copy_results(folder, source, targets, factor=1.0, failed=None):
    """Give commits the results of another one, SLOW times a factor, and maybe one that failed."""
    for path in folder.glob(f".asv/results/local/{source[:8]}-*.json"):
        results = json.loads(path.read_text())
        numbers = results["results"][SLOW]
        numbers[0] = [n and n * factor for n in numbers[0]]
        if failed:
            results["results"][failed][0] = [None]
        for target in targets:
            stamp = run(folder, "git", "show", "-s", "--format=%ct", target)
            results |= {"commit_hash": target, "date": int(stamp) * 1000}
            copied = path.with_name(path.name.replace(source[:8], target[:8]))
            copied.write_text(json.dumps(results))


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A site of eight commits: one measured, the others with its numbers, the last three slow.

    In the last one a benchmark failed, too.
    """
    folder = clone(tmp_path_factory.mktemp("site") / "clone")
    hashes = [commit(folder, f"Commit number {i} <of eight> & more") for i in range(1, 9)]
    asv(folder, "run", "--python=same", "--set-commit-hash", hashes[0], "--bench", FEW)
    copy_results(folder, hashes[0], hashes[1:5])
    copy_results(folder, hashes[0], hashes[5:7], factor=1.7)
    copy_results(folder, hashes[0], hashes[7:], factor=1.7, failed="overhead.Import.timeraw_import")
    asv(folder, "publish", "--no-pull")
    return folder / ".asv" / "html"


def drawn(page, lines=1):
    """Wait for asv's graph; return its lines as lists of points.

    asv draws anew whenever the data of another line arrive, so `lines` is how many to wait for.
    """
    plot = "$('#main-graph').data('plot')"
    page.wait_for_selector("#main-graph canvas.flot-overlay")
    page.wait_for_function(f"n => {plot}.getData().length >= n", arg=lines)
    return page.evaluate(f"{plot}.getData().map(s => s.data)")


# ---------------------------------------------------------------- pages


@pytest.mark.parametrize(("name", "size"), [("desk", DESK), ("phone", PHONE)])
def test_the_front_page_answers_in_one_look(page, site, name, size):
    page.set_viewport_size(size)
    page.goto(served(site))
    picture(page, f"front-page-{name}")
    headlines = page.locator(".headlines p").all_inner_texts()
    assert len(headlines) == 4
    assert all(re.fullmatch(r"[\d.]+", text) for text in headlines), headlines
    assert headlines[3] == "0"
    assert page.locator(".bad").filter(has_text="failed").count() == 1
    ratios = page.locator("section:has-text('Loss and gradient, all threads') tbody tr")
    assert ratios.count() == 9
    assert ratios.filter(has_text="32768 × 10").locator("td").count() == 4
    assert "–" not in ratios.filter(has_text="32768 × 10").inner_text()
    assert page.locator(".commits tbody tr").count() == 8
    assert page.locator("text=Commit number 8 <of eight> & more").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    box = page.locator(".headlines").bounding_box()
    assert box["y"] + box["height"] <= size["height"]  # seen without scrolling


def test_the_numbers_of_the_front_page_lead_to_their_graphs(page, site):
    page.goto(served(site))
    addresses = page.locator("main td a, .headlines a").evaluate_all("a => a.map(x => x.href)")
    assert len({address.split("#")[1].split("?")[0] for address in addresses}) > 5
    for address in sorted(set(addresses)):
        page.goto("about:blank")
        page.goto(address)
        lines = drawn(page)
        assert any(y is not None for line in lines for _, y in line), address


def test_the_grid_draws_each_benchmark(page, site):
    page.goto(served(site) + "graphs.html#/")
    plots = page.locator(".benchmark-plot")
    plots.first.wait_for()
    for i in range(plots.count()):  # asv draws what comes into view
        plots.nth(i).scroll_into_view_if_needed()
        plots.nth(i).locator("canvas").first.wait_for()
    page.evaluate("window.scrollTo(0, 0)")
    picture(page, "grid")
    groups = page.locator(".benchmark-group h1").all_inner_texts()
    assert groups == ["accuracy", "bits", "memory", "overhead", "ratios", "speed"]


def test_a_graph_shows_the_slower_commits(page, site):
    page.goto(served(site) + f"graphs.html#{SLOW}?p-elements=8192000&p-dtype='float32'")
    lines = drawn(page, 2)
    picture(page, "graph")
    assert len(lines) == 2  # for one thread, and for all
    for line in lines:
        numbers = [y for _, y in line]
        assert len(numbers) == 8
        assert numbers[-1] / numbers[0] == pytest.approx(1.7)


def test_the_shapes_are_numbers_on_the_x_axis(page, site):
    page.goto(served(site) + f"graphs.html#{SLOW}?x-axis=elements&p-dtype='float32'")
    lines = drawn(page, 2)
    picture(page, "graph-by-elements")
    assert len(lines) == 2
    for line in lines:
        assert [x for x, y in line if y is not None] == [327680, 8192000]


def test_the_regressions_page_lists_what_became_slower(page, site):
    page.goto(served(site) + "graphs.html#regressions")
    rows = page.locator("#regressions-body tbody tr")
    rows.first.wait_for()
    picture(page, "regressions")
    assert rows.count() == 4  # two shapes, with one thread and with all
    for text in rows.all_inner_texts():
        assert SLOW in text
        assert "1.70x" in text
    rows.first.locator("a").first.click()
    drawn(page)


def test_the_list_of_numbers_is_shown(page, site):
    page.goto(served(site) + "graphs.html#summarylist")
    page.wait_for_selector("#summarylist-body table tbody tr")
    picture(page, "list")


def test_a_commit_of_a_graph_is_found_on_the_front_page(page, site):
    index = json.loads((site / "index.json").read_text())
    commit_hash = list(index["revision_to_hash"].values())[-1]
    page.goto(served(site) + index["show_commit_url"] + commit_hash[: index["hash_length"]])
    assert page.locator("tr:target").count() == 1


# ---------------------------------------------------------------- without a network


@pytest.fixture
def publish(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.dashboard.publish")


def test_the_licences_go_with_the_site(site):
    for package in (site / "vendor").iterdir():
        texts = [p.read_text() for p in package.glob("*") if p.is_file() and p.suffix != ".js"]
        assert any("MIT" in text or "Permission is hereby granted" in text for text in texts)


@pytest.mark.parametrize("folder", [ROOT / "benchmarks" / "dashboard", ROOT / "docs"])
def test_the_packages_are_pinned_by_hash_and_name_no_registry(folder):
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    lock = json.loads((folder / "package-lock.json").read_text())["packages"]
    assert lock.pop("")["dependencies"] == wanted
    for name, version in wanted.items():
        package = lock.pop(f"node_modules/{name}")
        assert package["version"] == version
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package
    assert lock == {}


def test_a_script_that_has_no_local_copy_is_an_error(publish):
    page = '<script src="https://example.org/a/new.js"></script>'
    with pytest.raises(publish.UserError, match=r"new\.js"):
        publish.made_local(page)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.html", '<script src="https://example.org/a.js"></script>'),
        ("a.html", "<img src=//example.org/a.png>"),
        ("a.html", '<a href="http://example.org/">'),
        ("a.css", "@import 'https://example.org/a.css';"),
        ("a.css", "b { background: url(//example.org/a.png) }"),
        ("a.js", '$.ajax("https://example.org/a.json")'),
    ],
)
def test_a_remote_address_in_the_site_is_found(publish, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert len(publish.remote_addresses(tmp_path)) == 1


def test_a_published_site_has_no_remote_address(publish, site):
    assert publish.remote_addresses(site) == []
    assert "127.0.0.1" not in (site / "graphs.html").read_text()
    assert "index.html#" not in (site / "regressions.xml").read_text()


# ---------------------------------------------------------------- a real slowdown

SLOWER = """

def slower_rowwise(*args, rowwise=rowwise):
    rowwise(*args)
    return rowwise(*args)

globals()["rowwise"] = slower_rowwise
"""


@pytest.mark.slow
def test_an_intentional_slowdown_fails_the_comparison_and_is_shown(page, tmp_path):
    folder = clone(tmp_path / "clone")
    before = [commit(folder, f"Before, {i}") for i in range(4)]
    with (folder / "cysoftmax" / "_core.pyx").open("a") as core:
        core.write(SLOWER)
    slower = commit(folder, "Compute each softmax twice")
    venv = Path(sys.executable).parents[1]
    make = ("make", f"VENV={venv}", "-o", f"{venv}/.bench", "bench-compare")
    compared = subprocess.run(
        [*make, f"BASE={before[-1]}", f"BENCH={SLOW}.*float32.*8192000"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert compared.returncode != 0
    assert "PERFORMANCE DECREASED" in compared.stdout, compared.stdout + compared.stderr
    print(compared.stdout)

    copy_results(folder, before[-1], before[:-1])
    asv(folder, "publish", "--no-pull")
    page.goto(served(folder / ".asv" / "html") + "graphs.html#regressions")
    row = page.locator("#regressions-body tbody tr").first
    row.wait_for()
    picture(page, "slowdown")
    assert SLOW in row.inner_text()
    assert slower[:8] in row.inner_text()
