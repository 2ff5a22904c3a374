// Neurons in registers from arrival to arrival, for as long as none of them may cross its
// threshold.
#ifndef JAXSNN_CORE_QUIET_LANES_H_
#define JAXSNN_CORE_QUIET_LANES_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/propagators.h"
#include "core/registers.h"
#include "core/solutions.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// Whether a neuron, or which lanes of a vector, may cross the threshold on the way to (v_end,
// i_end). Necessary for that: either v stands at the threshold at one of the ends; or v passed a
// maximum in between, so that it fell at the end, and v, concave until then, stayed below its first
// tangent, which must reach the threshold.
template <class T, class Reach>
JAXSNN_INLINE auto MayCross(const T& v, const T& i, const T& v_end, const T& i_end,
                            const T& threshold, const Reach& reach) {
  const T tangent = MulAdd(reach, i - v, v);
  return (v >= threshold) | (v_end >= threshold) |
         ((i_end < v_end) & (i > threshold) & (tangent >= threshold));
}

// Neurons side by side, before and behind an interval.
template <class R>
struct StateLanes {
  R *v, *i, *v_next, *i_next;
};

// How far neurons came: which arrival is next, and which of them may cross their thresholds before
// it, as bits; if any, v_next and i_next are behind that arrival.
struct Passed {
  std::int64_t next;
  std::uint64_t may_cross;
};

#if defined(__GNUC__)

// How many neurons are marked at a time.
template <class R>
inline constexpr std::int64_t kMarked = static_cast<std::int64_t>(kRegisterBytes / sizeof(R));

// Which of some neurons may cross their thresholds on the way to v_end, or are refractory now. The
// lanes are read up to the end of a register.
template <class R>
JAXSNN_INLINE std::uint32_t MayCrossBits(const PropagatorLanes<R>& p, bool own, const R* v_lanes,
                                         const R* i_lanes, const R* v_end_lanes,
                                         const R* thresholds, const R* release, R now) {
  using Lanes = Registers<R, static_cast<int>(kMarked<R>)>;
  using Vector = typename Lanes::type;
  const Vector v = Lanes::Load(v_lanes), i = Lanes::Load(i_lanes);
  const Vector v_end = Lanes::Load(v_end_lanes), threshold = Lanes::Load(thresholds);
  const Vector decay = own ? Lanes::Load(p.i_from_i) : Vector{} + *p.i_from_i;
  const Vector reach = own ? Lanes::Load(p.reach) : Vector{} + *p.reach;
  const Vector i_end = decay * i;
  return LaneBits<R>(MayCross(v, i, v_end, i_end, threshold, reach) | (Lanes::Load(release) > now));
}

