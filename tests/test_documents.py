"""The documents: their examples run, their links lead somewhere, and they leave nothing out."""

import ast
import doctest
import inspect
import re
from pathlib import Path

import pytest
from calls import COMPUTE_NOTHING

import cysoftmax

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(rf"{FENCED.pattern}|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def text_of(path):
    return path.read_text(encoding="utf-8")


def test_pages_have_examples():
    assert sum(">>> " in text_of(path) for path in PAGES) >= 3


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_the_examples_of_a_page_give_what_it_says(path):
    text = text_of(path)
    # Other lines are left blank, so that a failure has the line number of the page.
    lines = [""] * text.count("\n")
    for match in PYTHON.finditer(text):
        first = text[: match.start(1)].count("\n")
        code = match[1].splitlines()
        lines[first : first + len(code)] = code
    examples = doctest.DocTestParser().get_doctest("\n".join(lines), {}, path.name, str(path), 0)
    said = []
    doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert not said, "".join(said)


def anchors(path):
    """Return the anchors that a forge gives to the headings of a page."""
    heads = re.findall(r"^#+ (.*)$", FENCED.sub("", text_of(path)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_the_links_of_a_page_lead_to_files_and_headings(path):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", CODE.sub("", text_of(path))):
        name, _, anchor = target.partition("#")
        page = path.parent / name if name else path
        assert page.is_file(), target
        assert not anchor or anchor in anchors(page), target


def public_modules():
    """Return the public modules that are imported by their own names, and what they have.

    They are read and not imported: they need other libraries.
    """
    found = {}
    for path in sorted((ROOT / "cysoftmax").glob("[!_]*.py")):
        for node in ast.parse(text_of(path)).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                found[f"cysoftmax.{path.stem}"] = ast.literal_eval(node.value)
    return found


def test_each_public_name_has_a_page_on_the_site():
    listed = {}
    module = None
    for line in text_of(ROOT / "docs" / "api.md").splitlines():
        if match := re.fullmatch(r"\.\. currentmodule:: (\S+)", line):
            module = match[1]
        elif match := re.fullmatch(r"   (\w+)", line):
            listed.setdefault(module, []).append(match[1])
    listed = {module: sorted(names) for module, names in listed.items()}
    wanted = {"cysoftmax": cysoftmax.__all__, **public_modules()}
    assert "cysoftmax.torch" in wanted
    assert listed == {module: sorted(names) for module, names in wanted.items()}


def test_each_page_is_in_the_navigation_of_the_site():
    entries = set()
    for path in PAGES:
        for tree in re.findall(r"^```{toctree}\n(.*?)^```$", text_of(path), re.M | re.S):
            entries |= set(re.findall(r"^(\w+)$", tree, re.MULTILINE))
    assert entries == {path.stem for path in ROOT.glob("docs/*.md")} - {"index"}


# ---------------------------------------------------------------- the README


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(text, head):
    """Return the heads of the table whose first heads are these, and the cells of its rows."""
    lines = iter(text.splitlines())
    heads = next(cells(line) for line in lines if line.startswith(f"| {head} |"))
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(cells(line))
    return heads, rows


def test_the_readme_says_which_function_takes_which_option():
    heads, rows = table(text_of(ROOT / "README.md"), "option | `softmax`, `log_softmax`")
    heads = [head.replace("…", "cross_entropy") for head in heads[1:]]
    columns = [re.findall(r"`(\w+)`", head) for head in heads]
    named = sorted(name for names in columns for name in names)
    functions = {name for name in cysoftmax.__all__ if name.islower()} - COMPUTE_NOTHING
    assert named == sorted(functions)
    own = {"keepdims", "bias", "wrt", "chunk_rows"}  # of a single function
    options = [row[0].strip("`") for row in rows]
    for names, marks in zip(columns, zip(*(row[1:] for row in rows), strict=True), strict=True):
        said = {option for option, mark in zip(options, marks, strict=True) if mark}
        assert set(marks) <= {"✓", ""}
        for name in names:
            parameters = inspect.signature(getattr(cysoftmax, name)).parameters.values()
            assert said == {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - own, name


def test_the_readme_lists_each_function():
    _, rows = table(text_of(ROOT / "README.md"), "function")
    listed = sorted(name for row in rows for name in re.findall(r"`(\w+)`", row[0]))
    results = {"CrossEntropy", "GradHess", "LinearCrossEntropy", "RowStats"}
    assert listed == sorted(set(cysoftmax.__all__) - results)


def test_the_readme_says_the_speed_that_was_measured():
    heads, rows = table(text_of(ROOT / "docs" / "performance.md"), "rows x classes")
    column = next(i for i, head in enumerate(heads) if head.endswith("loss + gradient"))
    factors = [float(n) for row in rows for n in re.findall(r"[\d.]+(?= \()", row[column])]
    assert len(factors) == 2 * len(rows) == 14
    said = re.findall(r"([\d.]+) to ([\d.]+)(?= \(the fastest|, on)", text_of(ROOT / "README.md"))
    assert said == [(str(min(factors)), str(max(factors)))] * 2
