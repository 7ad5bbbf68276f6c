"""cysoftmax.boosting: predictions of the built-in objectives, soft labels, and no copies."""

import copy
import pickle
import re
import subprocess
import sys
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from scripts import load

import cysoftmax
from cysoftmax.boosting import (
    lightgbm_metric,
    lightgbm_objective,
    xgboost_metric,
    xgboost_objective,
)

lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")
sklearn = pytest.importorskip("sklearn")
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.model_selection import GridSearchCV  # noqa: E402

pytestmark = [
    pytest.mark.peers,
    pytest.mark.filterwarnings("ignore:X does not have valid feature names"),
    pytest.mark.filterwarnings("ignore:Cannot compute class probabilities"),
]

ROOT = Path(__file__).parents[2]
N_CLASSES, N_ROUNDS = 10, 12
LGB = {
    "num_class": N_CLASSES, "num_leaves": 7, "deterministic": True, "force_row_wise": True,
    "num_threads": 1, "verbosity": -1,
}  # fmt: skip
XGB = {"num_class": N_CLASSES, "max_depth": 3, "nthread": 1, "seed": 0}
# LightGBM rounds derivatives to float32, XGBoost its scores as well.
TOLERANCE = {"lightgbm": 1e-6, "xgboost": 5e-6}
OBJECTIVES = {"lightgbm": lightgbm_objective, "xgboost": xgboost_objective}
METRICS = {"lightgbm": lightgbm_metric, "xgboost": xgboost_metric}

by_library = pytest.mark.parametrize("library", OBJECTIVES)


@pytest.fixture(scope="module")
def digits():
    """Pixels, labels and weights."""
    pixels, labels = load_digits(return_X_y=True)
    weight = np.random.default_rng(0).uniform(0.1, 3, len(labels))
    return pixels[:900], labels[:900], weight[:900]


def distributions(labels, seed=0):
    """Soft labels, most of whose mass is at a label."""
    noise = np.random.default_rng(seed).dirichlet(np.full(N_CLASSES, 0.5), len(labels))
    return 0.6 * np.eye(N_CLASSES)[labels] + 0.4 * noise


def train(library, objective, pixels, labels, weight=None, n_rounds=N_ROUNDS, **options):
    """Return the scores of the training data, by a library's own interface."""
    if library == "lightgbm":
        options = LGB | {"objective": objective, "boost_from_average": False} | options
        data = lightgbm.Dataset(pixels, labels, weight=weight)
        return lightgbm.train(options, data, n_rounds).predict(pixels, raw_score=True)
    data = xgboost.DMatrix(pixels, label=labels, weight=weight)
    options = XGB | {"base_score": 0.0} | options
    if isinstance(objective, str):
        booster = xgboost.train(options | {"objective": objective}, data, n_rounds)
    else:
        booster = xgboost.train(options, data, n_rounds, obj=objective)
    return booster.predict(data, output_margin=True)


def fit(library, objective, pixels, labels, weight=None, **options):
    """Return a fitted estimator for scikit-learn."""
    if library == "lightgbm":
        kind = lightgbm.LGBMClassifier
        common = {k: v for k, v in LGB.items() if k not in ("num_class", "num_threads")}
        common |= {"n_estimators": N_ROUNDS, "n_jobs": 1, "boost_from_average": False}
    else:
        kind = xgboost.XGBClassifier
        common = {"n_estimators": N_ROUNDS, "max_depth": 3, "n_jobs": 1, "base_score": 0.0}
    return kind(objective=objective, **common | options).fit(pixels, labels, sample_weight=weight)


def own(library):
    return {"lightgbm": "multiclass", "xgboost": "multi:softprob"}[library]


def close(library, ours, theirs):
    """Compare the probabilities of two arrays of scores."""
    np.testing.assert_allclose(
        cysoftmax.softmax(ours), cysoftmax.softmax(theirs), rtol=0, atol=TOLERANCE[library]
    )


# ---------------------------------------------------------------- the built-in objectives


