"""Every effect of the emulated chip alone: it is as large as asked for, and nothing else moves.

Spreads are found from spike times by the closed form of a membrane behind one input of weight w,
V(t) = w tau_syn / (tau_mem - tau_syn) (exp(-t / tau_mem) - exp(-t / tau_syn)). Estimates of a
standard deviation from n neurons scatter by 1 / sqrt(2 n), those of a mean by std / sqrt(n);
tolerances are four of these.
"""

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq

from hardware_networks import RUNTIME, graph, inputs, run, single, weights
from jaxsnn.base.types import LIFParameters, Spikes
from jaxsnn.event import EventPropLIF, Graph, Source
from jaxsnn.event.hardware import EmulatorConfig

ideal = EmulatorConfig.ideal
MEM, SYN, T_REF, WEIGHT, N = 12e-6, 6e-6, 30e-6, 8.0, 400


def psp(t, mem=MEM, syn=SYN):
    """Of an input of weight 1 at the time 0."""
    return syn / (mem - syn) * (np.exp(-t / mem) - np.exp(-t / syn))


def times_of(config, *, weight=WEIGHT, **options):
    """Times of the first and, where there is one, the second spike, ``[n_samples, N]`` each."""
    found = single(config, weight=weight, size=N, n_spikes=4 * N, **options).spikes["hidden"]
    first, second = (np.full((len(found.time), N), np.nan) for _ in range(2))
    for row, (time, index) in enumerate(zip(found.time, found.index, strict=True)):
        for t, n in zip(time[index >= 0], index[index >= 0], strict=True):
            (first if np.isnan(first[row, n]) else second)[row, n] = t
    assert not np.isnan(first).any()
    return first, second


def solved(f, low, high, of):
    return np.array([brentq(lambda x, o=o: f(x, o), low, high, xtol=1e-14) for o in of.ravel()])


def tau_mem(t):
    return solved(lambda x, t: WEIGHT * psp(t, mem=x) - 1, 7e-6, 30e-6, t) / MEM


def tau_syn(t):
    return solved(lambda x, t: WEIGHT * psp(t, syn=x) - 1, 2e-6, 11e-6, t) / SYN


ESTIMATES = {
    "threshold_std": lambda t: WEIGHT * psp(t),
    "tau_mem_std": tau_mem,
    "tau_syn_std": tau_syn,
    "synapse_gain_std": lambda t: 1 / (WEIGHT * psp(t)),
    # The membrane starts at its leak: V(t) = leak + PSP.
    "v_leak_std": lambda t: 2 - WEIGHT * psp(t),
}


@pytest.mark.parametrize("effect", ESTIMATES)
def test_mismatch_of_neurons_has_its_spread_and_is_the_chip(effect):
    std = 0.04
    config = ideal(clock_hz=None, **{effect: std})
    first, again, other = (times_of(config, chip=c, seed=s)[0] for c, s in ((0, 0), (0, 9), (1, 0)))
    np.testing.assert_array_equal(first, again)  # trials change nothing
    values = ESTIMATES[effect](first)
    # Around 1 before: the mean does not move, there is nothing but this spread, chips differ.
    assert np.mean(values) == pytest.approx(1, abs=4 * std / math.sqrt(N))
    assert np.std(values) == pytest.approx(std, rel=4 / math.sqrt(2 * N))
    between = np.corrcoef(values.ravel(), ESTIMATES[effect](other).ravel())[0, 1]
    assert abs(between) < 4 / math.sqrt(N)
    exact = times_of(ideal(clock_hz=None))[0]
    np.testing.assert_allclose(ESTIMATES[effect](exact), 1, rtol=1e-6)
    np.testing.assert_array_equal(times_of(dataclasses.replace(config, **{effect: 0.0}))[0], exact)


def test_mismatch_of_resets_has_its_spread_and_first_spikes_stay():
    std, weight = 0.04, 800.0  # which lasts for a second spike
    options = {"weight": weight, "runtime": 80e-6}
    config = ideal(clock_hz=None, v_reset_std=std)
    first, second = times_of(config, **options)
    exact, regular = times_of(ideal(clock_hz=None), **options)
    np.testing.assert_array_equal(first, exact)
    # From the release on V = reset exp(-t / tau_mem) + I psp(t), which reaches 1 at the spike.
    release = first + T_REF
    late = second - release
    reset = (1 - weight * np.exp(-release / SYN) * psp(late)) * np.exp(late / MEM)
    assert np.mean(reset) == pytest.approx(0, abs=4 * std / math.sqrt(N))
    assert np.std(reset) == pytest.approx(std, rel=4 / math.sqrt(2 * N))
    assert np.ptp(regular) == 0


