"""The emulated chip against the NumPy oracle, closed forms, and what each effect alone does."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hardware_networks import RUNTIME, graph, inputs, run, single, weights
from jaxsnn.base.types import LIFParameters, Spikes, initial_state
from jaxsnn.event.hardware import (
    EmulatorConfig,
    HardwareCapacityError,
    HardwareError,
    transforms,
)
from jaxsnn.ops import Status, event_loop
from jaxsnn.ops._host import host_loop
from oracle.network import Network, Population, Projection
from oracle.simulate import simulate

CYCLE = 8e-9
ideal = EmulatorConfig.ideal


def oracle(spikes, values, sample, recurrent):
    shared = {"tau_mem": 12e-6, "tau_syn": 6e-6, "t_ref": 2e-6}
    projections = [
        Projection("input", 0, values["input->hidden"]),
        Projection(0, 1, values["hidden->output"]),
    ]
    if recurrent:
        projections.append(Projection(0, 0, values["hidden->hidden"]))
    return simulate(
        Network(
            [Population(20, **shared), Population(3, **shared)],
            projections,
            RUNTIME,
            10,
            spikes.time[sample],
            spikes.index[sample],
        )
    )


@pytest.mark.parametrize("recurrent", [False, True])
def test_ideal_is_the_model_up_to_the_clock(recurrent):
    values, spikes = weights(recurrent=recurrent), inputs()
    result = run(network=graph(recurrent=recurrent), values=values)
    most = 0
    for sample in range(4):
        expected = oracle(spikes["input"], values, sample, recurrent)
        for number, name in enumerate(("hidden", "output")):
            mine = expected.population == number
            found = result.spikes[name]
            n = int(mine.sum())
            assert result.n_recorded[name][sample] == n
            order = np.lexsort((expected.time[mine], expected.index[mine]))
            own = np.lexsort((found.time[sample, :n], found.index[sample, :n]))
            np.testing.assert_array_equal(found.index[sample, :n][own], expected.index[mine][order])
            late = expected.time[mine][order] - found.time[sample, :n][own]
            assert np.all((late > -1e-12) & (late < CYCLE + 1e-12))
            assert np.all(found.index[sample, n:] == -1)
            assert np.all(np.isinf(found.time[sample, n:]))
            most = max(most, np.bincount(expected.index[mine], minlength=1).max())
    assert most > 1  # several spikes of a neuron


def test_the_peak_of_a_psp_is_a_quarter_of_its_weight():
    # V(t) = w (e^(-t/12us) - e^(-t/6us)) peaks with w / 4 at 12us ln 2 = 8.32us.
    assert single(ideal(clock_hz=None), weight=4 * 0.999).n_recorded["hidden"][0] == 0
    result = single(ideal(clock_hz=None), weight=4 * 1.000001)
    assert result.n_recorded["hidden"][0] == 1
    assert result.spikes["hidden"].time[0, 0] == pytest.approx(12e-6 * math.log(2), rel=3e-3)


def test_weights_are_whole_and_saturate():
    on = ideal(quantised=True, clock_hz=None)
    exact = ideal(clock_hz=None)
    at = lambda config, weight: single(config, weight=weight, v_th=0.1).spikes["hidden"].time[0, 0]  # noqa: E731
    assert at(on, 0.6) == at(exact, round(0.6 * 56) / 56) != at(exact, 0.6)
    assert at(on, 5.0) == at(exact, 63 / 56)


def test_times_are_whole_cycles_and_floored():
    result = run(ideal(clock_hz=125e6)).spikes["hidden"]
    exact = run(ideal(clock_hz=None)).spikes["hidden"]
    there = result.index >= 0
    cycles = result.time[there] * 125e6
    assert np.all(np.abs(cycles - np.rint(cycles)) < 1e-6)
    np.testing.assert_array_equal(np.sort(cycles.round()), np.sort(exact.time[there] // CYCLE))


def test_the_offset_shifts_exactly_and_calibration_takes_it_off():
    plain = single(ideal(), weight=8.0)
    shifted = single(ideal(record_offset_cycles=50), weight=8.0)
    np.testing.assert_array_equal(shifted.spikes["hidden"].time, plain.spikes["hidden"].time)
    from jaxsnn.event.hardware import Calibration

    raw = run(ideal(record_offset_cycles=50), calibration=Calibration(time_offset_cycles=0))
    own = run(ideal())
    last = np.nanmax(np.where(own.spikes["hidden"].index >= 0, own.spikes["hidden"].time, np.nan))
    assert last + 50 * CYCLE < RUNTIME  # nothing left the window
    there = own.spikes["hidden"].index >= 0
    late = raw.spikes["hidden"].time[there] - own.spikes["hidden"].time[there]
    np.testing.assert_allclose(late, 50 * CYCLE, rtol=1e-9)


def test_delays_shift():
    plain = single(ideal(clock_hz=None), weight=8.0).spikes["hidden"].time[0, 0]
    late = single(ideal(clock_hz=None, delay_ext=1e-6), weight=8.0).spikes["hidden"].time[0, 0]
    assert late - plain == pytest.approx(1e-6, rel=1e-9)


def test_internal_delays_reach_the_next_layer_alone():
    plain, late = run(ideal(clock_hz=None)), run(ideal(clock_hz=None, delay_int=1e-6))
    np.testing.assert_array_equal(late.spikes["hidden"].time, plain.spikes["hidden"].time)
    first = lambda result: result.spikes["output"].time[:, 0]  # noqa: E731
    np.testing.assert_allclose(first(late) - first(plain), 1e-6, rtol=1e-9)


def thresholds_of(config, *, chip=0, seed=0, n=400, samples=1):
    """The thresholds of many neurons, from the times at which they cross."""
    times = single(
        config, weight=8.0, size=n, n_spikes=n, chip=chip, seed=seed, sample_times=(0.0,) * samples
    ).spikes["hidden"]
    assert np.all(times.index >= 0)
    order = np.argsort(times.index, -1)
    t = np.take_along_axis(times.time, order, -1)
    return 8.0 * (np.exp(-t / 12e-6) - np.exp(-t / 6e-6))


def test_threshold_mismatch_has_its_spread_and_is_the_chip():
    config = ideal(clock_hz=None, threshold_std=0.1)
    first, again, other = (
        thresholds_of(config, chip=c, seed=s) for c, s in ((0, 0), (0, 9), (1, 0))
    )
    np.testing.assert_array_equal(first, again)  # trials change nothing
    assert np.std(first) == pytest.approx(0.1, abs=4 * 0.1 / math.sqrt(800))
    assert np.mean(first) == pytest.approx(1.0, abs=4 * 0.1 / math.sqrt(400))
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.25


def test_trial_noise_has_its_spread_and_is_the_seed():
    config = ideal(clock_hz=None, threshold_trial_std=0.05)
    first, again, other = (thresholds_of(config, seed=s, samples=2) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.std(first) == pytest.approx(0.05, rel=0.12)
    assert abs(np.corrcoef(first[0], first[1])[0, 1]) < 0.25  # from sample to sample
    assert abs(np.corrcoef(first[0], other[0])[0, 1]) < 0.25
    batch = thresholds_of(ideal(clock_hz=None, threshold_batch_std=0.05), samples=2)
    np.testing.assert_array_equal(batch[0], batch[1])
    assert np.std(batch[0]) == pytest.approx(0.05, rel=0.15)


def test_jitter_has_its_spread():
    exact = single(ideal(clock_hz=None), weight=8.0, size=400, n_spikes=400).spikes["hidden"].time
    config = ideal(clock_hz=None, jitter_std=1e-7, jitter_bias=4e-7)
    noisy = single(config, weight=8.0, size=400, n_spikes=400).spikes["hidden"].time
    assert np.std(noisy) == pytest.approx(1e-7, rel=0.15)
    assert np.mean(noisy - exact) == pytest.approx(4e-7, abs=4e-7 / 20)


def test_one_spike_per_refractory_time():
    result = run(ideal(refractory_time=30e-6)).spikes["hidden"]
    free = run(ideal(refractory_time=0.0)).spikes["hidden"]
    gaps = [np.diff(np.sort(result.time[0][result.index[0] == neuron])) for neuron in range(20)]
    assert np.concatenate(gaps).size == 0 or np.concatenate(gaps).min() >= 30.08e-6 - CYCLE
    assert np.sum(free.index >= 0) > np.sum(result.index >= 0)


def test_full_slots_keep_the_neurons_in_front():
    full = run(network=graph(n_spikes=400)).spikes["hidden"]
    result = run(network=graph(n_spikes=15))
    kept = result.spikes["hidden"]
    np.testing.assert_array_equal(result.n_recorded["hidden"], np.sum(full.index >= 0, -1))
    np.testing.assert_array_equal(result.n_dropped["hidden"], result.n_recorded["hidden"] - 15)
    for sample in range(4):
        everyone = np.sort(full.index[sample][full.index[sample] >= 0])
        np.testing.assert_array_equal(np.sort(kept.index[sample]), everyone[:15])
        assert np.all(np.diff(kept.time[sample]) >= 0)


def test_losses_are_binomial():
    n = 2000
    kept = single(ideal(p_loss_record=0.1), weight=8.0, sample_times=(0.0,) * n)
    assert abs(kept.n_recorded["hidden"].sum() - 0.9 * n) < 4 * math.sqrt(n * 0.09)
    lossless, lossy = run(), run(ideal(p_loss_chip=0.5))
    np.testing.assert_array_equal(lossy.spikes["hidden"].time, lossless.spikes["hidden"].time)
    assert lossy.n_recorded["output"].sum() < lossless.n_recorded["output"].sum()
    assert run(ideal(p_loss_chip=1.0)).n_recorded["output"].sum() == 0


def test_dead_neurons_are_the_chip():
    alive = single(ideal(p_dead=0.3), weight=8.0, size=400, n_spikes=400).spikes["hidden"]
    again = single(ideal(p_dead=0.3), weight=8.0, size=400, n_spikes=400, seed=5).spikes["hidden"]
    np.testing.assert_array_equal(np.sort(alive.index), np.sort(again.index))
    n_alive = int(np.sum(alive.index >= 0))
    assert abs(n_alive - 280) < 4 * math.sqrt(400 * 0.21)


def test_nothing_that_cannot_be_sent_is_sent():
    spikes = inputs()["input"]
    rubbish = Spikes(
        np.concatenate([spikes.time, np.full((4, 3), [np.inf, -1e-6, 60e-6])], -1),
        np.concatenate([spikes.index, np.zeros((4, 3), np.int32)], -1),
    )
    np.testing.assert_array_equal(
        run(spikes={"input": rubbish}).spikes["output"].time, run().spikes["output"].time
    )


def test_default_chip_is_deterministic():
    one, two = run(EmulatorConfig(), chip=3, seed=7), run(EmulatorConfig(), chip=3, seed=7)
    for name in one.spikes:
        np.testing.assert_array_equal(one.spikes[name].time, two.spikes[name].time)
    other = run(EmulatorConfig(), chip=3, seed=8)
    assert not np.array_equal(one.spikes["hidden"].time, other.spikes["hidden"].time)


def test_bursts_and_values_that_are_not_finite_raise():
    with pytest.raises(HardwareError, match="bursts"):
        run(ideal(refractory_time=0.0), values=weights(strength=500.0))
    broken = weights()
    broken["input->hidden"][0, 0] = np.nan
    with pytest.raises(HardwareError, match="finite"):
        run(values=broken)


def test_rejects_effects_out_of_range():
    with pytest.raises(ValueError, match="jitter_std is -1"):
        EmulatorConfig(jitter_std=-1)
    with pytest.raises(ValueError, match="p_dead is 2"):
        EmulatorConfig(p_dead=2)


def test_networks_that_do_not_fit_raise():
    with pytest.raises(HardwareCapacityError, match=r"524 neuron circuits.*512"):
        run(network=graph(hidden=512), values=weights(hidden=512))


@pytest.mark.parametrize(
    ("wanted", "had"), [(2e-6, 2.048e-6), (16e-6, 16.128e-6), (20e-6, 20.096e-6), (30e-6, 30.08e-6)]
)
def test_refractory_times_of_the_chip(wanted, had):
    assert transforms.quantise_refractory(wanted) == pytest.approx(had, rel=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_the_loop_without_jax_has_the_spikes_of_the_one_under_jax(dtype, recurrent):
    """Bit for bit, with constants for each neuron and sample, and one for all."""
    n, n_samples = 9, 5
    rng = np.random.default_rng(3)
    params = {
        "tau_mem": rng.uniform(8e-3, 12e-3, (1, n)),
        "tau_syn": np.full((1, n), 5e-3),
        "v_th": rng.uniform(0.8, 1.2, (n_samples, n)),
        "v_leak": rng.uniform(-0.1, 0.1, (1, n)),
        "v_reset": np.full((1, n), -0.2),
        "t_ref": np.full((1, n), 1e-3),
    }
    values = rng.normal(1.5, 0.5, (4, n)).astype(dtype)
    inner = rng.normal(0, 0.4, (n, n)).astype(dtype) if recurrent else None
    time = np.sort(rng.uniform(0, 20e-3, (n_samples, 12)), -1).astype(dtype)
    spikes = Spikes(time, rng.integers(0, 4, time.shape).astype(np.int32))
    own, status = host_loop(
        params, values, spikes, t_max=30e-3, max_events=99, recurrent=inner, recurrent_delay=1e-3
    )
    assert not status.any()
    with jax.enable_x64(dtype == "float64"):
        cast = LIFParameters(**{name: jnp.asarray(x, dtype) for name, x in params.items()})
        delays = {"recurrent_delays": 1e-3} if recurrent else {}
        expected = event_loop(
            cast,
            jnp.asarray(values),
            initial_state(cast, n, dtype),
            jax.tree.map(jnp.asarray, spikes),
            t_max=30e-3,
            max_events=99,
            recurrent=None if inner is None else jnp.asarray(inner),
            **delays,
        ).spikes
    assert (own.index >= 0).sum() > 3 * n
    np.testing.assert_array_equal(own.index, expected.index)
    np.testing.assert_array_equal(own.time, expected.time)
    full = host_loop(params, values, spikes, t_max=30e-3, max_events=2, recurrent=inner)[1]
    assert (full == Status.EVENT_CAPACITY).all()


def test_the_loop_without_jax_names_what_does_not_fit():
    params = dict.fromkeys(("tau_mem", "tau_syn", "v_th", "t_ref"), np.ones((1, 3)))
    params |= dict.fromkeys(("v_leak", "v_reset"), np.zeros((1, 3)))
    spikes = Spikes(np.ones((2, 1)), np.zeros((2, 1), np.int32))
    options = {"t_max": 1.0, "max_events": 4}
    with pytest.raises(ValueError, match="params has an axis of size 2, expected 3"):
        host_loop(params | {"v_th": np.array([[1.0, 2.0]])}, np.ones((1, 3)), spikes, **options)
    longer = Spikes(spikes.time, np.zeros((2, 2), np.int32))
    with pytest.raises(ValueError, match=r"inputs\.index has an axis of size 2, expected 1"):
        host_loop(params, np.ones((1, 3)), longer, **options)
    with pytest.raises(ValueError, match="recurrent has an axis of size 2, expected 3"):
        host_loop(params, np.ones((1, 3)), spikes, recurrent=np.ones((2, 3)), **options)
