"""The reference files, by the script that anybody can run on them."""

import json
from pathlib import Path

import pytest

from golden import check

FOLDER = Path(check.__file__).parent


@pytest.mark.parametrize(
    ("file", "n_runs", "n_cases"), [("nest_spikes.json", 16, 9), ("gradients.json", 10, 6)]
)
def test_every_case_agrees_in_every_way_that_it_can_run_in(file, n_runs, n_cases, capsys):
    assert check.main([str(FOLDER / file)]) == 0
    output = capsys.readouterr().out
    assert output.count("(network)") == n_cases
    assert output.count("ok  ") == n_runs
    assert f"{n_runs} of {n_runs} runs checked" in output


@pytest.mark.usefixtures("x64")
class TestTheScriptCanFail:
    @pytest.fixture
    def case(self):
        return json.loads((FOLDER / "gradients.json").read_text())["cases"][1]

    def test_it_checks_every_gradient(self, case):
        for report in check.check_case(case):
            assert report.ok
            assert set(report.gradient_errors) == {"loss", *case["gradient"]}

    def test_spike_time(self, case):
        case["spikes"][3]["time"] += 1.1e-9 * case["tau_mem"]
        for report in check.check_case(case):
            assert report.time_error == pytest.approx(1.1e-9, rel=1e-3)
            assert not report.ok

    def test_missing_spike(self, case):
        del case["spikes"][3]
        for report in check.check_case(case):
            assert report.time_error == float("inf")
            assert not report.ok

    def test_simultaneous_spikes_come_in_any_order(self, case):
        # two copies of a neuron fire together; the file may list either first
        for row in case["projections"][0]["weight"]:
            row[1] = row[0]
        (listed,) = check.simulate_layers(case, check.arguments(case)).spikes
        time = [float(t) for t in listed.time if t < case["t_max"]]
        index = [int(i) for i in listed.index if i >= 0]
        pairs = [k for k in range(len(index) - 1) if time[k] == time[k + 1]]
        assert len(pairs) > 3
        swapped = index.copy()
        for k in pairs:
            swapped[k], swapped[k + 1] = index[k + 1], index[k]
        spikes = [{"time": time, "idx": swapped}]
        case = {key: value for key, value in case.items() if key != "gradient"} | {"spikes": spikes}
        network, layers = check.check_case(case)
        assert network.time_error < 1e-14
        assert layers.time_error == 0

    @pytest.mark.parametrize(
        "name",
        ["delay", "input_time", "v0", "weight", "tau_mem", "tau_syn", "v_th", "v_leak", "v_reset"],
    )
    def test_gradient(self, case, name):
        gradient = case["gradient"]
        if name == "weight":
            gradient[name][0][2][1] *= 1 + 1.1e-8
        elif name in ("delay", "input_time"):
            gradient[name][0] *= 1 + 1.1e-8
        else:
            gradient[name] *= 1 + 1.1e-8
        for report in check.check_case(case):
            wrong = {name for name, error in report.gradient_errors.items() if error > 1e-8}
            assert wrong == {name}
            assert not report.ok

    def test_exit_code(self, case, tmp_path, capsys):
        case["loss"] += 1
        (tmp_path / "wrong.json").write_text(json.dumps({"cases": [case]}))
        assert check.main([str(tmp_path / "wrong.json")]) == 1
        assert "FAIL" in capsys.readouterr().out

    def test_nothing_to_check_is_a_failure(self, tmp_path, capsys):
        (tmp_path / "empty.json").write_text('{"cases": []}')
        assert check.main([str(tmp_path / "empty.json")]) == 1
        assert "0 of 0" in capsys.readouterr().out
