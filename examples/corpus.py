"""Text that every installation of Python has, cut into words or passages for the examples."""

import ast
import re
import sysconfig
import warnings
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics  # the language reference, as `help("if")` shows it

import numpy as np

LIBRARY = Path(sysconfig.get_path("stdlib"))
NOT_PROGRAMS = {"site-packages", "dist-packages", "pydoc_data", "encodings", "test", "tests"}
UNKNOWN = "<unknown>"  # the word of index 0: any that is too rare, and the end of a text
HELD_OUT = 10  # each tenth text is not for training
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def docstrings(path):
    """Return the docstrings of a module as one text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of literals that a later Python will refuse
        nodes = [
            node for node in ast.walk(ast.parse(path.read_bytes())) if type(node) in DOCUMENTED
        ]
    return "\n".join(ast.get_docstring(node) or "" for node in nodes)


def words_of_documentation(least=2):
    """Return the vocabulary, and the indices of the words for training and of those held out.

    The texts are Python's language reference and the docstrings of its modules. A word is a run of
    letters, a number, or a sign, and unknown if the texts for training have it less than `least`
    times.
    """
    texts = [topics[name] for name in sorted(topics)]
    texts += [docstrings(path) for path in sorted(LIBRARY.glob("*.py"))]
    texts = [re.findall(r"[a-z]+|\d+|[^\w\s]", text.lower()) for text in texts]
    train = [text for k, text in enumerate(texts) if k % HELD_OUT]
    counts = Counter(word for text in train for word in text)
    vocabulary = [UNKNOWN, *sorted(word for word, count in counts.items() if count >= least)]
    index = {word: k for k, word in enumerate(vocabulary)}
    return vocabulary, *(
        np.array([index.get(word, 0) for text in part for word in [*text, UNKNOWN]])
        for part in (train, texts[::HELD_OUT])
    )


def passages_of_programs(n_packages, n_lines=10):
    """Return passages of some lines of Python's library, the package number of each, and the names.

    The packages are those with the most lines of Python.
    """
    packages = {
        folder.name: "".join(
            path.read_text(encoding="utf-8", errors="replace")
            for path in sorted(folder.rglob("*.py"))
            if not NOT_PROGRAMS & set(path.relative_to(LIBRARY).parts)
        ).splitlines()
        for folder in LIBRARY.iterdir()
        if folder.is_dir() and folder.name not in NOT_PROGRAMS
    }
    names = sorted(packages, key=lambda name: (-len(packages[name]), name))[:n_packages]
    passages = [
        "\n".join(packages[name][k : k + n_lines])
        for name in names
        for k in range(0, len(packages[name]), n_lines)
    ]
    sizes = [-(-len(packages[name]) // n_lines) for name in names]
    return passages, np.repeat(np.arange(len(names)), sizes), names
