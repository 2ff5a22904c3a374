"""What fits the chip and, where something does not, why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxsnn.base.types import Spikes
from jaxsnn.event.hardware.errors import HardwareCapacityError
from jaxsnn.event.hardware.spec import Issue, NetworkSpec, RunRequest
from jaxsnn.event.hardware.transforms import CLOCK_HZ

N_CIRCUITS = 512
N_ROWS = 256
MAX_RUNTIME = (2**32 - 1) / CLOCK_HZ
MAX_RATE = 250e6
N_BUSES, COLUMNS_PER_OUTPUT, ROWS_PER_BUS = 4, 32, 64
_RANGES = {"tau_mem": (0.5e-6, 60e-6), "tau_syn": (0.3e-6, 30e-6), "t_ref": (0.0, 32e-6)}


def validate(
    spec: NetworkSpec,
    *,
    runtime: float | None = None,
    inputs: Mapping[str, Spikes] | None = None,
) -> list[Issue]:
    """Looks for everything that does not fit.

    Args:
        spec: the network.
        runtime: of a run, s.
        inputs: of a run, per source, s.

    Returns:
        All issues, errors and warnings; none where all fits.
    """
    issues = [*_circuits(spec), *_fan_in(spec), *_buses(spec), *_neurons(spec)]
    if runtime is not None:
        issues += _runtime(spec, runtime)
    if inputs is not None:
        issues += _rates(inputs)
    return issues


def only_trace(spec: NetworkSpec, request: RunRequest) -> tuple[str, int] | None:
    """The population and the neuron that the MADC is to record; None where nothing is asked for.

    Raises:
        HardwareCapacityError: these are several.
        ValueError: there is no such neuron.
    """
    if not request.traces:
        return None
    if len(request.traces) > 1:
        raise HardwareCapacityError(
            f"traces are asked of populations {', '.join(request.traces)}, the chip records one "
            "neuron per run"
        )
    ((name, neuron),) = request.traces.items()
    if name not in {p.name for p in spec.populations} or not 0 <= neuron < spec.size_of(name):
        raise ValueError(f"RunRequest: there is no neuron {neuron} in population {name!r}")
    return name, neuron


def errors_of(issues: Sequence[Issue]) -> list[Issue]:
    """Those that are errors."""
    return [issue for issue in issues if issue.level == "error"]


def _circuits(spec: NetworkSpec) -> list[Issue]:
    needed = sum(p.size * circuits_per_neuron(spec, p.name) for p in spec.populations)
    if needed <= N_CIRCUITS:
        return []
    sizes = ", ".join(
        f"{p.name!r} {p.size} x {circuits_per_neuron(spec, p.name)}" for p in spec.populations
    )
    return [
        Issue(
            "error",
            "neuron_circuits",
            f"the populations need {needed} neuron circuits ({sizes}), the chip has {N_CIRCUITS}",
        )
    ]


def circuits_per_neuron(spec: NetworkSpec, population: str) -> int:
    """How many circuits a neuron needs: each hears N_ROWS / 2 signed sources."""
    return max(-(-_n_heard(spec, population) // (N_ROWS // 2)), 1)


def _n_heard(spec: NetworkSpec, population: str) -> int:
    return sum(spec.size_of(p.source) for p in spec.projections if p.target == population)


def _fan_in(spec: NetworkSpec) -> list[Issue]:
    return [
        Issue(
            "warning",
            "signed_fan_in",
            f"population {p.name!r} hears {_n_heard(spec, p.name)} sources; a circuit has "
            f"{N_ROWS} rows, two per signed source, so that every neuron takes "
            f"{circuits_per_neuron(spec, p.name)} circuits",
        )
        for p in spec.populations
        if circuits_per_neuron(spec, p.name) > 1
    ]


def _buses(spec: NetworkSpec) -> list[Issue]:
    """Rows of a hemisphere where events of columns c reach bus (c // 32) mod 4 alone."""
    sending = {p.source for p in spec.projections}
    rows = np.zeros(N_BUSES, int)
    column = 0
    for p in spec.populations:
        bus = ((column + np.arange(p.size)) // COLUMNS_PER_OUTPUT) % N_BUSES
        if p.name in sending:
            rows += 2 * np.bincount(bus, minlength=N_BUSES)
        column += p.size
    external = 2 * sum(source.size for source in spec.sources)
    free = np.maximum(ROWS_PER_BUS - rows, 0).sum()
    if np.all(rows <= ROWS_PER_BUS) and external <= free:
        return []
    return [
        Issue(
            "warning",
            "buses",
            f"packed one after the other, the neurons need {rows.tolist()} of {ROWS_PER_BUS} rows "
            f"per bus of a hemisphere and the inputs {external} of the {free} left: routing may "
            "fail unless the populations are placed on both hemispheres",
        )
    ]


def _neurons(spec: NetworkSpec) -> list[Issue]:
    issues = []
    for p in spec.populations:
        for name, (low, high) in _RANGES.items():
            value = np.asarray(getattr(p.params, name))
            if np.any((value < low) | (value > high)):
                issues.append(
                    Issue(
                        "warning",
                        "calibration_range",
                        f"population {p.name!r} has {name} = {value} s, the calibration reaches "
                        f"{low} to {high} s",
                    )
                )
    return issues


def _runtime(spec: NetworkSpec, runtime: float) -> list[Issue]:
    if not 0 < runtime <= MAX_RUNTIME:
        return [
            Issue(
                "error",
                "runtime",
                f"the run takes {runtime} s, expected more than 0 and at most {MAX_RUNTIME:.2f} s",
            )
        ]
    issues = []
    if runtime < 50e-6:
        issues.append(
            Issue("warning", "short_run", f"a run of {runtime} s is below 50e-6 s and jitters")
        )
    if runtime < spec.t_max:
        issues.append(
            Issue(
                "warning",
                "window",
                f"the run ends at {runtime} s, before the window of the model at {spec.t_max} s",
            )
        )
    return issues


def _rates(inputs: Mapping[str, Spikes]) -> list[Issue]:
    """The busiest microsecond of the inputs together."""
    times = np.concatenate(
        [np.asarray(s.time, np.float64).reshape(len(s.time), -1) for s in inputs.values()], -1
    )
    most = 0
    for row in times:
        own = np.sort(row[np.isfinite(row)])
        ahead = np.searchsorted(own, own + 1e-6, "left") - np.arange(len(own))
        most = max(most, int(ahead.max(initial=0)))
    if most <= MAX_RATE * 1e-6:
        return []
    return [
        Issue(
            "warning",
            "input_rate",
            f"{most} input spikes lie within 1e-6 s, expected at most {MAX_RATE * 1e-6:.0f}: "
            "the link may lose some",
        )
    ]
