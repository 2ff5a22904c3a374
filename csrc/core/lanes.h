// Loops over all neurons of a population. Free functions of plain pointers, which compilers
// vectorise; members they would have to suspect of changing underway.
#ifndef JAXSNN_CORE_LANES_H_
#define JAXSNN_CORE_LANES_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/adjoint.h"
#include "core/mul_add.h"
#include "core/propagators.h"
#include "core/quiet_lanes.h"
#include "core/registers.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// Lanes have room for a multiple of this many neurons, so that loops over them have no remainder.
inline constexpr std::int64_t kLaneBlock = 16;

JAXSNN_INLINE constexpr std::int64_t PaddedLanes(std::int64_t n) {
  return (n + kLaneBlock - 1) & -kLaneBlock;
}

// The free solution over a time step, shared by all or one for each neuron; n a multiple of the
// block.
template <class R, bool kUniform>
void FlowLanes(const PropagatorLanes<R>& p, std::int64_t n, R* JAXSNN_RESTRICT v,
               R* JAXSNN_RESTRICT i) {
  const R* JAXSNN_RESTRICT vv = p.v_from_v;
  const R* JAXSNN_RESTRICT vi = p.v_from_i;
  const R* JAXSNN_RESTRICT ii = p.i_from_i;
  const R vv0 = vv[0], vi0 = vi[0], ii0 = ii[0];
  n &= -kLaneBlock;
  for (std::int64_t j = 0; j < n; ++j) {
    v[j] = MulAdd(kUniform ? vv0 : vv[j], v[j], (kUniform ? vi0 : vi[j]) * i[j]);
    i[j] = (kUniform ? ii0 : ii[j]) * i[j];
  }
}

// Its transpose.
template <class R, bool kUniform>
void AdjointFlowLanes(const PropagatorLanes<R>& p, std::int64_t n, R* JAXSNN_RESTRICT v,
                      R* JAXSNN_RESTRICT i) {
  const R* JAXSNN_RESTRICT vv = p.v_from_v;
  const R* JAXSNN_RESTRICT vi = p.v_from_i;
  const R* JAXSNN_RESTRICT ii = p.i_from_i;
  const R vv0 = vv[0], vi0 = vi[0], ii0 = ii[0];
  n &= -kLaneBlock;
  if constexpr (kUniform) {
    using Lanes = Registers<R, kWideLanes<R>>;
    for (std::int64_t j = 0; j < n; j += kWideLanes<R>) {
      const auto a_v = Lanes::Load(v + j);
      Lanes::Store(MulAdd(vi0, a_v, ii0 * Lanes::Load(i + j)), i + j);
      Lanes::Store(vv0 * a_v, v + j);
    }
    return;
  }
  for (std::int64_t j = 0; j < n; ++j) {
    i[j] = MulAdd(kUniform ? vi0 : vi[j], v[j], (kUniform ? ii0 : ii[j]) * i[j]);
    v[j] = (kUniform ? vv0 : vv[j]) * v[j];
  }
}

// The neuron that may cross its threshold first, and a time from now before which none can.
template <class R>
struct Soonest {
  R time;
  std::int64_t neuron;
};

// A row of n weights arrives; lanes behind the last neuron stay what they are.
template <class R>
void ArriveLanes(std::int64_t n, const R* JAXSNN_RESTRICT row, R* JAXSNN_RESTRICT i) {
  using Lanes = LaneVector<R>;
  constexpr std::int64_t kWidth = kLaneWidth<R>;
  std::int64_t j = 0;
  for (; j + kWidth <= n; j += kWidth) {
    Lanes::Store(Lanes::Load(i + j) + Lanes::Load(row + j), i + j);
  }
  if (j < n) Lanes::Store(Lanes::Load(i + j) + Lanes::LoadSome(row + j, n - j), i + j);
}

