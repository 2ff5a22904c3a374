"""The oracle itself: against other simulators, closed forms, high precision and identities."""

import math

import mpmath
import numpy as np
import pytest
from scipy.special import lambertw

from oracle import golden
from oracle.gradient import (
    central_difference,
    forward_sensitivity,
    loss_gradient,
    spike_time_jacobian,
)
from oracle.kernel import kernel, kernel_by_tau
from oracle.parameters import (
    ALL_PARAMETERS,
    parameter_vector,
    split_vector,
    with_parameter_vector,
)
from oracle.simulate import (
    Network,
    Population,
    Projection,
    Release,
    SpikeLimitError,
    first_crossing,
    simulate,
)

NEST_CASES = golden.load_cases("nest_spikes.json")
GRADIENT_CASES = golden.load_cases("gradients.json")
RELATIVE_GAPS = (0.0, 1e-14, -1e-11, 1e-7, -1e-5, 1e-3, -0.05, 0.7, -0.7, 9.0)


def name_of(case):
    return case["name"]


def random_network(seed, equal_taus=False):
    """Two populations with feedback, every neuron, synapse and delay different."""
    rng = np.random.default_rng(seed)
    sizes = (4, 3)
    n_in, n_spikes = 3, 9

    def population(size):
        tau_mem = rng.uniform(0.8, 2.0, size)
        return Population(
            size,
            tau_mem=tau_mem,
            # the first neuron has equal constants, the second nearly equal ones
            tau_syn=tau_mem * (1 + 1e-7 * np.arange(size))
            if equal_taus
            else rng.uniform(0.3, 1.5, size),
            v_th=rng.uniform(0.8, 1.2, size),
            v_leak=rng.uniform(-0.2, 0.3, size),
            v_reset=rng.uniform(-0.4, 0.2, size),
            t_ref=rng.uniform(0.1, 0.5, size) * (np.arange(size) % 2),
            v0=rng.uniform(-0.3, 0.5, size),
            i0=rng.uniform(-0.3, 1.0, size),
        )

    def projection(src, dst, mean):
        n_src = n_in if src == "input" else sizes[src]
        weight = rng.normal(mean, 0.6, (n_src, sizes[dst]))
        return Projection(src, dst, weight, rng.uniform(0.05, 0.4, weight.shape))

    return Network(
        [population(size) for size in sizes],
        [
            projection("input", 0, 2.0),
            projection("input", 1, 1.0),
            projection(0, 1, 0.8),
            projection(1, 0, -0.3),
            projection(0, 0, 0.1),
        ],
        t_max=6.0,
        n_in=n_in,
        input_time=np.sort(rng.uniform(0, 5, n_spikes)),
        input_idx=rng.integers(0, n_in, n_spikes),
    )


def single_neuron(current, *, t_max=20.0, **parameters):
    return Network([Population(1, i0=current, **parameters)], [], t_max)


class TestKernel:
    """Against 120 digits, where the textbook difference may lose as many as it likes."""

    @pytest.mark.parametrize("gap", RELATIVE_GAPS)
    @pytest.mark.parametrize("time", [1e-9, 1e-3, 0.3, 2.0, 9.0, 60.0])
    def test_value(self, time, gap):
        tau_mem, tau_syn = 1.3 * (1 + gap), 1.3
        assert kernel(time, tau_mem, tau_syn) == pytest.approx(
            float(self.exact(time, tau_mem, tau_syn)), rel=2e-14
        )

    @pytest.mark.parametrize("gap", RELATIVE_GAPS)
    @pytest.mark.parametrize("time", [1e-9, 1e-3, 0.3, 2.0, 9.0, 60.0])
    def test_derivatives(self, time, gap):
        tau_mem, tau_syn = 1.3 * (1 + gap), 1.3
        with mpmath.workdps(120):
            step = mpmath.mpf("1e-25")
            by_mem = self.exact(time, tau_mem + step, tau_syn)
            by_mem -= self.exact(time, tau_mem - step, tau_syn)
            by_syn = self.exact(time, tau_mem, tau_syn + step)
            by_syn -= self.exact(time, tau_mem, tau_syn - step)
            expected = [float(by_mem / (2 * step)), float(by_syn / (2 * step))]
        # a derivative crosses zero somewhere: compare with the size of its terms
        scale = (1 + time) * kernel(time, tau_mem, tau_syn)
        np.testing.assert_allclose(
            kernel_by_tau(time, tau_mem, tau_syn), expected, rtol=1e-13, atol=1e-15 * scale
        )

    @staticmethod
    def exact(time, tau_mem, tau_syn):
        with mpmath.workdps(120):
            time, tau_mem, tau_syn = mpmath.mpf(time), mpmath.mpf(tau_mem), mpmath.mpf(tau_syn)
            if tau_mem == tau_syn:
                return time / tau_mem * mpmath.exp(-time / tau_mem)
            difference = mpmath.exp(-time / tau_mem) - mpmath.exp(-time / tau_syn)
            return tau_syn / (tau_mem - tau_syn) * difference