def test_each_synapse_has_a_gain_of_its_own():
    config = ideal(clock_hz=None, synapse_gain_std=0.04)
    network = Graph()
    network.add("input", Source(2))
    params = LIFParameters(tau_mem=MEM, tau_syn=SYN, t_ref=T_REF)
    network.add("hidden", EventPropLIF(N, n_spikes=N, t_max=RUNTIME, params=params))
    network.connect("input", "hidden")
    gains = []
    for source in range(2):
        found = run(
            config,
            network=network,
            values={"input->hidden": np.full((2, N), WEIGHT)},
            spikes={"input": Spikes(np.zeros((1, 1)), np.full((1, 1), source, np.int32))},
        ).spikes["hidden"]
        time = found.time[0, np.argsort(found.index[0])]
        gains.append(1 / (WEIGHT * psp(time)))
    assert abs(np.corrcoef(*gains)[0, 1]) < 4 / math.sqrt(N)


def test_noise_from_sample_to_sample_and_from_run_to_run():
    for effect, across in (("threshold_trial_std", False), ("threshold_batch_std", True)):
        config = ideal(clock_hz=None, **{effect: 0.04})
        values = WEIGHT * psp(times_of(config, sample_times=(0.0,) * 2)[0])
        assert np.std(values[0]) == pytest.approx(0.04, rel=4 / math.sqrt(2 * N))
        assert np.array_equal(values[0], values[1]) == across
        other = WEIGHT * psp(times_of(config, seed=1)[0])
        assert abs(np.corrcoef(values[0], other[0])[0, 1]) < 4 / math.sqrt(N)


def test_short_runs_jitter_and_no_others():
    config = ideal(clock_hz=None, short_run_jitter=1e-7)
    exact = times_of(ideal(clock_hz=None))[0]
    np.testing.assert_array_equal(times_of(config)[0], exact)
    short = times_of(config, runtime=49e-6)[0]
    assert np.std(short) == pytest.approx(1e-7, rel=4 / math.sqrt(2 * N))
    assert np.mean(short - exact) == pytest.approx(0, abs=4e-7 / math.sqrt(N))
    # Both kinds of jitter add up as independent ones do.
    both = dataclasses.replace(config, jitter_std=1e-7)
    assert np.std(times_of(both, runtime=49e-6)[0]) == pytest.approx(
        math.sqrt(2) * 1e-7, rel=4 / math.sqrt(2 * N)
    )


def test_jitter_moves_spikes_and_makes_and_loses_none():
    values = weights()
    plain, moved = (run(ideal(jitter_std=std), values=values) for std in (0.0, 1e-7))
    for sample in range(4):
        before, after = (np.sort(r.spikes["hidden"].index[sample]) for r in (plain, moved))
        np.testing.assert_array_equal(before, after)
    assert not np.array_equal(plain.spikes["hidden"].time, moved.spikes["hidden"].time)


def events(result, name, sample):
    spikes = result.spikes[name]
    there = spikes.index[sample] >= 0
    return set(zip(spikes.index[sample][there], spikes.time[sample][there], strict=True))


def test_lost_recordings_leave_all_others_in_place():
    full, part = run(), run(ideal(p_loss_record=0.3))
    for name in ("hidden", "output"):
        for sample in range(4):
            assert events(part, name, sample) < events(full, name, sample)


def test_dead_neurons_leave_all_others_in_place():
    full, part = run(), run(ideal(p_dead=0.3))
    some = 0
    for sample in range(4):
        alive = {n for n, _ in events(part, "hidden", sample)}
        mine = {e for e in events(full, "hidden", sample) if e[0] in alive}
        assert events(part, "hidden", sample) == mine
        some += len(events(full, "hidden", sample)) - len(mine)
    assert some > 0


def test_the_refractory_time_leaves_first_spikes_in_place():
    full, part = run(ideal(refractory_time=0.0)), run(ideal(refractory_time=30e-6))

    def firsts(result, sample):
        found = {}
        for neuron, time in sorted(events(result, "hidden", sample), key=lambda e: e[1]):
            found.setdefault(neuron, time)
        return found

    for sample in range(4):
        assert firsts(full, sample) == firsts(part, sample)


