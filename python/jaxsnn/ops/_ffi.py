"""The custom calls as JAX primitives: shapes, batching and reverse-mode differentiation.

The only module that talks to ``jax.ffi`` and to JAX's machinery for primitives. An operation is
described by the sizes of its operands and results; everything else follows from that:

- *Batching.* Operands carry any number of leading axes, which broadcast against each other as in
  NumPy, and the kernels take them natively. ``vmap`` therefore only moves an axis to the front: an
  operand that is not mapped is neither copied nor expanded.
- *Differentiation.* The JVP of an operation is a linear primitive that exists to be transposed
  into the hand-written backward call. Since ``vmap`` inside ``grad`` has already made one batched
  call of many, the gradient of shared weights is summed inside the kernel and never held per
  sample.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxsnn import _core

for _name, _capsule in _core.registrations().items():
    jax.ffi.register_ffi_target(_name, _capsule, platform="cpu")

Attributes = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Field:
    """An operand or a result: its core axes, behind any leading batch axes.

    Attributes:
        name: as in error messages.
        axes: names of the core axes.
        integer: int32 instead of the floating-point type of the call.
        differentiable: whether a gradient passes through it.
        reduced: whether the backward call sums its gradient over the batch by itself.
    """

    name: str
    axes: tuple[str, ...] = ()
    integer: bool = False
    differentiable: bool = False
    reduced: bool = False

    @property
    def rank(self) -> int:
        return len(self.axes)


def _lead(shape: Sequence[int], field: Field) -> tuple[int, ...]:
    return tuple(shape[: len(shape) - field.rank])


def _sum_to(gradient: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Adds up what broadcasting from ``shape`` had repeated."""
    extra = gradient.ndim - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + axis
        for axis, size in enumerate(shape)
        if size == 1 and gradient.shape[extra + axis] != 1
    )
    return gradient.sum(axes).reshape(shape) if axes else gradient


def _align(operands: Sequence[jax.Array], dims: Sequence[int | None], fields: Sequence[Field]):
    """Moves mapped axes to the front of the batch axes, so that operands still broadcast."""
    rank = max(
        operand.ndim - field.rank - (dim is not None)
        for operand, dim, field in zip(operands, dims, fields, strict=True)
    )
    aligned = []
    for operand, dim, field in zip(operands, dims, fields, strict=True):
        if dim is None:
            aligned.append(operand)
            continue
        moved = jnp.moveaxis(operand, dim, 0)
        missing = rank - (moved.ndim - 1 - field.rank)
        aligned.append(moved.reshape(moved.shape[0], *(1,) * missing, *moved.shape[1:]))
    return aligned, rank


