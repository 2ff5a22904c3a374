"""Time steps of LIF neurons with surrogate gradients, and their derivative along a direction.

NumPy alone, one step and one sample after the other, in float64 unless told otherwise. The
derivative is carried forward beside the state, so that nothing here resembles a backward pass.
"""

from __future__ import annotations

import math

import numpy as np

SURROGATES = {
    "superspike": lambda x: 1 / (1 + 80 * abs(x)) ** 2,
    "fast_sigmoid": lambda x: 1 / (1 + 25 * abs(x)) ** 2,
    "sigmoid": lambda x: 4 / ((1 + math.exp(-4 * x)) * (1 + math.exp(4 * x))),
    "arctan": lambda x: 1 / (1 + (math.pi * x) ** 2),
    "triangle": lambda x: 0.3 * max(0.0, 1 - abs(x)),
    "gaussian": lambda x: math.exp(-0.5 * (x / 0.5) ** 2) / (0.5 * math.sqrt(2 * math.pi)),
}


def run(operands, *, surrogate, refractory=0, jump="after", direction=None):
    """One sample.

    ``operands`` are by name: weights, recurrent (or None), inputs, v, i, spikes, hold, and the
    coefficients leak, drive, decay, v_th, v_leak, v_reset per neuron. ``direction`` has a change of
    each but ``hold``. Returns the spikes, the voltages, the state at the end; and with a direction
    the derivatives of all of them along it, as a second dictionary.
    """
    o = operands
    d = direction or {name: np.zeros_like(x) for name, x in o.items() if x is not None}
    h = np.vectorize(SURROGATES[surrogate])
    v, i, z, hold = (np.array(o[name]) for name in ("v", "i", "spikes", "hold"))
    dv, di, dz = (np.array(d[name]) for name in ("v", "i", "spikes"))
    trace = {"spikes": [], "voltage": []}
    dtrace = {"spikes": [], "voltage": []}
    for x, dx in zip(o["inputs"], d["inputs"], strict=True):
        arriving, darriving = np.zeros_like(i), np.zeros_like(i)
        for k, value in enumerate(x):
            arriving = arriving + value * o["weights"][k]
            darriving = darriving + dx[k] * o["weights"][k] + value * d["weights"][k]
        if o["recurrent"] is not None:
            for k, value in enumerate(z):
                arriving = arriving + value * o["recurrent"][k]
                darriving = darriving + dz[k] * o["recurrent"][k] + value * d["recurrent"][k]
        if jump == "before":
            i, di = i + arriving, di + darriving
        u = v + (o["leak"] * (o["v_leak"] - v) + o["drive"] * i)
        du = (
            dv
            + d["leak"] * (o["v_leak"] - v)
            + o["leak"] * (d["v_leak"] - dv)
            + d["drive"] * i
            + o["drive"] * di
        )
        i, di = o["decay"] * i, d["decay"] * i + o["decay"] * di
        if jump == "after":
            i, di = i + arriving, di + darriving
        z = (u > o["v_th"]).astype(u.dtype)
        dz = h(u - o["v_th"]) * (du - d["v_th"])
        held = hold > 0
        u, du = np.where(held, o["v_reset"], u), np.where(held, d["v_reset"], du)
        z, dz = np.where(held, 0, z), np.where(held, 0, dz)
        hold = np.where(z > 0, refractory, np.maximum(hold - 1, 0))
        v = np.where(z > 0, o["v_reset"], u)
        dv = np.where(z > 0, d["v_reset"], du) + dz * (o["v_reset"] - u)
        for name, value, change in (("spikes", z, dz), ("voltage", u, du)):
            trace[name].append(value)
            dtrace[name].append(change)
    results = {name: np.stack(values) for name, values in trace.items()}
    results |= {"v": v, "i": i, "hold": hold}
    if direction is None:
        return results
    changes = {name: np.stack(values) for name, values in dtrace.items()}
    return results, changes | {"v": dv, "i": di}
