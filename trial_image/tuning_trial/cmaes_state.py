"""PURE: the state of CMA-ES as rows have it, read without running anything that it says.

Optuna keeps it as a pickle, in hexadecimal, in parts. All pods of a namespace may write such rows, and a pickle names the
functions that its reader calls. So nothing is unpickled here: the few instructions that such a state consists of are
followed by this module, which knows the names that stand in one and calls none of them. What it finds are numbers, and
with those it fills an optimizer that was made here (ADR 0027).
"""

import math
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import cmaes
import numpy as np

LONGEST = 8 * 1024 * 1024
"""Hexadecimal digits. The state of 64 parameters has 100,000, that of 500 parameters 6 million."""
_HEX = frozenset("0123456789abcdef")

_MOST_INSTRUCTIONS = 5_000
"""The state of CMA-ES with margin has 700, however many parameters there are."""

_DTYPES = {"f8": np.float64, "i8": np.int64, "b1": np.bool_}
_KINDS = {"_cma.CMA": "CMA", "_cmawm.CMAwM": "CMAwM", "_sepcma.SepCMA": "SepCMA"}
_UNDEFINED = frozenset({"_funhist_values"})
"""NB: arrays of `numpy.empty`, whose numbers may be any until they are written."""
_LARGEST = 1e32
"""Larger numbers are none of a search between 0 and 1; cmaes refuses them by an assertion."""


class UnreadableState(ValueError):  # noqa: N818 - what it is, and nobody's error
    """A state of CMA-ES is none that a worker has written."""


def joined(parts: Mapping[str, Any], prefix: str) -> bytes:
    """The parts of a state, put together.

    Args:
        parts: The attributes of a trial whose names begin with the prefix.
        prefix: Of the names; a number follows, from 0.

    Raises:
        UnreadableState: a part is missing, or they are no hexadecimal digits, or too many.
    """
    found = [parts.get(f"{prefix}:{number}") for number in range(len(parts))]
    texts = [part for part in found if isinstance(part, str)]
    if len(texts) != len(found):
        raise UnreadableState("a part of it is missing")
    if sum(map(len, texts)) > LONGEST:
        raise UnreadableState(f"it has more than {LONGEST:,} digits")
    text = "".join(texts)
    if len(text) % 2 or not _HEX.issuperset(text):
        raise UnreadableState("it is not hexadecimal")
    return bytes.fromhex(text)


def read(pickled: bytes, *, make: Callable[[int], Any]) -> Any:
    """The optimizer that a state describes.

    Args:
        pickled: The state.
        make: Makes an optimizer of the search as it is now, with a population of a given size. The state has to have the
            form of that one, number by number.

    Raises:
        UnreadableState: it is something else; the message says what, in a few words.
    """
    described = _described(pickled)
    size = _population(described)
    try:
        optimizer = make(size)
    except (AssertionError, ArithmeticError, ValueError) as error:
        raise UnreadableState(f"a population of {size} has no search") from error
    _fill(optimizer, described)
    return optimizer


