// Loops over all neurons of a population. Free functions of plain pointers, which compilers
// vectorise; members they would have to suspect of changing underway.
#ifndef JAXSNN_CORE_LANES_H_
#define JAXSNN_CORE_LANES_H_

#include <bit>
#include <cstdint>
#include <limits>

#include "core/adjoint.h"
#include "core/propagators.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// The free solution over a time step, shared by all or one for each neuron.
template <class R, bool kUniform>
void FlowLanes(const PropagatorLanes<R>& p, std::int64_t n, R* JAXSNN_RESTRICT v,
               R* JAXSNN_RESTRICT i) {
  const R* JAXSNN_RESTRICT vv = p.v_from_v;
  const R* JAXSNN_RESTRICT vi = p.v_from_i;
  const R* JAXSNN_RESTRICT ii = p.i_from_i;
  const R vv0 = vv[0], vi0 = vi[0], ii0 = ii[0];
  for (std::int64_t j = 0; j < n; ++j) {
    v[j] = (kUniform ? vv0 : vv[j]) * v[j] + (kUniform ? vi0 : vi[j]) * i[j];
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
  for (std::int64_t j = 0; j < n; ++j) {
    i[j] = (kUniform ? vi0 : vi[j]) * v[j] + (kUniform ? ii0 : ii[j]) * i[j];
    v[j] = (kUniform ? vv0 : vv[j]) * v[j];
  }
}

template <class R>
void AddLanes(std::int64_t n, const R* JAXSNN_RESTRICT values, R* JAXSNN_RESTRICT sum) {
  for (std::int64_t j = 0; j < n; ++j) sum[j] += values[j];
}

// For every neuron a time from now before which it cannot cross its threshold. Returns the
// shortest. kTonic: where a threshold may lie below rest.
template <class R, bool kTonic>
R BoundCrossings(std::int64_t n, const R* JAXSNN_RESTRICT v, const R* JAXSNN_RESTRICT i,
                 const R* JAXSNN_RESTRICT threshold, const R* JAXSNN_RESTRICT tau_mem,
                 R* JAXSNN_RESTRICT wait) {
  constexpr R kNone = std::numeric_limits<R>::infinity();
  constexpr R kRounding = 1 - 16 * std::numeric_limits<R>::epsilon();
  // Numbers >= 0 have the order of their bits, whose minimum vectorises.
  Mask<R> soonest = std::bit_cast<Mask<R>>(kNone);
  for (std::int64_t j = 0; j < n; ++j) {
    // tau_mem v' = i - v, which falls as long as v rises from below a threshold above rest. With
    // the leak above threshold v may dip first, to no less than the smallest of v, i and rest.
    R highest = i[j], lowest = v[j];
    bool possible = i[j] > threshold[j];
    if constexpr (kTonic) {
      const bool tonic = threshold[j] < 0;
      const R floor = i[j] < 0 ? i[j] : R(0);
      lowest = tonic && floor < v[j] ? floor : v[j];
      highest = tonic && i[j] < 0 ? R(0) : i[j];
      possible |= tonic;
    }
    R at = kRounding * tau_mem[j] * (threshold[j] - v[j]) / (highest - lowest);
    at = possible ? at : kNone;
    at = v[j] >= threshold[j] ? R(0) : at;
    wait[j] = at;
    const auto bits = std::bit_cast<Mask<R>>(at);
    soonest = bits < soonest ? bits : soonest;
  }
  return std::bit_cast<R>(soonest);
}

// Whether one of some values is at most `limit`.
template <class R>
bool AnyWithin(std::int64_t n, const R* JAXSNN_RESTRICT values, R limit) {
  Mask<R> any = 0;
  for (std::int64_t j = 0; j < n; ++j) any |= static_cast<Mask<R>>(values[j] <= limit);
  return any != 0;
}

// What the loss owes to the time of an arrival over a row of weights, neuron by neuron; and the
// gradient of the row, added to.
template <class Model, class R>
void AdjointArrivalLanes(std::int64_t n, const R* JAXSNN_RESTRICT row,
                         const R* JAXSNN_RESTRICT rate_mem, const R* JAXSNN_RESTRICT rate_syn,
                         const R* JAXSNN_RESTRICT v, const R* JAXSNN_RESTRICT i,
                         R* JAXSNN_RESTRICT row_gradient, R* JAXSNN_RESTRICT time_gradient) {
  for (std::int64_t j = 0; j < n; ++j) {
    row_gradient[j] += i[j];
    time_gradient[j] = row[j] * AdjointArrival<Model, R>(rate_mem[j], rate_syn[j], v[j], i[j]);
  }
}

// The sum of n values, which are overwritten: halves are added to each other, which vectorises and
// rounds no more than log2(n) times.
template <class R>
R SumPairwise(R* values, std::int64_t n) {
  if (n == 0) return 0;
  while (n > 1) {
    const std::int64_t half = n / 2;
    AddLanes(half, values + (n - half), values);
    n -= half;
  }
  return values[0];
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_LANES_H_
