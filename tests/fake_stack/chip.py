"""The chip behind the stand-in: the emulated one, asked by cycles and LSB."""

import dataclasses
import math

import numpy as np

from jaxsnn.base.types import LIFParameters, Spikes
from jaxsnn.event.hardware import (
    Calibration,
    EmulatedBackend,
    EmulatorConfig,
    NetworkSpec,
    PopulationSpec,
    ProjectionSpec,
    RunRequest,
    SourceSpec,
)

CLOCK = 125e6


@dataclasses.dataclass
class FakeChip:
    """What there is instead of a chip.

    Attributes:
        names: of sources and populations, in the order in which networks are built: the vendor's
            interface has none, but to the emulated chip a population is its name.
        params: of all neurons, the "calibrated" ones.
        config: effects of the emulated chip.
        seed: which chip.
        trial_seed: run n has the noise of ``(trial_seed, n)``, as with `InTheLoop`.
        dtype: of the simulation.
        identifier: of the chip.
        connected: whether it answers.
        routable: whether networks can be routed.
    """

    names: tuple = ("input", "hidden", "output")
    params: LIFParameters = dataclasses.field(
        default_factory=lambda: LIFParameters(tau_mem=12e-6, tau_syn=6e-6, t_ref=30e-6)
    )
    config: EmulatorConfig = dataclasses.field(default_factory=EmulatorConfig)
    seed: int = 0
    trial_seed: int = 0
    dtype: str = "float32"
    identifier: str = "hxcube-stand-in-0"
    connected: bool = True
    routable: bool = True
    runs: int = 0

    def run(self, sources, populations, projections, trains, cycles):
        """Runs a batch.

        Args:
            sources: sizes, in order.
            populations: sizes, in order.
            projections: ``{(source, target): int [source, target]}`` by numbers of nodes.
            trains: per source ``[sample][channel][cycles]``.
            cycles: run time.

        Returns:
            Per population ``[sample][neuron][cycles]``.
        """
        names = self.names[: len(sources) + len(populations)]
        runtime = cycles / CLOCK
        shortest = self.config.refractory_time or float(self.params.t_ref)
        per_neuron = math.ceil(runtime / shortest) + 1
        spec = NetworkSpec(
            tuple(map(SourceSpec, names, sources)),
            tuple(
                PopulationSpec(name, size, size * per_neuron, runtime, self.params)
                for name, size in zip(names[len(sources) :], populations, strict=True)
            ),
            tuple(ProjectionSpec(names[i], names[j]) for i, j in projections),
        )
        backend = EmulatedBackend(self.seed, self.config)
        scale = self.config.weight_scale
        raw = Calibration(weight_scale=scale, time_offset_cycles=0)
        seed = np.random.SeedSequence([self.trial_seed, self.runs]).generate_state(1)[0]
        self.runs += 1
        request = RunRequest(
            inputs={name: self._spikes(t) for name, t in zip(names, trains, strict=False)},
            weights={
                p.label: lsb / scale
                for p, lsb in zip(spec.projections, projections.values(), strict=True)
            },
            runtime=runtime,
            seed=int(seed),
        )
        result = backend.run(backend.compile(spec, raw), request)
        assert not any(n.any() for n in result.n_dropped.values())
        return [self._lists(result.spikes[p.name], p.size) for p in spec.populations]

    def _spikes(self, trains):
        events = [
            sorted((t, i) for i, train in enumerate(sample) for t in train) for sample in trains
        ]
        width = max(1, *map(len, events))
        time = np.full((len(events), width), np.inf, self.dtype)
        index = np.full((len(events), width), -1, np.int32)
        for row, own in enumerate(events):
            for slot, (t, i) in enumerate(own):
                time[row, slot], index[row, slot] = t / CLOCK, i
        return Spikes(time, index)

    def _lists(self, spikes, size):
        found = []
        for time, index in zip(spikes.time, spikes.index, strict=True):
            neurons = [[] for _ in range(size)]
            for t, i in zip(time[index >= 0], index[index >= 0], strict=True):
                neurons[i].append(round(float(t) * CLOCK))
            found.append(neurons)
        return found

    @staticmethod
    def membrane(sample, cycles):
        """Times and LSB of a membrane: a pattern, no voltage of anything."""
        times = range(4 + sample, cycles, 17)
        return [(t, 0 if t % 5 == 0 else 315 + (t + sample) % 190) for t in times]
