"""`best`, `trials` and `report` of a cluster's study."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuning_api import manifest
from tuning_api.schema import Document
from tuning_api.spec import StudySpec
from tuning_api.status import BestTrial, StudyStatus, read_status
from tuning_operator.charts.source import StudyData
from tuning_operator.cli import results
from tuning_operator.cli.study import configured, copy_kept, kept_path
from tuning_operator.cli.terminal import say
from tuning_operator.cli.views import in_words
from tuning_operator.cli.writing import save
from tuning_operator.local.errors import BadInputError
from tuning_operator.remote.charts import fetch, progress_of
from tuning_operator.remote.gateway import Gateway


def print_best(
    gateway: Gateway,
    name: str,
    *,
    number: int | None,
    with_config: bool,
    as_json: bool,
    checkpoint: Path | None = None,
) -> int:
    """Print the best parameters, which the study's status has; or those of another trial, which the charts server knows.

    Raises:
        BadInputError: there is none; or its checkpoint cannot be copied.
    """
    study = gateway.study(name)
    if checkpoint:
        say(f"wrote {_copy_checkpoint(study, number=number, to=checkpoint)}", err=True)
    if number is not None:
        return _print_trial(gateway, study, number, with_config=with_config, as_json=as_json)
    metrics = [str(objective["metric"]) for objective in study["spec"]["objectives"]]
    status = read_status(study.get("status"))
    if status.best_trials and not with_config:
        front = {"front": [described(trial, metrics) for trial in status.best_trials]}
        return _print(front, f"the Pareto front of study {name}", as_json=as_json)
    if status.best is None:
        raise BadInputError(_why_none(name, status))
    document = described(status.best, metrics)
    if with_config:
        document = _configured(study, status.best.params, number=status.best.trial)
    headline = f"trial {status.best.trial} of study {name}: {status.best.display} ({in_words(status.best.params)})"
    return _print(document, headline, as_json=as_json)


def described(trial: BestTrial, metrics: list[str]) -> dict[str, Any]:
    """A trial of the status, in the words of `tuningstudy best` without a cluster."""
    values = trial.values if trial.values is not None else [trial.value]
    return {"trial": trial.trial, **dict(zip(metrics, values, strict=False)), "params": dict(trial.params)}


def _print_trial(gateway: Gateway, study: Document, number: int, *, with_config: bool, as_json: bool) -> int:
    progress = progress_of(gateway, study, operator_namespace=None)
    found = results.chosen(progress, number=number)
    document = results.best_document(found, progress)
    if with_config:
        document = _configured(study, found.params, number=number)
    return _print(document, results.headline(found, progress), as_json=as_json)


def _print(document: Mapping[str, Any], headline: str, *, as_json: bool) -> int:
    if not as_json:
        say(f"# {headline}")
    say(results.as_text(document, as_json=as_json), nl=False)
    return 0


def _why_none(name: str, status: StudyStatus) -> str:
    if status.best_trials:
        return f"study {name} has several objectives, and no single best trial: choose one with --trial"
    return f"study {name} has no best trial yet: {status.message or 'the operator has not looked at it'}"


def _configured(study: Document, params: Mapping[str, Any], *, number: int) -> dict[str, Any]:
    name, namespace = study["metadata"]["name"], study["metadata"]["namespace"]
    data = StudyData(namespace=namespace, name=name, directions=(), trials=(), spec=_spec(study))
    return configured(data, params, number=number)


def _spec(study: Document) -> StudySpec:
    spec, fault = manifest.read_spec(study)
    if spec is None:
        raise BadInputError(f"this version cannot read the study: {fault}")
    return spec


def _copy_checkpoint(study: Document, *, number: int | None, to: Path) -> Path:
    """The status says where the best trial's is; what may be read there is for the person's own credentials."""
    best = read_status(study.get("status")).best
    checkpoints = _spec(study).trial.checkpoints
    if best is None or best.checkpoint is None or checkpoints is None:
        raise BadInputError(
            f"study {study['metadata']['name']} has no checkpoint of a best trial (trial.checkpoints.keep)"
        )
    if number not in {None, best.trial}:
        raise BadInputError(
            f"--checkpoint of a cluster's study is that of its best trial, {best.trial}: remove --trial"
        )
    # NB: the status may be of an older operator, which took whatever a trial's code had written.
    written = best.checkpoint.removeprefix(checkpoints.location(""))
    path = kept_path(written, study=study["metadata"]["name"], number=best.trial)
    return copy_kept(checkpoints, path, number=best.trial, namespace=study["metadata"]["namespace"], to=to)


def print_trials(gateway: Gateway, name: str, *, as_csv: bool, operator_namespace: str | None) -> int:
    """List the trials, which the charts server reads from the database."""
    progress = progress_of(gateway, gateway.study(name), operator_namespace=operator_namespace)
    if as_csv:
        say(results.csv_of_trials(progress), nl=False)
    else:
        results.print_trials(progress)
    return 0


def write_report(gateway: Gateway, name: str, *, output: Path | None, operator_namespace: str | None) -> int:
    """Write the study's page into one file, as the charts server makes it.

    Raises:
        BadInputError: it cannot be fetched, or not be written.
    """
    content = fetch(gateway, gateway.study(name), "report.html", operator_namespace=operator_namespace)
    file = output or Path(f"{name}.html")
    save(content.decode(), file, force=True)
    say(str(file))
    return 0
