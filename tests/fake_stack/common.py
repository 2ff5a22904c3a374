"""What both generations of the stand-in share: coordinates, times, connection, calibration."""

import itertools
from types import SimpleNamespace

import numpy as np

from fake_stack.record import Strict, expect, recorded, require

PORTABLE = b"portable binary of the stand-in: "
CYCLES_PER_US = 125


def namespace(**attributes):
    """An enumeration or a class that only holds others."""
    return SimpleNamespace(**attributes)


class Stack:
    """State of the stand-in: the chip, the connection, the transcript, numbers of objects."""

    def __init__(self, chip, transcript):
        self.chip = chip
        self.transcript = transcript
        self.executor = None
        self._counters = {}

    def number(self, kind):
        return next(self._counters.setdefault(kind, itertools.count()))

    def call(self, name, function):
        return recorded(self.transcript, name, function)

    def init_hardware(self):
        require(self.executor is None, "init_hardware was called twice")
        if not self.chip.connected:
            raise RuntimeError("No connection present.")
        self.executor = namespace(number=0)

    def release_hardware(self):
        require(self.executor is not None, "release_hardware without init_hardware")
        self.executor = None

    def get_unique_identifier(self):
        self.need_executor()
        return [self.chip.identifier]

    def need_executor(self):
        if self.executor is None:
            raise RuntimeError("Executor not initialized.")

    def route(self):
        if not self.chip.routable:
            raise UnsuccessfulRouting("no synapse drivers left")


class UnsuccessfulRouting(RuntimeError):  # noqa: N818, the vendor's name
    pass


class Key(Strict):
    """A coordinate: equal to others of its kind and value."""

    def __init__(self, value=0):
        self._value = expect(value, int, where=type(self).__name__)

    def __eq__(self, other):
        return type(self) is type(other) and self._value == other._value

    def __hash__(self):
        return hash((type(self).__name__, self._value))

    def __int__(self):
        return self._value


class ExecutionInstanceID(Key):
    pass


class ChipOnConnection(Key):
    pass


class CompartmentOnLogicalNeuron(Key):
    pass


class Time(Key):
    def __init__(self, value):
        super().__init__(value)
        require(value >= 0, f"Time of {value} cycles")


class Membrane(Key):
    """hal.NeuronConfig.ReadoutSource.membrane."""


class SingleCompartmentNeuron(Strict):
    """A neuron of some circuits."""

    compartments: tuple

    def __init__(self, size, expand_horizontally=False):
        expect(size, int, where="SingleCompartmentNeuron")
        require(size >= 1 and not expand_horizontally, "shape of a neuron")
        self.compartments = ("compartments", size)


def dlens(stack, *, lola):
    """dlens_vx_v3."""
    return {
        "hal": namespace(
            Timer=namespace(Value=namespace(fpga_clock_cycles_per_us=CYCLES_PER_US, max=2**32 - 1)),
            NeuronConfig=namespace(ReadoutSource=namespace(membrane=Membrane())),
        ),
        "halco": namespace(
            CompartmentOnLogicalNeuron=CompartmentOnLogicalNeuron,
            AtomicNeuronOnDLS=AtomicNeuronOnDLS,
            iter_all=iter_all,
        ),
        "lola": lola,
        "sta": namespace(
            PlaybackProgramBuilderDumper=Dumper,
            to_portablebinary=stack.call("dlens_vx_v3.sta.to_portablebinary", to_portablebinary),
        ),
    }


class Dumper(Strict):
    content: bytes | None

    def __init__(self):
        self.content = None

    def done(self):
        require(self.content is not None, "nothing was dumped")
        return ("dumped", self.content)


def to_portablebinary(dumped):
    require(dumped[0] == "dumped", "to_portablebinary of what is no dump")
    return dumped[1]


def read_payload(path):
    """The bytes of a calibrated chip, if the stand-in made them."""
    with open(expect(path, str, where="path"), "rb") as file:
        data = file.read()
    require(data.startswith(PORTABLE), f"{path} is no portable binary")
    return data


class Quantity:
    """A number with a unit, as of the package quantities."""

    def __init__(self, value):
        self.value = value

    def __rmul__(self, number):
        return Quantity(expect(number, float, where="quantity") * self.value)


N_NEURONS = 512


class AtomicNeuronOnDLS(Key):
    pass


def iter_all(kind):
    expect(kind, type, where="iter_all")
    require(kind is AtomicNeuronOnDLS, "iter_all of what is no coordinate")
    return map(AtomicNeuronOnDLS, range(N_NEURONS))


class TypedArray:
    """Equal numbers of one type, or arrays of them, for all neurons."""

    def __init__(self, kinds, default, size=N_NEURONS):
        self._kinds, self._values = kinds, [default] * size

    def fill(self, value):
        self._values = [expect(value, *self._kinds, where="fill")] * len(self._values)

    def only(self):
        require(len(set(self._values)) == 1, "the neurons differ")
        return self._values[0]