def _ffi_attributes(attributes: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Attributes in the types of the custom calls, which are told apart by their dtype."""
    return {
        name: np.asarray(value, np.int64) if isinstance(value, tuple) else value
        for name, value in attributes
    }


def _zero_tangent(shape: Sequence[int]) -> ad.Zero:
    """The tangent of an integer result."""
    return ad.Zero(ShapedArray(tuple(shape), jax.dtypes.float0))


def _varying(aval: Any) -> frozenset[str]:
    """The axes of an enclosing ``shard_map`` over which a value varies."""
    if hasattr(aval, "manual_axis_type"):  # from jax 0.10 on
        return aval.manual_axis_type.varying
    return getattr(aval, "vma", frozenset())


def _result_aval(shape: Sequence[int], dtype: Any, avals: Sequence[Any]) -> ShapedArray:
    """The type of a result of these operands: inside ``shard_map`` it varies as they do."""
    avals = [aval if isinstance(aval, ShapedArray) else jax.typeof(aval) for aval in avals]
    most = max(avals, key=lambda aval: len(_varying(aval)))
    shape = tuple(shape)
    if not _varying(most):
        return ShapedArray(shape, dtype)
    unsharded = jax.sharding.PartitionSpec(*(None,) * len(shape))
    sharding = jax.sharding.NamedSharding(most.sharding.mesh, unsharded)
    if hasattr(most, "manual_axis_type"):
        axes = {"manual_axis_type": most.manual_axis_type}
    else:
        axes = {"vma": most.vma}
    return ShapedArray(shape, dtype, sharding=sharding, **axes)


def vary_alike(operands: Sequence[jax.Array]) -> list[jax.Array]:
    """Inside ``shard_map``: marks operands as varying wherever one of them does.

    The transpose of the mark is the sum over devices that the gradient of a replicated operand
    needs.
    """
    owned = [_varying(jax.typeof(operand)) for operand in operands]
    union = frozenset().union(*owned)
    return [
        jax.lax.pcast(operand, tuple(sorted(union - own)), to="varying") if union - own else operand
        for operand, own in zip(operands, owned, strict=True)
    ]


class Op:
    """An operation with a forward and a backward custom call.

    Args:
        name: the targets are ``jaxsnn_<name>_fwd`` and ``jaxsnn_<name>_bwd``.
        operands: of the forward call, in order.
        results: of the forward call, in order.
        residuals: names of the results that the backward call reads, besides all operands.
        gradient_axes: core axes of gradients that differ from those of their operand, because the
            kernel returns them before a sum over that axis.
        shared_attributes: names of the attributes that the backward call takes as well.
        optional_gradients: groups of operands, for each of which the backward call takes an
            attribute ``want_<group>``: whether any of their gradients is wanted.
        elsewhere: the forward call in JAX, for platforms without the custom call:
            ``elsewhere(*operands, **attributes) -> results``. Its derivative replaces the backward
            call there.
    """

    def __init__(
        self,
        name: str,
        operands: Sequence[Field],
        results: Sequence[Field],
        residuals: Sequence[str],
        gradient_axes: Mapping[str, tuple[str, ...]] | None = None,
        shared_attributes: Sequence[str] = (),
        optional_gradients: Mapping[str, Sequence[str]] | None = None,
        elsewhere: Callable[..., Sequence[jax.Array]] | None = None,
    ):
        self.name = name
        self.operands = tuple(operands)
        self.results = tuple(results)
        self.inputs = tuple(f for f in operands if f.differentiable)
        self.outputs = tuple(f for f in results if f.differentiable)
        self.residuals = tuple(f for f in results if f.name in residuals)
        self._gradient_axes = dict(gradient_axes or {})
        self._shared_attributes = tuple(shared_attributes)
        self._optional_gradients = dict(optional_gradients or {})
        self._forward = self._primitive("fwd", self._forward_shapes, self._lower_forward)
        self._linear = Primitive(f"jaxsnn_{name}_linear")
        self._linear.multiple_results = True
        self._backward = self._primitive("bwd", self._backward_shapes, self._lower_backward)
        if elsewhere is not None:
            self.elsewhere = self._lower_elsewhere(elsewhere)
        batching.primitive_batchers[self._forward] = self._batch_forward
        batching.primitive_batchers[self._linear] = self._batch_linear
        batching.primitive_batchers[self._backward] = self._batch_backward
        ad.primitive_jvps[self._forward] = self._jvp
        ad.primitive_transposes[self._linear] = self._transpose
        self._linear.def_abstract_eval(self._linear_shapes)
        self._linear.def_impl(self._no_forward_mode)
        mlir.register_lowering(self._linear, self._no_forward_mode)

    def __call__(
        self, *operands: jax.Array, sizes: Mapping[str, int] | None = None, **attributes: Any
    ) -> dict[str, jax.Array]:
        """Calls the operation; ``sizes`` are core axes of results that no operand shows."""
        results = self._forward.bind(
            *vary_alike(operands),
            sizes=tuple(sorted((sizes or {}).items())),
            attributes=tuple(sorted(attributes.items())),
        )
        return {field.name: result for field, result in zip(self.results, results, strict=True)}

    def _primitive(self, kind: str, shapes, lower) -> Primitive:
        primitive = Primitive(f"jaxsnn_{self.name}_{kind}")
        primitive.multiple_results = True
        primitive.def_abstract_eval(shapes)

        @functools.lru_cache(maxsize=256)
        def compiled(**params):
            return jax.jit(functools.partial(primitive.bind, **params))

        primitive.def_impl(lambda *operands, **params: compiled(**params)(*operands))
        mlir.register_lowering(
            primitive, mlir.lower_fun(lower, multiple_results=True), platform="cpu"
        )
        return primitive

    def _lower_elsewhere(self, elsewhere: Callable[..., Sequence[jax.Array]]):
        """Lowers both calls on all platforms for which there is nothing else; returns what to."""

        def forward(*operands, sizes, attributes):
            del sizes
            return elsewhere(*operands, **dict(attributes))

        def backward(*operands, sizes, attributes, leads, wanted):
            del sizes, wanted
            primals = operands[: len(self.operands)]
            cotangents = operands[-len(self.outputs) :]
            places = [at for at, field in enumerate(self.operands) if field.differentiable]
            outputs = [at for at, field in enumerate(self.results) if field.differentiable]
            lead = self._batch(operands, self._backward_fields)
            own = iter(leads)
            leads = [next(own) if field.reduced else lead for field in self.inputs]

            def call(*moving):
                # As the compiled call, this gives the gradients of shared operands per sample.
                changed = list(primals)
                for at, value in zip(places, moving, strict=True):
                    changed[at] = value
                results = elsewhere(*changed, **dict(attributes))
                return [results[at] for at in outputs]

            moving = [
                jnp.broadcast_to(primals[at], (*lead, *primals[at].shape[-field.rank :]))
                for at, lead, field in zip(places, leads, self.inputs, strict=True)
            ]
            results, pull = jax.vjp(call, *moving)
            return pull(
                [
                    jnp.broadcast_to(cotangent, result.shape)
                    for cotangent, result in zip(cotangents, results, strict=True)
                ]
            )

        for primitive, lower in ((self._forward, forward), (self._backward, backward)):
            mlir.register_lowering(primitive, mlir.lower_fun(lower, multiple_results=True))
        return forward, backward

    def _sizes(self, operands: Sequence[Any], sizes: tuple[tuple[str, int], ...]) -> dict[str, int]:
        found = dict(sizes)
        for operand, field in zip(operands, self.operands, strict=True):
            core = operand.shape[operand.ndim - field.rank :]
            found.update(zip(field.axes, core, strict=True))
        return found

    @staticmethod
    def _batch(operands: Sequence[Any], fields: Sequence[Field]) -> tuple[int, ...]:
        return np.broadcast_shapes(
            *(_lead(o.shape, f) for o, f in zip(operands, fields, strict=True))
        )

    def _aval(self, field: Field, axes: Sequence[str], lead, sizes, dtype, like) -> ShapedArray:
        shape = (*lead, *(sizes[axis] for axis in axes))
        kind = np.dtype(np.int32) if field.integer else dtype
        return _result_aval(shape, kind, like)

    # Forward

    def _forward_shapes(self, *operands, sizes, attributes):
        del attributes
        lead = self._batch(operands, self.operands)
        known = self._sizes(operands, sizes)
        dtype = operands[0].dtype
        return [self._aval(f, f.axes, lead, known, dtype, operands) for f in self.results]

    def _lower_forward(self, *operands, sizes, attributes):
        shapes = self._forward_shapes(*operands, sizes=sizes, attributes=attributes)
        call = jax.ffi.ffi_call(f"jaxsnn_{self.name}_fwd", shapes)
        return call(*operands, **_ffi_attributes(attributes))

    def _batch_forward(self, operands, dims, **params):
        aligned, _ = _align(operands, dims, self.operands)
        return self._forward.bind(*aligned, **params), [0] * len(self.results)

    # Reverse-mode differentiation

    def _jvp(self, primals, tangents, *, sizes, attributes):
        results = self._forward.bind(*primals, sizes=sizes, attributes=attributes)
        moving = [
            ad.instantiate_zeros(tangent)
            for field, tangent in zip(self.operands, tangents, strict=True)
            if field.differentiable
        ]
        out = self._derivative(primals, moving, results, sizes, attributes)
        out_tangents = [
            out[field.name]
            if field.differentiable
            else _zero_tangent(result.shape)
            if field.integer
            else ad.Zero(ShapedArray(result.shape, result.dtype))
            for field, result in zip(self.results, results, strict=True)
        ]
        return results, out_tangents

    def _derivative(self, primals, moving, results, sizes, attributes) -> dict[str, jax.Array]:
        """The tangents of the differentiable results, linear in those of the operands."""
        named = {f.name: r for f, r in zip(self.results, results, strict=True)}
        residuals = [named[f.name] for f in self.residuals]
        shared = tuple(a for a in attributes if a[0] in self._shared_attributes)
        linear = self._linear.bind(*primals, *residuals, *moving, sizes=sizes, attributes=shared)
        return dict(zip((f.name for f in self.outputs), linear, strict=True))

    def observed(
        self,
        operands: Sequence[jax.Array],
        results: Mapping[str, jax.Array],
        output: str,
        *,
        sizes: Mapping[str, int],
        **attributes: Any,
    ) -> jax.Array:
        """A result that was observed, with the derivative of the operation around all of them.

        Args:
            operands: of the forward call, in order. Nothing is called forwards.
            results: all that the forward call would have returned, as they were observed.
            output: name of the result to return.
            sizes: as of a call.
            attributes: as of a call.
        """
        static = tuple(sorted(sizes.items())), tuple(sorted(attributes.items()))

        @jax.custom_jvp
        def known(operands, results):
            del operands
            return results[output]

        @known.defjvp
        def _(primals, tangents):
            operands, results = primals
            moving = [
                tangent
                for field, tangent in zip(self.operands, tangents[0], strict=True)
                if field.differentiable
            ]
            ordered = [results[field.name] for field in self.results]
            return results[output], self._derivative(operands, moving, ordered, *static)[output]

        return known(tuple(vary_alike(operands)), dict(results))

    @property
    def _linear_fields(self) -> tuple[Field, ...]:
        return (*self.operands, *self.residuals, *self.inputs)

    def _linear_shapes(self, *operands, sizes, attributes):
        del attributes
        lead = self._batch(operands, self._linear_fields)
        known = self._sizes(operands[: len(self.operands)], sizes)
        dtype = operands[0].dtype
        return [self._aval(f, f.axes, lead, known, dtype, operands) for f in self.outputs]

    def _no_forward_mode(self, *_, **__):
        raise NotImplementedError(
            f"jaxsnn.ops.{self.name} has a reverse-mode derivative only: use jax.grad, jax.vjp or "
            "jax.jacrev, not jax.jvp or jax.jacfwd"
        )

    def _batch_linear(self, operands, dims, **params):
        aligned, _ = _align(operands, dims, self._linear_fields)
        return self._linear.bind(*aligned, **params), [0] * len(self.outputs)

    def _transpose(self, cotangents, *operands, sizes, attributes):
        known = operands[: len(operands) - len(self.inputs)]
        moving = operands[len(known) :]
        wanted = [ad.is_undefined_primal(o) for o in moving]
        shapes = [o.aval.shape if w else o.shape for o, w in zip(moving, wanted, strict=True)]
        gradients = self._backward.bind(
            *known,
            *map(self._cotangent, cotangents, self.outputs),
            sizes=sizes,
            attributes=attributes,
            leads=tuple(_lead(s, f) for f, s in zip(self.inputs, shapes, strict=True) if f.reduced),
            wanted=tuple(f.name for f, w in zip(self.inputs, wanted, strict=True) if w),
        )
        moving = [
            _sum_to(g, s) if w else None for g, s, w in zip(gradients, shapes, wanted, strict=True)
        ]
        return [None] * len(known) + moving

    @staticmethod
    def _cotangent(cotangent: Any, field: Field) -> jax.Array:
        """A cotangent as an operand; zeros have no batch axes, along which they broadcast."""
        if not isinstance(cotangent, ad.Zero):
            return cotangent
        aval: Any = cotangent.aval
        core = aval.shape[len(aval.shape) - field.rank :]
        return jnp.zeros(core, aval.dtype)

    # Backward

    @property
    def _backward_fields(self) -> tuple[Field, ...]:
        return (*self.operands, *self.residuals, *self.outputs)

    def _backward_shapes(self, *operands, sizes, attributes, leads, wanted):
        del attributes, wanted
        lead = self._batch(operands, self._backward_fields)
        known = self._sizes(operands[: len(self.operands)], sizes)
        own = iter(leads)
        return [
            self._aval(
                f,
                self._gradient_axes.get(f.name, f.axes),
                next(own) if f.reduced else lead,
                known,
                operands[0].dtype,
                operands,
            )
            for f in self.inputs
        ]

    def _lower_backward(self, *operands, sizes, attributes, leads, wanted):
        shapes = self._backward_shapes(
            *operands, sizes=sizes, attributes=attributes, leads=leads, wanted=wanted
        )
        own = {
            f"want_{group}": any(name in wanted for name in names)
            for group, names in self._optional_gradients.items()
        }
        call = jax.ffi.ffi_call(f"jaxsnn_{self.name}_bwd", shapes)
        return call(*operands, **_ffi_attributes(attributes), **own)

    def _batch_backward(self, operands, dims, *, leads, **params):
        size = next(o.shape[d] for o, d in zip(operands, dims, strict=True) if d is not None)
        aligned, rank = _align(operands, dims, self._backward_fields)
        # Here every sample needs a gradient of its own: the sums run over the older axes only.
        padded = tuple((size, *(1,) * (rank - len(lead)), *lead) for lead in leads)
        gradients = self._backward.bind(*aligned, leads=padded, **params)
        own = iter(leads)
        results = [
            g.reshape(size, *next(own), *g.shape[g.ndim - f.rank :]) if f.reduced else g
            for f, g in zip(self.inputs, gradients, strict=True)
        ]
        return results, [0] * len(results)


_PARAMS = tuple(
    Field(f"params.{name}", (f"{name}_values",), differentiable=True)
    for name in ("tau_mem", "tau_syn", "v_th", "v_leak", "v_reset", "t_ref")
)
# Gradients that the backward calls leave out where nobody wants them.
_PARAMETERS = {"parameters": tuple(field.name for field in _PARAMS)}
_OPTIONAL = {"input_time": ("input_time",), **_PARAMETERS}
_PROBLEM = (
    Field("weights", ("inputs", "neurons"), differentiable=True, reduced=True),
    Field("v", ("neurons",), differentiable=True),
    Field("i", ("neurons",), differentiable=True),
    Field("release", ("neurons",), differentiable=True),
    Field("time", differentiable=True),
    Field("input_time", ("queue",), differentiable=True),
    Field("input_index", ("queue",), integer=True),
    Field("input_head", integer=True),
    Field("t_max", differentiable=True),
    *_PARAMS,
)
_STATE = (
    Field("v", ("neurons",), differentiable=True),
    Field("i", ("neurons",), differentiable=True),
    Field("release", ("neurons",), differentiable=True),
    Field("time", differentiable=True),
    Field("head", integer=True),
)
_OUTCOME = (Field("status", integer=True), Field("detail", ("facts",)))

_LOOP_RESULTS = (
    Field("spike_time", ("events",), differentiable=True),
    Field("spike_index", ("events",), integer=True),
    Field("spike_position", ("events",), integer=True),
    Field("spike_current", ("events",)),
    *_STATE,
    Field("count", integer=True),
    *_OUTCOME,
)
_STEP_RESULTS = (
    Field("event_time", differentiable=True),
    Field("event_index", integer=True),
    Field("event_kind", integer=True),
    *_STATE,
    *_OUTCOME,
)
_NEURONS = (
    Field("v", ("neurons",), differentiable=True),
    Field("i", ("neurons",), differentiable=True),
)

_NETWORK = (
    *_PROBLEM,
    Field("recurrent", ("sources", "neurons"), differentiable=True, reduced=True),
    Field("delays", ("delay_rows", "delay_cols"), differentiable=True, reduced=True),
    Field(
        "recurrent_delays",
        ("recurrent_delay_rows", "recurrent_delay_cols"),
        differentiable=True,
        reduced=True,
    ),
    Field("past_time", ("past",), differentiable=True),
    Field("past_index", ("past",), integer=True),
    Field("probe_time", ("probes",), differentiable=True),
)
_NETWORK_RESULTS = (
    *(field for field in _LOOP_RESULTS if field.name != "spike_position"),
    Field("probe_v", ("probes", "neurons"), differentiable=True),
    Field("probe_i", ("probes", "neurons"), differentiable=True),
    Field("max_v", ("maxima",), differentiable=True),
    Field("max_time", ("maxima",)),
    Field("max_current", ("maxima",)),
)

event_loop = Op(
    "event_loop",
    _PROBLEM,
    _LOOP_RESULTS,
    [f.name for f in _LOOP_RESULTS],
    optional_gradients=_OPTIONAL,
)
network_loop = Op(
    "network_loop",
    _NETWORK,
    _NETWORK_RESULTS,
    [f.name for f in _NETWORK_RESULTS],
    shared_attributes=["population_sizes", "population_capacities"],
    optional_gradients={"arrivals": ("input_time", "delays"), **_PARAMETERS},
)
event_step = Op(
    "event_step",
    _PROBLEM,
    _STEP_RESULTS,
    [f.name for f in _STEP_RESULTS],
    optional_gradients=_OPTIONAL,
)
flow = Op(
    "flow",
    (*_NEURONS, Field("dt", ("step",), differentiable=True), *_PARAMS),
    (*_NEURONS, *_OUTCOME),
    [],
    gradient_axes={"dt": ("neurons",)},
    optional_gradients=_PARAMETERS,
)
next_crossing = Op(
    "next_crossing",
    (*_NEURONS, *_PARAMS),
    (Field("delay", ("neurons",), differentiable=True), *_OUTCOME),
    ["delay"],
    optional_gradients=_PARAMETERS,
)

gather_spikes = Op(
    "gather_spikes",
    (Field("time", ("given",), differentiable=True), Field("index", ("given",), integer=True)),
    (
        Field("time", ("gathered",), differentiable=True),
        Field("index", ("gathered",), integer=True),
        Field("position", ("gathered",), integer=True),
        Field("count", integer=True),
    ),
    ["position"],
)

FACTS = 3  # argument, element and value behind a status