@by_library
@pytest.mark.parametrize("weighted", [False, True])
def test_train_predicts_what_the_built_in_objective_does(library, weighted, digits):
    pixels, labels, weight = digits
    weight = weight if weighted else None
    theirs = train(library, own(library), pixels, labels, weight)
    close(library, train(library, OBJECTIVES[library](), pixels, labels, weight), theirs)
    exact = OBJECTIVES[library](hessian_factor=1)
    others = train(library, exact, pixels, labels, weight)
    assert np.abs(cysoftmax.softmax(others) - cysoftmax.softmax(theirs)).max() > 1e-3


@by_library
@pytest.mark.parametrize("weighted", [False, True])
def test_the_classifier_predicts_what_the_built_in_objective_does(library, weighted, digits):
    pixels, labels, weight = digits
    weight = weight if weighted else None
    theirs = fit(library, own(library), pixels, labels, weight)
    ours = fit(library, OBJECTIVES[library](), pixels, labels, weight)
    expected = theirs.predict_proba(pixels)
    if library == "lightgbm":  # which gives scores beside an objective that is a function
        found = cysoftmax.softmax(ours.predict(pixels))
    else:
        found = ours.predict_proba(pixels)
        np.testing.assert_array_equal(ours.predict(pixels), theirs.predict(pixels))
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[library])


def test_xgboost_predicts_probabilities_if_it_is_told_the_name_too(digits):
    pixels, labels, _ = digits
    data = xgboost.DMatrix(pixels, label=labels)
    options = XGB | {"objective": "multi:softprob"}
    frequency = np.bincount(labels) / len(labels)
    ours = xgboost.train(
        options | {"base_score": np.log(frequency).tolist()}, data, 5, obj=xgboost_objective()
    )
    theirs = xgboost.train(options, data, 5)  # from the frequencies, by default
    np.testing.assert_allclose(ours.predict(data), theirs.predict(data), rtol=0, atol=5e-6)


def test_lightgbm_starts_from_the_frequencies_by_init_score(digits):
    pixels, labels, _ = digits
    start = np.log(np.bincount(labels) / len(labels))
    data = lightgbm.Dataset(pixels, labels, init_score=np.tile(start, (len(labels), 1)))
    ours = lightgbm.train(LGB | {"objective": lightgbm_objective()}, data, 5)
    theirs = lightgbm.train(LGB | {"objective": "multiclass"}, lightgbm.Dataset(pixels, labels), 5)
    close("lightgbm", start + ours.predict(pixels), theirs.predict(pixels, raw_score=True))


@by_library
def test_two_classes_have_two_scores(library, digits):
    pixels, labels, _ = digits
    two = labels % 2
    options = {"num_class": 2}
    theirs = train(library, own(library), pixels, two, **options)
    close(library, train(library, OBJECTIVES[library](), pixels, two, **options), theirs)
    if library == "lightgbm":
        model = fit(library, lightgbm_objective(), pixels, two, metric="None", **options)
        close(library, model.predict(pixels), theirs)
    else:
        with pytest.raises(ValueError, match="num_class is the number of classes"):
            fit(library, xgboost_objective(), pixels, two)


def test_xgboost_without_a_name_predicts_classes(digits):
    pixels, labels, _ = digits
    data = xgboost.DMatrix(pixels, label=labels)
    booster = xgboost.train(XGB, data, 5, obj=xgboost_objective())
    scores = booster.predict(data, output_margin=True)
    np.testing.assert_array_equal(booster.predict(data), scores.argmax(axis=1))


@pytest.mark.parametrize("strategy", ["one_output_per_tree", "multi_output_tree"])
def test_xgboosts_forests_and_trees_of_vectors_take_it(strategy, digits):
    pixels, labels, _ = digits
    for kind in xgboost.XGBClassifier, xgboost.XGBRFClassifier:
        pair = [
            kind(
                objective=objective, n_estimators=4, max_depth=4, n_jobs=1, random_state=0,
                base_score=0.0, multi_strategy=strategy, tree_method="hist",
            ).fit(pixels, labels)
            for objective in ("multi:softprob", xgboost_objective())
        ]  # fmt: skip
        ours, theirs = (model.predict_proba(pixels) for model in pair)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=5e-6)