class TestAgainstNest:
    @pytest.mark.parametrize("case", NEST_CASES, ids=name_of)
    def test_spikes(self, case):
        trajectory = simulate(golden.network_of(case))
        for population, (time, index) in enumerate(golden.spikes_per_population(case)):
            mine = trajectory.population == population
            np.testing.assert_array_equal(trajectory.index[mine], index)
            np.testing.assert_allclose(
                trajectory.time[mine], time, rtol=0, atol=1e-9 * case["tau_mem"]
            )


class TestAgainstGoldenGradients:
    @pytest.mark.parametrize("case", GRADIENT_CASES, ids=name_of)
    def test_spikes_and_loss(self, case):
        trajectory = simulate(golden.network_of(case))
        spikes = golden.listed_spikes(case)
        np.testing.assert_array_equal(trajectory.population, spikes["population"])
        np.testing.assert_array_equal(trajectory.index, spikes["idx"])
        np.testing.assert_allclose(trajectory.time, spikes["time"], rtol=1e-12)
        loss = spikes["dloss_dtime"] @ trajectory.time
        loss += np.dot(case["dloss_dv_end"], trajectory.v)
        loss += np.dot(case["dloss_di_end"], trajectory.i)
        assert loss == pytest.approx(case["loss"], rel=1e-12)

    @pytest.mark.parametrize("case", GRADIENT_CASES, ids=name_of)
    def test_gradient(self, case):
        network = golden.network_of(case)
        gradient = loss_gradient(
            network,
            simulate(network),
            dloss_dtime=golden.listed_spikes(case)["dloss_dtime"],
            dloss_dv_end=case["dloss_dv_end"],
            dloss_di_end=case["dloss_di_end"],
        )
        for name, expected in golden.expected_gradient(case).items():
            mine = gradient[name]
            if name not in ("weight", "delay", "input_time"):
                mine = [sum(mine)]
            for ours, theirs in zip(mine, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=0, err_msg=name)


