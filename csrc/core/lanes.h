// Loops over all neurons of a population. Free functions of plain pointers, which compilers
// vectorise; members they would have to suspect of changing underway.
#ifndef JAXSNN_CORE_LANES_H_
#define JAXSNN_CORE_LANES_H_

#include <bit>
#include <cstdint>
#include <limits>

#include "core/adjoint.h"
#include "core/mul_add.h"
#include "core/propagators.h"
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

// For every neuron a time from now before which it cannot cross its threshold, and the soonest; n a
// multiple of the block. kTonic: where a threshold may lie below rest.
template <class R, bool kTonic>
Soonest<R> BoundCrossings(std::int64_t n, const R* JAXSNN_RESTRICT v, const R* JAXSNN_RESTRICT i,
                          const R* JAXSNN_RESTRICT threshold, const R* JAXSNN_RESTRICT tau_mem,
                          R* JAXSNN_RESTRICT wait) {
  constexpr R kNone = std::numeric_limits<R>::infinity();
  constexpr R kRounding = 1 - 16 * std::numeric_limits<R>::epsilon();
  // Numbers >= 0 have the order of their bits, whose minimum vectorises. The last bits give way to
  // those of the neuron's number, which makes the time a little shorter.
  constexpr Mask<R> kNumber = (Mask<R>(1) << 12) - 1;
  Mask<R> soonest = std::bit_cast<Mask<R>>(kNone) | kNumber;
  n &= -kLaneBlock;
  for (std::int64_t j = 0; j < n; ++j) {
    // tau_mem v' <= highest - v, by which v crosses no sooner than tau_mem log(r) from now, with
    // r = (highest - v) / (highest - threshold), and log(r) >= 2 (r - 1) / (r + 1).
    R highest = i[j];
    bool possible = i[j] > threshold[j];
    if constexpr (kTonic) {
      const bool tonic = threshold[j] < 0;
      highest = tonic && i[j] < 0 ? R(0) : i[j];
      possible |= tonic;
    }
    R at = 2 * kRounding * tau_mem[j] * (threshold[j] - v[j]) /
           ((highest - v[j]) + (highest - threshold[j]));
    at = possible ? at : kNone;
    at = v[j] >= threshold[j] ? R(0) : at;
    wait[j] = at;
    const auto bits = (std::bit_cast<Mask<R>>(at) & ~kNumber) | (static_cast<Mask<R>>(j) & kNumber);
    soonest = bits < soonest ? bits : soonest;
  }
  const auto time = std::bit_cast<R>(soonest & ~kNumber);
  std::int64_t neuron = soonest & kNumber;
  while (neuron < n && (std::bit_cast<Mask<R>>(wait[neuron]) & ~kNumber) != (soonest & ~kNumber)) {
    neuron += kNumber + 1;
  }
  return {time, neuron};
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
#if defined(__GNUC__)
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