@by_library
def test_metric_is_the_built_in_one(library, digits):
    pixels, labels, weight = digits
    if library == "lightgbm":
        data, results = lightgbm.Dataset(pixels, labels, weight=weight), {}
        lightgbm.train(
            LGB | {"objective": lightgbm_objective(), "metric": "None"}, data, 6,
            valid_sets=[data], valid_names=["set"], feval=lightgbm_metric(),
            callbacks=[lightgbm.record_evaluation(results)],
        )  # fmt: skip
        found = results["set"]["cross_entropy"]
        lightgbm.train(
            LGB | {"objective": "multiclass", "boost_from_average": False}, data, 6,
            valid_sets=[data], valid_names=["set"],
            callbacks=[lightgbm.record_evaluation(results)],
        )  # fmt: skip
        expected = results["set"]["multi_logloss"]
    else:
        data, results = xgboost.DMatrix(pixels, label=labels, weight=weight), {}
        xgboost.train(
            XGB | {"objective": "multi:softprob"}, data, 6, obj=xgboost_objective(),
            evals=[(data, "set")], custom_metric=xgboost_metric(), evals_result=results,
            verbose_eval=False,
        )  # fmt: skip
        found, expected = results["set"]["cross_entropy"], results["set"]["mlogloss"]
    assert len(found) == 6
    np.testing.assert_allclose(found, expected, rtol=2e-6)


# ---------------------------------------------------------------- soft labels and options


@by_library
def test_distributions_give_the_same_as_copies_of_rows_with_weights(library):
    """A row of mass 0.75 at one class and 0.25 at another is two rows of these weights."""
    rng = np.random.default_rng(0)  # of no two equally good splits
    x, labels = rng.standard_normal((300, 4)), rng.integers(0, N_CLASSES, 300)
    q = 0.75 * np.eye(N_CLASSES)[labels] + 0.25 * np.eye(N_CLASSES)[(labels + 1) % N_CLASSES]
    copies = np.concatenate([x, x]), np.concatenate([labels, (labels + 1) % N_CLASSES])
    options = {
        "lightgbm": {
            "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 2, "min_data_in_bin": 1,
            "max_bin": 1000,
        },
        "xgboost": {"tree_method": "exact"},
    }[library]  # fmt: skip
    theirs = train(library, own(library), *copies, np.repeat([0.75, 0.25], 300), 4, **options)
    ours = train(library, OBJECTIVES[library](q), x, np.arange(300), n_rounds=4, **options)
    close(library, ours, theirs[:300])


def test_xgboost_takes_distributions_as_labels(digits):
    pixels, labels, weight = digits
    q = distributions(labels)
    by_table = train("xgboost", xgboost_objective(q), pixels, np.arange(len(q)), weight)
    data = xgboost.DMatrix(pixels, label=q, weight=weight)
    options = XGB | {"base_score": 0.0}
    del options["num_class"]  # the shape of the labels says it
    booster = xgboost.train(options, data, N_ROUNDS, obj=xgboost_objective())
    close("xgboost", booster.predict(data), by_table)
    model = xgboost.XGBRegressor(
        objective=xgboost_objective(), n_estimators=N_ROUNDS, max_depth=3, n_jobs=1, base_score=0.0
    ).fit(pixels, q, sample_weight=weight)
    close("xgboost", model.predict(pixels), by_table)


def test_lightgbms_estimators_take_distributions(digits):
    pixels, labels, weight = digits
    q = distributions(labels)
    expected = train("lightgbm", lightgbm_objective(q), pixels, np.arange(len(q)), weight)
    options = {k: v for k, v in LGB.items() if k != "num_threads"}
    model = lightgbm.LGBMRegressor(
        objective=lightgbm_objective(q), n_estimators=N_ROUNDS, n_jobs=1, metric="None", **options
    ).fit(pixels, np.arange(len(q)), sample_weight=weight)
    close("lightgbm", model.predict(pixels), expected)


