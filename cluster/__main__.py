"""The command line: `python -m cluster --help`."""

import os
import shlex
import sys
import time
from enum import StrEnum
from typing import Annotated

import typer

from cluster import binaries, demo, doctor, engines, folders, images, prerequisites
from cluster.binaries import BuildError, say
from cluster.demo import StudyFailedError
from cluster.kubectl import CommandError
from cluster.layers import ImageError
from cluster.machine import HOST_ADDRESS, MachineError
from cluster.node import Node
from cluster.prerequisites import PrerequisiteError
from cluster.processes import ProcessEndedError

EXPECTED = (
    BuildError,
    CommandError,
    ImageError,
    MachineError,
    PrerequisiteError,
    ProcessEndedError,
    StudyFailedError,
    TimeoutError,
)
"""Failures whose message is all that a person needs."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""
    A real Kubernetes on this machine, without Docker: etcd, the control plane, one node with containers, Services and
    DNS. Needs Linux and, for the node, root; what is missing is installed with apt-get or built from source and kept
    in the cache.

    A first session:

        python -m cluster up                # 10 to 15 minutes the first time, then about 15 seconds

        eval "$(python -m cluster env)"     # KUBECONFIG, and kubectl and helm on the PATH

        kubectl get nodes

        python -m cluster images            # build the project's images and bring them to the node

        python -m cluster down              # ends it and deletes all but programs and images

    Have a cluster already? Then you need none of this: the tests use the context that TUNING_TEST_CONTEXT names.
    """,
)


class ImageName(StrEnum):
    """The images that `images` can build."""

    OPERATOR = "operator"
    TRIAL = "trial"
    POSTGRES = "postgres"


_IMAGES = {
    ImageName.OPERATOR: images.OPERATOR,
    ImageName.TRIAL: images.TRIAL,
    ImageName.POSTGRES: images.POSTGRES,
}


@app.command()
def up() -> None:
    """Start the cluster; if it runs already, say so. Over the remains of a killed one it begins anew."""
    node = Node()
    if node.is_whole():
        say("The cluster is up already.")
        return
    _start(node)
    say("To use it from this shell:")
    say(f'  eval "$({shlex.join([sys.executable, "-m", "cluster", "env"])})"')
    say(
        "Pods reach servers of this machine at "
        + HOST_ADDRESS
        + "; this machine reaches pods and Services as they are."
    )


def _start(node: Node) -> None:
    if reason := prerequisites.reason_against_node():
        raise PrerequisiteError(f"No node can run here: {reason}.")
    if node.exists():
        say("Removing what an earlier cluster left.")
    started = time.monotonic()
    node.start()
    say(f"The cluster is up after {time.monotonic() - started:.0f} s.")


@app.command()
def down() -> None:
    """End the cluster and delete what was in it. Programs and images stay in the cache."""
    node = Node()
    if not node.exists():
        say("There is no cluster.")
        return
    started = time.monotonic()
    node.stop()
    say(f"The cluster is down after {time.monotonic() - started:.1f} s. Programs and images stay in {folders.cache()}.")


@app.command()
def env() -> None:
    """Print what a shell needs to use the cluster: eval "$(python -m cluster env)"."""
    node = Node()
    if not node.is_whole():
        raise MachineError("The cluster is not running: start it with `python -m cluster up`.")
    tools = [str(program.ensure()) for program in (binaries.KUBERNETES, binaries.HELM)]
    print(f"export KUBECONFIG={shlex.quote(str(node.kubeconfig))}")
    print(f"export PATH={shlex.quote(os.pathsep.join(tools))}:$PATH")


@app.command()
def status() -> None:
    """Say what runs; exit code 1 if the cluster is not up."""
    node = Node()
    if not node.exists():
        print("down")
        raise typer.Exit(1)
    if ended := node.parts_that_ended():
        print(f"damaged: {', '.join(ended)} ended; `up` begins anew, logs are in {node.directory}")
        raise typer.Exit(1)
    if not node.machine.is_running():
        print("damaged: the node ended; `up` begins anew")
        raise typer.Exit(1)
    print(f"up, KUBECONFIG={node.kubeconfig}, logs are in {node.directory}")
    print(node.kubectl("get", "nodes,pods", "--all-namespaces", "--output=wide"), end="")


@app.command()
def build() -> None:
    """Build what the cluster and the tests run (Kubernetes, Helm, CoreDNS, promtool, S3) into the cache, where absent."""
    for program in binaries.PROGRAMS:
        program.ensure()


@app.command("images")
def build_images(
    names: Annotated[
        list[ImageName] | None,
        typer.Argument(help="Which ones. If none is named: all, or with a registry the project's own two."),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(envvar="REGISTRY", help="Name them for this registry, such as ghcr.io/me.", show_default=False),
    ] = None,
    push: Annotated[  # noqa: FBT002
        bool, typer.Option("--push", envvar="PUSH", help="Push them to the registry.", show_default=False)
    ] = False,
    base_image: Annotated[
        str | None,
        typer.Option(
            envvar="BASE_IMAGE",
            help="Build the project's own two on this image, such as python:3.11-slim@sha256:...",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Build images with docker, podman or buildah, and bring them to the cluster if it is up.

    With buildah, which is for machines that reach no registry, the base image is made from Debian. What did not change
    is not built again.
    """
    if push and not registry:
        raise ImageError("Name the registry to push to: --registry, or REGISTRY.")
    chosen = names or ([ImageName.OPERATOR, ImageName.TRIAL] if registry else list(ImageName))
    engine = engines.find_engine()
    machine = Node().machine
    for image in (_IMAGES[name] for name in chosen):
        images.build(engine, image, base=None if image is images.POSTGRES else base_image)
        if registry:
            target = images.name_in(registry, image)
            engine.tag(image, name=target)
            if push:
                engine.push(target)
            print(target)
        if machine.is_running():
            images.load(engine, image, machine)
    if not machine.is_running():
        say("The cluster is down, so they were brought nowhere: after `up` call this again.")


@app.command("demo")
def show() -> None:
    """The main job, shown: start the cluster, build the images, install the chart, run the digits study to its end."""
    started = time.monotonic()
    node = Node()
    if not node.is_whole():
        _start(node)
    demo.run(node)
    say(f"All of it took {time.monotonic() - started:.0f} s.")


@app.command("doctor")
def examine() -> None:
    """Say what can run on this machine and what not, and why."""
    for ability in doctor.examine():
        print(ability)


def main() -> None:
    """Run the command line; a failure that we understand is told in one sentence."""
    try:
        app()
    except EXPECTED as error:
        raise SystemExit(f"{error}") from error


if __name__ == "__main__":
    main()
