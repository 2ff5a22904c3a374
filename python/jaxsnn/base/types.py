"""Array annotations and the pytrees that every part of the library exchanges."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Int32, Shaped
else:
    try:
        from jaxtyping import Bool, Float, Int, Int32, Shaped
    except ImportError:  # the annotations are documentation then, `import jaxsnn` needs jax alone

        class _Annotation:
            """Accepts ``Float[Array, "shape"]`` and means ``Array``."""

            def __class_getitem__(cls, item):
                return item[0]

        Bool = Float = Int = Int32 = Shaped = _Annotation

__all__ = [
    "Array",
    "Bool",
    "Float",
    "Int",
    "Int32",
    "LIFParameters",
    "LIFState",
    "Parameter",
    "Shaped",
    "SpikeQueue",
    "Spikes",
    "initial_state",
]

# One value for all neurons, or an array whose last axis is the neurons.
Parameter = float | int | Shaped[Array, "..."]


class Spikes(NamedTuple):
    """Spikes in time order.

    Attributes:
        time: ``[*batch, n_spikes]``, ascending; ``inf`` marks padding.
        index: ``[*batch, n_spikes]`` int32, the channel or neuron; ``-1`` marks padding.
    """

    time: Float[Array, "*batch n_spikes"]
    index: Int32[Array, "*batch n_spikes"]


class SpikeQueue(NamedTuple):
    """Incoming spikes, of which the first ``head`` have been taken.

    Attributes:
        time: ``[*batch, n_spikes]``, as in :class:`Spikes`.
        index: ``[*batch, n_spikes]`` int32, as in :class:`Spikes`.
        head: ``[*batch]`` int32, the position of the next spike.
    """

    time: Float[Array, "*batch n_spikes"]
    index: Int32[Array, "*batch n_spikes"]
    head: Int32[Array, "*batch"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LIFParameters:
    """Parameters of the current-based leaky integrate-and-fire neuron.

    Between events ``tau_mem V' = -(V - v_leak) + I`` and ``tau_syn I' = -I``. When V reaches
    ``v_th`` from below the neuron spikes, V is set to ``v_reset`` and held there for ``t_ref``,
    while I goes on. A spike that arrives over a weight w adds w to I.

    Each is a scalar or has the neurons as its last axis. Units: any consistent set; the defaults
    are in seconds and in units of the threshold.

    Attributes:
        tau_mem: membrane time constant, > 0.
        tau_syn: synaptic time constant, > 0; may equal ``tau_mem``.
        v_th: threshold.
        v_leak: resting potential; above ``v_th`` the neuron fires without input.
        v_reset: reset potential, below ``v_th``.
        t_ref: refractory period, >= 0.
    """

    tau_mem: Parameter = 20e-3
    tau_syn: Parameter = 5e-3
    v_th: Parameter = 1.0
    v_leak: Parameter = 0.0
    v_reset: Parameter = 0.0
    t_ref: Parameter = 0.0


class LIFState(NamedTuple):
    """The state of a population at one time.

    Attributes:
        v: ``[*batch, n_neurons]`` membrane potential.
        i: ``[*batch, n_neurons]`` synaptic current.
        release: ``[*batch, n_neurons]``, when the refractory period of a neuron ends; ``-inf``
            where it has not spiked yet.
        time: ``[*batch]``, the time of this state.
    """

    v: Float[Array, "*batch n_neurons"]
    i: Float[Array, "*batch n_neurons"]
    release: Float[Array, "*batch n_neurons"]
    time: Float[Array, "*batch"]


def initial_state(params: LIFParameters, n_neurons: int, dtype: DTypeLike) -> LIFState:
    """The state of rest at time 0: V at ``v_leak``, no current, nobody refractory.

    Args:
        params: the parameters, of which ``v_leak`` is used.
        n_neurons: size of the population.
        dtype: float32 or float64.

    Returns:
        A state whose leading axes are those of ``v_leak``, and none in the usual case.
    """
    v_leak = jnp.asarray(params.v_leak, dtype)
    v = jnp.broadcast_to(v_leak, (*v_leak.shape[:-1], n_neurons))
    return LIFState(
        v=v,
        i=jnp.zeros(n_neurons, dtype),
        release=jnp.full(n_neurons, -jnp.inf, dtype),
        time=jnp.zeros((), dtype),
    )
