"""What pruning is worth: the same study with the median pruner and with none, over several seeds.

Each study is run by `tuningstudy run`, as a person would; what is compared is in its status: epochs, not seconds, since
times on a shared machine drift. A seed is the study's: it chooses the parameters and the random numbers of each trial.
With two workers, which trials the sampler and the pruner know by then depends on timing, so the seeds' spread is shown.

    python -m bench.pruning FILE COMMIT    puts the studies of a file in place of those of the same tasks in the results
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from bench import results
from bench.aim import Aim, spread
from bench.conditions import ROOT

Document = dict[str, Any]

TITLE = "What pruning is worth"
ABOUT = """\
The same study with the median pruner and with none, at equal numbers of trials, over several seeds, as `tuningstudy run` does.
Compared are epochs and best values. With two workers the order in which trials end differs from run to run, and so do the
figures of one seed. The digits are the sample `manifests/samples/digits.yaml` as it is (median pruner from the third epoch on,
after five complete trials); its validation set has 449 images, so that a difference of 0.0022 is one of them. `LONGER=1` adds
the glosses on a slice that a CPU trains in seconds, and takes five seeds instead of three.
"""
SAMPLES = ROOT / "manifests" / "samples"
SECONDS_PER_STUDY = 1800
NO_PRUNER = {"type": "none"}


@dataclass(frozen=True)
class Study:
    """What one study spent and found."""

    task: str
    seed: int
    pruned: bool
    trials: int
    trials_pruned: int | None
    """None where nobody wrote it down."""
    epochs: int
    best: float


@dataclass(frozen=True)
class Pair:
    """A seed with and without pruning."""

    seed: int
    epochs_without: int
    epochs_with: int
    best_without: float
    best_with: float

    @property
    def saved(self) -> float:
        """The share of epochs that pruning saved."""
        return 1 - self.epochs_with / self.epochs_without

    @property
    def gain(self) -> float:
        """How much better the best value is with pruning; negative: worse."""
        return self.best_with - self.best_without


def digits() -> Document:
    """The sample as it is."""
    document: Document = yaml.safe_load((SAMPLES / "digits.yaml").read_text())
    return document


def glosses() -> Document:
    """The sample on a slice that a CPU trains in seconds: 2,000 glosses, small layers, six epochs, twenty trials."""
    document: Document = yaml.safe_load((SAMPLES / "glosses.yaml").read_text())
    spec = document["spec"]
    narrow = {
        "num_layers": {"low": 1, "high": 2},
        "hidden_dim": {"choices": [32, 64]},
        "learning_rate": {"low": 1e-4, "high": 1e-2},
        "batch_size": {"choices": [32, 64, 128]},
    }
    spec["searchSpace"] = [parameter | narrow.get(parameter["name"], {}) for parameter in spec["searchSpace"]]
    lightning = spec["trial"]["lightning"]
    lightning["data"]["init_args"] |= {"limit": 2000, "vocab_size": 8000}
    lightning["model"]["init_args"]["vocab_size"] = 8000
    lightning["optimizer"]["init_args"]["fused"] = True
    lightning["trainer"]["max_epochs"] = 6
    spec |= {"maxTrials": 20, "parallelism": 2, "pruner": {"type": "median", "nStartupTrials": 5, "nWarmupSteps": 2}}
    spec["trial"]["gpus"] = 0
    return document


TASKS = {"digits": digits, "glosses": glosses}


def with_seed(document: Document, *, seed: int, pruned: bool) -> Document:
    """The study with another seed, and with its pruner or none."""
    spec = document["spec"]
    sampler = spec.get("sampler", {}) | {"seed": seed}
    return document | {"spec": spec | {"sampler": sampler} | ({} if pruned else {"pruner": NO_PRUNER})}


def run(task: str, *, seed: int, pruned: bool) -> Study:
    """Run one study to its end.

    Raises:
        RuntimeError: it did not complete; with the last that it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "study.yaml"
        file.write_text(yaml.safe_dump(with_seed(TASKS[task](), seed=seed, pruned=pruned)))
        command = [sys.executable, "-m", "tuning_operator.cli", "run", str(file), "--no-report"]
        said = subprocess.run(
            [*command, f"--folder={folder}/out"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SECONDS_PER_STUDY,
        )
        if said.returncode:
            raise RuntimeError(f"{task}, seed {seed}: {said.stdout[-2000:]}")
        status = json.loads((Path(folder) / "out" / "status.json").read_text())
    return Study(
        task=task,
        seed=seed,
        pruned=pruned,
        trials=status["trials"]["finished"],
        trials_pruned=status["trials"]["pruned"],
        epochs=status["epochsRun"],
        best=status["best"]["value"],
    )


def pairs(studies: list[Study]) -> list[Pair]:
    """The studies of one task, seed by seed."""
    by_seed = {(study.seed, study.pruned): study for study in studies}
    return [
        Pair(
            seed=seed,
            epochs_without=by_seed[seed, False].epochs,
            epochs_with=by_seed[seed, True].epochs,
            best_without=by_seed[seed, False].best,
            best_with=by_seed[seed, True].best,
        )
        for seed in sorted({study.seed for study in studies})
    ]


def table(task: str, studies: list[Study]) -> Iterator[str]:
    """The pairs in Markdown, the medians and their range below."""
    rows = pairs(studies)
    trials = {study.trials for study in studies}
    yield f"### {task}: {', '.join(map(str, sorted(trials)))} trials in each study"
    yield ""
    yield "| seed | epochs, no pruner | epochs, median pruner | saved | best, no pruner | best, median pruner | difference |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        yield (
            f"| {row.seed} | {row.epochs_without} | {row.epochs_with} | {row.saved:.0%} "
            f"| {row.best_without:.4f} | {row.best_with:.4f} | {row.gain:+.4f} |"
        )
    saved, gain = spread([row.saved for row in rows], ".0%"), spread([row.gain for row in rows], "+.4f")
    yield f"| median (range) | | | {saved} | | | {gain} |"


