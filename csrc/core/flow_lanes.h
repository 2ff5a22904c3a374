// All neurons of a layer from one arrival to the next, side by side.
#ifndef JAXSNN_CORE_FLOW_LANES_H_
#define JAXSNN_CORE_FLOW_LANES_H_

#include <cstdint>

#include "core/mul_add.h"
#include "core/propagators.h"
#include "core/quiet_lanes.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// Small enough that one neuron with something to do costs few others a second look.
inline constexpr std::int64_t kFlowBlock = 64;

namespace internal {

template <class R, bool kUniform>
JAXSNN_INLINE Mask<R> FlowBlock(std::int64_t n, const PropagatorLanes<R>& p,
                                const R* JAXSNN_RESTRICT v, const R* JAXSNN_RESTRICT i,
                                const R* JAXSNN_RESTRICT threshold, const R* JAXSNN_RESTRICT row,
                                R* JAXSNN_RESTRICT v_next, R* JAXSNN_RESTRICT i_next) {
  const R* JAXSNN_RESTRICT vv = p.v_from_v;
  const R* JAXSNN_RESTRICT vi = p.v_from_i;
  const R* JAXSNN_RESTRICT ii = p.i_from_i;
  const R vv0 = vv[0], vi0 = vi[0], ii0 = ii[0], dip0 = Dip<R>(vv0, vi0);
  Mask<R> any = 0;
  for (std::int64_t j = 0; j < n; ++j) {
    const R v_end = MulAdd(kUniform ? vv0 : vv[j], v[j], (kUniform ? vi0 : vi[j]) * i[j]);
    const R lower = (kUniform ? dip0 : Dip<R>(vv[j], vi[j])) * threshold[j];
    const R highest = v[j] > v_end ? v[j] : v_end;
    any |= static_cast<Mask<R>>(highest >= (lower < threshold[j] ? lower : threshold[j]));
    v_next[j] = v_end;
    i_next[j] = MulAdd(kUniform ? ii0 : ii[j], i[j], row[j]);
  }
  return any;
}

}  // namespace internal

// The free solution over a time step, shared by all or one for each neuron, and the row of weights
// that arrives at its end. Says for every block whether any of its neurons may cross its threshold
// on the way, see MayCross.
template <class R, bool kUniform>
JAXSNN_NOINLINE void FlowBlocks(std::int64_t n, const PropagatorLanes<R>& p,
                                const R* JAXSNN_RESTRICT v, const R* JAXSNN_RESTRICT i,
                                const R* JAXSNN_RESTRICT threshold, const R* JAXSNN_RESTRICT row,
                                R* JAXSNN_RESTRICT v_next, R* JAXSNN_RESTRICT i_next,
                                Mask<R>* JAXSNN_RESTRICT may_cross) {
  std::int64_t j = 0;
  for (; j + kFlowBlock <= n; j += kFlowBlock) {
    *may_cross++ =
        internal::FlowBlock<R, kUniform>(kFlowBlock, kUniform ? p : p.At(j), v + j, i + j,
                                         threshold + j, row + j, v_next + j, i_next + j);
  }
  *may_cross = internal::FlowBlock<R, kUniform>(n - j, kUniform ? p : p.At(j), v + j, i + j,
                                                threshold + j, row + j, v_next + j, i_next + j);
}

template <class R>
JAXSNN_NOINLINE void AddLanes(std::int64_t n, const R* JAXSNN_RESTRICT values,
                              R* JAXSNN_RESTRICT sum) {
  using Lanes = Registers<R, kWideLanes<R>>;
  constexpr std::int64_t kWidth = kWideLanes<R>;
  std::int64_t j = 0;
  for (; j + kWidth <= n; j += kWidth) {
    Lanes::Store(Lanes::Load(sum + j) + Lanes::Load(values + j), sum + j);
  }
  for (; j < n; ++j) sum[j] += values[j];
}

// Adds the rows of weights that arrive at one time, in their order.
template <class R>
JAXSNN_NOINLINE void AddArrivals(std::int64_t n, const R* weights, std::int64_t row_size,
                                 const std::int32_t* index, std::int64_t n_rows,
                                 R* JAXSNN_RESTRICT sum) {
  using Lanes = Registers<R, kWideLanes<R>>;
  constexpr std::int64_t kWidth = kWideLanes<R>;
  std::int64_t j = 0;
  for (; j + kWidth <= n; j += kWidth) {
    auto some = Lanes::Load(sum + j);
    for (std::int64_t k = 0; k < n_rows; ++k) {
      some += Lanes::Load(weights + index[k] * row_size + j);
    }
    Lanes::Store(some, sum + j);
  }
  for (; j < n; ++j) {
    for (std::int64_t k = 0; k < n_rows; ++k) sum[j] += weights[index[k] * row_size + j];
  }
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_FLOW_LANES_H_
