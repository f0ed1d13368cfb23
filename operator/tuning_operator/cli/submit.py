"""`tuningstudy submit`: a manifest and the code beside it to a cluster, and what becomes of it.

The order of the steps is such that a crash between any two of them is mended by the same command: what the API server
refuses is known before anything is made; a worker never starts before its code is there; and the code belongs to the
study, with which it is deleted, as soon as there is one.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from tuning_api import manifest
from tuning_api.schema import Document
from tuning_api.spec import Trial
from tuning_api.status import Phase, StudyStatus, read_status
from tuning_operator.charts.wording import counted
from tuning_operator.cli.terminal import say
from tuning_operator.cli.validate import read
from tuning_operator.errors import ClusterUnavailable, Conflict, Missing
from tuning_operator.local.errors import BadInputError
from tuning_operator.remote import code
from tuning_operator.remote.code import Folder, size_in_words
from tuning_operator.remote.gateway import Gateway, connect
from tuning_operator.remote.where import Where

POLL_SECONDS = 2.0
INTERRUPTED = 130
_EXITS = {Phase.COMPLETE: 0, Phase.FAILED: 1, Phase.SUSPENDED: 3}


@dataclass(frozen=True)
class Packed:
    """A folder's code, ready to be taken along."""

    folder: Folder
    archive: bytes


def submit(
    file: Path, *, where: Where, folder: Path | None, dry_run: bool, force: bool, is_watched: bool, program: str
) -> int:
    """Apply a manifest together with the code beside it.

    Returns:
        0; with `is_watched` what `run` would: 0 complete, 1 failed, 3 suspended, 130 interrupted.

    Raises:
        BadInputError: the manifest is wrong, or its code cannot be taken along.
    """
    document, spec = read(file)
    packed = _pack(file, spec.trial, folder)
    if dry_run:
        _print(document, packed, namespace=where.namespace)
        return 0
    gateway = connect(where, namespace=document["metadata"].get("namespace"))
    study = _apply(gateway, _in_namespace(document, gateway.namespace), packed, force=force)
    name, chosen = manifest.name_of(study), _chosen(where, gateway)
    say(f"study {name} is submitted to namespace {gateway.namespace}")
    if is_watched:
        return watch(gateway, name, program=program, chosen=chosen)
    say(f"  watch it:    kubectl get tuningstudy {name}{chosen} --watch")
    say(f"  its charts:  {program} open {name}{chosen}")
    say(f"  its best:    {program} best {name}{chosen}")
    return 0


def _chosen(where: Where, gateway: Gateway) -> str:
    """The options that lead to the same place again."""
    options = {"-n": gateway.namespace, "--context": where.context, "--kubeconfig": where.kubeconfig}
    return "".join(f" {option} {value}" for option, value in options.items() if value)


# The code


def _pack(file: Path, trial: Trial, chosen: Path | None) -> Packed | None:
    """The code to take along, said on standard error; None where the image has it."""
    beside = file.absolute().parent
    folder, why_not = which_code(trial, beside=beside, chosen=chosen)
    if folder is None:
        _say(f"no code is packed: {why_not}")
        return None
    packed = Packed(folder, code.archive(folder))
    width = max(len(source.name) for source in folder.files)
    for source in folder.files:
        _say(f"  {source.name:<{width}}  {size_in_words(len(source.content)):>10}")
    behind = f"; {counted(folder.others, 'other file')} left behind" if folder.others else ""
    _say(
        f"packed {counted(len(folder.files), 'module')} of {folder.path} ({size_in_words(len(packed.archive))}){behind}"
    )
    if absent := [name for name in code.named_modules(trial) if name not in folder.modules]:
        _say(f"not packed, so the trial image must have it: {', '.join(absent)}")
    return packed


def which_code(trial: Trial, *, beside: Path, chosen: Path | None) -> tuple[Folder | None, str]:
    """The folder to take along, or why there is none.

    Args:
        trial: What runs.
        beside: The manifest's folder, whose modules a run without a cluster finds, too.
        chosen: The folder that the person named.

    Raises:
        BadInputError: the folder is none, or it and the manifest contradict each other.
    """
    if trial.code:
        name = trial.code.config_map_name
        if chosen:
            raise BadInputError(f"spec.trial.code names ConfigMap {name} already: remove it, or leave out --code")
        return None, f"spec.trial.code names ConfigMap {name}"
    if chosen is None and trial.image:
        return None, f"spec.trial.image is given, and has it ({trial.image}); --code FOLDER packs a folder all the same"
    folder = code.read_folder(chosen or beside)
    names = code.named_modules(trial)
    if folder.modules.isdisjoint(names) and chosen is None:
        return None, f"{', '.join(names) or 'what the trial names'} must be in the trial image, none is in {beside}"
    if not folder.files:
        raise BadInputError(f"{folder.path}: there is no module in it: --code names the folder above your packages")
    return folder, ""


