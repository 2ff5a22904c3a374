"""Membranes that the emulated chip records, against closed forms and probes of the event loop."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hardware_networks import PARAMS, RUNTIME, graph, inputs, run, single, weights
from jaxsnn.base.types import Spikes, initial_state
from jaxsnn.event.hardware import EmulatorConfig, HardwareCapacityError
from jaxsnn.ops import event_loop

ideal = EmulatorConfig.ideal
MEM, SYN = 12e-6, 6e-6
MADC, CADC = 1 / 190, 1 / 70  # a LSB, in units of the distance to the threshold


def psp(t):
    return SYN / (MEM - SYN) * (np.exp(-t / MEM) - np.exp(-t / SYN))


def test_a_psp_at_the_rates_and_resolutions_of_both_converters():
    result = single(ideal(), weight=3.0, size=3, traces={"hidden": 1}, cadc=("hidden",))
    times, volts = result.traces["hidden"]
    assert len(times) == math.ceil(RUNTIME * 500e6 / 17)
    np.testing.assert_allclose(np.diff(times), 34e-9, rtol=1e-9)
    np.testing.assert_allclose(volts, 3 * psp(times)[None], rtol=0, atol=0.51 * MADC)
    lsb = volts * 190
    np.testing.assert_allclose(lsb, np.rint(lsb), atol=1e-9)
    times, volts = result.cadc["hidden"]
    assert volts.shape == (1, 30, 3)
    np.testing.assert_allclose(times, np.arange(30) * 1.7e-6, rtol=1e-12)
    expected = np.broadcast_to(3 * psp(times)[None, :, None], volts.shape)
    np.testing.assert_allclose(volts, expected, rtol=0, atol=0.51 * CADC)


def test_a_membrane_rests_at_its_reset_as_long_as_it_is_clamped():
    config = ideal(refractory_time=30e-6)
    result = single(config, weight=8.0, traces={"hidden": 0})
    (spike,) = result.spikes["hidden"].time[0, :1]
    times, (volts,) = result.traces["hidden"]
    before, after = times < spike, (times > spike + 9e-9) & (times < spike + 30e-6)
    np.testing.assert_allclose(volts[before], 8 * psp(times[before]), rtol=0, atol=0.51 * MADC)
    assert volts[before].max() > 0.98
    np.testing.assert_array_equal(volts[after], 0)
    held = single(
        ideal(refractory_time=30e-6, holdoff_time=25e-6), weight=8.0, traces={"hidden": 0}
    )
    assert held.traces["hidden"][1][0][after].max() > 0.1  # free for the last 25 us


@pytest.mark.parametrize("recurrent", [False, True])
def test_membranes_of_a_network_are_those_of_the_event_loop(recurrent):
    with jax.enable_x64(True):
        values = weights(recurrent=recurrent)
        config = ideal(clock_hz=None)
        result = run(
            config, network=graph(recurrent=recurrent), values=values, cadc=("hidden", "output")
        )
        spikes = inputs()["input"]
        heard = Spikes(jnp.asarray(spikes.time), jnp.asarray(spikes.index))
        for name, size, incoming in (("hidden", 20, "input->hidden"), ("output", 3, None)):
            w = jnp.asarray(values[incoming or "hidden->output"])
            times, volts = result.cadc[name]
            options = {}
            if name == "hidden" and recurrent:
                options["recurrent"] = jnp.asarray(values["hidden->hidden"])
            seen = event_loop(
                PARAMS,
                w,
                initial_state(PARAMS, size, w.dtype),
                heard,
                t_max=RUNTIME,
                max_events=800,
                probes=jnp.asarray(times),
                **options,
            )
            heard = seen.spikes
            # Events move by up to a cycle, and all inputs of a neuron are 12 units of current.
            assert np.abs(values["input->hidden"]).sum(0).mean() < 12.5
            atol = 0.5 * CADC + 12.5 * 8e-9 / MEM
            near = np.asarray(seen.probes.v)
            at_spike = np.abs(times[:, None] - np.asarray(seen.spikes.time)[:, None]).min(-1) < 1e-8
            assert at_spike.mean() < 0.05
            np.testing.assert_allclose(volts[~at_spike], near[~at_spike], rtol=0, atol=atol)
            assert np.ptp(near) > 0.9


def test_traces_change_no_spikes():
    plain = run(EmulatorConfig())
    seen = run(EmulatorConfig(), traces={"hidden": 3}, cadc=("output",))
    for name in ("hidden", "output"):
        np.testing.assert_array_equal(plain.spikes[name].time, seen.spikes[name].time)
    assert not plain.traces
    assert not plain.cadc


def test_noise_of_the_converters_has_its_spread():
    options = {"weight": 0.0, "size": 50, "cadc": ("hidden",), "traces": {"hidden": 0}}
    quiet = single(ideal(), **options)
    assert np.ptp(quiet.cadc["hidden"][1]) == np.ptp(quiet.traces["hidden"][1]) == 0
    noisy = single(ideal(trace_noise_std=3.0), **options)
    for (_, volts), lsb in ((noisy.cadc["hidden"], CADC), (noisy.traces["hidden"], MADC)):
        # Rounding adds 1 / 12 to the variance.
        expected = math.sqrt(9 + 1 / 12)
        assert np.std(volts) / lsb == pytest.approx(expected, rel=4 / math.sqrt(2 * volts.size))
        assert abs(np.mean(volts)) / lsb < 4 * expected / math.sqrt(volts.size)
    other = single(ideal(trace_noise_std=3.0), seed=1, **options)
    assert not np.array_equal(other.traces["hidden"][1], noisy.traces["hidden"][1])


def test_converters_end_where_their_range_does():
    found = single(ideal(), weight=-60.0, traces={"hidden": 0}, cadc=("hidden",))
    # A LSB of 0 would be a sample that was lost.
    assert found.traces["hidden"][1].min() == pytest.approx((1 - 315) / 190)
    assert found.cadc["hidden"][1].min() == pytest.approx((1 - 80) / 70)


def test_rates_are_those_of_the_config_and_end_with_the_memory():
    found = single(
        ideal(madc_rate=1e6, cadc_period=5e-6), weight=1.0, traces={"hidden": 0}, cadc=("hidden",)
    )
    np.testing.assert_allclose(found.traces["hidden"][0], np.arange(50) * 1e-6, rtol=1e-12)
    np.testing.assert_allclose(found.cadc["hidden"][0], np.arange(10) * 5e-6, rtol=1e-12)
    many = single(ideal(madc_rate=2e9), weight=1.0, traces={"hidden": 0})
    assert len(many.traces["hidden"][0]) == 65535


def test_membranes_show_the_leak_of_their_neuron():
    found = single(ideal(v_leak_std=0.1), weight=0.0, size=200, cadc=("hidden",))
    leaks = found.cadc["hidden"][1][0].mean(0)
    assert np.std(leaks) == pytest.approx(0.1, rel=4 / math.sqrt(400))
    saturated = single(ideal(i_max=0.5), weight=40.0, traces={"hidden": 0})
    times, (volts,) = saturated.traces["hidden"]
    early = times < 20e-6  # 40 exp(-20 / 6) = 1.4
    expected = 0.5 * -np.expm1(-times[early] / MEM)
    np.testing.assert_allclose(volts[early], expected, rtol=0, atol=0.52 * MADC)


def test_what_cannot_be_recorded_is_named():
    with pytest.raises(HardwareCapacityError, match="one neuron per run"):
        run(traces={"hidden": 0, "output": 0})
    with pytest.raises(ValueError, match="no neuron 20 in population 'hidden'"):
        run(traces={"hidden": 20})
    with pytest.raises(ValueError, match="cadc has 'input', which is no population"):
        run(cadc=("input",))
