"""Measures, writes results, and renders the document; see `bench`."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Annotated

# Before torch is imported, see tests/conftest.py.
os.environ["OMP_NUM_THREADS"] = "1"

import typer

from bench import document, pictures, results
from bench.catalogue import NAMES, bench, drawings
from bench.conditions import ROOT, conditions
from bench.results import Result

DOCUMENT = ROOT / "docs" / "benchmarks.md"


def measure(name: str, *, longer: bool) -> None:
    """Measure one, and write its result."""
    before = conditions(longer=longer)
    started = time.monotonic()

    def say(line: str) -> None:
        typer.echo(f"{name}, {time.monotonic() - started:4.0f} s: {line}", err=True)

    figures = bench(name).measure(longer=longer, say=say)
    took = round(time.monotonic() - started, 1)
    result = Result(name=name, conditions=replace(before, seconds=took), figures=figures)
    results.save(result)
    for aim in bench(name).aims(figures):
        say(f"{'reached' if aim.reached else 'MISSED'}: {aim.what}: {aim.measured} ({aim.wanted})")


def measure_all(*, longer: bool) -> int:
    """Measure each in a process of its own, so that none sees what another one left; how many failed."""
    options = ["--longer"] if longer else []
    commands = [[sys.executable, "-m", "bench", name, *options] for name in NAMES]
    return sum(subprocess.run(command, check=False, cwd=ROOT).returncode != 0 for command in commands)


def render() -> None:
    """Write the document and its figures."""
    found = results.load_all()
    folder = DOCUMENT.parent / document.PICTURES
    figures = {
        document.picture(result, name): figure
        for result in found
        for name, figure in drawings(bench(result.name), result.figures).items()
    }
    for file, svg in pictures.to_svg(figures).items():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(svg)
    DOCUMENT.write_text(document.render(found))


def main(
    what: Annotated[str, typer.Argument(help=f"{', '.join(NAMES)}; or all, or render.")],
    *,
    longer: Annotated[bool, typer.Option(help="More trials, and more time.")] = False,
    check: Annotated[
        bool, typer.Option(help="With render: write nothing, fail when the document would change.")
    ] = False,
) -> None:
    """Measure, and tell of it in docs/benchmarks.md."""
    # NB: by default SIGTERM ends Python at once, and leaves servers and namespaces behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    match what:
        case "render" if check:
            if DOCUMENT.read_text() != document.render(results.load_all()):
                typer.echo("docs/benchmarks.md is not what the results say: run 'python -m bench render'", err=True)
                raise typer.Exit(1)
        case "render":
            render()
        case "all":
            raise typer.Exit(min(1, measure_all(longer=longer)))
        case _ if what in NAMES:
            measure(what, longer=longer)
            render()
        case _:
            raise typer.BadParameter(f"there is no benchmark {what}; there are {', '.join(NAMES)}, all and render")


if __name__ == "__main__":
    typer.run(main)
