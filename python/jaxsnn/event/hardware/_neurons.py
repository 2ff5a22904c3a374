"""The constants of the neurons of an emulated chip: what is the chip's, and what is the trial's."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsnn.base.types import LIFParameters
from jaxsnn.event.hardware import transforms
from jaxsnn.event.hardware._stages import Stage
from jaxsnn.event.hardware._trains import Noise, gain, generator
from jaxsnn.event.hardware.effects import EmulatorConfig


def constants(
    config: EmulatorConfig, chip: int, stage: Stage, n_samples: int, noise: Noise
) -> dict[str, np.ndarray]:
    """Those of a run.

    Args:
        config: effects.
        chip: seed of what is the chip's own.
        stage: whose neurons they are.
        n_samples: of the run.
        noise: of the trial.

    Returns:
        ``[n_samples or 1, n_neurons]`` each: the fields of `LIFParameters`; ``clamped``, how much
        of ``t_ref`` the membrane is at its reset; ``alive``, whether a neuron ever fires.
    """
    joined = {}
    for population in stage.populations:
        name, size, params = population.name, population.size, population.params
        model = {
            field.name: np.broadcast_to(
                np.asarray(getattr(params, field.name), np.float64), (1, size)
            )
            for field in dataclasses.fields(LIFParameters)
        }

        def drawn(effect: str, name: str = name, size: int = size) -> np.ndarray:
            return generator("chip", chip, effect, name).standard_normal((1, size))

        gap = model["v_th"] - model["v_leak"]
        v_leak = model["v_leak"] + gap * config.v_leak_std * drawn("v_leak")
        trial = noise(f"trial {name}").standard_normal((n_samples, size))
        batch = noise(f"batch {name}").standard_normal((1, size))
        factor = gain(config.threshold_std, drawn("threshold"))
        factor = factor * gain(config.threshold_batch_std, batch)
        if config.threshold_trial_std > 0:
            factor = factor * gain(config.threshold_trial_std, trial)
        v_th = model["v_leak"] + gap * factor
        v_reset = model["v_reset"] + gap * config.v_reset_std * drawn("v_reset")
        t_ref = model["t_ref"]
        if config.refractory_time is not None:
            chosen = transforms.quantise_refractory(config.refractory_time)
            t_ref = np.full((1, size), chosen)
        joined[name] = {
            "tau_mem": model["tau_mem"] * gain(config.tau_mem_std, drawn("tau_mem")),
            "tau_syn": model["tau_syn"] * gain(config.tau_syn_std, drawn("tau_syn")),
            "v_th": v_th,
            "v_leak": v_leak,
            "v_reset": np.minimum(v_reset, v_th - 1e-3 * np.abs(gap)),
            "t_ref": t_ref,
            "clamped": np.maximum(t_ref - config.holdoff_time, 0),
            "alive": generator("chip", chip, "dead", name).random((1, size)) >= config.p_dead,
        }
    fields = next(iter(joined.values()))
    lead = {field: max(joined[name][field].shape[0] for name in joined) for field in fields}
    return {
        field: stage.per_neuron(
            {
                name: np.broadcast_to(own[field], (lead[field], own[field].shape[-1]))
                for name, own in joined.items()
            }
        )
        for field in fields
    }
