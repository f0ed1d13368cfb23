"""Handwritten digits as an Optuna objective: a linear classifier of scikit-learn, a second per trial, without PyTorch.

It runs as it is with Optuna alone, too:

    optuna.create_study(direction="maximize").optimize(objective, n_trials=20)
"""

import os
from pathlib import Path

import joblib
import numpy as np
import optuna
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.model_selection import train_test_split

EPOCHS = 10
BRIGHTEST = 16.0


def objective(trial: optuna.Trial) -> float:
    """The share of held-out images that are recognised; it is reported after each epoch, and bad trials are pruned."""
    classifier = SGDClassifier(
        loss=trial.suggest_categorical("loss", ["hinge", "log_loss", "modified_huber"]),
        alpha=trial.suggest_float("alpha", 1e-6, 1e-1, log=True),
        average=trial.suggest_categorical("average", [False, True]),
        random_state=0,
    )
    images, labels = load_digits(return_X_y=True)
    # The split must not follow the trial's seed, or trials would be judged on different images.
    training, validation, targets, answers = train_test_split(images / BRIGHTEST, labels, random_state=0)
    accuracy = 0.0
    for epoch in range(EPOCHS):
        classifier.partial_fit(training, targets, classes=np.unique(labels))
        accuracy = float(classifier.score(validation, answers))
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    if folder := os.environ.get("TUNING_TRIAL_CHECKPOINTS"):
        joblib.dump(classifier, Path(folder) / "classifier.joblib")
    return accuracy
