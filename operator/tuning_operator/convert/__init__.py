"""Experiments of other systems as studies. Pure: a document comes in, a manifest with notes goes out."""

from enum import StrEnum

from tuning_api.documents import Dialect
from tuning_api.schema import Document
from tuning_operator.convert import determined, katib, nni, wandb
from tuning_operator.convert.draft import Conversion
from tuning_operator.convert.reading import ConversionError

__all__ = ["DIALECTS", "Conversion", "ConversionError", "System", "convert", "recognise"]


class System(StrEnum):
    """Where a document comes from."""

    KATIB = "katib"
    WANDB = "wandb"
    DETERMINED = "determined"
    NNI = "nni"


DIALECTS = {
    System.KATIB: Dialect.KUBERNETES,
    System.WANDB: Dialect.PYYAML,
    System.DETERMINED: Dialect.YAML_1_2,
    System.NNI: Dialect.PYYAML,
}
"""How each system reads its documents: kubectl; `yaml.safe_load`; ruamel.yaml."""
_MODULES = {System.KATIB: katib, System.DETERMINED: determined, System.NNI: nni, System.WANDB: wandb}


def recognise(document: Document) -> System | None:
    """The system of a document, by the fields that only that system has."""
    return next((system for system, module in _MODULES.items() if module.recognises(document)), None)


def convert(document: Document, system: System, *, name: str, search_space: Document | None = None) -> Conversion:
    """The study of a document.

    Args:
        document: What the system reads.
        system: The system.
        name: What the study is called if the document does not say.
        search_space: What NNI's file with the search space holds, see `nni.search_space_file`.

    Raises:
        ConversionError: a field is not what that system takes.
    """
    try:
        return _convert(document, system, name=name, search_space=search_space)
    except ConversionError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # NB: a foreign document is free-form, and its fields are some hundreds: one of another kind is no mistake of ours.
        words = f"a field is not what {system} takes ({type(error).__name__}: {error})"
        raise ConversionError(words) from error


def _convert(document: Document, system: System, *, name: str, search_space: Document | None) -> Conversion:
    match system:
        case System.KATIB:
            return katib.convert(document, name=name)
        case System.WANDB:
            return wandb.convert(document, name=name)
        case System.DETERMINED:
            return determined.convert(document, name=name)
        case System.NNI:
            return nni.convert(document, name=name, search_space=search_space)
