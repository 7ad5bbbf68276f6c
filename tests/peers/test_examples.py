"""The examples beside scikit-learn and PyTorch run at a small size, and keep their promises."""

import re

import pytest
from scripts import load

pytestmark = pytest.mark.peers


@pytest.fixture
def logistic():
    """The script as a fresh module."""
    pytest.importorskip("sklearn")
    return load("logistic_regression")


@pytest.fixture(scope="module")
def text():
    """A part of the words of the language model."""
    vocabulary, words, held_out = load("corpus").words_of_documentation()
    return vocabulary, words[: 80 * 1024], held_out[: 2 * 1024]


@pytest.fixture
def language(text, monkeypatch):
    """The script as a fresh module, with a part of the words."""
    pytest.importorskip("torch")
    module = load("language_model")
    monkeypatch.setattr(module, "words_of_documentation", lambda: text)
    return module


def test_regressions_end_at_the_loss_of_scikit_learn(logistic, capsys):
    logistic.main(["--quick"])
    printed = capsys.readouterr().out
    fits = re.findall(r"(float\d\d) (\S+) +([\d.]+) s loss ([\d.]+) \+ (\S+), ", printed)
    assert len(fits) == 3 * 2 * 2  # problems, dtypes, libraries
    assert all(float(seconds) > 0 and float(above) <= 1e-6 for *_, seconds, _, above in fits)
    assert {way for _, way, *_ in fits} == {"cysoftmax", "scikit-learn"}


def test_a_regression_that_ends_too_early_is_an_error(logistic, monkeypatch):
    monkeypatch.setattr(logistic, "GRADIENT", 1e-2)
    with pytest.raises(SystemExit, match=r"digits: a loss is .* too high"):
        logistic.main(["--quick"])


def test_the_language_model_learns_alike_with_both_losses(language, tmp_path, capsys):
    path = tmp_path / "new folder" / "language.png"
    language.main(["--quick", "--output", str(path)])
    printed = capsys.readouterr().out
    times = re.findall(r"epoch +([\d.]+) s, (\d+)% of it the loss, .*perplexity ([\d.]+)", printed)
    assert len(times) == 2
    assert all(float(total) > 0 and 0 < int(share) < 100 for total, share, _ in times)
    assert float(times[0][2]) == pytest.approx(float(times[1][2]), rel=1e-3)
    assert float(re.search(r"of a loss or gradient: (\S+) ", printed)[1]) <= 4e-6
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [("TOLERANCE", -1.0, "differ by more than rounding"), ("MIN_GAIN", 100, "did not learn")],
)
def test_a_missed_promise_of_the_language_model_is_an_error(
    language, monkeypatch, tmp_path, limit, value, message
):
    monkeypatch.setattr(language, limit, value)
    with pytest.raises(SystemExit, match=message):
        language.main(["--quick", "--output", str(tmp_path / "language.png")])


def test_training_repeats_itself(language, text):
    vocabulary, words, _ = text
    batches = language.batches(words[: 3 * language.BATCH])
    losses = [
        [language.train("cysoftmax", *model, *batch)[0] for batch in batches]
        for model in (language.make_model(len(vocabulary)) for _ in range(2))
    ]
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]