def _population(described: "_Described") -> int:
    """The size of the population, which the state keeps when the spec has changed."""
    inner = described.state.get("_cma", described)
    state = inner.state if isinstance(inner, _Described) else {}
    size, weights = state.get("_popsize"), state.get("_weights")
    # NB: compared with an array that is there, so that nothing is made that is larger than the state itself.
    # Weights are those of all, or of the better half.
    if type(size) is not int or not isinstance(weights, _Array) or weights.shape not in {(size,), (size // 2,)}:
        raise UnreadableState("it has no population")
    if size < 1:
        raise UnreadableState(f"its population is {size}")
    return size


def _fill(optimizer: Any, described: "_Described") -> None:
    """Put the numbers of a state into an optimizer of the same form.

    Raises:
        UnreadableState: it has another form.
    """
    if described.kind != type(optimizer).__name__:
        raise UnreadableState(f"it is no {type(optimizer).__name__}")
    form = _state_of(optimizer)
    if form.keys() != described.state.keys():
        raise UnreadableState("its attributes are others")
    inner = {name: value for name, value in form.items() if isinstance(value, cmaes.CMA)}
    for name in inner:
        if not isinstance(described.state[name], _Described):
            raise UnreadableState(f"its {name} is none")
        _fill(form[name], described.state[name])
    numbers = {name: _like(described.state[name], form[name], name) for name in form.keys() - inner.keys()}
    if isinstance(optimizer, cmaes.CMAwM):
        vars(optimizer).update(numbers)
    else:
        optimizer.__setstate__(numbers)


def _state_of(optimizer: Any) -> dict[str, Any]:
    """What a pickle of it has. NB: `CMAwM` has no `__getstate__` of its own, and what Python gives it may be its `__dict__`."""
    return dict(vars(optimizer)) if isinstance(optimizer, cmaes.CMAwM) else optimizer.__getstate__()


def _like(value: object, form: object, name: str) -> Any:
    """A value of a state, if it has the form of the one that is there.

    Raises:
        UnreadableState: it has another.
    """
    if isinstance(form, np.ndarray):
        if not isinstance(value, _Array) or value.shape != form.shape or value.kind != form.dtype:
            raise UnreadableState(f"its {name} has another form")
        array = value.array()
        if name not in _UNDEFINED and not _are_usual(array):
            raise UnreadableState(f"its {name} is not finite")
        return array
    if form is None or isinstance(form, bool | int):
        # Sizes, how often it tries, and what is computed from those: nothing but the generation ever changes.
        if name == "_g" and type(value) is int and 0 <= value < _LARGEST:
            return value
        if type(value) is not type(form) or value != form:
            raise UnreadableState(f"its {name} is {value!r:.40}")
        return value
    if not isinstance(value, float) or not _are_usual(np.asarray(value)):
        raise UnreadableState(f"its {name} is no finite number")
    return value


def _are_usual(array: Any) -> bool:
    return bool(np.all(np.isfinite(array)) and np.all(np.abs(array) < _LARGEST))


# The instructions of a pickle, as far as a state has them.


@dataclass
class _Described:
    """An optimizer, as a state describes it."""

    kind: str
    state: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Array:
    """An array, whose numbers are where the state has them: its size is that of its bytes."""

    shape: tuple[int, ...] = ()
    kind: Any = None
    numbers: bytes = b""
    order: Literal["C", "F"] = "C"

    def array(self) -> Any:
        """The numbers, which may be changed."""
        return np.frombuffer(self.numbers, self.kind).copy().reshape(self.shape, order=self.order)


@dataclass(frozen=True)
class _Name:
    """A class or function that a state names."""

    text: str


_MARK = object()
_OPTIMIZERS = {_Name(f"cmaes.{module}"): name for module, name in _KINDS.items()}
_DTYPE, _NDARRAY = _Name("numpy.dtype"), _Name("numpy.ndarray")
# NB: numpy 2 writes the first of each, numpy 1 the second, and an image may be older than the study.
_RECONSTRUCT = {_Name(f"numpy.{core}.multiarray._reconstruct") for core in ("_core", "core")}
_SCALAR = {_Name(f"numpy.{core}.multiarray.scalar") for core in ("_core", "core")}
_FROM_BUFFER = {_Name(f"numpy.{core}.numeric._frombuffer") for core in ("_core", "core")}
"""How arrays stand in pickles of protocol 5, which Python 3.14 writes by default."""
_NAMES = {*_OPTIMIZERS, _DTYPE, _NDARRAY, *_RECONSTRUCT, *_SCALAR, *_FROM_BUFFER}


def _described(pickled: bytes) -> _Described:
    """What a state describes.

    Raises:
        UnreadableState: it consists of something else.
    """
    try:
        found = _followed(pickled)
    except UnreadableState:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnreadableState(f"it cannot be read ({type(error).__name__})") from error
    if not isinstance(found, _Described):
        raise UnreadableState("it is no optimizer")
    return found


def _followed(pickled: bytes) -> object:  # noqa: C901, PLR0912 - one for each instruction
    stack: list[Any] = []
    memo: list[Any] = []
    for count, (instruction, argument, _) in enumerate(pickletools.genops(pickled)):
        if count >= _MOST_INSTRUCTIONS:
            raise UnreadableState(f"it has more than {_MOST_INSTRUCTIONS:,} instructions")
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                return stack.pop()
            case "MEMOIZE":
                memo.append(stack[-1])
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[int(argument or 0)])
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case name if name in _LITERALS:
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "MARK":
                stack.append(_MARK)
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(_popped(stack, int(instruction.name[-1]))))
            case "TUPLE":
                stack.append(tuple(_since_mark(stack)))
            case "SETITEMS":
                items = _since_mark(stack)
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "STACK_GLOBAL":
                stack.append(_named(*_popped(stack, 2)))
            case "NEWOBJ" | "REDUCE":
                stack.append(_made(*_popped(stack, 2)))
            case "BUILD":
                made, state = _popped(stack, 2)
                stack.append(made)
                _build(made, state)
            case name:
                raise UnreadableState(f"it has the instruction {name}, which no state has")
    raise UnreadableState("it has no end")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_LITERALS = frozenset(
    {
        *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
        *("SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BYTEARRAY8"),
    }
)


