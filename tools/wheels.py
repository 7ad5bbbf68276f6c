"""Build the sdist and wheels from it, check them, and test them where there is no compiler.

`make wheels` runs this for every supported Python that is at hand. What is built is the present
commit, with the changes of tracked files that are not committed yet. The wheels are for the glibc
of this machine or newer; cibuildwheel, whose settings are in pyproject.toml, builds those for an
index.
"""

import argparse
import gzip
import hashlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = [
    name.rpartition(" ")[2]
    for name in PROJECT["project"]["classifiers"]
    if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", name)
]
# The first NumPy with a wheel for each Python; the metadata allows 2.0 and newer.
OLDEST_NUMPY = {"3.11": "2.0", "3.12": "2.0", "3.13": "2.1", "3.14": "2.3"}
# Headers for Cython and C; no other header belongs in a wheel.
PUBLIC_HEADERS = {"__init__.pxd", "_row_functions.pxd", "include/cysoftmax.h"}


def run(*command, **options):
    print("+", *command, flush=True)
    return subprocess.run([str(part) for part in command], check=True, **options)


def output(*command, **options):
    return run(*command, stdout=subprocess.PIPE, text=True, **options).stdout.strip()


def git(*command):
    return output("git", *command, cwd=ROOT)


# ---------------------------------------------------------------- what a wheel contains


def wrong_contents(names):
    """Return what is wrong with the files of a wheel: sentences, none if all is well.

    A wheel has each Python file and stub of the package, each extension module once, the public
    headers, OpenMP's library, metadata and licenses. It has nothing else: no source of an extension
    module, no test.
    """
    names = set(names)
    package = ROOT / "cysoftmax"
    needed = {
        f"cysoftmax/{path.name}" for path in package.iterdir() if path.suffix in (".py", ".pyi")
    } | {f"cysoftmax/{name}" for name in PUBLIC_HEADERS | {"py.typed"}}
    info = r"cysoftmax-[^/]+\.dist-info/"
    rules = {
        rf"cysoftmax/{path.stem}\.[\w-]+\.(so|pyd)": f"one module {path.stem}"
        for path in package.glob("*.pyx")
    } | {
        info + name: f"one {name}"
        for name in ("METADATA", "WHEEL", "RECORD", "top_level.txt", "licenses/LICENSE")
    }
    allowed = [
        r"cysoftmax\.libs/libgomp-[\w.-]+",
        info + r"licenses/libgomp-license\.txt",
        info + r"sboms/auditwheel\.cdx\.json",
    ]
    wrong = [f"{name} is missing" for name in sorted(needed - names)]
    left = names - needed
    for rule, what in rules.items():
        found = {name for name in left if re.fullmatch(rule, name)}
        left -= found
        if len(found) != 1:
            wrong.append(f"there must be {what}; found {sorted(found)}")
    left = {name for name in left if not any(re.fullmatch(rule, name) for rule in allowed)}
    bundles = any(name.startswith("cysoftmax.libs/libgomp") for name in names)
    if bundles and not any(name.endswith("libgomp-license.txt") for name in names):
        wrong.append("libgomp is there without its license")
    return wrong + [f"{name} does not belong there" for name in sorted(left)]


# ---------------------------------------------------------------- building


