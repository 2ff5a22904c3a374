"""Which packages of the vendor are there, and of which generation their interface is.

Features decide, never version strings: the interface changed many times without one.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from jaxsnn.event.hardware.errors import (
    HardwareAPIError,
    HardwareConnectionError,
    HardwareError,
    HardwareUnavailableError,
    RoutingError,
)

#: What both generations import.
PACKAGES = ("hxtorch", "_hxtorch_core", "pygrenade_vx", "dlens_vx_v3")

_HINT = (
    "they come with the software of BrainScaleS-2 (the EBRAINS software distribution); without a "
    "chip, use the emulated one: get_backend('emulated'), or --backend emulated"
)


def require(packages: Iterable[str]) -> None:
    """Imports packages.

    Raises:
        HardwareUnavailableError: names all that are missing, or that lack what they need.
    """
    missing = []
    for package in packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            needed = "" if error.name in (package, None) else f" (needs {error.name})"
            missing.append(package + needed)
        except ImportError as error:  # a library of the system that it links to
            missing.append(f"{package} (does not load: {error})")
    if missing:
        raise HardwareUnavailableError(missing, _HINT)


def find(path: str) -> Any:
    """What is under a dotted path of packages, modules and attributes; None where it is not."""
    parts = path.split(".")
    found = importlib.import_module(parts[0])
    for n, name in enumerate(parts[1:], 2):
        try:
            found = getattr(found, name)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(parts[:n]))
            except ModuleNotFoundError:
                return None
    return found


def symbol(path: str) -> Any:
    """As `find`.

    Raises:
        HardwareAPIError: there is nothing.
    """
    found = find(path)
    if found is None:
        raise HardwareAPIError(path)
    return found


def generation() -> str:
    """``"G3"`` where networks are elements of an experiment, ``"G2"`` where a builder makes them.

    Raises:
        HardwareUnavailableError: packages are missing.
        HardwareAPIError: it is neither.
    """
    require(PACKAGES)
    if find("hxtorch.core.experiment.BaseExperiment") is not None:
        return "G3"
    if find("pygrenade_vx.network.NetworkBuilder") is not None:
        return "G2"
    raise HardwareAPIError(
        "hxtorch.core.experiment.BaseExperiment or pygrenade_vx.network.NetworkBuilder"
    )


@contextlib.contextmanager
def vendor(doing: str) -> Iterator[None]:
    """Turns what the vendor's packages raise into the errors of this package.

    Args:
        doing: for the message.
    """
    try:
        yield
    except HardwareError:
        raise
    except AttributeError as error:
        owner = getattr(error.obj, "__name__", type(error.obj).__name__)
        raise HardwareAPIError(f"{owner}.{error.name}") from error
    except TypeError as error:  # bindings report other signatures by it
        raise HardwareAPIError(f"{doing}: {error}", "(does not match)") from error
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        if "UnsuccessfulRouting" in text:
            raise RoutingError(
                f"{doing}: {text}; expected fewer neurons or sources, see validate(spec)"
            ) from error
        if "Executor not initialized" in text or "No connection" in text:
            raise HardwareConnectionError(
                f"{doing}: {text}; is this machine one with a chip, and is one allocated?"
            ) from error
        raise HardwareError(f"{doing}: {text}") from error