class TestCrossings:
    @pytest.mark.parametrize("gap", RELATIVE_GAPS)
    @pytest.mark.parametrize("v0", [-0.6, 0.0, 0.9])
    def test_against_50_digits(self, gap, v0):
        tau_mem, tau_syn, current = 1.0 + gap, 1.0, 8.0 * (1 + abs(gap))
        network = single_neuron(current, tau_mem=tau_mem, tau_syn=tau_syn, v_leak=0.2, v0=v0)
        with mpmath.workdps(50):

            def excess(time):
                response = TestKernel.exact(time, tau_mem, tau_syn)
                start = mpmath.mpf(v0) - mpmath.mpf(0.2)
                return (
                    start * mpmath.exp(-time / tau_mem) + current * response - (1 - mpmath.mpf(0.2))
                )

            found = simulate(network).time[0]
            exact = mpmath.findroot(excess, mpmath.mpf(found), tol=1e-40)
            assert abs(exact - found) < 1e-14 * exact
            earlier = [excess(exact * k / 200) for k in range(200)]
            assert max(earlier) < 0

    def test_equal_constants_by_lambert_w(self):
        # y - ln y = ln(I / v_th) + v / I with y = t / tau + v / I
        tau, current, v0 = 0.7, 4.3, 0.25
        network = single_neuron(current, tau_mem=tau, tau_syn=tau, v0=v0)
        ratio = v0 / current
        expected = tau * (-lambertw(-math.exp(-ratio) / current).real - ratio)
        assert simulate(network).time[0] == pytest.approx(expected, rel=1e-14)

    def test_ratio_two_by_the_quadratic_formula(self):
        tau_syn, current, v0 = 0.6, 5.1, -0.4
        network = single_neuron(current, tau_mem=2 * tau_syn, tau_syn=tau_syn, v0=v0)
        total = v0 + current
        root = (total + math.sqrt(total**2 - 4 * current)) / (2 * current)
        expected = -2 * tau_syn * math.log(root)
        assert simulate(network).time[0] == pytest.approx(expected, rel=1e-14)

    def test_both_crossings_inside_the_interval(self):
        # up at 0.5 and down at 1.5: nothing shows at the end of the interval
        found = first_crossing(lambda t: 0.25 - (t - 1) ** 2, lambda t: 1 - t, 10.0)
        assert found == pytest.approx(0.5, rel=1e-14)

    def test_hump_below_threshold(self):
        assert first_crossing(lambda t: -0.1 - (t - 1) ** 2, lambda t: 1 - t, 10.0) == math.inf

    def test_dip_before_the_rise(self):
        found = first_crossing(lambda t: (t - 1) ** 2 - 4, lambda t: t - 1, 10.0)
        assert found == pytest.approx(3.0, rel=1e-14)

    def test_long_silence(self):
        # the slope has long underflowed to zero when the leak begins to matter again
        network = Network(
            [Population(1, tau_mem=1e-3, tau_syn=1e-3, i0=1.5)],
            [Projection("input", 0, [[5.0]])],
            t_max=10.0,
            n_in=1,
            input_time=[9.0],
            input_idx=[0],
        )
        times = simulate(network).time
        assert len(times) >= 1
        assert times[0] > 9.0


