"""Recording of calls, and objects that have no attributes but the ones listed."""

import inspect
import itertools
import zlib

import numpy as np

LONGEST_REPEAT = 2


class Transcript:
    """Calls in their order, with what tells them apart."""

    def __init__(self):
        self.calls = []
        self._numbers = {}

    def add(self, name, arguments):
        self.calls.append([name, {key: self._short(value) for key, value in arguments.items()}])

    def _short(self, value):  # noqa: PLR0911, one per kind
        if isinstance(value, int | np.integer) and not isinstance(value, bool):
            return int(value)
        if isinstance(value, float):
            return float(f"{value:.9g}")
        if isinstance(value, np.ndarray):
            data = np.ascontiguousarray(value)
            return f"{data.dtype}{list(data.shape)} crc {zlib.crc32(data.tobytes()):08x}"
        if isinstance(value, list | tuple | set | frozenset):
            return self._sequence(value)
        if isinstance(value, dict):
            return {str(self._short(k)): self._short(v) for k, v in value.items()}
        if value is None or isinstance(value, bool | str):
            return value
        key = getattr(value, "number", None)
        return type(value).__name__ + ("" if key is None else f"#{key}")

    def _sequence(self, value):
        items = list(value)
        if isinstance(value, set | frozenset):
            return sorted(str(self._short(item)) for item in items)
        leaves = np.asarray(list(_leaves(items)), object)
        if len(leaves) > 4 and all(isinstance(leaf, int | float) for leaf in leaves):
            numbers = np.asarray(leaves, np.float64)
            return f"{len(items)} lists of {len(numbers)} numbers, sum {numbers.sum():.9g}"
        shown = [self._short(item) for item in items]
        groups = [(key, len(list(group))) for key, group in itertools.groupby(shown)]
        return [f"{n} x {key}" if n > 1 else key for key, n in groups]

    def collapsed(self):
        """The calls, with blocks that repeat written once, with their number."""
        found, at = [], 0
        while at < len(self.calls):
            times, size = max(
                (
                    (_repeats(self.calls, at, size), size)
                    for size in range(1, LONGEST_REPEAT + 1)
                    if at + size <= len(self.calls)
                ),
                key=lambda found: (found[0] > 1, found[0] * found[1], -found[1]),
            )
            block = self.calls[at : at + size]
            if times > 1:
                found.append({"times": times, "calls": block})
            else:
                found.append(self.calls[at])
                size, times = 1, 1
            at += size * times
        return found


def _repeats(calls, at, size):
    block, times = calls[at : at + size], 1
    while calls[at + times * size : at + (times + 1) * size] == block:
        times += 1
    return times


def _leaves(value):
    for item in value:
        if isinstance(item, list | tuple):
            yield from _leaves(item)
        else:
            yield item


class Strict:
    """Sets no attribute that its class does not declare, as bound classes do."""

    def __setattr__(self, name, value):
        if not name.startswith("_") and name not in _declared(type(self)):
            raise AttributeError(f"{type(self).__name__} has no {name}", name=name, obj=self)
        super().__setattr__(name, value)


def _declared(cls):
    return {name for base in cls.__mro__ for name in getattr(base, "__annotations__", ())}


def recorded(transcript, name, function):
    """The function, whose calls are written down under a name once their signature holds."""
    signature = inspect.signature(function)

    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        transcript.add(name, bound.arguments)
        return function(*args, **kwargs)

    return call


def expect(value, *types, where):
    """The value, if it is of one of the types, exactly as bindings take them."""
    if isinstance(value, bool) and bool not in types:
        raise TypeError(f"{where}: incompatible function arguments: bool")
    if not isinstance(value, types):
        raise TypeError(f"{where}: incompatible function arguments: {type(value).__name__}")
    return value


def require(condition, message):
    """A rule of the stack that is no type: units, orders."""
    if not condition:
        raise ValueError(f"stand-in: {message}")
