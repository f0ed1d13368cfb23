"""The command `tuningstudy`. Each command imports what it needs, so that the first worker starts at once."""

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tuning_operator.cli.cluster import (
    AsCsv,
    AsJson,
    Context,
    Kubeconfig,
    Namespace,
    OperatorNamespace,
    OtherTrial,
    WithConfig,
    add_commands,
    reach,
)
from tuning_operator.cli.terminal import say
from tuning_operator.errors import TuningError
from tuning_operator.local.errors import BadInputError
from tuning_operator.remote.where import Where

if TYPE_CHECKING:
    from tuning_operator.charts.source import StudyData
    from tuning_operator.local.progress import Progress

BAD_INPUT = 2

app = typer.Typer(
    name="tuningstudy",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Tune the hyperparameters of a Lightning model on this machine, with the manifest that also runs on Kubernetes.

    \b
    tuningstudy init my_model.Classifier        a first manifest for a model of yours
    tuningstudy validate digits.yaml            is it right? imports the model, runs no trial
    tuningstudy try digits.yaml                 one trial in the foreground
    tuningstudy run digits.yaml                 run it; Ctrl-C stops, the same command goes on
    tuningstudy best digits --config            the configuration with the best values, ready to train
    tuningstudy report digits -o digits.html    the study's page in one file
    tuningstudy submit digits.yaml -n research  run it on a cluster, with the modules beside it

    best, trials and report read a cluster's study as soon as -n, --context or --kubeconfig is given.""",
)

File = Annotated[
    Path,
    typer.Argument(
        metavar="STUDY.yaml", help="The manifest; a model in the same folder is found by its module's name."
    ),
]
NameOrFile = Annotated[
    str, typer.Argument(metavar="NAME|STUDY.yaml", help="The study's manifest, or its name below .tuningstudy here.")
]
Database = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="TUNINGSTUDY_DATABASE",
        show_envvar=True,
        help="Where the trials are, such as postgresql://user@host/name; default: a SQLite file in the study's folder.",
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The study's folder; default: .tuningstudy/NAME beside the manifest."),
]

Force = Annotated[bool, typer.Option("--force", help="Write over a file that is there.")]


@app.command()
def run(
    file: File,
    *,
    parallelism: Annotated[
        int | None,
        typer.Option("--parallelism", "-j", min=1, metavar="N", help="Workers at once, instead of spec.parallelism."),
    ] = None,
    database: Database = None,
    folder: Folder = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON document a line, for programs; no report.")] = False,
    report: Annotated[bool, typer.Option(help="Write the study's page at the end.")] = True,
) -> None:
    """Run a study to its end, or go on with it.

    \b
    tuningstudy run digits.yaml
    tuningstudy run digits.yaml -j 4
    tuningstudy run digits.yaml --database postgresql://me@localhost/studies

    Workers are processes of this machine. GPUs are shared out between them (spec.trial.gpus each), and so are the
    cores. Paths in the manifest are relative to its folder. Edits of the manifest take effect while the study runs.

    Ctrl-C stops the workers in order and queues their trials again; the same command goes on. A second Ctrl-C ends
    them at once.

    Exit codes: 0 complete, 1 failed, 2 bad input, 3 suspended by the manifest, 130 interrupted.
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli.run import run as run_study  # noqa: PLC0415

    raise typer.Exit(
        run_study(
            file, parallelism=parallelism, database_url=database, folder=folder, as_json=as_json, with_report=report
        )
    )


@app.command()
def validate(
    file: File,
    *,
    restricted: Annotated[
        bool, typer.Option("--restricted", help="As a cluster sees it whose operator restricts podTemplates.")
    ] = False,
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A Secret that the cluster allows there; may be given several times."),
    ] = None,
) -> None:
    """Say what is wrong with a manifest: build its model, and run no trial.

    \b
    tuningstudy validate digits.yaml
    tuningstudy validate digits.yaml --restricted --secret checkpoints-s3

    Fields, ranges and placeholders first, for which nothing of the folder runs; then classes and arguments, by
    building model, data and Trainer with sampled parameters. So look at a model that is not yours before.
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli.validate import validate as validate_study  # noqa: PLC0415
    from tuning_operator.decide.pod_templates import Restriction  # noqa: PLC0415

    if secret and not restricted:
        raise typer.BadParameter("--secret needs --restricted")
    raise typer.Exit(validate_study(file, restriction=Restriction(frozenset(secret or ())) if restricted else None))


