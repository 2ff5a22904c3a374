"""Calibrates the neurons of a chip by the vendor's calix."""

from __future__ import annotations

from jaxsnn.event.hardware.errors import HardwareAPIError
from jaxsnn.event.hardware.grenade.probe import PACKAGES, require, symbol, vendor
from jaxsnn.event.hardware.spec import OperatingPoint


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
    require((*PACKAGES, "calix", "quantities"))  # all that will be needed, before minutes pass
    with vendor("calibrating the chip"):
        target = symbol("calix.spiking.neuron.NeuronCalibTarget")()
        if not hasattr(target, "i_synin_gm"):
            raise HardwareAPIError(
                "calix.spiking.neuron.NeuronCalibTarget.i_synin_gm",
                "is missing, targets of typed arrays are not supported",
            )
        microsecond = symbol("quantities.us")
        target.leak = point.leak
        target.reset = point.reset
        target.threshold = point.threshold
        target.tau_mem = point.tau_mem * 1e6 * microsecond
        target.tau_syn = point.tau_syn * 1e6 * microsecond
        target.refractory_time = point.refractory_time * 1e6 * microsecond
        target.i_synin_gm = point.i_synin_gm
        target.synapse_dac_bias = point.synapse_dac_bias
        target.membrane_capacitance = 63
        spiking = symbol("calix.spiking.SpikingCalibTarget")()
        spiking.neuron_target = target
        result = symbol("calix.calibrate")(spiking, cache_paths=[])
        dumper = symbol("dlens_vx_v3.sta.PlaybackProgramBuilderDumper")()
        result.apply(dumper)
        return bytes(symbol("dlens_vx_v3.sta.to_portablebinary")(dumper.done()))