@pytest.mark.parametrize("window", [12e-6, 24e-6])
def test_ties_are_as_frequent_as_chance_has_it(window):
    # 100 neurons that each repeat an input of their own, at any time of a window of n cycles: the
    # chance that no two of them coincide is that of birthdays.
    n_neurons, n_samples, n_cycles = 100, 300, round(window * 125e6)
    network = Graph()
    network.add("input", Source(n_neurons))
    params = LIFParameters(tau_mem=MEM, tau_syn=SYN, t_ref=T_REF)
    network.add("hidden", EventPropLIF(n_neurons, n_spikes=100, t_max=RUNTIME, params=params))
    network.connect("input", "hidden")
    rng = np.random.default_rng(0)
    time = rng.uniform(0, window, (n_samples, n_neurons))
    order = np.argsort(time, -1)
    spikes = {"input": Spikes(np.take_along_axis(time, order, -1), order.astype(np.int32))}
    rates = []
    for clock in (125e6, None):
        found = run(
            ideal(clock_hz=clock),
            network=network,
            values={"input->hidden": np.eye(n_neurons) * WEIGHT},
            spikes=spikes,
        ).spikes["hidden"]
        assert np.all(found.index >= 0)
        rates.append(np.mean((np.diff(np.sort(found.time, -1), axis=-1) < 1e-12).any(-1)))
    expected = 1 - np.prod(1 - np.arange(n_neurons) / n_cycles)
    assert expected == pytest.approx({12e-6: 0.965, 24e-6: 0.81}[window], abs=0.01)
    assert rates[0] == pytest.approx(
        expected, abs=4 * math.sqrt(expected * (1 - expected) / n_samples)
    )
    assert rates[1] == 0


def test_saturating_inputs_charge_the_membrane_with_a_constant_current():
    # Far above i_max: V = i_max (1 - exp(-t / tau_mem)) reaches 1 at tau_mem ln(i / (i - 1)).
    found = times_of(ideal(i_max=1.6), weight=50.0)[0]
    late = MEM * math.log(1.6 / 0.6)
    np.testing.assert_allclose(found, late, rtol=0, atol=8e-9)
    # Above all currents, it is not there.
    np.testing.assert_allclose(
        times_of(ideal(i_max=50.0))[0], times_of(ideal())[0], rtol=0, atol=8e-9 + 1e-12
    )


def test_excitation_and_inhibition_saturate_apart():
    network = Graph()
    network.add("input", Source(2))
    params = LIFParameters(tau_mem=MEM, tau_syn=SYN, t_ref=T_REF)
    network.add("hidden", EventPropLIF(1, n_spikes=4, t_max=RUNTIME, params=params))
    network.connect("input", "hidden")
    both = Spikes(np.zeros((1, 2)), np.array([[0, 1]], np.int32))
    values = {"input->hidden": np.array([[50.0], [-40.0]])}
    fires = lambda c: run(c, network=network, values=values, spikes={"input": both})  # noqa: E731
    # Together they are 10, far above the 4 that it takes; saturated, they cancel.
    assert fires(ideal()).n_recorded["hidden"][0] == 1
    assert fires(ideal(i_max=1.6)).n_recorded["hidden"][0] == 0


@pytest.mark.parametrize("weight", [60.0, 11.0])
def test_held_off_the_membrane_is_free_but_silent(weight):
    t_ref, holdoff = 63 * 128e-9, 4e-6  # as the counter has 8 us
    config = ideal(refractory_time=8e-6, holdoff_time=holdoff)
    options = {"weight": weight, "n_spikes": 4, "runtime": 50e-6}
    first, second = single(config, **options).spikes["hidden"].time[0, :2]
    plain = single(ideal(refractory_time=8e-6), **options).spikes["hidden"].time[0]
    assert first == pytest.approx(plain[0], abs=9e-9)
    # The membrane leaves its reset before the neuron may fire, which it does at once where it
    # stands above its threshold by then.
    release = first + t_ref - holdoff
    current = weight * math.exp(-release / SYN)
    crossing = release + brentq(lambda x: current * psp(x) - 1, 0, MEM * math.log(2))
    assert (crossing < first + t_ref) == (weight == 60.0)
    assert second == pytest.approx(max(crossing, first + t_ref), abs=3 * 8e-9)
    if weight == 11.0:  # too little is left of it at the end of the refractory time
        assert np.isinf(plain[1])