class TestSemantics:
    def test_tonic_firing(self):
        # without current: the time from reset to threshold is tau ln((E - v_reset) / (E - v_th))
        network = single_neuron(0.0, tau_mem=2.0, tau_syn=1.0, v_leak=1.5, t_ref=0.3, t_max=10.0)
        period = 2.0 * math.log(1.5 / 0.5)
        expected = np.arange(period, 10.0, period + 0.3)
        np.testing.assert_allclose(simulate(network).time, expected, rtol=1e-14)

    def test_start_above_threshold(self):
        network = single_neuron(0.0, tau_mem=2.0, tau_syn=1.0, v0=1.0, t_ref=0.5)
        trajectory = simulate(network)
        np.testing.assert_array_equal(trajectory.time, [0.0])
        assert trajectory.events[0].at_start
        assert trajectory.free_at[0] == 0.5

    def test_voltage_is_clamped_while_the_current_goes_on(self):
        network = Network(
            [Population(1, tau_mem=2.0, tau_syn=1.0, v0=1.2, v_reset=-0.3, t_ref=3.0)],
            [Projection("input", 0, [[0.7]], 0.5)],
            t_max=2.0,
            n_in=1,
            input_time=[0.25],
            input_idx=[0],
        )
        trajectory = simulate(network)
        assert trajectory.v[0] == -0.3
        assert trajectory.i[0] == pytest.approx(0.7 * math.exp(-1.25), rel=1e-15)
        assert trajectory.free_at[0] == 3.0

    def test_infinite_threshold_never_spikes(self):
        network = single_neuron(1e6, tau_mem=2.0, tau_syn=1.0, v_th=math.inf)
        trajectory = simulate(network)
        assert len(trajectory.time) == 0
        assert trajectory.free_at[0] == -math.inf
        assert trajectory.v[0] == pytest.approx(1e6 * kernel(20.0, 2.0, 1.0), rel=1e-14)

    def test_simultaneous_spikes_come_by_population_then_index(self):
        populations = [Population(size, tau_mem=2.0, tau_syn=1.0, i0=5.0) for size in (2, 3)]
        trajectory = simulate(Network(populations, [], t_max=1.0))
        np.testing.assert_array_equal(trajectory.population[:5], [0, 0, 1, 1, 1])
        np.testing.assert_array_equal(trajectory.index[:5], [0, 1, 0, 1, 2])
        assert len(set(trajectory.time[:5])) == 1

    def test_spikes_without_delay_do_not_stop_simultaneous_ones(self):
        inhibition = Projection(0, 0, np.full((3, 3), -50.0))
        network = Network([Population(3, tau_mem=2.0, tau_syn=1.0, i0=5.0)], [inhibition], 5.0)
        trajectory = simulate(network)
        np.testing.assert_array_equal(trajectory.index, [0, 1, 2])

    def test_arrivals_and_crossings_at_t_max_count(self):
        network = single_neuron(5.0, tau_mem=2.0, tau_syn=1.0)
        first = simulate(network).time[0]
        network.t_max = first
        assert len(simulate(network).time) == 1
        network = Network(
            [Population(1, tau_mem=2.0, tau_syn=1.0)],
            [Projection("input", 0, [[1.0]])],
            t_max=2.0,
            n_in=1,
            input_time=[2.0],
            input_idx=[0],
        )
        assert simulate(network).i[0] == 1.0

    def test_delay_shapes_mean_the_same(self):
        network = random_network(1)
        shape = network.projections[0].weight.shape  # (sources, targets)
        times = []
        for delay in (0.2, np.full(shape[0], 0.2), np.full(shape, 0.2)):
            network.projections[0].delay = np.asarray(delay)
            times.append(simulate(network).time)
        np.testing.assert_array_equal(times[0], times[1])
        np.testing.assert_array_equal(times[0], times[2])

    def test_delay_per_source(self):
        network = Network(
            [Population(2, tau_mem=2.0, tau_syn=1.0)],
            [Projection("input", 0, np.ones((2, 2)), [0.5, 0.75])],
            t_max=1.0,
            n_in=2,
            input_time=[0.0, 0.0],
            input_idx=[1, 0],
        )
        expected = math.exp(-0.5) + math.exp(-0.25)
        np.testing.assert_allclose(simulate(network).i, [expected, expected], rtol=1e-15)

    def test_spike_limit(self):
        network = single_neuron(0.0, tau_mem=2.0, tau_syn=1.0, v_leak=1.5)
        n_spikes = len(simulate(network).time)
        assert len(simulate(network, max_spikes=n_spikes).time) == n_spikes
        with pytest.raises(SpikeLimitError):
            simulate(network, max_spikes=n_spikes - 1)

    def test_reset_above_threshold_is_refused(self):
        with pytest.raises(ValueError, match="v_reset"):
            Population(1, tau_mem=1.0, tau_syn=1.0, v_th=1.0, v_reset=1.0)

    def test_order_ignores_commuting_arrivals_only(self):
        def order(times):
            network = Network(
                [Population(1, tau_mem=2.0, tau_syn=1.0)],
                [Projection("input", 0, [[4.0], [0.1]])],
                t_max=2.0,
                n_in=2,
                input_time=times,
                input_idx=[0, 1],
            )
            return simulate(network).order

        assert order([0.5, 0.4]) == order([0.4, 0.5])
        assert order([0.5, 0.4]) != order([0.5, 1.9])


