"""The commands for a cluster's study, which `tuningstudy` and `kubectl tuningstudy` share."""

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuning_operator.remote.where import Where

if TYPE_CHECKING:
    from tuning_operator.remote.gateway import Gateway

Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace", "-n", metavar="NAME", help="The study's namespace; default: the manifest's, or the kubeconfig's."
    ),
]
Context = Annotated[
    str | None, typer.Option(metavar="NAME", help="The kubeconfig's context; default: its current one.")
]
Kubeconfig = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The kubeconfig; default: $KUBECONFIG, or ~/.kube/config.")
]
OperatorNamespace = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Go to the charts server of this namespace by the API server, whatever the study's link says.",
    ),
]
WithConfig = Annotated[
    bool, typer.Option("--config", help="The whole LightningCLI configuration, with the best values in it.")
]
OtherTrial = Annotated[
    int | None,
    typer.Option(metavar="N", help="Another complete trial than the best, such as one of a Pareto front."),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of YAML.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="For a spreadsheet, with full precision.")]
Study = Annotated[str, typer.Argument(metavar="NAME|STUDY.yaml", help="The study's name, or its manifest.")]


def submit(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="STUDY.yaml", help="The manifest; modules of yours beside it are taken along.")
    ],
    *,
    code: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="The folder to put on PYTHONPATH; default: the manifest's, where it has the model."
        ),
    ] = None,
    namespace: Namespace = None,
    kube_context: Annotated[
        str | None,
        typer.Option("--context", metavar="NAME", help="The kubeconfig's context; default: its current one."),
    ] = None,
    kubeconfig: Kubeconfig = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Say how it goes until it ends; Ctrl-C leaves it running.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be applied, and apply nothing.")] = False,
    force_conflicts: Annotated[
        bool, typer.Option("--force-conflicts", help="Take over fields that others have set (kubectl edit, scale).")
    ] = False,
) -> None:
    """Run a study on a cluster, with the manifest and the folder that run here.

    \b
    tuningstudy submit digits.yaml -n research
    tuningstudy submit digits.yaml -n research --watch
    tuningstudy submit digits.yaml --code src --dry-run

    The modules beside the manifest travel in a ConfigMap that is deleted with the study, if trial.lightning or
    trial.objective names one of them; nothing else of the manifest changes. Data, hidden files and everything else that
    is no module stay behind. More than 1 MiB of code needs an image.

    Exit codes: 0 submitted, 2 bad input; with --watch as `tuningstudy run`.
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli.submit import submit as submit_study  # noqa: PLC0415

    raise typer.Exit(
        submit_study(
            file,
            where=Where(namespace, kube_context, kubeconfig),
            folder=code,
            dry_run=dry_run,
            force=force_conflicts,
            is_watched=watch,
            program=str(context.find_root().info_name),
        )
    )


def open_study(
    study: Study,
    *,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    operator_namespace: OperatorNamespace = None,
    browser: Annotated[bool, typer.Option(help="Open it; without, only the link is printed.")] = True,
) -> None:
    """Open a study's page in the browser.

    \b
    tuningstudy open digits -n research
    tuningstudy open digits -n research --no-browser

    Where the charts have an address of their own, that is all. Else this command keeps a way to them open until Ctrl-C,
    by the API server's proxy.
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli.open import open_page  # noqa: PLC0415

    gateway, name = reach(study, Where(namespace, context, kubeconfig))
    raise typer.Exit(open_page(gateway, name, operator_namespace=operator_namespace, with_browser=browser))


def logs(
    study: Study,
    *,
    trial: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Only this trial, from its claim to its end.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the trial, or the study, has ended.")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print what the workers of a study say.

    \b
    tuningstudy logs digits -n research --trial 12
    tuningstudy logs digits -n research --follow

    Exit codes: 0 printed, 1 there is no such log any more, 2 bad input.
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli.logs import logs as print_logs  # noqa: PLC0415

    gateway, name = reach(study, Where(namespace, context, kubeconfig))
    raise typer.Exit(print_logs(gateway, name, trial=trial, follow=follow))


def reach(study: str, where: Where) -> "tuple[Gateway, str]":
    """The cluster, and the study's name in it.

    Raises:
        BadInputError: there is no such manifest, or no such cluster.
    """
    from tuning_api import manifest  # noqa: PLC0415
    from tuning_api.manifest import ManifestError  # noqa: PLC0415
    from tuning_operator.local.errors import BadInputError  # noqa: PLC0415
    from tuning_operator.remote.gateway import connect  # noqa: PLC0415

    if Path(study).suffix not in {".yaml", ".yml", ".json"}:
        return connect(where), study
    try:
        document = manifest.load(Path(study))
    except ManifestError as error:
        raise BadInputError(str(error)) from error
    gateway = connect(where, namespace=document["metadata"].get("namespace"))
    return gateway, manifest.name_of(document)


def add_commands(app: typer.Typer, *, program: str) -> None:
    """Give an application the commands, with examples in its own name."""
    for name, command in (("submit", submit), ("open", open_study), ("logs", logs)):
        app.command(name=name, help=in_the_name_of(program, inspect.getdoc(command) or ""))(command)


def in_the_name_of(program: str, text: str) -> str:
    """A help text whose examples begin with the program's name."""
    return re.sub(r"^tuningstudy ", f"{program} ", text, flags=re.MULTILINE)
