"""An experiment of NNI, or its search space alone, as a study.

NNI has read three spellings of its configuration: `maxTrialNumber` (version 2), the same as `max_trial_number` in files
written for its Python interface, and `maxTrialNum` with `trial` as a mapping (version 1).
"""

import re

from tuning_api.schema import Document
from tuning_operator.convert import space
from tuning_operator.convert.draft import Conversion, Draft, shell
from tuning_operator.convert.reading import ConversionError, as_number, count, mapping
from tuning_operator.convert.space import Dimension

TUNERS: dict[str, Document] = {
    "tpe": {"type": "tpe"},
    "random": {"type": "random"},
    "gridsearch": {"type": "grid"},
    "batch": {"type": "grid"},
    "gp": {"type": "gp"},
    "metis": {"type": "gp"},
    "hyperband": {"type": "random"},
    "bohb": {"type": "tpe"},
}
_LIKE = frozenset({"metis"})
"""Tuners whose counterpart is only of the same family."""
_DURATION = re.compile(r"(?:[0-9]+[dhms])+")
_LONGEST = 60
"""Hyperband's R where none is given."""
_MARKS = {
    *("searchSpace", "searchSpaceFile", "trialCommand", "trialConcurrency"),
    *("search_space", "search_space_file", "trial_command", "trial_concurrency"),
    *("searchSpacePath", "maxTrialNum", "maxExecDuration", "trainingServicePlatform"),
}
_FILES = ("searchSpaceFile", "search_space_file", "searchSpacePath")
_WORDS = {
    "trainingService": "workers are Jobs of the cluster, or processes of this machine; nodes: trial.podTemplate",
    "trainingServicePlatform": "workers are Jobs of the cluster, or processes of this machine",
    "trialCodeDirectory": "the code has to be in the image, in trial.code, or beside the manifest of a local run",
    "useAnnotation": "annotations in the code are not read: write the search space into the manifest",
    "sharedStorage": "a volume in trial.podTemplate",
    "authorName": "an annotation of the manifest",
    "debug": "the code's own matter",
    "logLevel": "the code's own matter",
    "nniManagerIp": "there is no manager to reach",
    "experimentWorkingDirectory": "the study is in the database",
    "experimentType": "a study is a search for hyperparameters",
    "tunerGpuIndices": "samplers need no GPU",
    "multiPhase": "a trial has one set of parameters",
    "multiThread": "workers decide side by side in any case",
}


def recognises(document: Document) -> bool:
    """Whether it is an experiment's configuration, or a search space by itself."""
    return bool(_MARKS & document.keys()) or is_search_space(document)


def is_search_space(document: object) -> bool:
    """Whether it says the kind and the values of each parameter, and nothing else."""
    return (
        isinstance(document, dict)
        and bool(document)
        and all(isinstance(value, dict) and "_type" in value for value in document.values())
    )


def search_space_file(document: Document) -> tuple[str, str] | None:
    """The field that names a file with the search space, and that name; None if it is in the configuration."""
    return next(((key, str(document[key])) for key in _FILES if document.get(key)), None)


def convert(document: Document, *, name: str, search_space: Document | None = None) -> Conversion:
    """The study of an experiment.

    Args:
        document: The experiment's configuration, or a search space by itself.
        name: What the study is called if the experiment has no name.
        search_space: What `search_space_file` holds.

    Raises:
        ConversionError: a field is not what NNI takes.
    """
    if is_search_space(document):
        return _convert_space(document, name=name)
    reader = _Reader(document)
    draft = Draft(name)
    if title := reader.get("experimentName"):
        draft.name = str(title[1])
        draft.mapped(title[0], "metadata.name")
    _tuner(draft, reader)
    _assessor(draft, reader)
    _space(draft, reader, search_space)
    _limits(draft, reader)
    _trial(draft, reader)
    for key, words in _WORDS.items():
        if found := reader.get(key):
            draft.missing(found[0], words)
    named = search_space_file(document)
    return draft.finish(document | ({named[1]: search_space} if named and search_space else {}))


def _convert_space(document: Document, *, name: str) -> Conversion:
    draft = Draft(name, objectives=[{"metric": "default", "direction": "maximize"}], spec={"pruner": {"type": "none"}})
    _add_all(draft, document, path="", prefix="")
    draft.decide("", "a search space has no metric: name it, and say which way is better", at="spec.objectives")
    draft.spec["parallelism"] = 1
    return draft.finish(document)


class _Reader:
    """The fields of a configuration in any spelling, with the path as it is written."""

    def __init__(self, document: Document) -> None:
        self.document = document

    def get(self, *names: str) -> tuple[str, object] | None:
        """Path and value of the first field of these names, in camel or snake case."""
        for name in names:
            for key in (name, _snake(name)):
                if self.document.get(key) is not None:
                    return key, self.document[key]
        return None

    def part(self, *names: str) -> tuple[str, Document]:
        """Path and fields of a mapping; empty where there is none."""
        found = self.get(*names)
        return (found[0], mapping(self.document, found[0])) if found else ("", {})


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda match: f"_{match[0].lower()}", name)


