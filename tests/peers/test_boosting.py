"""The objective for LightGBM predicts what LightGBM's own does, and copies no scores."""

import re
import tracemalloc
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lightgbm")
load_digits = pytest.importorskip("sklearn.datasets").load_digits

pytestmark = pytest.mark.peers


@pytest.fixture
def boosting():
    """The script as a fresh module."""
    path = Path(__file__).parents[2] / "examples" / "boosting.py"
    spec = spec_from_file_location("boosting", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_digits_are_learned_as_with_lightgbms_own_objective(boosting, capsys):
    boosting.main()
    printed = capsys.readouterr().out
    accuracies = re.findall(r"test accuracy (\d\.\d+), loss (\d\.\d+)", printed)
    assert len(accuracies) == 2
    assert accuracies[0] == accuracies[1]
    assert 0.95 <= float(accuracies[0][0]) <= 1.0
    difference = re.search(r"^largest difference of a probability: (\S+) ", printed, re.MULTILINE)
    assert float(difference[1]) <= 1e-6


def test_weights_of_the_rows_count_as_with_lightgbms_own_objective(boosting):
    pixels, labels = load_digits(return_X_y=True)
    weight = np.random.default_rng(0).uniform(0.1, 3, len(labels))
    theirs = boosting.fit("multiclass", pixels, labels, weight).predict(pixels, raw_score=True)
    ours = boosting.fit(boosting.multiclass(labels), pixels, labels, weight).predict(pixels)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    without = boosting.fit(boosting.multiclass(labels), pixels, labels).predict(pixels)
    assert np.abs(without - theirs).max() > 0.1


@pytest.mark.parametrize(
    ("constant", "value", "message"),
    [("HESSIAN_FACTOR", 1.0, "predictions differ"), ("MIN_TEST_ACCURACY", 1.01, "accuracy")],
)
def test_a_missed_promise_is_an_error(boosting, monkeypatch, constant, value, message):
    monkeypatch.setattr(boosting, constant, value)
    with pytest.raises(SystemExit, match=message):
        boosting.main()


def test_the_scores_are_read_and_the_gradient_is_written_without_a_copy(boosting):
    n_rows = 50_000
    labels = np.arange(n_rows) % 10
    scores = np.random.default_rng(0).standard_normal((10, n_rows)).T  # as LightGBM's are
    data = SimpleNamespace(get_weight=lambda: None)
    objective = boosting.multiclass(labels)
    first = objective(scores, data)
    tracemalloc.start()
    try:
        second = objective(scores, data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < scores.nbytes / 20
    for before, after in zip(first, second, strict=True):
        assert np.shares_memory(before, after)
        assert np.shares_memory(after, after.ravel(order="F"))  # what LightGBM takes of it
