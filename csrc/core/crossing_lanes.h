// The crossing search of next_crossing.h for many neurons side by side, in loops that vectorise.
#ifndef JAXSNN_CORE_CROSSING_LANES_H_
#define JAXSNN_CORE_CROSSING_LANES_H_

#include <algorithm>
#include <cstdint>

#include "core/math.h"
#include "core/next_crossing.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// A block of neurons: what is searched for, and what was found.
template <int kSize>
struct CrossingBlock {
  double v[kSize];
  double i[kSize];
  double threshold[kSize];
  double limit[kSize];
  double at[kSize];
  double kept[kSize];  // e^{-at/tau_mem} of what was found, where all neurons have a closed form
};

namespace internal {

// MonotoneNewton for the lanes whose `rising` is 1. Returns whether all of them converged; those
// that did not stay marked.
template <class Model, int kSize, class ConstantsOf>
bool MonotoneNewtonLanes(const ConstantsOf& constants, CrossingBlock<kSize>& block,
                         std::int64_t (&rising)[kSize]) {
  using State = typename Model::template Pair<double>;
  double t[kSize] = {};
  std::int64_t active[kSize];
  std::int64_t any = 1;
  for (int l = 0; l < kSize; ++l) active[l] = rising[l];
  for (int step = 0; any != 0 && step < kMaxNewtonSteps; ++step) {
    any = 0;
    for (int l = 0; l < kSize; ++l) {
      const auto& c = constants(l);
      const State now = Model::Flow(Model::Propagate(c, t[l]), State{block.v[l], block.i[l]});
      const double value = now.v - block.threshold[l], slope = Model::Rate(c, now).v;
      const double forgotten = kForgotten / c.slow;
      const double limit = block.limit[l] < forgotten ? block.limit[l] : forgotten;
      const double delta = -value / slope;
      const double next = t[l] + delta;
      const auto there = static_cast<std::int64_t>(value >= 0);
      const auto none =
          static_cast<std::int64_t>(!(slope > 0)) | static_cast<std::int64_t>(next > limit);
      const auto last = static_cast<std::int64_t>(delta <= kRootTolerance * next);
      const double onwards = none != 0 ? kNever : next;
      const std::int64_t moving = active[l] & (there ^ 1);
      t[l] = moving != 0 ? onwards : t[l];
      active[l] = moving & (none ^ 1) & (last ^ 1);
      any |= active[l];
    }
  }
  for (int l = 0; l < kSize; ++l) {
    block.at[l] = rising[l] != 0 ? t[l] : block.at[l];
    rising[l] = active[l];
  }
  return any == 0;
}

}  // namespace internal

// NextCrossing of every neuron of a block, the constants of lane l being constants(l). Returns the
// first lane whose search did not converge, or kNoIndex.
template <class Model, int kSize, class ConstantsOf>
int NextCrossings(const ConstantsOf& constants, bool closed_form, CrossingBlock<kSize>& block) {
  using State = typename Model::template Pair<double>;
  std::int64_t rising[kSize];
  std::int64_t any_rising = 0, any_dip = 0;
  for (int l = 0; l < kSize; ++l) {
    const State x{block.v[l], block.i[l]};
    const bool below = block.v[l] < block.threshold[l];
    const bool excited = (x.i >= 0) & (x.i > block.threshold[l]);
    rising[l] = internal::MayRise<Model>(constants(l), x, block.threshold[l], block.limit[l]);
    any_rising |= rising[l];
    any_dip |= static_cast<std::int64_t>(below & !excited & (block.threshold[l] < 0));
    block.at[l] = block.v[l] >= block.threshold[l] ? 0.0 : kNever;
    block.kept[l] = 1;
  }
  if (any_rising != 0) {
    if (closed_form) {
      if constexpr (internal::kHasClosedForm<Model>) {
        for (int l = 0; l < kSize; ++l) {
          const auto crossing = Model::ClosedFormCrossing(
              constants(l), State{block.v[l], block.i[l]}, block.threshold[l]);
          const bool found = (rising[l] != 0) & (crossing.at <= block.limit[l]);
          block.at[l] = found ? crossing.at : block.at[l];
          block.kept[l] = found ? 1 - crossing.passed : 1;
        }
      }
    } else if (!internal::MonotoneNewtonLanes<Model>(constants, block, rising)) {
      for (int l = 0; l < kSize; ++l) {
        if (rising[l] != 0) return l;
      }
    }
  }
  // Rare and without a bound on the work per neuron: one by one.
  for (int l = 0; any_dip != 0 && l < kSize; ++l) {
    if (!(block.v[l] < block.threshold[l]) || !(block.threshold[l] < 0)) continue;
    if (block.i[l] >= 0 && block.i[l] > block.threshold[l]) continue;
    const Root root = NextCrossing<Model>(constants(l), State{block.v[l], block.i[l]},
                                          block.threshold[l], block.limit[l]);
    if (!root.converged) return l;
    block.at[l] = root.at;
    if (closed_form && root.at < kNever) {
      block.kept[l] = DecayOver(root.at * constants(l).rate_mem).kept;
    }
  }
  return kNoIndex;
}

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_CROSSING_LANES_H_
