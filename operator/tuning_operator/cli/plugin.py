"""`kubectl tuningstudy`: the commands for a cluster's study as a plugin, which kubectl finds by its file's name."""

from pathlib import Path
from typing import Annotated

import typer

from tuning_operator.cli.__main__ import run_app
from tuning_operator.cli.cluster import (
    AsCsv,
    AsJson,
    Context,
    Kubeconfig,
    Namespace,
    OperatorNamespace,
    OtherTrial,
    Study,
    WithConfig,
    add_commands,
    reach,
)
from tuning_operator.remote.where import Where

PROGRAM = "kubectl tuningstudy"

app = typer.Typer(
    name=PROGRAM,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Submit studies to a cluster, and see what becomes of them.

    \b
    kubectl tuningstudy submit digits.yaml -n research    the manifest, and the modules beside it
    kubectl tuningstudy open digits -n research           its page in the browser
    kubectl tuningstudy logs digits --trial 12            what that trial said
    kubectl tuningstudy best digits --config              the configuration with the best values
    kubectl get tuningstudies --watch                     kubectl's own words for the rest""",
)
add_commands(app, program=PROGRAM)


@app.command()
def best(
    study: Study,
    *,
    config: WithConfig = False,
    trial: OtherTrial = None,
    as_json: AsJson = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the best parameters; with several objectives, the Pareto front.

    \b
    kubectl tuningstudy best digits -n research
    kubectl tuningstudy best digits -n research --config > best.yaml
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli.remote_results import print_best  # noqa: PLC0415

    gateway, name = reach(study, Where(namespace, context, kubeconfig))
    raise typer.Exit(print_best(gateway, name, number=trial, with_config=config, as_json=as_json))


@app.command()
def trials(
    study: Study,
    *,
    as_csv: AsCsv = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    operator_namespace: OperatorNamespace = None,
) -> None:
    """List the trials, best first.

    \b
    kubectl tuningstudy trials digits -n research
    kubectl tuningstudy trials digits -n research --csv > digits.csv
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli.remote_results import print_trials  # noqa: PLC0415

    gateway, name = reach(study, Where(namespace, context, kubeconfig))
    raise typer.Exit(print_trials(gateway, name, as_csv=as_csv, operator_namespace=operator_namespace))


@app.command()
def report(
    study: Study,
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it; default: NAME.html here.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
    operator_namespace: OperatorNamespace = None,
) -> None:
    """Write the study's page into one file, which needs no internet.

    \b
    kubectl tuningstudy report digits -n research -o digits.html
    """  # noqa: D301 - click keeps the lines of a paragraph that begins so
    from tuning_operator.cli.remote_results import write_report  # noqa: PLC0415

    gateway, name = reach(study, Where(namespace, context, kubeconfig))
    raise typer.Exit(write_report(gateway, name, output=output, operator_namespace=operator_namespace))


def main() -> None:
    """Run the plugin."""
    run_app(app, program=PROGRAM)


if __name__ == "__main__":
    main()