def _algorithm(path: str, node: Document) -> tuple[str, str, dict[str, tuple[str, object]]]:
    """Path of the name, the name in small letters without its ending, and path and value of each argument."""
    key = next(
        (key for key in ("name", "builtinTunerName", "builtinAdvisorName", "builtinAssessorName") if key in node),
        "name",
    )
    name = re.sub(r"(tuner|assessor|advisor)$", "", str(node.get(key, "")).lower())
    arguments = "class_args" if "class_args" in node else "classArgs"
    values = mapping(node, arguments, path=path)
    return f"{path}.{key}", name, {key: (f"{path}.{arguments}.{key}", value) for key, value in values.items()}


def _tuner(draft: Draft, reader: _Reader) -> None:
    path, node = reader.part("advisor", "tuner")
    at, name, arguments = _algorithm(path, node) if node else ("", "tpe", {})
    if not node:
        draft.decide("tuner", "the configuration names no tuner: is more better?", at="spec.objectives")
    sampler = dict(TUNERS.get(name, {"type": "tpe"}))
    draft.spec |= {"sampler": sampler, "pruner": {"type": "none"}}
    if name in TUNERS and name not in _LIKE:
        draft.mapped(at, f"sampler.type: {sampler['type']}")
    else:
        draft.changed(at, f"{name or 'a class of your own'} has no counterpart: sampler.type {sampler['type']}")
    _optimize_mode(draft, arguments)
    if "seed" in arguments and sampler["type"] != "bruteforce":
        at, seed = arguments.pop("seed")
        sampler["seed"] = count(seed, path=at) % 2**31
        draft.mapped(at, f"sampler.seed: {sampler['seed']}")
    if name in {"hyperband", "bohb"}:
        _hyperband(draft, arguments)
    for at, _ in arguments.values():
        draft.missing(at, f"no option of sampler {sampler['type']}")


def _optimize_mode(draft: Draft, arguments: dict[str, tuple[str, object]]) -> None:
    at, mode = arguments.pop("optimize_mode", ("", "maximize"))
    if mode not in {"minimize", "maximize"}:
        raise ConversionError(f"{at}: minimize or maximize is needed, and it is {mode!r}")
    draft.objectives = [{"metric": "default", "direction": mode}]
    draft.mapped(at, f"objectives[0].direction: {mode}")
    draft.decide("", "NNI's metric has no name: give it one", at="spec.objectives")


def _hyperband(draft: Draft, arguments: dict[str, tuple[str, object]]) -> None:
    at_most, most = arguments.pop("R", arguments.pop("max_budget", ("", _LONGEST)))
    pruner: Document = {"type": "hyperband"}
    if "min_budget" in arguments:
        at, least = arguments.pop("min_budget")
        pruner["minResource"] = max(1, count(least, path=at))
        draft.mapped(at, f"pruner.minResource: {pruner['minResource']}")
    pruner["maxResource"] = max(1, count(most, path=at_most))
    draft.changed(
        at_most, f"pruner.maxResource: {most}: not TRIAL_BUDGET, but the steps that the objective reports count"
    )
    if "eta" in arguments:
        at, eta = arguments.pop("eta")
        pruner["reductionFactor"] = max(2, count(eta, path=at))
        draft.mapped(at, f"pruner.reductionFactor: {eta}")
    draft.spec["pruner"] = pruner


def _assessor(draft: Draft, reader: _Reader) -> None:
    path, node = reader.part("assessor")
    if not node:
        return
    at, name, arguments = _algorithm(path, node)
    known = ("optimize_mode", "start_step")
    at_all = [at, *(arguments[key][0] for key in known if key in arguments)]
    arguments.pop("optimize_mode", None)
    at_step, step = arguments.pop("start_step", (at, 0))
    warmup = max(0, count(step, path=at_step) - 1)
    draft.spec["pruner"] = {"type": "median", "nStartupTrials": 1, "nWarmupSteps": warmup}
    if name == "medianstop":
        words = "pruner: median, which compares with the others' values at the same step, not with their means"
    else:
        words = f"{name} has no counterpart: pruner median"
    for changed in at_all:
        draft.changed(changed, words)
    for at, _ in arguments.values():
        draft.missing(at, "no option of pruner median")


def _space(draft: Draft, reader: _Reader, search_space: Document | None) -> None:
    if found := reader.get("searchSpace"):
        _add_all(draft, mapping(reader.document, found[0]), path=found[0], prefix="")
    elif search_space is not None and (named := search_space_file(reader.document)):
        field, file = named
        draft.mapped(field, f"searchSpace, from {file}")
        _add_all(draft, search_space, path=file, prefix="")


def _add_all(draft: Draft, node: Document, *, path: str, prefix: str, when: Document | None = None) -> None:
    for key, parameter in node.items():
        at = f"{path}.{key}" if path else key
        if not isinstance(parameter, dict) or "_type" not in parameter:
            raise ConversionError(f"{at}: a mapping with _type and _value is needed, and it is {parameter!r}")
        _add(draft, parameter, path=at, name=f"{prefix}{key}", when=when)


