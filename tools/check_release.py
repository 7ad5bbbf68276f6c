"""Say what is missing before a release; `make check-release`, with TAG=v1.2.3 for a tag.

The version has one place, `cysoftmax/__init__.py`. The change log and the tag must agree with it.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def find(pattern, name):
    """Return the first group of a pattern in a file of the project."""
    match = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.M)
    return match[1] if match else ""


def faults(tag=""):
    """Return what is wrong: sentences, none if a release may be made."""
    version = find(r'^__version__ = "(.*)"$', "cysoftmax/__init__.py")
    changes = find(r"^## (.*)$", "CHANGELOG.md")
    wrong = []
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        wrong.append(f"the version must look like 1.2.3 or 1.2.3rc1; got {version!r}")
    if not re.fullmatch(re.escape(version) + r" \(\d{4}-\d\d-\d\d\)", changes):
        wrong.append(f"CHANGELOG.md must begin with '## {version} (YYYY-MM-DD)'; got {changes!r}")
    if not find(r'^ADDRESS = "(https://.+)"$', "setup.py"):
        wrong.append("setup.py needs the public ADDRESS of the repository")
    if tag and tag != f"v{version}":
        wrong.append(f"the tag must be v{version}; got {tag}")
    return wrong


if __name__ == "__main__":
    sys.exit("\n".join(faults(*sys.argv[1:])) or None)