def _popped(stack: list[Any], count: int) -> list[Any]:
    taken = stack[-count:]
    del stack[-count:]
    return taken


def _since_mark(stack: list[Any]) -> list[Any]:
    taken: list[Any] = []
    while (last := stack.pop()) is not _MARK:
        taken.append(last)
    return taken[::-1]


def _named(module: object, name: object) -> _Name:
    named = _Name(f"{module}.{name}")
    if named not in _NAMES:
        raise UnreadableState(f"it names {named.text!r:.80}, which no state does")
    return named


def _made(name: object, arguments: tuple[object, ...]) -> object:
    match name, arguments:
        case _Name(), () if name in _OPTIMIZERS:
            return _Described(_OPTIMIZERS[name])
        # NB: numbers only. With a type of objects, numpy takes the bytes of a number or an array for another pickle.
        case _Name(), (str(code), False, True) if name == _DTYPE and code in _DTYPES:
            return np.dtype(_DTYPES[code])
        case _Name(), (_Name() as kind, (0,), b"b") if name in _RECONSTRUCT and kind == _NDARRAY:
            return _Array()
        case _Name(), (bytes() | bytearray() as numbers, np.dtype() as kind, shape, "C" | "F" as order) if (
            name in _FROM_BUFFER
        ):
            return _array(numbers, kind, shape, order)
        case _Name(), (np.dtype() as kind, bytes(number)) if name in _SCALAR and len(number) == kind.itemsize:
            return np.frombuffer(number, kind)[0]
        case _:
            raise UnreadableState("it makes something that no state has")


def _build(made: object, state: object) -> None:
    match made, state:
        case _Described(), dict():
            made.state = state
        case np.dtype(), (3, "<" | "|", None, None, None, -1, -1, 0):
            pass
        case _Array(), (1, shape, np.dtype() as kind, bool(is_fortran), bytes(numbers)):
            vars(made).update(vars(_array(numbers, kind, shape, "F" if is_fortran else "C")))
        case _:
            raise UnreadableState("it fills something that no state has")


def _array(numbers: bytes | bytearray, kind: Any, shape: object, order: Literal["C", "F"]) -> _Array:
    if not isinstance(shape, tuple) or not all(type(size) is int and size >= 0 for size in shape):
        raise UnreadableState("an array of it has no size")
    if math.prod(shape) * kind.itemsize != len(numbers):
        raise UnreadableState("an array of it has another size")
    return _Array(shape, kind, bytes(numbers), order)