class TestForwardSensitivity:
    @pytest.mark.parametrize("equal_taus", [False, True])
    def test_central_differences(self, equal_taus):
        network = random_network(2, equal_taus)
        network.t_max = 3.0
        trajectory = simulate(network)
        sensitivity = forward_sensitivity(network, trajectory)
        assert len(trajectory.time) > 15
        assert any(isinstance(event, Release) for event in trajectory.events)

        def outcome(vector):
            trajectory = simulate(with_parameter_vector(network, ALL_PARAMETERS, vector))
            values = np.concatenate([trajectory.time, trajectory.v, trajectory.i])
            return values, trajectory.order

        # a refractory time of zero cannot be lowered, and its derivative is zero by convention
        vector = parameter_vector(network)
        movable = np.flatnonzero(vector != 0)
        numeric, unchanged = central_difference(
            lambda part: outcome(replaced(vector, movable, part)), vector[movable], 1e-6
        )
        assert unchanged.mean() > 0.95
        exact = np.concatenate(sensitivity)[:, movable]
        # every column on its own scale, so that the parameters with small effects count as well;
        # beyond that the differences are rounded: about 1e-14, divided by the step
        error = np.abs(exact - numeric)[:, unchanged].max(axis=0)
        scale = np.abs(exact[:, unchanged]).max(axis=0)
        assert np.max(error - 1e-7 * scale) <= 1e-8

    def test_central_difference_reports_a_changed_kind(self):
        derivative, unchanged = central_difference(
            lambda x: (np.array([x[0] ** 2, x[1]]), x[1] > 0), np.array([3.0, 1e-4]), [1e-4, 1e-3]
        )
        np.testing.assert_array_equal(unchanged, [True, False])
        np.testing.assert_allclose(derivative[:, 0], [6.0, 0.0], rtol=1e-9)
        assert np.all(np.isnan(derivative[:, 1]))

    def test_shared_parameters_are_sums(self):
        network = random_network(3)
        every = parameter_vector(network, ["tau_mem"])
        shared = with_parameter_vector(network, ["tau_mem"], np.full_like(every, 1.1))
        per_neuron = spike_time_jacobian(shared, ["tau_mem"])[1]
        for population in shared.populations:
            population.tau_mem = np.asarray(1.1)
        summed = spike_time_jacobian(shared, ["tau_mem"])[1]
        assert summed.shape[1] == 2
        np.testing.assert_allclose(summed[:, 0], per_neuron[:, :4].sum(axis=1), atol=1e-11)
        np.testing.assert_allclose(summed[:, 1], per_neuron[:, 4:].sum(axis=1), atol=1e-11)

    def test_start_above_threshold_cannot_move(self):
        network = single_neuron(2.0, tau_mem=2.0, tau_syn=1.0, v0=1.5)
        _, jacobian = spike_time_jacobian(network)
        np.testing.assert_array_equal(jacobian[0], 0.0)

    @pytest.mark.parametrize("wrt", [("weight",), ("t_ref", "delay"), ("input_time", "v0")])
    def test_selection_of_parameters(self, wrt):
        network = random_network(4)
        everything = split_vector(
            network, ALL_PARAMETERS, spike_time_jacobian(network)[1].sum(axis=0)
        )
        some = split_vector(network, wrt, spike_time_jacobian(network, wrt)[1].sum(axis=0))
        assert list(some) == list(wrt)
        for name in wrt:
            for one, other in zip(some[name], everything[name], strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9)


class TestIdentities:
    """Symmetries of the equations, exact at any size: no finite differences involved."""

    @pytest.fixture(params=[5, 6, 7])
    def draw(self, request):
        network = random_network(request.param)
        trajectory, jacobian = spike_time_jacobian(network)
        return network, trajectory.time, jacobian

    @staticmethod
    def directional(network, jacobian, names):
        """The derivative of all spike times when the named parameters grow in proportion."""
        direction = split_vector(network, ALL_PARAMETERS, parameter_vector(network))
        flat = [
            array.ravel() * (name in names)
            for name, arrays in direction.items()
            for array in arrays
        ]
        return jacobian @ np.concatenate(flat)

    def test_voltage_scaling(self, draw):
        network, _, jacobian = draw
        names = ("weight", "v_th", "v_leak", "v_reset", "v0", "i0")
        change = self.directional(network, jacobian, names)
        np.testing.assert_allclose(change, 0.0, atol=1e-13 * np.abs(jacobian).max())

    def test_time_scaling(self, draw):
        network, time, jacobian = draw
        names = ("tau_mem", "tau_syn", "delay", "t_ref", "input_time")
        change = self.directional(network, jacobian, names)
        np.testing.assert_allclose(change, time, atol=1e-13 * np.abs(jacobian).max())

    def test_time_translation_from_rest(self, draw):
        network = draw[0]
        for population in network.populations:
            population.v0 = population.v_leak
            population.i0 = np.zeros(population.size)
        trajectory, jacobian = spike_time_jacobian(network, ["input_time"])
        assert len(trajectory.time) > 10
        np.testing.assert_allclose(jacobian.sum(axis=1), 1.0, atol=1e-13 * np.abs(jacobian).max())


def replaced(vector, places, values):
    result = vector.copy()
    result[places] = values
    return result