// The free solution over a time step, and a row of n weights that arrives at its end, rounded as
// one after the other; whether no neuron may cross its threshold on the way, see MayCross.
template <class R, bool kUniform, int kWidth>
bool PassLanes(const PropagatorLanes<R>& p, std::int64_t n, const R* JAXSNN_RESTRICT v_lanes,
               const R* JAXSNN_RESTRICT i_lanes, const R* JAXSNN_RESTRICT thresholds,
               const R* JAXSNN_RESTRICT row, R* JAXSNN_RESTRICT v_next, R* JAXSNN_RESTRICT i_next) {
  using Lanes = Registers<R, kWidth>;
  using Vector = typename Lanes::type;
  const R vv = p.v_from_v[0], vi = p.v_from_i[0], ii = p.i_from_i[0], dip = Dip<R>(vv, vi);
  AllBelow<Vector> quiet[2];  // one comparison waits for the one before
  const auto pass = [&](std::int64_t j, int part) JAXSNN_INLINE_LAMBDA {
    const Vector v = Lanes::Load(v_lanes + j), i = Lanes::Load(i_lanes + j);
    const Vector threshold = Lanes::Load(thresholds + j);
    const Vector weights = j + kWidth <= n
                               ? Lanes::Load(row + j)
                               : Lanes::LoadSome(row + j, std::max<std::int64_t>(n - j, 0));
    Vector v_end, lower, i_end;
    if constexpr (kUniform) {
      v_end = MulAdd(vv, v, vi * i);
      lower = dip * threshold;
      i_end = ii * i;
    } else {
      const Vector v_from_v = Lanes::Load(p.v_from_v + j), v_from_i = Lanes::Load(p.v_from_i + j);
      v_end = MulAdd(v_from_v, v, v_from_i * i);
      lower = Dip<R>(v_from_v, v_from_i) * threshold;
      i_end = Lanes::Load(p.i_from_i + j) * i;
    }
    quiet[part % 2].Add(v > v_end ? v : v_end, lower < threshold ? lower : threshold);
    Lanes::Store(v_end, v_next + j);
    Lanes::Store(i_end + weights, i_next + j);
  };
  for (std::int64_t j = 0; j < n; j += kLaneBlock) {
    Unroll<kLaneBlock / kWidth>([&](int part)
                                    JAXSNN_INLINE_LAMBDA { pass(j + part * kWidth, part); });
  }
  return quiet[0].all() && quiet[1].all();
}

// About 1 / x, for normal x > 0: what the instruction set has for that, within 1.5 / 2^12.
template <class Vector>
JAXSNN_INLINE Vector ApproximateReciprocal(const Vector& x) {
#if defined(JAXSNN_ISA_avx2) || defined(JAXSNN_ISA_avx512)
  if constexpr (sizeof(Vector) == 32 && std::is_same_v<Lane<Vector>, float>) {
    return _mm256_rcp_ps(x);
  }
#endif
  return Lane<Vector>(1) / x;
}

// For every neuron a time from now before which it cannot cross its threshold, and the soonest; n a
// multiple of the block. The soonest of all others is that of `others`, a vector. kTonic: where a
// threshold may lie below rest.
//
// tau_mem v' <= highest - v, by which v crosses no sooner than tau_mem log(r) from now, with
// r = (highest - v) / (highest - threshold), and log(r) >= 2 (r - 1) / (r + 1). `scale` is
// BoundScale(tau_mem).
template <class R>
R BoundScale(double tau_mem) {
  return static_cast<R>(2 * (1 - 1.0 / 2048) * tau_mem);  // the rest makes up for all rounding
}
template <class R, bool kTonic>
Soonest<R> BoundCrossings(std::int64_t n, const R* JAXSNN_RESTRICT v_lanes,
                          const R* JAXSNN_RESTRICT i_lanes, const R* JAXSNN_RESTRICT thresholds,
                          const R* JAXSNN_RESTRICT scale, R* JAXSNN_RESTRICT wait,
                          R* JAXSNN_RESTRICT others) {
  using Lanes = LaneVector<R>;
  using Vector = typename Lanes::type;
  using BitLanes = Registers<Mask<R>, kLaneWidth<R>>;
  using Bits = typename BitLanes::type;
  const Vector never = Vector{} + std::numeric_limits<R>::infinity();
  // Numbers >= 0 have the order of their bits. The last bits give way to those of the neuron's
  // number, which makes the time a little shorter.
  constexpr Mask<R> kNumber = (Mask<R>(1) << 12) - 1;
  Mask<R> lanes[kLaneWidth<R>];  // whose elements are looked at, so that vectors stay in registers
  for (int l = 0; l < kLaneWidth<R>; ++l) lanes[l] = static_cast<Mask<R>>(l);
  Bits number = BitLanes::Load(lanes), soonest = std::bit_cast<Bits>(never) | kNumber;
  Bits next = soonest;
  for (std::int64_t j = 0; j < n; j += kLaneWidth<R>) {
    const Vector v = Lanes::Load(v_lanes + j), i = Lanes::Load(i_lanes + j);
    const Vector threshold = Lanes::Load(thresholds + j);
    Vector highest = i;
    Bits possible = i > threshold;
    if constexpr (kTonic) {
      const Bits tonic = threshold < R(0);
      highest = (tonic & (i < R(0))) ? Vector{} : i;
      possible |= tonic;
    }
    const Vector distance = threshold - v;
    Vector at = Lanes::Load(scale + j) * distance *
                ApproximateReciprocal((highest - v) + (highest - threshold));
    at = possible ? at : never;
    at = distance >= std::numeric_limits<R>::min() ? at : Vector{};
    Lanes::Store(at, wait + j);
    const Bits bits = (std::bit_cast<Bits>(at) & ~kNumber) | (number & kNumber);
    const Bits later = bits < soonest ? soonest : bits;
    next = later < next ? later : next;
    soonest = bits < soonest ? bits : soonest;
    number += static_cast<Mask<R>>(kLaneWidth<R>);
  }
  BitLanes::Store(soonest, lanes);
  const Mask<R> first = LeastLane<Mask<R>, kLaneWidth<R>>(lanes);
  next = soonest == first ? next : soonest;
  if (n > kNumber) next = Bits{};  // two with the same last digits of their numbers look like one
  Lanes::Store(std::bit_cast<Vector>(next & ~kNumber), others);
  std::int64_t neuron = first & kNumber;
  while (neuron < n && (std::bit_cast<Mask<R>>(wait[neuron]) & ~kNumber) != (first & ~kNumber)) {
    neuron += kNumber + 1;
  }
  return {std::bit_cast<R>(first & ~kNumber), neuron};
}

