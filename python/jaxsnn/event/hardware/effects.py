"""What an emulated chip does differently from the model; docs/hardware.md has all sources."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from jaxsnn.event.hardware import transforms

__all__ = ["EmulatorConfig"]

# These have no 0 that would switch them off.
_POSITIVE = ("weight_scale", "clock_hz", "i_max", "madc_rate", "cadc_period")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmulatorConfig:
    """The effects of a chip; 0, or None where there is no 0, switches one off.

    Attributes:
        quantised: whether weights are whole numbers of at most 63 LSB.
        weight_scale: the strength of the synapses, LSB per unit of model weight.
        synapse_gain_std: mismatch of the synapses, relative.
        clock_hz: of all digital times: sent spikes are rounded to cycles, recorded ones down; None
            for continuous time.
        record_offset_cycles: latency of the recording.
        delay_ext: from an input to the synapse, s.
        delay_int: from a neuron to the synapse, s.
        threshold_std: mismatch of thresholds, relative to the distance from the leak.
        tau_mem_std: mismatch of membrane time constants, relative.
        tau_syn_std: mismatch of synaptic time constants, relative.
        v_leak_std: mismatch of the leak, relative to the distance from leak to threshold.
        v_reset_std: likewise, of the reset.
        threshold_trial_std: noise of each threshold from sample to sample, relative.
        threshold_batch_std: noise of each threshold from run to run, relative.
        jitter_std: of every spike, s.
        jitter_bias: mean of it, s.
        short_run_jitter: further jitter of runs below 50 us, s.
        refractory_time: in steps of the chip's counter, s; None for that of the model, unrounded.
        holdoff_time: the end of the refractory time, s, in which the membrane is free already but
            the neuron does not fire.
        i_max: current at which each of the two synaptic inputs of a neuron, the excitatory and the
            inhibitory one, saturates, in units of the model; None for nowhere.
        p_loss_record: probability that a spike is not recorded.
        p_loss_chip: probability that a spike reaches nobody.
        p_dead: probability that a neuron never fires.
        madc_rate: samples of the ADC of one membrane per second, Hz.
        cadc_period: between samples of the ADC of all membranes, s.
        trace_noise_std: noise of both, next to their resolution, LSB.
    """

    quantised: bool = True
    weight_scale: float = 56.0
    synapse_gain_std: float = 0.0
    clock_hz: float | None = transforms.CLOCK_HZ
    record_offset_cycles: int = 50
    delay_ext: float = 0.1e-6
    delay_int: float = 0.4e-6
    threshold_std: float = 0.10
    tau_mem_std: float = 0.0
    tau_syn_std: float = 0.0
    v_leak_std: float = 0.0
    v_reset_std: float = 0.0
    threshold_trial_std: float = 0.015
    threshold_batch_std: float = 0.015
    jitter_std: float = 1e-7
    jitter_bias: float = 0.0
    short_run_jitter: float = 0.0
    refractory_time: float | None = 30e-6
    holdoff_time: float = 0.0
    i_max: float | None = None
    p_loss_record: float = 0.0
    p_loss_chip: float = 0.0
    p_dead: float = 0.0
    madc_rate: float = 500e6 / 17
    cadc_period: float = 1.7e-6
    trace_noise_std: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("jitter_bias", "quantised") or value is None:
                continue
            positive = field.name in _POSITIVE
            if not (math.isfinite(value) and (value > 0 if positive else value >= 0)):
                raise ValueError(
                    f"EmulatorConfig: {field.name} is {value}, expected a number "
                    f"{'> 0' if positive else '>= 0'}"
                )
            if field.name.startswith("p_") and value > 1:
                raise ValueError(f"EmulatorConfig: {field.name} is {value}, expected a probability")
        if self.refractory_time is not None and self.holdoff_time > self.refractory_time:
            raise ValueError(
                f"EmulatorConfig: holdoff_time is {self.holdoff_time}, expected at most "
                f"refractory_time={self.refractory_time}, of which it is the end"
            )

    @staticmethod
    def ideal(**changes: Any) -> EmulatorConfig:
        """All effects off but the clock; ``changes`` are fields to set."""
        off: dict[str, Any] = {
            field.name: 0.0
            for field in dataclasses.fields(EmulatorConfig)
            if field.name not in _POSITIVE
        }
        off["i_max"] = None
        off |= {"quantised": False, "record_offset_cycles": 0, "refractory_time": None}
        return EmulatorConfig(**(off | changes))

    @staticmethod
    def pessimistic(**changes: Any) -> EmulatorConfig:
        """The upper bound of every mismatch, noise and loss; ``changes`` are fields to set."""
        bounds: dict[str, Any] = {
            "synapse_gain_std": 0.05,
            "threshold_std": 0.13,
            "tau_mem_std": 0.05,
            "tau_syn_std": 0.05,
            "v_leak_std": 0.02,
            "v_reset_std": 0.02,
            "threshold_trial_std": 0.03,
            "threshold_batch_std": 0.03,
            "jitter_std": 1.8e-7,
            "p_loss_record": 0.01,
            "p_loss_chip": 0.01,
        }
        return EmulatorConfig(**(bounds | changes))
