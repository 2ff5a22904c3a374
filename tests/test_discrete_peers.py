"""A single neuron against norse and upstream jaxsnn themselves, in environments of their own.

Upstream has this package's import name, and norse brings PyTorch: each runs in an interpreter that
an environment variable names, JAXSNN_TEST_UPSTREAM and JAXSNN_TEST_NORSE.
"""

import json
import os
import subprocess

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsnn import LIFParameters
from jaxsnn.discrete import LIF

DT, N_STEPS = 1e-3, 400
PARAMETERS = {"tau_mem": 10e-3, "tau_syn": 5e-3, "v_th": 0.6, "v_leak": 0.05, "v_reset": -0.1}

UPSTREAM = """
import json, sys
import jax.numpy as jnp
from jaxsnn.discrete.functional import LIFState, lif_step
from jaxsnn.discrete.functional.threshold import superspike
given = json.load(sys.stdin)
state, spikes = LIFState(jnp.asarray([given["v"]]), jnp.zeros(1)), []
for x in given["inputs"]:
    state, z = lif_step({"x": jnp.asarray([x])}, state, None, superspike, **given["parameters"],
                        dt=given["dt"])
    spikes.append(float(z[0]))
print(json.dumps(spikes))
"""

NORSE = """
import json, sys
import torch
from norse.torch.functional.lif import LIFFeedForwardState, LIFParameters, lif_feed_forward_step
given = json.load(sys.stdin)
p = given["parameters"]
p = LIFParameters(
    tau_mem_inv=torch.as_tensor(1 / p["tau_mem"]), tau_syn_inv=torch.as_tensor(1 / p["tau_syn"]),
    v_th=torch.as_tensor(p["v_th"]), v_leak=torch.as_tensor(p["v_leak"]),
    v_reset=torch.as_tensor(p["v_reset"]))
state = LIFFeedForwardState(v=torch.tensor([given["v"]]), i=torch.zeros(1))
spikes = []
for x in given["inputs"]:
    z, state = lif_feed_forward_step(torch.tensor([x]), state, p, given["dt"])
    spikes.append(float(z[0]))
print(json.dumps(spikes))
"""


@pytest.mark.parametrize(
    ("variable", "script", "jump"),
    [("JAXSNN_TEST_UPSTREAM", UPSTREAM, "after"), ("JAXSNN_TEST_NORSE", NORSE, "before")],
)
def test_single_neuron(variable, script, jump):
    python = os.environ.get(variable)
    if python is None:
        pytest.skip(f"{variable} is not set")
    neuron = LIF(1, dt=DT, params=LIFParameters(**PARAMETERS), jump=jump)
    for seed, density in enumerate((0.02, 0.1, 0.3)):
        rng = np.random.default_rng(seed)
        inputs = (rng.random(N_STEPS) < density) * rng.uniform(0, 3, N_STEPS)
        inputs = inputs.astype(np.float32)
        given = {"inputs": inputs.tolist(), "parameters": PARAMETERS, "dt": DT, "v": 0.05}
        done = subprocess.run(
            [python, "-c", script],
            input=json.dumps(given),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        expected = json.loads(done.stdout.splitlines()[-1])
        found = neuron.apply(jnp.ones((1, 1)), jnp.asarray(inputs)[:, None])[:, 0]
        assert sum(expected) > 3
        np.testing.assert_array_equal(found, expected)
