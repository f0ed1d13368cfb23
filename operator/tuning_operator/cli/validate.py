"""`tuningstudy validate` and `try`: a manifest before it runs.

What its words mean is known here; whether its classes exist and take its arguments, only a process with torch knows.
"""

import json
import os
import subprocess
from pathlib import Path

from tuning_api import manifest
from tuning_api.manifest import ManifestError
from tuning_api.schema import Document
from tuning_api.spec import StudySpec
from tuning_operator.cli.terminal import say
from tuning_operator.decide import pod_templates, validity
from tuning_operator.decide.pod_templates import Restriction
from tuning_operator.local import interpreter
from tuning_operator.local.errors import BadInputError


def validate(file: Path, *, restriction: Restriction | None = None) -> int:
    """Check a manifest, then its model.

    Args:
        file: The manifest.
        restriction: What restricts podTemplates in the cluster that it is for, which nothing here can know.

    Returns:
        0 when all is well, 1 when trials would fail.

    Raises:
        BadInputError: the manifest itself is wrong.
    """
    document, spec = read(file)
    if restriction and (fault := next(pod_templates.faults(spec.trial.pod_template or {}, restriction), None)):
        raise BadInputError(f"{file}: {fault}")
    answer = _ask(["check", "--json", "-"], spec, file=file, capture=True)
    problems = [json.loads(line)["problem"] for line in answer.stdout.splitlines() if line.startswith("{")]
    for problem in problems:
        say(f"{file}: {problem}", err=True)
    if answer.returncode and not problems:
        say(f"{file}: the model could not be checked:\n{answer.stderr.strip()}", err=True)
    if not answer.returncode:
        say(f"{file}: study {manifest.name_of(document)} is ready to run")
    return answer.returncode


def try_one(file: Path, *, seed: int | None) -> int:
    """Run one trial in the foreground.

    Returns:
        0 when it has a result.

    Raises:
        BadInputError: the manifest is wrong.
    """
    _, spec = read(file)
    seeded = [] if seed is None else ["--seed", str(seed)]
    return _ask(["try", "-", *seeded], spec, file=file, capture=False).returncode


def read(file: Path) -> tuple[Document, StudySpec]:
    """A manifest that means something, as far as can be known without its classes.

    Raises:
        BadInputError: it does not.
    """
    try:
        document = manifest.load(file)
    except ManifestError as error:
        raise BadInputError(str(error)) from error
    spec, fault = manifest.read_spec(document)
    fault = fault or (validity.fault(spec, stored=None) if spec else None)
    if spec is None or fault:
        raise BadInputError(f"{file}: {fault}")
    return document, spec


def _ask(arguments: list[str], spec: StudySpec, *, file: Path, capture: bool) -> "subprocess.CompletedProcess[str]":
    """Where `run` would: in the manifest's folder, whose modules are found."""
    folder = file.absolute().parent
    return subprocess.run(
        [*interpreter.COMMAND, *arguments],
        input=json.dumps(spec.to_document()),
        env=interpreter.environment(folder, os.environ),
        cwd=folder,
        text=True,
        capture_output=capture,
        check=False,
    )