class ArrayOfPairs:
    """For all neurons, of the excitatory and the inhibitory input."""

    def __init__(self, default):
        self._rows = [TypedArray((float,), default, 2) for _ in range(N_NEURONS)]

    def __getitem__(self, neuron):
        return self._rows[int(expect(neuron, AtomicNeuronOnDLS, where="tau_syn"))]

    def only(self):
        found = {row.only() for row in self._rows}
        require(len(found) == 1, "the neurons differ")
        return found.pop()


class CalibratedMatchingCubaSynapticInput(Strict):
    i_synin_gm: int

    def __init__(self):
        self.i_synin_gm = 500


class PlainTarget(Strict):
    """calix.spiking.neuron.NeuronCalibTarget until 2026-04."""

    leak: int
    reset: int
    threshold: int
    tau_mem: Quantity
    tau_syn: Quantity
    refractory_time: Quantity
    i_synin_gm: int
    synapse_dac_bias: int
    membrane_capacitance: int

    def __init__(self):
        self.i_synin_gm = 500

    def fields(self):
        return {
            name: v.value if isinstance(v := getattr(self, name), Quantity) else v
            for name in PlainTarget.__annotations__
        }


class TypedTarget(Strict):
    """The same since 2026-05, of which all but one field are members that cannot be replaced."""

    synapse_dac_bias: int

    def __init__(self):
        self._leak = TypedArray((int,), 80)
        self._reset = TypedArray((int,), 70)
        self._threshold = TypedArray((int,), 125)
        self._tau_mem = TypedArray((float,), 10e-6)
        self._tau_syn = ArrayOfPairs(10e-6)
        self._refractory_time = TypedArray((float,), 2e-6)
        self._membrane_capacitance = TypedArray((int,), 63)
        self._cuba_synin = CalibratedMatchingCubaSynapticInput()
        self.synapse_dac_bias = 600

    def __getattr__(self, name):
        if not name.startswith("_") and f"_{name}" in vars(self):
            return vars(self)[f"_{name}"]
        raise AttributeError(f"NeuronCalibTarget has no {name}", name=name, obj=self)

    def fields(self):
        found = {
            name: getattr(self, name).only()
            for name in PlainTarget.__annotations__
            if name not in ("i_synin_gm", "synapse_dac_bias")
        }
        found["i_synin_gm"] = expect(self.cuba_synin.i_synin_gm, int, where="i_synin_gm")
        found["synapse_dac_bias"] = expect(self.synapse_dac_bias, int, where="synapse_dac_bias")
        return found


def calix(stack, *, typed=False):
    """calix and quantities, with targets of plain fields or of typed arrays."""
    target_type = TypedTarget if typed else PlainTarget

    class SpikingCalibTarget(Strict):
        neuron_target: target_type

    class Result:
        def __init__(self, text):
            self._text = text

        def apply(self, dumper):
            expect(dumper, Dumper, where="Result.apply").content = PORTABLE + self._text

    def calibrate(target, options=None, cache_paths=None, cache_read_only=False, connection=None):
        expect(target, SpikingCalibTarget, where="calix.calibrate")
        require(stack.executor is None, "the chip is in use by another connection")
        require(cache_paths == [] and options is connection is None and not cache_read_only, "")
        if not stack.chip.connected:
            raise RuntimeError("No connection present.")
        fields = expect(target.neuron_target, target_type, where="neuron_target").fields()
        for name in ("tau_mem", "tau_syn", "refractory_time"):
            require(0.3e-6 <= fields[name] <= 60e-6, f"{name} is {fields[name]} s; its unit?")
        stack.transcript.add("calix target", fields)
        return Result(repr(sorted(fields.items())).encode())

    return {
        "calix": namespace(calibrate=stack.call("calix.calibrate", calibrate)),
        "calix.spiking": namespace(SpikingCalibTarget=SpikingCalibTarget),
        "calix.spiking.neuron": namespace(NeuronCalibTarget=target_type),
        "quantities": namespace(us=Quantity(1e-6)),
    }


def lists_of(value, where, *types):
    """Checks nested lists ``[sample][channel][item]``."""
    for sample in expect(value, list, where=where):
        for channel in expect(sample, list, where=where):
            for item in expect(channel, list, where=where):
                expect(item, *types, where=where)
    return value


def slots(samples, n, cycles_per_unit=1):
    """Spikes by ascending neuron, cut off where there is no more room."""
    index = np.full((len(samples), n), -1, np.int32)
    time = np.full((len(samples), n), np.inf, np.float32)
    for row, neurons in enumerate(samples):
        events = [(i, t) for i, own in enumerate(neurons) for t in own][:n]
        for slot, (i, t) in enumerate(events):
            index[row, slot], time[row, slot] = i, np.float32(t) / np.float32(cycles_per_unit)
    return index, time
