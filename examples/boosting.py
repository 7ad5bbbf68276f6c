"""Boosting on soft labels: what share of a group of people reads a digit as a 4, and what as a 9?

The digits are real, and their readers are simulated: seven for each digit, who often take some
classes for others. A model shall predict their votes for digits that it has not seen. The
objectives of LightGBM and XGBoost take one class for each row: the majority's, which says nothing
about a minority. (Copies of a row, one for each class with a vote, would say it with several times
the rows.) Those of `cysoftmax.boosting` take the shares of the votes as they are.

The script exits with an error if soft labels do not bring the loss closer to its lower bound, or
if the objectives of cysoftmax, given the majority's class, predict other probabilities than the
libraries' own.
"""

import lightgbm
import numpy as np
import xgboost
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import cysoftmax
from cysoftmax.boosting import lightgbm_objective, xgboost_objective

SEED = 0  # of the votes, and of the split into training and test digits
N_CLASSES, N_READERS, N_ROUNDS = 10, 7, 100
TAKEN_FOR = {1: 7, 3: 8, 4: 9, 5: 6}  # by a reader, with this probability, and the reverse:
PROBABILITY = 0.35
LIGHTGBM = {
    "num_class": N_CLASSES, "num_leaves": 7, "learning_rate": 0.1, "verbosity": -1,
    "boost_from_average": False,  # "multiclass" starts from the frequencies, a function does not
    "deterministic": True, "force_row_wise": True, "num_threads": 1,
}  # fmt: skip
XGBOOST = {
    "num_class": N_CLASSES, "max_depth": 3, "learning_rate": 0.2, "nthread": 1,
    "base_score": 0.0,  # as above
}  # fmt: skip
LEAST_GAIN = 0.5  # of the distance between the hard labels' loss and the lower bound
TOLERANCE = 1e-4  # largest difference of a probability: derivatives and scores are float32


def votes_of_readers(labels):
    """Return the chances of each vote, and the shares of the votes, as (n_digits, n_classes)."""
    reading = np.eye(N_CLASSES)
    for a, b in TAKEN_FOR.items():
        reading[[a, b], [a, b]] = 1 - PROBABILITY
        reading[[a, b], [b, a]] = PROBABILITY
    chances = reading[labels]
    return chances, np.random.default_rng(SEED).multinomial(N_READERS, chances) / N_READERS


def fit_lightgbm(objective, pixels, labels, unseen):
    """Return scores of unseen digits; the objective is a name or a function."""
    data = lightgbm.Dataset(pixels, labels)
    booster = lightgbm.train(LIGHTGBM | {"objective": objective}, data, N_ROUNDS)
    return booster.predict(unseen, raw_score=True)


def fit_xgboost(objective, pixels, labels, unseen):
    """Return scores of unseen digits; the objective is a name or a function."""
    data, options, function = xgboost.DMatrix(pixels, label=labels), XGBOOST, None
    if callable(objective):
        function = objective
    else:
        options = XGBOOST | {"objective": objective}
    if labels.ndim == 2:  # whose shape says how many classes there are
        options = {key: value for key, value in options.items() if key != "num_class"}
    booster = xgboost.train(options, data, N_ROUNDS, obj=function)
    return booster.predict(xgboost.DMatrix(unseen), output_margin=True)


def main():
    """Train with hard and soft labels, and compare the losses against the votes."""
    pixels, labels = load_digits(return_X_y=True)
    chances, votes = votes_of_readers(labels)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=0.4, stratify=labels, random_state=SEED
    )
    majority = votes[train].argmax(axis=1)
    given, unseen = pixels[train], pixels[test]
    # The loss of a model that knows the chances of each reading (a class without votes costs 0).
    with np.errstate(divide="ignore"):
        bound = cysoftmax.cross_entropy(np.log(chances[test]), votes[test])
    print(f"{len(train)} digits with {N_READERS} votes each; loss against the votes of {len(test)}")
    print(f"lower bound: {bound:.3f} (a model that knows how readers err)")

    ways = {
        # In LightGBM, a label is the number of a row's distribution; XGBoost takes distributions.
        "LightGBM": (
            fit_lightgbm, "multiclass", lightgbm_objective(),
            lightgbm_objective(votes[train]), np.arange(len(train)),
        ),
        "XGBoost": (
            fit_xgboost, "multi:softprob", xgboost_objective(),
            xgboost_objective(), votes[train],
        ),
    }  # fmt: skip
    for name, (fit, own, objective, soft_objective, soft_labels) in ways.items():
        theirs = fit(own, given, majority, unseen)
        ours = fit(objective, given, majority, unseen)
        soft = fit(soft_objective, given, soft_labels, unseen)
        hard_loss, loss = (
            cysoftmax.cross_entropy(scores, votes[test]) for scores in (theirs, soft)
        )
        difference = np.abs(cysoftmax.softmax(ours) - cysoftmax.softmax(theirs)).max()
        print(f"{name:9} its objective, majority {hard_loss:.3f}; ours, soft labels {loss:.3f}")
        print(f"{'':9} ours, majority: probabilities differ by {difference:.1e} from its own")
        if not difference <= TOLERANCE:  # true for NaN, too
            raise SystemExit(f"error: predictions differ from those of {name}'s own objective")
        if not hard_loss - loss >= LEAST_GAIN * (hard_loss - bound):
            raise SystemExit(f"error: soft labels gained too little with {name}")


if __name__ == "__main__":
    main()