def measure(*, longer: bool, say: Callable[[str], None]) -> Document:
    """See `catalogue.Bench`."""
    tasks, seeds = (list(TASKS), 5) if longer else (["digits"], 3)
    studies = []
    for task in tasks:
        for seed in range(seeds):
            for pruned in (False, True):
                say(f"{task}, seed {seed}, {'median' if pruned else 'no'} pruner")
                studies.append(run(task, seed=seed, pruned=pruned))
    return figures_of(studies)


def figures_of(studies: list[Study]) -> Document:
    """The figures as they are kept."""
    return {"studies": [asdict(study) for study in studies]}


def studies_of(figures: Document) -> list[Study]:
    """The studies of the figures."""
    return [Study(**study) for study in figures["studies"]]


def tell(figures: Document) -> Iterator[str]:
    """See `catalogue.Bench`."""
    studies = studies_of(figures)
    for task in dict.fromkeys(study.task for study in studies):
        yield from table(task, [study for study in studies if study.task == task])
        yield ""


def aims(figures: Document) -> list[Aim]:  # noqa: ARG001
    """See `catalogue.Bench`: what pruning saves is the model's affair, and nothing was aimed at."""
    return []


def with_studies(result: results.Result, added: list[Study], *, commit: str) -> results.Result:
    """The result with other studies of some tasks, which ran at a commit of their own."""
    tasks = list(dict.fromkeys(study.task for study in added))
    kept = [study for study in studies_of(result.figures) if study.task not in tasks]
    commits = f"{result.conditions.commit} ({', '.join(tasks)} at {commit})"
    return replace(result, conditions=replace(result.conditions, commit=commits), figures=figures_of(kept + added))


def main(
    file: Annotated[Path, typer.Argument(help="A list of studies as JSON.")],
    commit: Annotated[str, typer.Argument(help="The commit at which they ran.")],
) -> None:
    """Put the studies of a file in place of those of the same tasks in the results; `python -m bench render` then tells."""
    added = [Study(**study) for study in json.loads(file.read_text())]
    results.save(with_studies(results.load("pruning"), added, commit=commit))


if __name__ == "__main__":
    typer.run(main)