# The cluster


def _apply(gateway: Gateway, document: Document, packed: Packed | None, *, force: bool) -> Document:
    name = manifest.name_of(document)
    before = _stored(gateway, name)
    if before and before["metadata"].get("deletionTimestamp"):
        raise BadInputError(f"study {name} is being deleted: try again when it is gone")
    try:
        if packed is None:
            return gateway.apply_study(document, force=force)
        return _apply_with_code(gateway, document, packed, before=before, force=force)
    except Conflict as error:
        raise BadInputError(
            f"{error}: write the same into the manifest, or take it over by --force-conflicts"
        ) from error


def _apply_with_code(
    gateway: Gateway, document: Document, packed: Packed, *, before: Document | None, force: bool
) -> Document:
    uid = before["metadata"]["uid"] if before else None
    config_map = _config_map(document, packed, uid=uid)
    study = code.with_code(document, config_map["metadata"]["name"])
    if before:
        _warn_of_other_code(before, study)
    gateway.apply_study(study, force=force, dry_run=True)  # a refusal leaves nothing behind
    gateway.apply_config_map(config_map)
    stored = gateway.apply_study(study, force=force)
    if stored["metadata"]["uid"] != uid:
        gateway.apply_config_map(_config_map(document, packed, uid=stored["metadata"]["uid"]))
    return stored


def _config_map(document: Document, packed: Packed, *, uid: str | None) -> Document:
    name, namespace = manifest.name_of(document), document["metadata"]["namespace"]
    return code.config_map(packed.archive, study=name, namespace=namespace, uid=uid)


def _stored(gateway: Gateway, name: str) -> Document | None:
    try:
        return gateway.study(name)
    except Missing:
        return None


def _warn_of_other_code(before: Document, study: Document) -> None:
    has_begun = before.get("status", {}).get("trials", {}).get("finished") or before.get("status", {}).get("workers")
    earlier, later = before["spec"]["trial"].get("code"), study["spec"]["trial"]["code"]
    if has_begun and earlier != later:
        _say(
            "warning: the code has changed: workers that run keep what they began with, and trials of both are compared;"
            " a study of another name would keep them apart"
        )


def _in_namespace(document: Document, namespace: str) -> Document:
    named = document["metadata"].get("namespace")
    if named and named != namespace:
        raise BadInputError(f"metadata.namespace is {named}, and --namespace {namespace}: leave out one of them")
    return document | {"metadata": document["metadata"] | {"namespace": namespace}}


def _print(document: Document, packed: Packed | None, *, namespace: str | None) -> None:
    """What would be applied, for eyes or for kubectl."""
    target = namespace or manifest.namespace_of(document)
    document = _in_namespace(document, target)
    documents = [document]
    if packed:
        config_map = _config_map(document, packed, uid=None)
        documents = [config_map, code.with_code(document, config_map["metadata"]["name"])]
    yaml.safe_dump_all(documents, sys.stdout, sort_keys=False, allow_unicode=True)


# What becomes of it


def watch(gateway: Gateway, name: str, *, program: str, chosen: str) -> int:
    """Say what changes, until the study has ended.

    Returns:
        How it ended, as `run` says it; 130 when somebody does not want to wait.
    """
    said = ""
    try:
        while True:
            study = _look(gateway, name)
            status = read_status(study.get("status")) if study else StudyStatus()
            if study and (words := in_one_line(status)) and words != said and _is_current(study, status):
                say(words)
                said = words
                if status.phase in _EXITS:
                    say(f"  its charts:  {program} open {name}{chosen}")
                    return _EXITS[status.phase]
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        say(f"the study goes on; to stop it: kubectl delete tuningstudy {name}{chosen}", err=True)
        return INTERRUPTED


def _look(gateway: Gateway, name: str) -> Document | None:
    try:
        return gateway.study(name)
    except ClusterUnavailable:
        return None  # the next look says more


def _is_current(study: Document, status: StudyStatus) -> bool:
    """Whether the operator has seen what was applied: before, the status is of the manifest before."""
    return (status.observed_generation or 0) >= int(study["metadata"]["generation"])


def in_one_line(status: StudyStatus) -> str:
    """A status as a line of a log."""
    if status.phase is None:
        return ""
    best = f"; best {status.best_display}" if status.best_display else ""
    return f"{status.phase}: {status.message}{best}"


def _say(words: str) -> None:
    say(words, err=True)