namespace internal {

template <class R, int kNeurons, template <class, int> class Access, class Solutions>
JAXSNN_NOINLINE Passed PassQuietIn(std::int64_t n, const Solutions& solutions, std::int64_t begin,
                                   std::int64_t end, const std::int32_t* index, const R* weights,
                                   std::int64_t row_size, const R* thresholds,
                                   StateLanes<R> state) {
  // Compilers take comparisons of vectors longer than a register apart, lane by lane.
  constexpr int kFit = static_cast<int>(kRegisterBytes / sizeof(R));
  constexpr int kWidth = kNeurons < kFit ? kNeurons : kFit;
  constexpr int kParts = kNeurons / kWidth;
  constexpr bool kMany = kNeurons > kNarrowest;
  const Access<R, kWidth> access(n);
  using Vector = typename Registers<R, kWidth>::type;
  Vector v[kParts], i[kParts], threshold[kParts], v_end[kParts];
  for (int part = 0; part < kParts; ++part) {
    v[part] = access.Load(state.v, part);
    i[part] = access.Load(state.i, part);
    threshold[part] = access.Load(thresholds, part);
  }
  Passed passed{begin, 0};
  decltype(solutions.Over(begin, access, 0)) over[kParts];
  for (; passed.next < end && solutions.Has(passed.next); ++passed.next) {
    const std::int64_t k = passed.next;
    bool any = false;
    Vector excess{};
    for (int part = 0; part < kParts; ++part) {
      over[part] = solutions.Over(k, access, part);
      const auto reach = over[part].reach;
      v_end[part] = MulAdd(over[part].v_from_v, v[part], over[part].v_from_i * i[part]);
      if constexpr (kMany) {
        // Intervals are short, and the tangent alone tells nearly as much.
        const Vector tangent = MulAdd(reach, i[part] - v[part], v[part]);
        const Vector highest = tangent > v_end[part] ? tangent : v_end[part];
        const Vector above = highest - threshold[part];
        excess = part == 0 ? above : above > excess ? above : excess;
      } else {
        any |= AnyLane(MayCross(v[part], i[part], v_end[part], over[part].i_from_i * i[part],
                                threshold[part], reach));
      }
    }
    if constexpr (kMany) any = AnyLane(excess >= R(0));
    const R* const row = weights + index[k] * row_size;
    if (any) {
      for (int part = 0; part < kParts; ++part) {
        const auto reach = over[part].reach;
        const auto bits = LaneBits<R>(MayCross(
            v[part], i[part], v_end[part], over[part].i_from_i * i[part], threshold[part], reach));
        passed.may_cross |= static_cast<std::uint64_t>(bits) << (part * kWidth);
      }
      passed.may_cross &= ~std::uint64_t{0} >> (64 - n);
      if (passed.may_cross != 0) {
        for (int part = 0; part < kParts; ++part) {
          access.Store(v_end[part], state.v_next, part);
          access.Store(MulAdd(over[part].i_from_i, i[part], access.Load(row, part)), state.i_next,
                       part);
        }
        break;
      }
    }
    for (int part = 0; part < kParts; ++part) {
      v[part] = v_end[part];
      i[part] = MulAdd(over[part].i_from_i, i[part], access.Load(row, part));
    }
  }
  for (int part = 0; part < kParts; ++part) {
    access.Store(v[part], state.v, part);
    access.Store(i[part], state.i, part);
  }
  return passed;
}

}  // namespace internal

// Takes n neurons, none of which stands at its threshold, past arrivals begin, begin + 1, ... to
// the first with an interval in front of it in which one may cross, or to `end`. Other numbers of
// neurons than those of narrow layers and blocks stay where they are, and so do all in front of an
// interval without a solution.
template <class R, class Solutions>
Passed PassQuiet(std::int64_t n, const Solutions& solutions, std::int64_t begin, std::int64_t end,
                 const std::int32_t* index, const R* weights, std::int64_t row_size,
                 const R* threshold, const StateLanes<R>& state) {
  const auto pass = [&](auto kernel) {
    return kernel(n, solutions, begin, end, index, weights, row_size, threshold, state);
  };
  if (n == 0) return {begin, 0};
  if (n <= 4) return pass(internal::PassQuietIn<R, 4, SomeLanes, Solutions>);
  if (n <= 8) return pass(internal::PassQuietIn<R, 8, SomeLanes, Solutions>);
  if (n < 16) return pass(internal::PassQuietIn<R, 16, SomeLanes, Solutions>);
  if (n == 16) return pass(internal::PassQuietIn<R, 16, FullLanes, Solutions>);
  if (n == 32) return pass(internal::PassQuietIn<R, 32, FullLanes, Solutions>);
  if (n == 64) return pass(internal::PassQuietIn<R, 64, FullLanes, Solutions>);
  return {begin, 0};
}

#else

template <class R>
inline constexpr std::int64_t kMarked = 1;

template <class R>
std::uint32_t MayCrossBits(const PropagatorLanes<R>& p, bool, const R* v, const R* i,
                           const R* v_end, const R* threshold, const R* release, R now) {
  return MayCross(*v, *i, *v_end, *p.i_from_i * *i, *threshold, *p.reach) | (*release > now);
}

template <class R, class Solutions>
Passed PassQuiet(std::int64_t, const Solutions&, std::int64_t begin, std::int64_t,
                 const std::int32_t*, const R*, std::int64_t, const R*, const StateLanes<R>&) {
  return {begin, 0};
}

#endif

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_QUIET_LANES_H_
