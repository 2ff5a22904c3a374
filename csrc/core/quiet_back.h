// Backwards over arrivals at which no neuron does anything but flow.
#ifndef JAXSNN_CORE_QUIET_BACK_H_
#define JAXSNN_CORE_QUIET_BACK_H_

#include <cstdint>

#include "core/registers.h"
#include "core/solutions.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

namespace internal {

#if defined(JAXSNN_VECTORS)
// kNeurons, whose adjoints stay in registers.
template <int kNeurons, class R, class Solutions>
JAXSNN_NOINLINE void FlowBackIn(const Solutions& solutions, std::int64_t from, std::int64_t stop,
                                const std::int32_t* index, std::int64_t row_size, R* gradients,
                                R* v_lanes, R* i_lanes) {
  constexpr int kFit = static_cast<int>(kRegisterBytes / sizeof(R));
  constexpr int kWidth = kNeurons < kFit ? kNeurons : kFit;
  constexpr int kParts = kNeurons / kWidth;
  const FullLanes<R, kWidth> access(kNeurons);
  typename Registers<R, kWidth>::type v[kParts], i[kParts];
  for (int part = 0; part < kParts; ++part) {
    v[part] = access.Load(v_lanes, part);
    i[part] = access.Load(i_lanes, part);
  }
  for (std::int64_t k = from; k > stop; --k) {
    R* const row = gradients + index[k - 1] * row_size;
    for (int part = 0; part < kParts; ++part) {
      const auto p = solutions.Over(k, access, part);
      i[part] = MulAdd(p.v_from_i, v[part], p.i_from_i * i[part]);
      v[part] = p.v_from_v * v[part];
      access.Store(access.Load(row, part) + i[part], row, part);
    }
  }
  for (int part = 0; part < kParts; ++part) {
    access.Store(v[part], v_lanes, part);
    access.Store(i[part], i_lanes, part);
  }
}
#endif

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
      const R current = MulAdd(p.v_from_i, v[j], p.i_from_i * i[j]);
      i[j] = current;
      v[j] = p.v_from_v * v[j];
      row[j] += current;
    }
  }
}

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
    for (; n >= width; n -= width) {
      kernel(solutions, from, stop, index, row_size, gradients, v, i);
      solutions.Skip(width);
      gradients += width;
      v += width;
      i += width;
    }
  };
  pass(internal::FlowBackIn<64, R, Solutions>, 64);
  pass(internal::FlowBackIn<16, R, Solutions>, 16);
#endif
  if (n > 0) {
    internal::FlowBackSome(n, solutions, from, stop, index, row_size, gradients, v, i);
  }
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_QUIET_BACK_H_