def commit_time():
    """Return the seconds for all files that are built: SOURCE_DATE_EPOCH, or the commit's time."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return given or git("log", "-1", "--format=%ct")


def build_sdist(python, commit, work, folder):
    """Build the sdist of a commit into a folder, by way of work/source; return its path."""
    source = work / "source"
    tree = run("git", "archive", commit, cwd=ROOT, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(tree)) as archive:
        archive.extractall(source, filter="data")
    built = work / "sdist"
    built.mkdir()
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(built)!r})"
    run(python, "-c", code, cwd=source, stdout=subprocess.DEVNULL)
    (made,) = built.iterdir()
    return pack_again(made, folder / made.name)


def pack_again(sdist, place):
    """Write the files of an sdist in one order, with one time and no owner: the same bytes each
    time and everywhere."""
    seconds = int(os.environ["SOURCE_DATE_EPOCH"])
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f"{place.name}.unfinished")
    with (
        tarfile.open(sdist) as old,
        open(unfinished, "wb") as file,
        gzip.GzipFile("", "wb", 9, file, seconds) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for entry in sorted((e for e in old if e.isfile()), key=lambda entry: entry.name):
            plain = tarfile.TarInfo(entry.name)
            plain.size, plain.mtime = entry.size, seconds
            plain.mode = 0o755 if entry.mode & 0o100 else 0o644
            new.addfile(plain, old.extractfile(entry))
    os.replace(unfinished, place)
    return place


def build_wheel(sdist, python, work, folder):
    """Build a wheel from an sdist, bundle libgomp, and return the path of the wheel."""
    plain = work / "plain"
    run(
        *(python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--no-cache-dir", "--wheel-dir", plain, sdist),
        env=os.environ | {"CYSOFTMAX_OPENMP": "1"},
    )
    (wheel,) = plain.iterdir()
    repaired = work / "repaired"
    run(sys.executable, ROOT / "tools" / "repair_wheel.py", wheel, repaired)
    (wheel,) = repaired.iterdir()
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.move(wheel, folder / wheel.name))


def make_venv(python, place, *packages):
    """Make a virtual environment with these packages; return its Python."""
    run(python, "-m", "venv", "--clear", place)
    made = place / "bin" / "python"
    run(made, "-m", "pip", "install", "--quiet", "--upgrade", "pip")
    if packages:
        run(made, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", *packages)
    return made


# ---------------------------------------------------------------- checking


def check(paths):
    """Check metadata and contents of what was built."""
    run(sys.executable, "-m", "twine", "check", "--strict", *paths)
    wheels = [path for path in paths if path.suffix == ".whl"]
    run(Path(sys.executable).with_name("check-wheel-contents"), *wheels)
    for path in wheels:
        with zipfile.ZipFile(path) as wheel:
            wrong = wrong_contents(name for name in wheel.namelist() if name[-1] != "/")
        if wrong:
            sys.exit(f"{path.name}: " + "; ".join(wrong))


def install(wheel, python, source, work, *packages):
    """Install a wheel into an empty environment, away from the sources, with what tests need.

    Return the environment's folder, a folder with the tests and the examples, and the variables of
    this process without those that could lead to another copy of the library.
    """
    place = work / "venv"
    made = make_venv(python, place, wheel, *packages)
    files = work / "files"
    for name in ("tests", "examples", "docs"):
        shutil.copytree(source / name, files / name)
    shutil.copy(source / "pyproject.toml", files)
    names = ("PYTHONPATH", "PYTHONSAFEPATH", "CC", "CFLAGS", "LDFLAGS", "CYSOFTMAX_ISA")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    where = "import cysoftmax; print(cysoftmax.__file__)"
    found = output(made, "-c", where, cwd=files, env=environment)
    assert place in Path(found).parents, found
    return place, files, environment


def test_wheel(wheel, numpy, python, source, work):
    """Run the fast tests and the demo with an installed wheel, where no compiler can be found."""
    groups = PROJECT["dependency-groups"]
    needs = [*groups["test"], *groups["examples"]]
    place, files, environment = install(wheel, python, source, work, numpy, *needs)
    environment["PATH"] = str(place / "bin")
    for compiler in ("cc", "gcc", "clang", "make"):
        assert shutil.which(compiler, path=environment["PATH"]) is None
    tests = shlex.split(PROJECT["tool"]["cibuildwheel"]["test-command"])
    run(place / "bin" / tests[0], *tests[1:], cwd=files, env=environment)
    made = place / "bin" / "python"
    run(made, "examples/digits.py", cwd=files, env=environment, stdout=subprocess.DEVNULL)
    version = output(made, "-c", "import numpy; print(numpy.__version__)", env=environment)
    print(f"{wheel.name}: tests and demo pass with NumPy {version}, without a compiler")


def test_compiled(wheel, python, source, work):
    """Build modules of others, in Cython, C and C++, against an installed wheel, and test them."""
    groups = PROJECT["dependency-groups"]
    needs = [*groups["test"], *groups["build"]]
    place, files, environment = install(wheel, python, source, work, *needs)
    report = files / "report.xml"
    tests = ("-q", "--junit-xml", report, "tests/test_compiled.py")
    run(place / "bin" / "pytest", *tests, cwd=files, env=environment)
    counts = ElementTree.parse(report).find("testsuite").attrib
    if int(counts["skipped"]) or not int(counts["tests"]):
        sys.exit(f"{wheel.name}: tests of compiled code did not all run: {counts}")
    print(f"{wheel.name}: {counts['tests']} tests of compiled code pass against it")


def find_python(version):
    """Return the path of that Python, on PATH or among pyenv's, or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"
    places = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"))]
    for python in filter(None, places):
        asked = [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        said = subprocess.run(asked, capture_output=True, text=True, check=False)
        if said.stdout.strip() == version:
            return Path(python)
    return None


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where sdist and wheels go, dist for example")
    parser.add_argument("--work", type=Path, default=Path("build/wheels"), help="for all the rest")
    parser.add_argument("--only-sdist", action="store_true")
    parser.add_argument("--pythons", nargs="+", default=PYTHONS, metavar="VERSION")
    parser.add_argument("--numpys", nargs="+", choices=["oldest", "newest"],
                        default=["oldest", "newest"])  # fmt: skip
    options = parser.parse_args()
    work, folder = options.work.resolve(), options.folder.resolve()
    if work.exists() and any(work.iterdir()) and ROOT / "build" not in work.parents:
        parser.error(f"--work must be empty, or lie in {ROOT / 'build'}; got {work}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    os.environ["SOURCE_DATE_EPOCH"] = commit_time()
    # Once: files may change while this runs.
    commit = git("stash", "create") or git("rev-parse", "HEAD")
    sdist = build_sdist(sys.executable, commit, work, folder)
    print(f"{sdist.name}: {sdist.stat().st_size / 1e6:.2f} MB, sha256 {hash_of(sdist)}")
    if options.only_sdist:
        check([sdist])
        return

    found = {version: find_python(version) for version in options.pythons}
    wheels = {}
    for version, python in found.items():
        if python is None:
            continue
        builder = make_venv(python, work / version / "builder",
                            *PROJECT["dependency-groups"]["build"])  # fmt: skip
        wheels[version] = build_wheel(sdist, builder, work / version, folder)
    if not wheels:
        sys.exit(f"none of Python {', '.join(found)} was found")
    check([sdist, *wheels.values()])

    # Once more, elsewhere: the bytes must depend on the sources and the tools alone.
    again = work / "again" / "in" / "another" / "folder"
    again.mkdir(parents=True)
    version, wheel = next(iter(wheels.items()))
    builder = work / version / "builder" / "bin" / "python"
    second = build_sdist(sys.executable, commit, again, again / "built")
    built = {sdist: second, wheel: build_wheel(second, builder, again, second.parent)}
    for first, other in built.items():
        if hash_of(first) != hash_of(other):
            sys.exit(f"a second build of {first.name} has other bytes: compare it with {other}")
    print("a second build, in another folder, has the same bytes")

    source = work / "source"
    for version, wheel in wheels.items():
        for which in options.numpys:
            numpy = f"numpy=={OLDEST_NUMPY[version]}.*" if which == "oldest" else "numpy"
            test_wheel(wheel, numpy, found[version], source, work / version / which)
        test_compiled(wheel, found[version], source, work / version / "compiled")
    for wheel in wheels.values():
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, sha256 {hash_of(wheel)}")
    missing = [version for version, python in found.items() if python is None]
    if missing:
        print(f"not built, because they are not here: Python {', '.join(missing)}")


if __name__ == "__main__":
    main()
