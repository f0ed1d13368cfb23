"""What pruning is worth: the same study with the median pruner and with none, over several seeds.

Each study is run by `tuningstudy run`, as a person would; what is compared is in its status: epochs, not seconds, since
times on a shared machine drift. A seed is the study's: it chooses the parameters and the random numbers of each trial.
With two workers, which trials the sampler and the pruner know by then depends on timing, so the seeds' spread is shown.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.progress import Progress

Document = dict[str, Any]

SAMPLES = Path(__file__).resolve().parent.parent / "manifests" / "samples"
SECONDS_PER_STUDY = 1800
NO_PRUNER = {"type": "none"}


@dataclass(frozen=True)
class Study:
    """What one study spent and found."""

    task: str
    seed: int
    pruned: bool
    trials: int
    trials_pruned: int
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
    saved, gain = [row.saved for row in rows], [row.gain for row in rows]
    yield (
        f"| median (range) | | | {statistics.median(saved):.0%} ({min(saved):.0%} to {max(saved):.0%}) | | "
        f"| {statistics.median(gain):+.4f} ({min(gain):+.4f} to {max(gain):+.4f}) |"
    )


def main(
    task: Annotated[list[str] | None, typer.Option(help="digits or glosses; both if not given.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each task.")] = 5,
    output: Annotated[Path, typer.Option("--output", "-o", help="The figures as JSON.")] = Path("bench-pruning.json"),
) -> None:
    """Epochs and best values with and without the median pruner, at equal numbers of trials."""
    chosen = task or list(TASKS)
    plan = [(name, seed, pruned) for name in chosen for seed in range(seeds) for pruned in (False, True)]
    studies = []
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task("studies", total=len(plan))
        for name, seed, pruned in plan:
            progress.update(bar, description=f"{name}, seed {seed}, {'median' if pruned else 'no'} pruner")
            studies.append(run(name, seed=seed, pruned=pruned))
            progress.advance(bar)
            output.write_text(json.dumps([asdict(study) for study in studies], indent=2))
    for name in chosen:
        typer.echo("\n".join(table(name, [study for study in studies if study.task == name])) + "\n")


if __name__ == "__main__":
    typer.run(main)