@app.command(name="try")
def try_one(
    file: File,
    *,
    seed: Annotated[int | None, typer.Option(metavar="N", help="For the parameters and the training.")] = None,
) -> None:
    """Run one trial in the foreground, with full output and without a database.

    \b
    tuningstudy try digits.yaml
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli.validate import try_one as try_one_trial  # noqa: PLC0415

    raise typer.Exit(try_one_trial(file, seed=seed))


@app.command()
def best(
    study: NameOrFile,
    *,
    config: WithConfig = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Copy the best trial's checkpoint there (trial.checkpoints.keep)."),
    ] = None,
    trial: OtherTrial = None,
    as_json: AsJson = False,
    database: Database = None,
    folder: Folder = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the best parameters; with several objectives, the Pareto front.

    \b
    tuningstudy best digits
    tuningstudy best digits --json | jq .params.learning_rate
    tuningstudy best digits --config > best.yaml
    tuningstudy best digits --trial 12 --config > trial-12.yaml
    tuningstudy best digits --checkpoint best.ckpt
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    if (where := Where(namespace, context, kubeconfig)).is_given:
        from tuning_operator.cli.remote_results import print_best  # noqa: PLC0415

        gateway, name = reach(study, where)
        raise typer.Exit(
            print_best(gateway, name, number=trial, with_config=config, as_json=as_json, checkpoint=checkpoint)
        )
    from tuning_operator.cli import results  # noqa: PLC0415
    from tuning_operator.cli.study import configured, copy_checkpoint  # noqa: PLC0415

    data, progress = _look(study, database=database, folder=folder)
    if progress.front and progress.has_front and trial is None and not (config or checkpoint):
        if not as_json:
            say(f"# {results.headline_of_front(progress)}")
        say(results.as_text(results.front_document(progress), as_json=as_json), nl=False)
        return
    found = results.chosen(progress, number=trial)
    document = results.best_document(found, progress)
    if config:
        document = configured(data, found.params, number=found.number)
    if checkpoint:
        say(f"wrote {copy_checkpoint(data, number=found.number, to=checkpoint)}", err=True)
    if not as_json:
        say(f"# {results.headline(found, progress)}")
    say(results.as_text(document, as_json=as_json), nl=False)


@app.command()
def trials(
    study: NameOrFile,
    *,
    as_csv: AsCsv = False,
    database: Database = None,
    folder: Folder = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    operator_namespace: OperatorNamespace = None,
) -> None:
    """List the trials, best first.

    \b
    tuningstudy trials digits
    tuningstudy trials digits --csv > digits.csv
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    if (where := Where(namespace, context, kubeconfig)).is_given:
        from tuning_operator.cli.remote_results import print_trials  # noqa: PLC0415

        gateway, name = reach(study, where)
        raise typer.Exit(print_trials(gateway, name, as_csv=as_csv, operator_namespace=operator_namespace))
    from tuning_operator.cli import results  # noqa: PLC0415

    _, progress = _look(study, database=database, folder=folder)
    if as_csv:
        say(results.csv_of_trials(progress), nl=False)
    else:
        results.print_trials(progress)


@app.command()
def report(
    study: NameOrFile,
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to write it; default: report.html in the study's folder."
        ),
    ] = None,
    database: Database = None,
    folder: Folder = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    operator_namespace: OperatorNamespace = None,
) -> None:
    """Write the study's page into one file, which needs no internet.

    \b
    tuningstudy report digits -o digits.html
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    if (where := Where(namespace, context, kubeconfig)).is_given:
        from tuning_operator.cli.remote_results import write_report  # noqa: PLC0415

        gateway, name = reach(study, where)
        raise typer.Exit(write_report(gateway, name, output=output, operator_namespace=operator_namespace))
    from tuning_operator.cli import report as study_report  # noqa: PLC0415
    from tuning_operator.cli.study import load  # noqa: PLC0415
    from tuning_operator.local.place import find  # noqa: PLC0415

    place = find(study, database=database, folder=folder)
    say(str(study_report.write(load(place), output or place.folder.report)))


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The experiment, as YAML or JSON.")],
    *,
    system: Annotated[
        Literal["katib", "wandb", "determined", "nni"] | None,
        typer.Option("--from", help="What the file is; default: found out by its fields."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="STUDY.yaml", help="Where to write it; default: standard output."),
    ] = None,
    force: Force = False,
) -> None:
    """Turn an experiment of Katib, Weights & Biases, Determined or NNI into a manifest.

    \b
    tuningstudy convert experiment.yaml -o study.yaml
    tuningstudy convert search_space.json --from nni

    What became of each field is said on standard error: mapped, changed, without counterpart, or for you to decide. What
    a trial runs is a function of your own code, which comments in the manifest outline.

    Exit codes: 0 converted, 1 converted but for what is named last, 2 bad input.
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli.convert import convert as convert_experiment  # noqa: PLC0415

    raise typer.Exit(convert_experiment(file, system=system, output=output, force=force))


@app.command()
def init(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[CLASS]", help="A LightningModule, as package.module.Class; default: the digits example."
        ),
    ] = None,
    *,
    data: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Its LightningDataModule, as package.module.Class.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write the manifest.")] = Path(
        "study.yaml"
    ),
    force: Force = False,
) -> None:
    """Write a first manifest, from the arguments of a model.

    \b
    tuningstudy init
    tuningstudy init my_model.Classifier --data my_data.Images -o study.yaml

    Arguments with usual names, such as dropout or hidden_dim, become the search space, around their defaults; the others
    are fixed at their defaults, with comments. The metric is the one that the model logs in validation.
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli.init import init as write_starter  # noqa: PLC0415

    raise typer.Exit(write_starter(model, data=data, output=output, force=force))


def _look(study: str, *, database: str | None, folder: Path | None) -> "tuple[StudyData, Progress]":
    from tuning_operator.cli.study import load, look  # noqa: PLC0415
    from tuning_operator.local.place import find  # noqa: PLC0415

    data = load(find(study, database=database, folder=folder))
    return data, look(data)


add_commands(app, program="tuningstudy")


def main() -> None:
    """Run the command."""
    run_app(app)


def run_app(commands: typer.Typer, *, program: str | None = None) -> None:
    """Run one of a program's commands; what a person did wrong is one sentence."""
    gc.disable()  # to look for garbage while modules are imported is a tenth of the time to the first worker
    try:
        commands(prog_name=program)
    except (BadInputError, TuningError) as error:
        say(f"error: {error}", err=True)
        sys.exit(BAD_INPUT)
    finally:
        gc.enable()


if __name__ == "__main__":
    main()