@by_library
def test_a_table_may_say_what_each_class_means(library, digits):
    """One distribution for each class is label smoothing of any shape."""
    pixels, labels, _ = digits
    table = np.full((N_CLASSES, N_CLASSES), 0.2 / N_CLASSES) + 0.8 * np.eye(N_CLASSES)
    smooth = train(library, OBJECTIVES[library](label_smoothing=0.2), pixels, labels)
    close(library, train(library, OBJECTIVES[library](table), pixels, labels), smooth)


@by_library
def test_class_weights_and_ignored_labels_are_weights_of_the_rows(library, digits):
    pixels, labels, weight = digits
    w = np.linspace(0.5, 2, N_CLASSES)
    some = labels.copy()
    some[::7] = -100
    objective = OBJECTIVES[library](class_weight=w, ignore_index=-100)
    rows = np.where(some == -100, 0, weight * w[labels])
    theirs = train(library, own(library), pixels, labels, rows)
    close(library, train(library, objective, pixels, some, weight), theirs)


@by_library
def test_options_mean_what_they_mean_in_cysoftmax(library):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((50, 4)).astype(np.float32)
    labels, weight = rng.integers(0, 4, 50).astype(np.float32), rng.uniform(0, 2, 50)
    options = {"class_weight": [1.0, 2.0, 0.5, 1.5], "label_smoothing": 0.3}
    grad, hess = OBJECTIVES[library](**options, hessian_factor=3)(labels, scores, weight)
    expected = cysoftmax.cross_entropy_grad_hess(
        scores, labels.astype(int), sample_weight=weight, **options
    )
    np.testing.assert_array_equal(grad, expected.grad)
    np.testing.assert_allclose(hess, 3 * expected.hess, rtol=1e-6)
    result = METRICS[library](**options)(labels, scores, weight)
    loss = cysoftmax.cross_entropy(scores, labels.astype(int), sample_weight=weight, **options)
    assert result == (loss if library == "xgboost" else ("cross_entropy", loss, False))


def test_an_entry_of_xgboosts_hessian_is_never_zero():
    scores = np.float32([[200, 0, 0], [0, 0, 0]])
    _, hess = xgboost_objective(ignore_index=-1)(np.float32([0, -1]), scores)
    np.testing.assert_array_equal(hess, np.full((2, 3), np.float32(1e-16)))
    _, hess = lightgbm_objective(ignore_index=-1)(np.float32([0, -1]), scores)
    np.testing.assert_array_equal(hess, np.zeros((2, 3)))


# ---------------------------------------------------------------- in the libraries' machinery


@by_library
def test_early_stopping_follows_the_soft_loss_of_a_validation_set(library, digits):
    pixels, labels, _ = digits
    q = distributions(labels, seed=1)
    rows = np.arange(len(q))
    fitted, held = rows[:500], rows[500:]
    objective, metric = OBJECTIVES[library](q), METRICS[library](q)
    if library == "lightgbm":
        results = {}
        model = lightgbm.LGBMRegressor(
            objective=objective, n_estimators=300, num_class=N_CLASSES, learning_rate=0.3,
            n_jobs=1, verbosity=-1, num_leaves=7, metric="None",
        ).fit(
            pixels[fitted], fitted, eval_X=pixels[held], eval_y=held, eval_metric=metric,
            callbacks=[lightgbm.early_stopping(5, verbose=False),
                       lightgbm.record_evaluation(results)],
        )  # fmt: skip
        best = model.best_iteration_
        losses = results["valid_0"]["cross_entropy"]
        scores = model.predict(pixels[held])
    else:
        model = xgboost.XGBRegressor(
            objective=xgboost_objective(),
            eval_metric=xgboost_metric(),
            n_estimators=300,
            early_stopping_rounds=5,
            max_depth=3,
            n_jobs=1,
            disable_default_eval_metric=1,
        ).fit(pixels[fitted], q[fitted], eval_set=[(pixels[held], q[held])], verbose=False)
        best = model.best_iteration + 1
        losses = model.evals_result()["validation_0"]["cross_entropy"]
        scores = model.predict(pixels[held])
    assert 5 < best < 295
    assert best == int(np.argmin(losses)) + 1 == len(losses) - 5
    assert min(losses) == pytest.approx(cysoftmax.cross_entropy(scores, q[held]), rel=1e-5)