// How many of some values are at most `limit`; n a multiple of the block.
template <class R>
std::int64_t CountWithin(std::int64_t n, const R* JAXSNN_RESTRICT values, R limit) {
  Mask<R> count = 0;
  n &= -kLaneBlock;
  for (std::int64_t j = 0; j < n; ++j) count += static_cast<Mask<R>>(values[j] <= limit);
  return count;
}

// What the loss owes to the time of an arrival over a row of weights; and the gradient of the row,
// added to. The rates of the time constants are shared by all, or those of each neuron.
template <class Model, class R, bool kUniform>
R AdjointArrivalLanes(std::int64_t n, const R* JAXSNN_RESTRICT row,
                      const R* JAXSNN_RESTRICT rate_mem, const R* JAXSNN_RESTRICT rate_syn,
                      const R* JAXSNN_RESTRICT v, const R* JAXSNN_RESTRICT i,
                      R* JAXSNN_RESTRICT row_gradient) {
  const R mem = rate_mem[0], syn = rate_syn[0];
  R sum = 0, rest = 0;
  std::int64_t j = 0;
#if defined(JAXSNN_VECTORS)
  // Partial sums in registers: the order is the same everywhere.
  using Lanes = Registers<R, kLaneBlock>;
  typename Lanes::type part{};
  for (; j + kLaneBlock <= n; j += kLaneBlock) {
    const auto a_i = Lanes::Load(i + j), a_v = Lanes::Load(v + j);
    Lanes::Store(Lanes::Load(row_gradient + j) + a_i, row_gradient + j);
    if constexpr (kUniform) {
      part = MulAdd(Lanes::Load(row + j), AdjointArrival<Model>(mem, syn, a_v, a_i), part);
    } else {
      const auto gradient =
          AdjointArrival<Model>(Lanes::Load(rate_mem + j), Lanes::Load(rate_syn + j), a_v, a_i);
      part = MulAdd(Lanes::Load(row + j), gradient, part);
    }
  }
  R lanes[kLaneBlock];  // whose address is taken, so that `part` stays in a register
  Lanes::Store(part, lanes);
  sum = SumLanes<R, kLaneBlock>(lanes);
#endif
  for (; j < n; ++j) {
    row_gradient[j] += i[j];
    const R gradient = AdjointArrival<Model, R>(kUniform ? mem : rate_mem[j],
                                                kUniform ? syn : rate_syn[j], v[j], i[j]);
    rest = MulAdd(row[j], gradient, rest);
  }
  return sum + rest;
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_LANES_H_