@pytest.mark.parametrize("recurrent", [False, True])
def test_steps_of_the_clock_are_the_exact_solution_but_for_the_clock(recurrent):
    # A saturation that nothing reaches selects them. Hidden spikes differ by a cycle, and those
    # behind them, which hear them half a cycle earlier or later, by another one.
    options = {"network": graph(recurrent=recurrent), "values": weights(recurrent=recurrent)}
    exact, stepped = (run(ideal(delay_int=4e-7, i_max=i), **options) for i in (None, 1e3))
    for name in ("hidden", "output"):
        np.testing.assert_array_equal(exact.n_recorded[name], stepped.n_recorded[name])
        for sample in range(4):
            a, b = (sorted(events(r, name, sample)) for r in (exact, stepped))
            assert [n for n, _ in a] == [n for n, _ in b]
            atol = 9e-9 if name == "hidden" and not recurrent else 17e-9
            np.testing.assert_allclose([t for _, t in a], [t for _, t in b], rtol=0, atol=atol)


def test_in_cycles_too_spikes_are_lost_and_jittered_on_their_way():
    values = weights(recurrent=True)
    network = graph(recurrent=True)
    options = {"network": network, "values": values}
    alone = run(network=graph(), values={k: v for k, v in values.items() if k != "hidden->hidden"})
    # All are lost: as if the neurons of the hidden population did not hear each other.
    lost = run(ideal(p_loss_chip=1.0), **options)
    for sample in range(4):
        a, b = (sorted(events(r, "hidden", sample)) for r in (alone, lost))
        assert [n for n, _ in a] == [n for n, _ in b]
        np.testing.assert_allclose([t for _, t in a], [t for _, t in b], rtol=0, atol=1e-15)
    assert lost.n_recorded["output"].sum() == 0
    # A bias of all is a longer delay on the way, and a later recording.
    late = run(ideal(jitter_bias=8e-7), **options)
    delayed = run(ideal(delay_int=8e-7), **options)
    for sample in range(4):
        a, b = (sorted(events(r, "hidden", sample)) for r in (late, delayed))
        kept = [e for e in b if e[1] + 8e-7 < RUNTIME]
        assert [n for n, _ in a][: len(kept)] == [n for n, _ in kept]
        np.testing.assert_allclose(
            [t for _, t in a][: len(kept)], [t + 8e-7 for _, t in kept], rtol=0, atol=9e-9
        )
    # Each spike is lost for all who hear it, and to the recording it is not.
    some = run(ideal(p_loss_chip=0.3), **options)
    assert some.n_recorded["hidden"].sum() > 0
    assert not np.array_equal(some.spikes["hidden"].time, run(**options).spikes["hidden"].time)
    again = [run(ideal(jitter_std=1e-7), seed=s, **options).spikes["hidden"] for s in (0, 0, 1)]
    np.testing.assert_array_equal(again[0].time, again[1].time)
    assert not np.array_equal(again[0].time, again[2].time)


def test_presets():
    default, worst = EmulatorConfig(), EmulatorConfig.pessimistic()
    for field in dataclasses.fields(EmulatorConfig):
        a, b = (getattr(c, field.name) for c in (default, worst))
        assert b == a or b > a
    assert EmulatorConfig.pessimistic(jitter_std=0.0).jitter_std == 0.0
    result = run(worst, spikes=inputs(64))
    assert result.n_recorded["hidden"].sum() > 0


def test_the_table_of_effects_has_all_of_them_with_their_defaults():
    text = (Path(__file__).parents[1] / "docs" / "hardware.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \|[^|]*\|[^|]*\| ([^|]+) \|", text, re.MULTILINE))
    fields = {field.name: field.default for field in dataclasses.fields(EmulatorConfig)}
    assert rows.keys() == fields.keys()
    for name, default in fields.items():
        shown = rows[name].strip()
        if isinstance(default, float):
            assert float(shown) == pytest.approx(default, rel=1e-3), name
        else:
            assert shown == str(default), name


def test_rejects_a_holdoff_longer_than_the_refractory_time():
    with pytest.raises(ValueError, match="holdoff_time is 4e-05, expected at most"):
        EmulatorConfig(holdoff_time=40e-6)
    with pytest.raises(ValueError, match="i_max is 0, expected a number > 0"):
        EmulatorConfig(i_max=0)