@by_library
def test_folds_keep_their_distributions(library, digits):
    pixels, labels, _ = digits
    q = distributions(labels)
    rows = np.arange(len(q))
    fold = rows % 3 == 0
    folds = [(rows[~fold], rows[fold])]
    objective, metric = OBJECTIVES[library](q), METRICS[library](q)
    if library == "lightgbm":
        data = lightgbm.Dataset(pixels, rows, free_raw_data=False)
        options = LGB | {"objective": objective, "metric": "None"}
        results = lightgbm.cv(options, data, 5, folds=folds, feval=metric)
        found = results["valid cross_entropy-mean"]
        booster = lightgbm.train(options, lightgbm.Dataset(pixels[~fold], rows[~fold]), 5)
        scores = booster.predict(pixels[fold])
    else:
        data = xgboost.DMatrix(pixels, label=rows)
        options = XGB | {"disable_default_eval_metric": 1}
        results = xgboost.cv(
            options, data, 5, folds=folds, obj=objective, custom_metric=metric, as_pandas=False
        )
        found = results["test-cross_entropy-mean"]
        data = xgboost.DMatrix(pixels[~fold], label=rows[~fold])
        booster = xgboost.train(options, data, 5, obj=objective)
        scores = booster.predict(xgboost.DMatrix(pixels[fold]), output_margin=True)
    # (LightGBM's folds share the bins of the whole.)
    assert found[-1] == pytest.approx(cysoftmax.cross_entropy(scores, q[fold]), rel=0.02)
    assert found[-1] < found[0]


@by_library
def test_estimators_with_it_are_cloned_pickled_and_searched(library, digits):
    pixels, labels, _ = digits
    objective = OBJECTIVES[library](label_smoothing=0.1)
    model = fit(library, objective, pixels, labels)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(pixels), model.predict(pixels))
    fresh = sklearn.base.clone(again)
    assert fresh.get_params()["objective"] is again.get_params()["objective"]
    assert repr(fresh.get_params()["objective"]) == f"{library}_objective(label_smoothing=0.1)"
    np.testing.assert_array_equal(fresh.fit(pixels, labels).predict(pixels), model.predict(pixels))

    def loss(model, pixels, labels):
        options = {"output_margin": True} if library == "xgboost" else {}
        scores = model.predict(pixels, **options)
        return -cysoftmax.cross_entropy(scores, labels)

    choices = [OBJECTIVES[library](label_smoothing=e) for e in (0.0, 0.9)]
    search = GridSearchCV(fresh, {"objective": choices}, scoring=loss, cv=2).fit(pixels, labels)
    assert search.best_params_["objective"] is choices[0]


@by_library
@pytest.mark.parametrize("table", [None, np.eye(3)])
def test_objectives_and_metrics_can_be_pickled_and_copied(library, table):
    labels, scores = np.float32([0, 2]), np.float32([[1, 2, 3], [0, 1, 0]])
    options = {"label_smoothing": 0.1, "class_weight": [1.0, 2.0, 3.0], "n_threads": 1}
    objective = OBJECTIVES[library](table, hessian_factor=1.5, **options)
    metric = METRICS[library](table, **options)
    expected = [array.copy() for array in objective(labels, scores)]
    again, its_metric = pickle.loads(pickle.dumps((objective, metric)))
    np.testing.assert_array_equal(again(labels, scores), expected)
    assert again.n_threads == 1
    assert its_metric(labels, scores) == metric(labels, scores)
    for same in copy.copy, copy.deepcopy:
        assert same(objective) is objective
        assert same(metric) is metric


# ---------------------------------------------------------------- layouts, memory, threads


def big_scores(library, n_rows=120_000, n_classes=10):
    scores = np.random.default_rng(0).standard_normal((n_classes, n_rows))
    return scores.T if library == "lightgbm" else scores.T.astype(np.float32, order="C")


