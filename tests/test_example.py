"""The examples without another library run, keep their promises and leave a picture."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scripts import FOLDER, load

pytest.importorskip("scipy")
pytest.importorskip("sklearn")
image = pytest.importorskip("matplotlib.image")


@pytest.fixture
def digits():
    """The script as a fresh module."""
    return load("digits")


def assert_picture(path):
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = image.imread(path)
    height, width = pixels.shape[:2]
    assert 500 <= height <= 2000
    assert 700 <= width <= 3000
    assert pixels[..., :3].std() > 0.05  # not a blank page


def test_digits_are_learned_and_drawn(digits, tmp_path, capsys):
    path = tmp_path / "new folder" / "digits.png"
    digits.main(["--output", str(path)])
    printed = capsys.readouterr().out

    accuracy = re.search(r"^test +loss \d\.\d+, accuracy (\d\.\d+) ", printed, re.MULTILINE)
    assert accuracy, printed
    assert 0.95 <= float(accuracy[1]) <= 1.0
    assert len(re.findall(r"^ +\d+1 +\d\.\d+ +\d\.\d+$", printed, re.MULTILINE)) > 3  # progress
    assert "difference from SciPy: loss " in printed
    assert f"picture: {path}" in printed.splitlines()

    assert_picture(path)


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [("MIN_TEST_ACCURACY", 1.01, "test accuracy"), ("TOLERANCE", -1.0, "differs from SciPy")],
)
def test_a_missed_promise_is_an_error(digits, monkeypatch, tmp_path, limit, value, message):
    monkeypatch.setattr(digits, limit, value)
    monkeypatch.setattr(digits, "time_loss_and_grad", lambda *_, **__: None)
    monkeypatch.setattr(digits, "draw", lambda *_, **__: None)
    with pytest.raises(SystemExit, match=message) as stop:
        digits.main(["--output", str(tmp_path / "digits.png")])
    assert isinstance(stop.value.code, str)  # a message, so the exit status is 1


class Files:
    """Logits and labels in two files, and a run of `examples/evaluate.py` on them."""

    def __init__(self, folder, n_rows=40_000, n_classes=1000):
        rng = np.random.default_rng(0)
        self.labels = rng.integers(0, n_classes, n_rows)
        self.logits = rng.standard_normal((n_rows, n_classes), dtype=np.float32)
        self.logits[np.arange(n_rows), self.labels] += rng.choice([0, 8], n_rows)
        self.logits = self.logits.astype(np.float16)
        self.names = folder / "logits.npy", folder / "labels.npy"
        self.picture = folder / "new folder" / "evaluate.png"
        for name, array in zip(self.names, (self.logits, self.labels), strict=True):
            np.save(name, array)

    def evaluate(self, *options, names=None):
        names = names or self.names
        script = [sys.executable, FOLDER / "evaluate.py", *names, "--output", self.picture]
        return subprocess.run([*script, *options], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    pytest.importorskip("tqdm")
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of memory is read from /proc")
    return Files(tmp_path_factory.mktemp("evaluate"))


def number(name, text):
    """Return the number after a name in a text."""
    return float(re.search(rf"{name}:? \(?(-?[\d.]+(e-?\d+)?)", text)[1])


def test_a_file_of_logits_is_evaluated_in_bounded_memory(files):
    run = files.evaluate()
    assert run.returncode == 0, run.stderr
    assert "100%" in run.stderr  # the bar
    logits = files.logits.astype(np.float64)
    p = np.exp(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    rows = np.arange(len(p))
    loss, sure = -np.log(p[rows, files.labels]).mean(), p.max(axis=1)
    right = p.argmax(axis=1) == files.labels
    error = sum(abs((right - sure)[sure * 15 // 1 == k].sum()) / len(p) for k in range(15))
    assert number("loss", run.stdout) == pytest.approx(loss, abs=1e-4)
    assert number("perplexity", run.stdout) == pytest.approx(np.exp(loss), abs=0.01)
    assert number("accuracy", run.stdout) == pytest.approx(right.mean(), abs=2e-4)  # ties
    assert number("mean probability", run.stdout) == pytest.approx(sure.mean(), abs=1e-4)
    assert number("expected calibration error", run.stdout) == pytest.approx(error, abs=2e-4)
    assert number("memory", run.stdout) < 32 < files.logits.nbytes / 2**20
    assert_picture(files.picture)


def test_a_block_as_large_as_the_file_needs_more_memory_than_is_allowed(files):
    run = files.evaluate("--block", str(files.logits.nbytes))
    assert run.returncode == 1
    assert run.stderr.endswith("error: the evaluation needed more memory than the limit\n")


def test_labels_of_other_rows_or_none_are_an_error(files, tmp_path):
    np.save(tmp_path / "longer.npy", np.append(files.labels, 0))
    run = files.evaluate(names=(files.names[0], tmp_path / "longer.npy"))
    assert run.returncode == 1
    assert "40000 rows of logits need as many labels; got 40001" in run.stderr
    run = files.evaluate(names=files.names[:1])
    assert run.returncode == 2
    assert "give the logits and the labels, or no file" in run.stderr


def test_the_logits_of_pairs_of_words_are_logarithms_of_probabilities(tmp_path):
    names = tmp_path / "logits.npy", tmp_path / "labels.npy"
    load("word_pairs").main([*map(str, names), "--rows", "50"])
    logits, labels = map(np.load, names)
    assert logits.dtype == np.float16
    assert logits.shape[0] == 50 == len(labels)
    np.testing.assert_allclose(np.exp(logits.astype(float)).sum(axis=1), 1, atol=5e-3)
    assert np.exp(-logits[np.arange(50), labels].astype(float).mean()) < logits.shape[1] / 4
