"""Objectives in the shapes that Optuna's documentation teaches, each as a person would write it, on scikit-learn's own data.

A choice between models, each with parameters of its own; a training that reports and prunes, with as many parameters as
it has layers; and two values at a time.
"""

import optuna
import sklearn.datasets
import sklearn.model_selection
import sklearn.neural_network
import sklearn.svm
import sklearn.tree


def choose_a_model(trial: optuna.Trial) -> float:
    """The parameters depend on a choice."""
    flowers, kinds = sklearn.datasets.load_iris(return_X_y=True)
    if trial.suggest_categorical("model", ["svc", "tree"]) == "svc":
        model = sklearn.svm.SVC(C=trial.suggest_float("svc_c", 1e-6, 1e6, log=True), gamma="auto")
    else:
        model = sklearn.tree.DecisionTreeClassifier(max_depth=trial.suggest_int("tree_depth", 1, 16, log=True))
    return float(sklearn.model_selection.cross_val_score(model, flowers, kinds, cv=3).mean())


def train_and_prune(trial: optuna.Trial) -> float:
    """The parameters' names are made in a loop."""
    digits, kinds = sklearn.datasets.load_digits(return_X_y=True)
    train, valid, train_kinds, valid_kinds = sklearn.model_selection.train_test_split(digits, kinds, random_state=0)
    layers = [trial.suggest_int(f"units_{place}", 4, 32) for place in range(trial.suggest_int("layers", 1, 3))]
    rate = trial.suggest_float("rate", 1e-5, 1e-1, log=True)
    model = sklearn.neural_network.MLPClassifier(layers, learning_rate_init=rate, random_state=0)
    accuracy = 0.0
    for epoch in range(6):
        model.partial_fit(train, train_kinds, classes=range(10))
        accuracy = float(model.score(valid, valid_kinds))
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return accuracy


def small_and_good(trial: optuna.Trial) -> tuple[float, float]:
    """A tree with few leaves that is right."""
    flowers, kinds = sklearn.datasets.load_iris(return_X_y=True)
    model = sklearn.tree.DecisionTreeClassifier(max_leaf_nodes=trial.suggest_int("leaves", 2, 12), random_state=0)
    accuracy = sklearn.model_selection.cross_val_score(model, flowers, kinds, cv=3).mean()
    return float(model.fit(flowers, kinds).get_n_leaves()), float(accuracy)


if __name__ == "__main__":
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner())
    study.optimize(train_and_prune, n_trials=20)
