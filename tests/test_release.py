"""Workflows, wheels and the files that a release needs: what can be checked without a network."""

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import cysoftmax

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.M))
# Targets of workflows that .ci/run leaves out, and why.
NOT_IN_CI = {
    "ci": "is .ci/run itself",
    "docs": "has tests of its own",
    "sdist": "is built by `make wheels`; its list of files is tested here",
    "check-release": "fails until there is a release; tested here",
    "hardening-packages": "installs a compiler for the next two",
    "fuzz": "takes as long as one lets it",
    "test-tsan": "takes as long as one lets it",
}
texts = pytest.mark.parametrize("path", WORKFLOWS, ids=[path.name for path in WORKFLOWS])


def tool(name):
    """Import a script of tools/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- workflows


def test_there_are_workflows():
    assert {path.stem for path in WORKFLOWS} >= {"test", "wheels", "docs", "release"}


@texts
def test_each_line_that_a_workflow_runs_is_a_task_of_the_makefile(path):
    lines = [line for line in path.read_text().splitlines() if re.search(r"\brun:", line)]
    in_ci = (ROOT / ".ci" / "run").read_text()
    in_ci = set(" ".join(re.findall(r"^(?:step make|both) (.+)", in_ci, re.M)).split())
    for line in lines:
        match = re.fullmatch(r"\s+(?:- )?run: make ([a-z0-9-]+)( [A-Z]+=\S+)*", line)
        assert match, line
        assert match[1] in TARGETS
        assert match[1] in in_ci or match[1] in NOT_IN_CI


@texts
def test_actions_are_pinned_by_the_hash_of_a_commit(path):
    used = re.findall(r"\buses: (\S+)(.*)", path.read_text())
    assert used
    for action, comment in used:
        if not action.startswith("./"):
            assert re.fullmatch(r"[\w-]+/[\w/-]+@[0-9a-f]{40}", action)
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment)


def test_an_action_has_one_version():
    used = {use for path in WORKFLOWS for use in re.findall(r"uses: (\S+@\S+)", path.read_text())}
    assert len(used) == len({use.partition("@")[0] for use in used})


@texts
def test_a_workflow_has_no_permission_but_those_of_its_jobs(path):
    text = path.read_text()
    assert re.search(r"^permissions: \{\}$", text, re.M)
    writes = re.findall(r"^      ([a-z-]+): write # \S", text, re.M)
    assert writes == {"release": ["id-token"], "docs": ["pages", "id-token"]}.get(path.stem, [])
    assert len(writes) == len(re.findall(r"\bwrite\b(?!:)", re.sub("#.*", "", text)))
    assert text.count("persist-credentials: false") == text.count("actions/checkout@")
    assert "secrets." not in text


def test_the_versions_of_python_are_those_of_the_metadata():
    text = (ROOT / "pyproject.toml").read_text()
    built = re.search(r'^build = \[("cp3.*)\]$', text, re.M)[1]
    tested = re.search(r"python: \[(.*)\]", (ROOT / ".github/workflows/test.yml").read_text())[1]
    built = [f"3.{minor}" for minor in re.findall(r'"cp3(\d+t?)-\*"', built)]
    assert built == re.findall(r'"(.*?)"', tested)
    assert set(tool("wheels").PYTHONS) <= set(built)


# ---------------------------------------------------------------- wheels


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory):
    """The files of a wheel of this build: setup.py packs the modules that are here already."""
    project = tmp_path_factory.mktemp("wheel")
    for name in "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "src":
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, project / name)
    package = Path(cysoftmax.__file__).parent
    shutil.copytree(package, project / "cysoftmax", ignore=shutil.ignore_patterns("*.so", "*.pyd"))
    version = f"{sys.implementation.cache_tag}"
    lib = project / "build" / f"lib.{sysconfig.get_platform()}-{version}" / "cysoftmax"
    command = [sys.executable, "setup.py", "--quiet", "build_py"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    modules = [path for path in package.iterdir() if path.suffix in (".so", ".pyd")]
    for path in modules:
        shutil.copy(path, lib)
    command = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--skip-build"]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (wheel,) = (project / "dist").iterdir()
    with zipfile.ZipFile(wheel) as opened:
        return [name for name in opened.namelist() if name[-1] != "/"]


def test_a_wheel_has_the_package_and_nothing_else(wheel_names):
    assert tool("wheels").wrong_contents(wheel_names) == []


@pytest.mark.parametrize(
    ("gone", "more", "message"),
    [
        ("cysoftmax/_api.py", None, "cysoftmax/_api.py is missing"),
        ("cysoftmax/py.typed", None, "cysoftmax/py.typed is missing"),
        ("cysoftmax/include/cysoftmax.h", None, "cysoftmax/include/cysoftmax.h is missing"),
        (None, "cysoftmax/_core.pyx", "cysoftmax/_core.pyx does not belong there"),
        (None, "cysoftmax/_job.pxd", "cysoftmax/_job.pxd does not belong there"),
        (None, "tests/test_bits.py", "tests/test_bits.py does not belong there"),
        (None, "cysoftmax/_core.abi3.so", "there must be one module _core"),
        (None, "cysoftmax.libs/libgomp-1.so", "libgomp is there without its license"),
    ],
)
def test_a_wheel_with_other_files_is_refused(wheel_names, gone, more, message):
    names = [name for name in [*wheel_names, more] if name not in (gone, None)]
    (wrong,) = tool("wheels").wrong_contents(names)
    assert message in wrong


def test_a_bundled_libgomp_has_its_license(tmp_path):
    repair = tool("repair_wheel")
    files = {
        "cysoftmax-1.dist-info/METADATA": b"License-Expression: BSD-3-Clause\n"
        b"License-File: LICENSE\n\npage\n",
        "cysoftmax-1.dist-info/RECORD": b"",
    }
    assert repair.with_license(files) == files
    done = repair.with_license(files | {"cysoftmax.libs/libgomp-1.so": b"code"})
    metadata = done["cysoftmax-1.dist-info/METADATA"].decode()
    assert metadata == (
        "License-Expression: BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1\n"
        "License-File: LICENSE\nLicense-File: libgomp-license.txt\n\npage\n"
    )
    text = done["cysoftmax-1.dist-info/licenses/libgomp-license.txt"].decode()
    assert "GCC RUNTIME LIBRARY EXCEPTION" in text
    assert "GNU GENERAL PUBLIC LICENSE" in text

    for name in "one.whl", "two.whl":
        repair.write_wheel(tmp_path / name, done, 1700000000)
    assert (tmp_path / "one.whl").read_bytes() == (tmp_path / "two.whl").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.whl") as wheel:
        assert sorted(wheel.namelist()) == sorted(done)
        record = wheel.read("cysoftmax-1.dist-info/RECORD").decode()
    assert record.count("sha256=") == len(done) - 1


# ---------------------------------------------------------------- documents


DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_tasks_that_a_document_names_are_in_the_makefile(path):
    words = re.findall(r"(?:^|`| )make ([a-z0-9-]+)[^`\n]*`", path.read_text(encoding="utf-8"))
    words += re.findall(r"^ *make ([a-z0-9-]+)", path.read_text(encoding="utf-8"), re.M)
    assert set(words) <= TARGETS


def test_a_release_needs_one_version_everywhere(monkeypatch, tmp_path):
    check = tool("check_release")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    (tmp_path / "cysoftmax").mkdir()
    (tmp_path / "cysoftmax" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## 1.2.3 (2026-11-28)\n\n## 1.2.2\n")
    (tmp_path / "setup.py").write_text('ADDRESS = "https://example.org/cysoftmax"\n')
    assert check.faults() == []
    assert check.faults("v1.2.3") == []
    assert check.faults("v1.2.4") == ["the tag must be v1.2.3; got v1.2.4"]
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## 1.2.3 (unreleased)\n")
    (tmp_path / "setup.py").write_text('ADDRESS = ""\n')
    dated, address = check.faults()
    assert "got '1.2.3 (unreleased)'" in dated
    assert "ADDRESS" in address


@pytest.mark.skipif(sys.platform != "linux", reason="sed is not GNU's elsewhere")
def test_the_commands_of_a_release_set_address_version_and_date(monkeypatch, tmp_path):
    check = tool("check_release")
    monkeypatch.setattr(check, "ROOT", tmp_path)
    (tmp_path / "cysoftmax").mkdir()
    for name in "setup.py", "CHANGELOG.md", "cysoftmax/__init__.py":
        shutil.copy(ROOT / name, tmp_path / name)
    page = (ROOT / "RELEASING.md").read_text()
    commands = [line.strip() for line in page.splitlines() if line.strip().startswith("sed ")]
    address, version, date, *after = commands
    for command in address, version, date:
        environment = {"PATH": "/usr/bin:/bin", "VERSION": "7.8.9"}
        subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment, check=True)
    assert check.faults("v7.8.9") == []
    for command in after:
        command = command.replace("NEXT", "7.9.0")
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    assert '__version__ = "7.9.0"' in (tmp_path / "cysoftmax" / "__init__.py").read_text()
    changes = (tmp_path / "CHANGELOG.md").read_text()
    assert re.match(r"# Changes\n\n## 7.9.0 \(unreleased\)\n\n## 7.8.9 \(\d{4}-", changes)


def test_the_version_has_one_place():
    """The change log has it, too, as a heading; check_release compares the two."""
    assert re.match(
        rf"# Changes\n\n## {re.escape(cysoftmax.__version__)} \(",
        (ROOT / "CHANGELOG.md").read_text(),
    )
    for name in "pyproject.toml", "setup.py", "CITATION.cff":
        assert not re.search(r"^version\s*[=:] *[\"'\d]", (ROOT / name).read_text(), re.M)


def test_the_authors_are_those_of_the_license():
    holder = re.search(r"Copyright \(c\) \d+, (.*)", (ROOT / "LICENSE").read_text())[1]
    assert f'authors = [{{ name = "{holder}" }}]' in (ROOT / "pyproject.toml").read_text()
    assert f"name: {holder}" in (ROOT / "CITATION.cff").read_text()


def test_who_reports_a_fault_is_asked_for_show_config():
    for name in "bug", "feature":
        text = (ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text()
        command = re.search(r'`python -c "(.*)"`', text)[1]
        result = subprocess.run(
            [sys.executable, "-c", command], capture_output=True, text=True, check=True
        )
        assert "instruction set:" in result.stdout


def test_commits_that_blame_leaves_out_change_the_layout_alone():
    listed = re.findall(r"^[0-9a-f]{40}$", (ROOT / ".git-blame-ignore-revs").read_text(), re.M)
    assert listed
    for commit in listed:
        command = ["git", "diff-tree", "--no-commit-id", "--name-only", "-r", commit]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode:
            pytest.skip("needs the history of the project")
        for name in result.stdout.split():
            old, new = (
                subprocess.run(
                    ["git", "show", f"{at}:{name}"],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout
                for at in (f"{commit}^", commit)
            )
            assert re.sub(r"[\s#(),]", "", old) == re.sub(r"[\s#(),]", "", new)