@by_library
def test_scores_are_read_and_results_are_written_without_a_copy(library):
    scores = big_scores(library)
    labels = (np.arange(len(scores)) % 10).astype(np.float32)
    objective = OBJECTIVES[library](n_threads=1)
    first = objective(labels, scores)
    tracemalloc.start()
    try:
        second = objective(labels, scores)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**21  # two arrays of half a MiB, and small ones
    for before, after in zip(first, second, strict=True):
        assert np.shares_memory(before, after)
        assert after.dtype == np.float32
        # What the libraries take of it.
        order = "F" if library == "lightgbm" else "C"
        assert np.shares_memory(after, after.ravel(order=order))


@by_library
def test_each_thread_has_results_of_its_own(library):
    scores = big_scores(library, 1000)
    labels = np.zeros(1000, np.float32)
    objective = OBJECTIVES[library]()
    here, there = objective(labels, scores), []
    thread = threading.Thread(target=lambda: there.extend(objective(labels, scores)))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(here, there)
    assert not np.shares_memory(here[0], there[0])


@by_library
def test_threads_and_smaller_data_change_no_bit(library):
    scores = big_scores(library)
    labels = (np.arange(len(scores)) % 10).astype(np.float32)
    weight = np.random.default_rng(1).uniform(0, 2, len(scores)).astype(np.float32)
    expected = OBJECTIVES[library](n_threads=1)(labels, scores, weight)
    objective = OBJECTIVES[library](n_threads=3)
    np.testing.assert_array_equal(objective(labels, scores, weight), expected)
    few = slice(0, 77)
    found = objective(labels[few], scores[few], weight[few])
    np.testing.assert_array_equal(found, [array[few] for array in expected])


def test_flat_scores_of_older_lightgbm_are_read_class_by_class():
    scores = big_scores("lightgbm", 50)
    labels = (np.arange(50) % 10).astype(np.float32)
    expected = [array.copy() for array in lightgbm_objective()(labels, scores)]
    found = lightgbm_objective()(labels, scores.ravel(order="F"))
    for array, matrix in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array, matrix.ravel(order="F"))
    assert lightgbm_metric()(labels, scores.ravel(order="F")) == lightgbm_metric()(labels, scores)


