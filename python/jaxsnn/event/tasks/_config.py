"""The options of the programs: one table for defaults, checks, help and config.json."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeVar

_METAVARS = {"s": "SECONDS"}

LOSSES = ("ttfs", "mse", "target_time")
DTYPES = ("float32", "float64")
FORMS = ("layered", "recurrent")
DELAYS = ("none", "axonal", "synaptic")
TRAINED_NEURONS = ("none", "shared", "per-neuron")
READOUTS = ("first-spike", "maximum")

N_DIGITS = 10
DIGITS_TRAIN_SIZE = 1347  # of 1797 samples; the other 450 are the test set

C = TypeVar("C", bound="Options")


def _number(expected: str, valid: Callable[[float], bool]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and valid(value)):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return parse


def _integer(expected: str, valid: Callable[[int], bool]) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not valid(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
        return value

    return parse


def _choice(*values: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in values:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(values)}")
        return text

    return parse


def _or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text == "none" else parse(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of true, false")
    return text == "true"


_positive = _number("a number > 0", lambda x: x > 0)
_not_negative = _number("a number >= 0", lambda x: x >= 0)
_below_threshold = _number("a number < 1, the threshold", lambda x: x < 1)
_any = _number("a finite number", lambda _: True)
_fraction = _number("a number > 0 and <= 1", lambda x: 0 < x <= 1)
_probability = _number("a number >= 0 and < 1", lambda x: 0 <= x < 1)
_count = _integer("an integer >= 1", lambda x: x >= 1)
_size = _integer("an integer >= 0", lambda x: x >= 0)
_seed = _integer("an integer in [0, 2**32)", lambda x: 0 <= x < 2**32)


def _option(default: Any, parse: Callable[[str], Any], text: str, unit: str = "") -> Any:
    return dataclasses.field(default=default, metadata={"parse": parse, "help": text, "unit": unit})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What runs of all programs depend on; times are in seconds, weights in units of the threshold.

    Programs add fields of their own and have other defaults.
    """

    hidden: int = _option(200, _count, "neurons of the hidden layer")
    tau_mem: float = _option(20e-3, _positive, "membrane time constant", "s")
    tau_syn: float = _option(5e-3, _positive, "synaptic time constant", "s")
    v_reset: float = _option(
        0.0,
        _below_threshold,
        "membrane potential after a spike; far below the threshold, such as -1000, every neuron "
        "fires at most once",
    )
    bias_time: float | None = _option(
        0.0, _or_none(_not_negative), "time of the bias spike, 'none' for no bias", "s"
    )
    t_max: float = _option(60e-3, _positive, "how long a sample is simulated", "s")
    hidden_mean: float = _option(1.5, _any, "mean initial weight onto the hidden layer")
    hidden_std: float = _option(0.78, _not_negative, "its standard deviation")
    output_mean: float = _option(0.93, _any, "mean initial weight onto the output layer")
    output_std: float = _option(0.10, _not_negative, "its standard deviation")
    epochs: int = _option(30, _count, "how often to go through the training samples")
    batch_size: int = _option(32, _count, "samples per update")
    learning_rate: float = _option(5e-3, _positive, "step size of Adam in the first epoch")
    lr_decay: float = _option(0.9, _fraction, "factor on the learning rate after every epoch")
    seed: int = _option(0, _seed, "seed of the initial weights and of the order of samples")
    dtype: str = _option("float32", _choice(*DTYPES), f"precision: {', '.join(DTYPES)}")
    train_neurons: str = _option(
        "none",
        _choice(*TRAINED_NEURONS),
        "train the time constants and the threshold of both layers too: none, shared for one of "
        "each per layer, or per-neuron",
    )
    neuron_learning_rate: float = _option(
        3e-3, _positive, "the learning rate of these, as a fraction of their value"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventOptions(Options):
    """What runs with spikes in continuous time depend on."""

    hidden_spikes: int = _option(
        800,
        _count,
        "room for spikes of the whole hidden layer per sample; a sample with more is an error",
    )
    output_spikes: int = _option(800, _count, "the same for the output layer")
    tau0: float = _option(0.5e-3, _positive, "ttfs: scale of differences in time", "s")
    tau1: float = _option(6.4e-3, _positive, "ttfs: time constant of the cost of lateness", "s")
    alpha: float = _option(0.003, _not_negative, "ttfs: weight of the cost of lateness")
    silent_repair: float = _option(
        0.0,
        _not_negative,
        "weight of an additional loss, the mean distance of hidden neurons that are silent in the "
        "whole batch from their threshold; not an exact gradient",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class YinYangOptions(Options):
    """The data of Yin-Yang."""

    t_late: float = _option(30e-3, _positive, "input time of the value 1; 0 arrives at 0 s", "s")
    train_size: int = _option(5000, _count, "training samples")
    train_seed: int = _option(42, _seed, "seed of the training samples")
    validation_size: int = _option(1000, _count, "validation samples")
    validation_seed: int = _option(41, _seed, "seed of the validation samples")
    test_size: int = _option(1000, _count, "test samples")
    test_seed: int = _option(40, _seed, "seed of the test samples")

    def __post_init__(self) -> None:
        if self.batch_size > self.train_size:
            raise ValueError(
                f"--batch-size is {self.batch_size}, expected at most "
                f"--train-size={self.train_size}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(EventOptions, YinYangOptions):
    """What a Yin-Yang run depends on."""

    duplication: int = _option(1, _count, "copies of every input, each with weights of its own")
    form: str = _option(
        "layered",
        _choice(*FORMS),
        "layered, or recurrent: both layers as one population, whose recurrent weights hold those "
        "between the layers; with the same results",
    )
    delays: str = _option(
        "none",
        _choice(*DELAYS),
        "trained delays of all connections: none, axonal for one per source, or synaptic",
    )
    delay_max: float = _option(5e-3, _positive, "delays stay between 0 and this", "s")
    delay_std: float = _option(
        0.25, _not_negative, "standard deviation of the initial delays' logits, their mean is 0"
    )
    loss: str = _option("ttfs", _choice(*LOSSES), f"loss: {', '.join(LOSSES)}")
    t_correct: float = _option(
        22e-3, _positive, "mse, target_time: when the label's neuron should fire first", "s"
    )
    t_wrong: float = _option(
        28e-3, _positive, "mse, target_time: when the other neurons should fire first", "s"
    )
    tau: float = _option(20e-3, _positive, "mse, target_time: unit of the distances", "s")
    delay_learning_rate: float = _option(
        3e-3, _positive, "learning rate of the logits of the delays"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("t_correct", "t_wrong"):
            if self.loss != "ttfs" and getattr(self, name) >= self.t_max:
                raise ValueError(
                    f"{flag(name)} is {getattr(self, name)}, expected less than "
                    f"--t-max={self.t_max}"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class HardwareConfig(Config):
    """What a Yin-Yang run with a chip in the loop depends on; time constants are the chip's."""

    backend: str = _option(
        "grenade",
        _choice("grenade", "emulated", "mock"),
        "what runs the network: grenade, a chip that the vendor's packages reach; emulated, a chip "
        "in software with its imperfections; mock, the model with the options of the noise alone",
    )
    chip: int = _option(0, _seed, "emulated: which chip")
    calibration: str | None = _option(
        None,
        _or_none(str),
        "folder of the chip's calibration, as made by jaxsnn.event.hardware.calib.neuron_calib; "
        "'none', for an emulated chip or the mock, for that of a perfect measurement",
    )
    refractory_time: float = _option(
        30e-6, _not_negative, "refractory time; as long as a sample, every neuron fires once", "s"
    )
    runtime: float = _option(50e-6, _positive, "how long the chip runs per sample", "s")
    weight_scale: float = _option(
        56.0, _positive, "emulated, mock: LSB of the chip per unit of weight"
    )
    weight_range: bool = _option(True, _flag, "keep weights in the range of 63 LSB: true or false")
    weight_integers: bool = _option(
        True, _flag, "round weights to whole LSB: true or false; a chip does so always"
    )
    noise: float = _option(0.0, _not_negative, "mock: standard deviation of spike times", "s")
    noise_bias: float = _option(0.0, _any, "mock: their mean shift", "s")
    start: str | None = _option(
        None,
        _or_none(str),
        "weights.npz of an earlier run to start from, 'none' for random ones",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        only = {"form": "layered", "delays": "none", "train_neurons": "none", "silent_repair": 0.0}
        for name, value in only.items():
            if getattr(self, name) != value:
                raise ValueError(
                    f"{flag(name)} is {getattr(self, name)}, expected {value} with a chip"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigitsConfig(EventOptions):
    """What a run of the digits depends on."""

    readout: str = _option(
        "first-spike",
        _choice(*READOUTS),
        "first-spike: spiking outputs, the first to fire names the class; maximum: leaky "
        "integrators, that of the largest voltage at any time",
    )
    t_late: float = _option(
        20e-3, _positive, "time up to which pixels spike; the brightest do at 0 s", "s"
    )
    scale: float = _option(0.2, _positive, "maximum: difference of voltages that counts")
    integrator_mean: float = _option(
        0.0, _any, "maximum: mean initial weight onto the integrators, which are the output layer"
    )
    integrator_std: float = _option(0.3, _not_negative, "maximum: its standard deviation")
    dropout: float = _option(
        0.1, _probability, "probability that a pixel sends no spike in training"
    )
    validation_size: int = _option(
        0, _size, "samples of the training set to hold out from training, for choosing options"
    )

    def __post_init__(self) -> None:
        if self.validation_size and self.validation_size < N_DIGITS:
            raise ValueError(
                f"--validation-size is {self.validation_size}, expected 0 or at least {N_DIGITS}, "
                "one sample per class"
            )
        left = DIGITS_TRAIN_SIZE - self.validation_size
        if self.batch_size > left:
            raise ValueError(
                f"--batch-size is {self.batch_size}, expected at most the {left} samples that "
                f"--validation-size={self.validation_size} leaves"
            )


def flag(name: str) -> str:
    """The command-line option of a field."""
    return "--" + name.replace("_", "-")


def add_options(parser: argparse.ArgumentParser, defaults: Options) -> None:
    """Adds one option per field of the defaults, with its default and unit in the help."""
    for field in dataclasses.fields(defaults):
        default = getattr(defaults, field.name)
        shown = " ".join(filter(None, (str(default).lower(), field.metadata["unit"])))
        parser.add_argument(
            flag(field.name),
            type=field.metadata["parse"],
            default=default,
            metavar=_METAVARS.get(field.metadata["unit"], "X"),
            help=f"{field.metadata['help']} (default: {shown})",
        )


def read_config(options: argparse.Namespace, kind: type[C]) -> C:
    """The configuration from parsed options.

    Args:
        options: with an attribute for every field.
        kind: of the configuration.

    Raises:
        ValueError: options contradict each other.
    """
    return kind(**{field.name: getattr(options, field.name) for field in dataclasses.fields(kind)})