def _add(draft: Draft, parameter: Document, *, path: str, name: str, when: Document | None) -> None:
    values = parameter.get("_value")
    for key in parameter:
        if key not in {"_type", "_value"}:
            draft.missing(f"{path}.{key}", "a condition is a `when` of the parameter here")
    if not isinstance(values, list):
        raise ConversionError(f"{path}._value: a list is needed, and it is {values!r}")
    if parameter["_type"] != "choice" or not all(isinstance(value, dict) and "_name" in value for value in values):
        draft.add(path, name, _dimension(str(parameter["_type"]), values, path=path), when=when)
        return
    legal = draft.add(path, name, space.choices([value["_name"] for value in values], path=path), when=when)
    for value in values:
        inner = {key: item for key, item in value.items() if key != "_name"}
        condition = {"parameter": legal, "in": [value["_name"]]}
        _add_all(draft, inner, path=f"{path}.{value['_name']}", prefix=f"{legal}.{value['_name']}.", when=condition)


def _dimension(kind: str, values: list[object], *, path: str) -> Dimension:
    if kind == "choice":
        return space.choices(values, path=path)
    numbers = [as_number(value, path=f"{path}._value") for value in values]
    try:
        return _numeric(kind, numbers, path=path)
    except IndexError:
        raise ConversionError(f"{path}._value: {kind} needs more numbers than {values!r}") from None


def _numeric(kind: str, numbers: list[float], *, path: str) -> Dimension:
    match kind:
        case "randint":
            return space.number(
                numbers[0], numbers[1] - 1, path=path, whole=True, changes=("the upper bound is included",)
            )
        case "uniform" | "loguniform":
            return space.number(numbers[0], numbers[1], path=path, log=kind == "loguniform")
        case "quniform" | "qloguniform":
            return space.quantised(numbers[0], numbers[1], numbers[2], path=path, log=kind == "qloguniform")
        case "normal" | "lognormal":
            return space.normal(numbers[0], numbers[1], path=path, log=kind == "lognormal")
        case "qnormal" | "qlognormal":
            return space.normal(numbers[0], numbers[1], path=path, step=numbers[2], log=kind == "qlognormal")
        case _:
            raise ConversionError(f"{path}._type: a study has no {kind!r}")


def _limits(draft: Draft, reader: _Reader) -> None:
    if found := reader.get("maxTrialNumber", "maxTrialNum"):
        draft.keep(reader.document, found[0], "maxTrials", max(1, count(found[1], path=found[0])))
    if found := reader.get("maxExperimentDuration", "maxExecDuration"):
        draft.keep(reader.document, found[0], "timeout", _duration(found[1], path=found[0]))
    if found := reader.get("trialConcurrency"):
        draft.keep(reader.document, found[0], "parallelism", count(found[1], path=found[0]))
    if found := reader.get("maxTrialDuration"):
        draft.trial["timeout"] = _duration(found[1], path=found[0])
        draft.mapped(found[0], f"trial.timeout: {draft.trial['timeout']}")


def _duration(value: object, *, path: str) -> str:
    text = str(value).replace(" ", "")
    if text.isdigit():
        return f"{text}s"
    if not _DURATION.fullmatch(text):
        raise ConversionError(f"{path}: a time such as 90s, 20m or 1h30m is needed, and it is {value!r}")
    return text


def _trial(draft: Draft, reader: _Reader) -> None:
    path, trial = reader.part("trial")
    worker = mapping(trial, "worker", path=path) or trial
    inside = f"{path}.worker" if worker is not trial else path or "trial"
    command = reader.get("trialCommand") or (f"{inside}.command", worker.get("command"))
    if command[1]:
        draft.command = shell(command[1])
        words = "trial.objective: nni.get_next_parameter becomes trial.params, nni.report_* trial.report and return"
        draft.changed(command[0], words)
    gpus = reader.get("trialGpuNumber") or (f"{inside}.gpuNum", worker.get("gpuNum", 0))
    draft.trial["gpus"] = count(gpus[1] or 0, path=gpus[0])
    draft.mapped(gpus[0], f"trial.gpus: {draft.trial['gpus']}")
    if worker.get("image"):
        draft.trial["image"] = str(worker["image"])
        draft.mapped(f"{inside}.image", "trial.image")
    _, service = reader.part("trainingService") if isinstance(_value(reader, "trainingService"), dict) else ("", {})
    image = service.get("dockerImage", service.get("docker_image"))
    if image:
        draft.trial["image"] = str(image)
        draft.mapped("trainingService.dockerImage", "trial.image")
    others = [(path, trial), *([(inside, worker)] if worker is not trial else [])]
    for at, key in ((at, key) for at, node in others for key in node):
        if key not in {"command", "gpuNum", "image", "worker"}:
            draft.missing(f"{at}.{key}", _WORKER.get(key, "the code's own matter, or trial.podTemplate"))


_WORKER = {
    "codeDir": _WORDS["trialCodeDirectory"],
    "cpuNum": "resources in trial.podTemplate",
    "memoryMB": "resources in trial.podTemplate",
    "replicas": "a trial is one process in one pod here",
}


def _value(reader: _Reader, name: str) -> object:
    found = reader.get(name)
    return found[1] if found else None