def test_neither_library_is_imported():
    code = (
        "import sys, cysoftmax; assert 'cysoftmax.boosting' not in sys.modules; "
        "import cysoftmax.boosting; print({'xgboost', 'lightgbm'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# ---------------------------------------------------------------- the example, and the page


@pytest.fixture
def example():
    """The script as a fresh module."""
    return load("boosting")


def test_soft_labels_come_closer_to_the_votes(example, capsys):
    example.main()
    printed = capsys.readouterr().out
    bound = float(re.search(r"lower bound: (\S+)", printed)[1])
    losses = re.findall(r"majority (\d\.\d+); ours, soft labels (\d\.\d+)", printed)
    assert len(losses) == 2
    for hard, soft in losses:
        assert bound < float(soft) < float(hard) - 0.3


@pytest.mark.parametrize(
    ("constant", "value", "message"),
    [("TOLERANCE", -1.0, "predictions differ"), ("LEAST_GAIN", 1.0, "gained too little")],
)
def test_a_missed_promise_of_the_example_is_an_error(
    example, monkeypatch, constant, value, message
):
    monkeypatch.setattr(example, constant, value)
    monkeypatch.setattr(example, "N_ROUNDS", 20)
    with pytest.raises(SystemExit, match=message):
        example.main()


def test_the_code_of_the_page_runs(digits):
    page = (ROOT / "docs" / "frameworks.md").read_text(encoding="utf-8")
    section = page.partition("\n## XGBoost and LightGBM\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 3
    pixels, labels, _ = digits
    names = {"X": pixels, "y": labels, "Q": distributions(labels), "np": np}
    with warnings.catch_warnings(action="ignore"):
        for block in blocks:
            exec(block, names)
    for name in "soft", "also_soft":
        assert cysoftmax.cross_entropy(names[name], names["Q"]) < 2


# ---------------------------------------------------------------- errors

ROWS = np.zeros((4, 3), np.float32)


@by_library
@pytest.mark.parametrize(
    ("options", "labels", "error", "message"),
    [
        ({}, [0, 1, 2, 3], IndexError, "3"),
        ({}, [0, 1, -1, 2], IndexError, "-1"),
        ({}, [0, 1, 0.5, 2], ValueError, r"labels must be integers of 32 bits; got 0.5 in row 2"),
        ({}, [0, np.nan, 1, 2], ValueError, "got nan in row 1"),
        ({}, [0, 1, 2], ValueError, "4 labels, one for each row; got 3"),
        ({}, np.zeros((4, 2)), ValueError, r"shape \(4,\) or \(4, 3\); got \(4, 2\)"),
        ({"distributions": np.eye(3)}, np.zeros((4, 3)), ValueError, r"\(4,\); got \(4, 3\)"),
        ({"distributions": np.eye(3)}, [0, 1, 2, 3], IndexError, r"\[0, 3\); got .* \[0, 3\]"),
        ({"distributions": np.eye(4)}, [0, 1, 2, 3], ValueError, r"shape \(n, 3\).*got \(4, 4\)"),
        ({"distributions": ROWS}, [0, 1, 2, 1], ValueError, "below 3, like classes"),
        ({"distributions": np.eye(9, 3)}, [0, 1, 2, 1], ValueError, "below 3, like classes"),
    ],
)
def test_wrong_labels_are_errors(library, options, labels, error, message):
    for kind in OBJECTIVES, METRICS:
        with pytest.raises(error, match=message):
            kind[library](**options)(np.float32(labels), ROWS)


@by_library
def test_weights_are_one_for_each_row(library):
    for n in 1, 5:
        for kind in OBJECTIVES, METRICS:
            with pytest.raises(ValueError, match=rf"weights must have shape \(4,\).*\({n},\)"):
                kind[library]()(np.zeros(4, np.float32), ROWS, np.ones(n))


@by_library
def test_a_bad_label_of_a_later_block_is_found_in_its_row(library):
    labels = np.zeros(40_000, np.float32)
    labels[39_999] = 7
    with pytest.raises(IndexError, match=r"got 7 at index .* from row") as found:
        OBJECTIVES[library]()(labels, np.zeros((40_000, 4), np.float32))
    at = re.search(r"index \((\d+),\).* from row (\d+) on", str(found.value))
    assert int(at[1]) + int(at[2]) == 39_999


def test_a_metric_of_no_rows_is_nan():
    scores = np.zeros((0, 3), np.float32)
    assert np.isnan(xgboost_metric(np.eye(3))(np.zeros(0, np.float32), scores))


@by_library
def test_scores_of_one_class_are_an_error(library):
    for scores in np.zeros(4), np.zeros((4, 1)):
        with pytest.raises(ValueError, match="num_class is the number of classes"):
            OBJECTIVES[library]()(np.zeros(4), scores)


@pytest.mark.parametrize("make", [*OBJECTIVES.values(), *METRICS.values()])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing"),
        ({"class_weight": "balanced"}, TypeError, "class_weight"),
        ({"class_weight": [1.0, -1.0]}, ValueError, "class_weight"),
        ({"n_threads": 0}, ValueError, "n_threads"),
        ({"distributions": np.zeros(3)}, ValueError, r"got \(3,\)"),
        ({"distributions": [["a", "b"]]}, TypeError, "numbers"),
        ({"distributions": np.broadcast_to(0.5, (2**24 + 1, 2))}, ValueError, "16777217"),
        ({"distributions": np.eye(3), "ignore_index": -1}, ValueError, "ignore_index"),
    ],
)
def test_wrong_options_are_errors_at_once(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


@by_library
@pytest.mark.parametrize("factor", [0, -1, np.inf, np.nan])
def test_a_wrong_hessian_factor_is_an_error(library, factor):
    with pytest.raises(ValueError, match="hessian_factor must be positive and finite"):
        OBJECTIVES[library](hessian_factor=factor)


@by_library
def test_wrong_labels_reach_the_caller_of_train(library, digits):
    pixels, labels, _ = digits
    with pytest.raises(IndexError, match="10"):
        train(library, OBJECTIVES[library](), pixels, labels + 1)
    q = distributions(labels)
    with pytest.raises(ValueError, match=r"np.arange\(900\)"):
        train(library, OBJECTIVES[library](q), pixels, labels)
