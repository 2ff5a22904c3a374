"""Yin-Yang with a chip in the loop: what the programs share."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsnn.base.types import Array, Spikes
from jaxsnn.event.hardware import (
    Backend,
    Calibration,
    CalibrationMissingError,
    EmulatedBackend,
    EmulatorConfig,
    GrenadeBackend,
    InTheLoop,
)
from jaxsnn.event.hardware.calib import load as load_calibration
from jaxsnn.event.hardware.transforms import WEIGHT_MAX
from jaxsnn.event.leaky_integrate_and_fire import EventPropLIF
from jaxsnn.event.tasks._config import HardwareConfig
from jaxsnn.event.tasks._network import (
    LAYERS,
    Parameters,
    TaskNetwork,
    TwoLayers,
    by_name,
    neuron_parameters,
)
from jaxsnn.event.tasks._program import Task
from jaxsnn.event.tasks._yinyang import N_CLASSES, load, make_objective

#: 25-100-3 neurons; the operating point of upstream's experiment, times of the chip in seconds.
DEFAULTS = HardwareConfig(
    hidden=100,
    duplication=5,
    tau_mem=12e-6,
    tau_syn=6e-6,
    t_late=12e-6,
    t_max=24e-6,
    bias_time=0.0,
    hidden_mean=0.6,
    hidden_std=0.32,
    output_mean=0.5,
    output_std=0.8,
    hidden_spikes=100,
    output_spikes=3,
    loss="mse",
    t_correct=5.4e-6,
    t_wrong=6.6e-6,
    tau=6e-6,
    tau0=0.6e-6,
    tau1=6e-6,
    batch_size=64,
    epochs=300,
    learning_rate=5e-3,
    lr_decay=0.99,
    train_size=4800,
    test_size=3000,
)


def make_backend(config: HardwareConfig) -> tuple[Backend, Calibration]:
    """What runs the network, opened, and its calibration."""
    if config.backend == "grenade":
        backend = GrenadeBackend()
        backend.open()
        if config.calibration is None:
            raise CalibrationMissingError(
                "--calibration is none, expected a folder with --backend=grenade; make one with\n  "
                "python -m jaxsnn.event.hardware.calib.neuron_calib --wafer NAME "
                f"--tau-mem {config.tau_mem} --tau-syn {config.tau_syn} "
                f"--refractory-time {config.refractory_time}"
            )
        return backend, load_calibration(config.calibration)
    if config.backend == "emulated":
        chip = EmulatorConfig(
            weight_scale=config.weight_scale, refractory_time=config.refractory_time
        )
    else:
        chip = EmulatorConfig.ideal(
            weight_scale=config.weight_scale,
            quantised=config.weight_integers,
            jitter_std=config.noise,
            jitter_bias=config.noise_bias,
        )
    backend = EmulatedBackend(config.chip, chip)
    backend.open()
    if config.calibration is None:
        return backend, backend.calibration()
    return backend, load_calibration(config.calibration)


def make_network(config: HardwareConfig) -> TaskNetwork:
    """Two layers in a row, on the chip."""
    params = dataclasses.replace(neuron_parameters(config), t_ref=config.refractory_time)

    def layer(name: str, size: int):
        return EventPropLIF(
            size,
            n_spikes=getattr(config, f"{name}_spikes"),
            t_max=config.t_max,
            params=params,
            mean=getattr(config, f"{name}_mean"),
            std=getattr(config, f"{name}_std"),
            name=f"{name} layer",
        )

    n_inputs = (4 + (config.bias_time is not None)) * config.duplication
    layers = TwoLayers(n_inputs, layer("hidden", config.hidden), layer("output", N_CLASSES))
    backend, calibration = make_backend(config)
    chip = InTheLoop(
        layers.graph,
        backend,
        calibration,
        runtime=config.runtime,
        seed=config.seed,
        quantised=config.backend != "mock" or config.weight_integers,
    )
    most = WEIGHT_MAX / calibration.weight_scale

    def init(key: Array) -> Parameters:
        parameters = layers.init(key)
        if config.start is None:
            return parameters
        with np.load(config.start) as saved:
            return {"weights": [jnp.asarray(saved[name], config.dtype) for name in LAYERS]}

    def apply(parameters: Parameters, spikes: Spikes) -> list[Any]:
        if config.weight_range:
            parameters = jax.tree.map(lambda w: _kept_within(w, most), parameters)
        return list(chip.apply(by_name(parameters), spikes).values())

    return TaskNetwork(init, apply, None, layers.arrays)


def _kept_within(weights: Array, most: float) -> Array:
    """Clipped weights, whose gradient moves them back even from outside."""
    return weights + jax.lax.stop_gradient(jnp.clip(weights, -most, most) - weights)


TASK = Task(make_network, load, make_objective, health=False)
