"""`tuningstudy init`: a first manifest for a model. Whether there is one, only a process with torch knows."""

import json
import os
import re
import subprocess
from pathlib import Path

from tuning_api.schema import Document
from tuning_operator.cli import writing
from tuning_operator.cli.starter import starter
from tuning_operator.cli.terminal import say
from tuning_operator.local import interpreter
from tuning_operator.local.errors import BadInputError

EXAMPLE = ("digits", "tuning_trial.examples.digits.DigitsClassifier", "tuning_trial.examples.digits.DigitsData")
"""Name, model and data of the study that is written where no model is named."""

_BASES = {"model": "LightningModule", "data": "LightningDataModule"}
_MOST_CHARACTERS = 63
"""Of a study's name."""


def init(model: str | None, *, data: str | None, output: Path, force: bool) -> int:
    """Write the manifest.

    Returns:
        0.

    Raises:
        BadInputError: there is no such class, or the file is there already.
    """
    if output.exists() and not force:
        raise BadInputError(f"{output} is there already: choose another with -o, or write over it with --force")
    name, model_path, data_path = EXAMPLE if model is None else (_name(model), model, None)
    classes = [(model_path, "model", "CLASS")]
    if data := data or data_path:
        classes.append((data, "data", "--data"))
    described, *others = _described(classes, folder=output.absolute().parent)
    made = starter(described, next(iter(others), None), name=name)
    head = [f"A first manifest for {described['class_path']}.", "", *_next_steps(output)]
    writing.save(writing.text(made.manifest, comments=made.comments, head=head), output, force=force)
    say(f"wrote {output}: look it through, then tuningstudy validate {output}")
    for lines in made.comments.values():
        for line in lines if isinstance(lines, list) else []:
            if line.startswith("To decide"):
                say(f"  {line}")
    return 0


def _next_steps(output: Path) -> list[str]:
    return [
        f"  tuningstudy validate {output.name}    is it right?",
        f"  tuningstudy try {output.name}         one trial in the foreground",
        f"  tuningstudy run {output.name}         all of them here; in a cluster: kubectl apply -f {output.name}",
    ]


def _name(class_path: str) -> str:
    """classification.LitResNet is lit-res-net: a legal name of a Kubernetes object."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", re.split(r"[.:]", class_path)[-1])
    return re.sub(r"[^a-z0-9]+", "-", words.lower())[:_MOST_CHARACTERS].strip("-") or "study"


def _described(classes: list[tuple[str, str, str]], *, folder: Path) -> list[Document]:
    """What a process says of classes that runs where `run` would: in the manifest's folder, whose modules are found.

    Args:
        classes: For each its path, what it must be, and which argument named it.
        folder: The manifest's.

    Raises:
        BadInputError: one of them is not there, or is not what it must be.
    """
    answer = subprocess.run(
        [*interpreter.COMMAND, "describe", "--json", *(path.replace(":", ".") for path, _, _ in classes)],
        env=interpreter.environment(folder, os.environ),
        text=True,
        capture_output=True,
        check=False,
    )
    documents: list[Document] = [json.loads(line) for line in answer.stdout.splitlines()]
    if len(documents) < len(classes):
        raise BadInputError(f"the classes could not be looked at:\n{answer.stderr.strip()}")
    for document, (path, kind, argument) in zip(documents, classes, strict=True):
        if "problem" in document:
            raise BadInputError(f"{argument}: {document['problem']}")
        if document["kind"] != kind:
            raise BadInputError(f"{argument}: {path} is no {_BASES[kind]}")
    return documents
