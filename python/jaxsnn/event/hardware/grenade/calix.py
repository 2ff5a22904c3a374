"""Calibrates the neurons of a chip by the vendor's calix."""

from __future__ import annotations

from typing import Any

from jaxsnn.event.hardware.errors import HardwareAPIError
from jaxsnn.event.hardware.grenade.probe import PACKAGES, require, symbol, vendor
from jaxsnn.event.hardware.spec import OperatingPoint

_CAPACITANCE = 63  # LSB, the largest


def calibrate(point: OperatingPoint) -> bytes:
    """The configuration of the chip at an operating point, in the stack's binary form.

    Takes minutes, and the chip for itself: no backend may be open.

    Args:
        point: the targets.

    Raises:
        HardwareUnavailableError: calix, or what it needs, is missing.
        HardwareAPIError: its targets are of a kind that this version does not know.
        HardwareConnectionError: no chip answers.
    """
    require((*PACKAGES, "calix"))  # all that will be needed, before minutes pass
    target = symbol("calix.spiking.neuron.NeuronCalibTarget")()
    typed = hasattr(target, "cuba_synin")
    if not typed:
        if not hasattr(target, "i_synin_gm"):
            raise HardwareAPIError("calix.spiking.neuron.NeuronCalibTarget.i_synin_gm")
        require(["quantities"])
    with vendor("calibrating the chip"):
        (_fill_typed if typed else _fill_plain)(target, point)
        spiking = symbol("calix.spiking.SpikingCalibTarget")()
        spiking.neuron_target = target
        result = symbol("calix.calibrate")(spiking, cache_paths=[])
        dumper = symbol("dlens_vx_v3.sta.PlaybackProgramBuilderDumper")()
        result.apply(dumper)
        return bytes(symbol("dlens_vx_v3.sta.to_portablebinary")(dumper.done()))


def _fill_plain(target: Any, point: OperatingPoint) -> None:
    """Plain fields, times as quantities: until 2026-04."""
    microsecond = symbol("quantities.us")
    target.leak = point.leak
    target.reset = point.reset
    target.threshold = point.threshold
    target.tau_mem = point.tau_mem * 1e6 * microsecond
    target.tau_syn = point.tau_syn * 1e6 * microsecond
    target.refractory_time = point.refractory_time * 1e6 * microsecond
    target.i_synin_gm = point.i_synin_gm
    target.synapse_dac_bias = point.synapse_dac_bias
    target.membrane_capacitance = _CAPACITANCE


def _fill_typed(target: Any, point: OperatingPoint) -> None:
    """Arrays over neurons that take numbers, times in seconds: since 2026-05.

    The other fields, membrane capacitance among them, are at their defaults what they should be.
    """
    target.leak.fill(point.leak)
    target.reset.fill(point.reset)
    target.threshold.fill(point.threshold)
    target.tau_mem.fill(point.tau_mem)
    halco = symbol("dlens_vx_v3.halco")
    for neuron in halco.iter_all(halco.AtomicNeuronOnDLS):
        target.tau_syn[neuron].fill(point.tau_syn)
    target.refractory_time.fill(point.refractory_time)
    target.cuba_synin.i_synin_gm = point.i_synin_gm
    target.synapse_dac_bias = point.synapse_dac_bias
