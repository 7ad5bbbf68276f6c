"""The example runs, shows its progress, learns, agrees with SciPy and leaves a picture."""

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

pytest.importorskip("scipy")
pytest.importorskip("sklearn")
image = pytest.importorskip("matplotlib.image")


@pytest.fixture
def digits():
    """The script as a fresh module."""
    path = Path(__file__).parents[1] / "examples" / "digits.py"
    spec = spec_from_file_location("digits", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = image.imread(path)
    height, width = pixels.shape[:2]
    assert 800 <= height <= 2000
    assert 1000 <= width <= 3000
    assert pixels[..., :3].std() > 0.05  # not a blank page


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
