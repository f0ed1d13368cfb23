"""The command `tuningstudy`. Each command imports what it needs, so that the first worker starts at once."""

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuning_operator.local.errors import BadInputError

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
    tuningstudy validate digits.yaml            is it right, without running it?
    tuningstudy try digits.yaml                 one trial in the foreground
    tuningstudy run digits.yaml                 run it; Ctrl-C stops, the same command goes on
    tuningstudy best digits --config            the configuration with the best values, ready to train
    tuningstudy report digits -o digits.html    the study's page in one file""",
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
def validate(file: File) -> None:
    """Say what is wrong with a manifest, without running it.

    \b
    tuningstudy validate digits.yaml

    Fields, ranges and placeholders first; then classes and arguments, by building the model once with sampled
    parameters.
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli.validate import validate as validate_study  # noqa: PLC0415

    raise typer.Exit(validate_study(file))


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
    config: Annotated[
        bool, typer.Option("--config", help="The whole LightningCLI configuration, with the best values in it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of YAML.")] = False,
    database: Database = None,
    folder: Folder = None,
) -> None:
    """Print the best parameters.

    \b
    tuningstudy best digits
    tuningstudy best digits --json | jq .params.learning_rate
    tuningstudy best digits --config > best.yaml
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli import results  # noqa: PLC0415
    from tuning_operator.cli.study import configured  # noqa: PLC0415

    data, progress = _look(study, database=database, folder=folder)
    found = progress.best
    if found is None:
        raise BadInputError(f"no trial of study {progress.name} is complete yet")
    document = results.best_document(found, progress)
    if config:
        document = configured(data, found.params, number=found.number)
    if not as_json:
        typer.echo(f"# {results.headline(found, progress)}")
    typer.echo(results.as_text(document, as_json=as_json), nl=False)


@app.command()
def trials(
    study: NameOrFile,
    *,
    as_csv: Annotated[bool, typer.Option("--csv", help="For a spreadsheet, with full precision.")] = False,
    database: Database = None,
    folder: Folder = None,
) -> None:
    """List the trials, best first.

    \b
    tuningstudy trials digits
    tuningstudy trials digits --csv > digits.csv
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli import results  # noqa: PLC0415

    _, progress = _look(study, database=database, folder=folder)
    if as_csv:
        typer.echo(results.csv_of_trials(progress), nl=False)
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
) -> None:
    """Write the study's page into one file, which needs no internet.

    \b
    tuningstudy report digits -o digits.html
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli import report as study_report  # noqa: PLC0415
    from tuning_operator.cli.study import load  # noqa: PLC0415
    from tuning_operator.local.place import find  # noqa: PLC0415

    place = find(study, database=database, folder=folder)
    typer.echo(str(study_report.write(load(place), output or place.folder.report)))


def _look(study: str, *, database: str | None, folder: Path | None) -> "tuple[StudyData, Progress]":
    from tuning_operator.cli.study import load, look  # noqa: PLC0415
    from tuning_operator.local.place import find  # noqa: PLC0415

    data = load(find(study, database=database, folder=folder))
    return data, look(data)


def main() -> None:
    """Run the command; what a person did wrong is one sentence."""
    gc.disable()  # to look for garbage while modules are imported is a tenth of the time to the first worker
    try:
        app()
    except BadInputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(BAD_INPUT)
    finally:
        gc.enable()


if __name__ == "__main__":
    main()
