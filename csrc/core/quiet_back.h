// Backwards over arrivals at which no neuron does anything but flow.
#ifndef JAXSNN_CORE_QUIET_BACK_H_
#define JAXSNN_CORE_QUIET_BACK_H_

#include <algorithm>
#include <cstdint>

#include "core/registers.h"
#include "core/solutions.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

namespace internal {

#if defined(JAXSNN_VECTORS)
// Up to kNeurons, whose adjoints stay in registers.
template <int kNeurons, template <class, int> class Access, class R, class Solutions>
JAXSNN_NOINLINE void FlowBackIn(std::int64_t n, const Solutions& solutions, std::int64_t from,
                                std::int64_t stop, const std::int32_t* index, std::int64_t row_size,
                                R* gradients, R* v_lanes, R* i_lanes) {
  constexpr int kFit = static_cast<int>(kRegisterBytes / sizeof(R));
  constexpr int kWidth = kNeurons < kFit ? kNeurons : kFit;
  constexpr int kParts = kNeurons / kWidth;
  const Access<R, kWidth> access(n);
  typename Registers<R, kWidth>::type v[kParts], i[kParts];
  for (int part = 0; part < kParts; ++part) {
    v[part] = access.Load(v_lanes, part);
    i[part] = access.Load(i_lanes, part);
  }
  for (std::int64_t k = from; k > stop; --k) {
    R* const row = gradients + index[k - 1] * row_size;
    for (int part = 0; part < kParts; ++part) {
      const auto p = solutions.Over(k, access, part);
      i[part] = MulAdd(p.i_from_i, i[part], p.v_from_i * v[part]);
      v[part] = p.v_from_v * v[part];
      access.Store(access.LoadRow(row, part) + i[part], row, part);
    }
  }
  for (int part = 0; part < kParts; ++part) {
    access.Store(v[part], v_lanes, part);
    access.Store(i[part], i_lanes, part);
  }
}
#else
// Any number of neurons.
template <class R, class Solutions>
JAXSNN_NOINLINE void FlowBackSome(std::int64_t n, const Solutions& solutions, std::int64_t from,
                                  std::int64_t stop, const std::int32_t* index,
                                  std::int64_t row_size, R* gradients, R* JAXSNN_RESTRICT v,
                                  R* JAXSNN_RESTRICT i) {
  const SingleLanes<R> access;
  for (std::int64_t k = from; k > stop; --k) {
    R* JAXSNN_RESTRICT row = gradients + index[k - 1] * row_size;
    for (std::int64_t j = 0; j < n; ++j) {
      const auto p = solutions.Over(k, access, static_cast<int>(j));
      const R current = MulAdd(p.i_from_i, i[j], p.v_from_i * v[j]);
      i[j] = current;
      v[j] = p.v_from_v * v[j];
      row[j] += current;
    }
  }
}
#endif

}  // namespace internal

// Backwards over arrivals number `from` - 1 down to `stop`: each adds the adjoint currents of n
// neurons to a row of gradients. The solutions over the intervals have the number of the arrival
// behind them.
template <class R, class Solutions>
void FlowBackOverArrivals(std::int64_t n, Solutions solutions, std::int64_t from, std::int64_t stop,
                          const std::int32_t* index, std::int64_t row_size, R* gradients, R* v,
                          R* i) {
#if defined(JAXSNN_VECTORS)
  const auto pass = [&](auto kernel, std::int64_t width) {
    kernel(std::min(n, width), solutions, from, stop, index, row_size, gradients, v, i);
    solutions.Skip(width);
    n -= width;
    gradients += width;
    v += width;
    i += width;
  };
  while (n >= 64) pass(internal::FlowBackIn<64, FullLanes, R, Solutions>, 64);
  if (n >= 32) pass(internal::FlowBackIn<32, FullLanes, R, Solutions>, 32);
  if (n >= 16) pass(internal::FlowBackIn<16, FullLanes, R, Solutions>, 16);
  if (n > 8) pass(internal::FlowBackIn<16, SomeLanes, R, Solutions>, 16);
  if (n > 4) pass(internal::FlowBackIn<8, SomeLanes, R, Solutions>, 8);
  if (n > 0) pass(internal::FlowBackIn<4, SomeLanes, R, Solutions>, 4);
#else
  internal::FlowBackSome(n, solutions, from, stop, index, row_size, gradients, v, i);
#endif
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_QUIET_BACK_H_
