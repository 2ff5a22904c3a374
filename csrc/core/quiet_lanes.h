// Neurons in registers from arrival to arrival, for as long as none of them may cross its
// threshold.
#ifndef JAXSNN_CORE_QUIET_LANES_H_
#define JAXSNN_CORE_QUIET_LANES_H_

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/propagators.h"
#include "core/registers.h"
#include "core/solutions.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// A neuron below its threshold that crosses it has i >= v = threshold there. From v = i = threshold
// it would come to threshold * (v_from_v + v_from_i) at the end of the interval, and is above that
// if it crosses later, or with more current. That factor, less its rounding.
template <class R, class T>
JAXSNN_INLINE T Dip(const T& v_from_v, const T& v_from_i) {
  return (v_from_v + v_from_i) * (1 - 16 * std::numeric_limits<R>::epsilon());
}

// The least of these factors in each of some stretches of intervals: as v' = (i - v) / tau_mem,
// with v below and i above threshold * (1 - t / tau_syn), it is at least 1 - dt^2 / (2 tau_mem
// tau_syn).
template <class R>
struct Dips {
  static constexpr std::int64_t kStretch = 16;

  const R* longest;  // interval of each stretch
  R rate;            // the largest 1 / (2 tau_mem tau_syn) of all neurons

  R Least(std::int64_t k) const {
    const R dt = longest[k / kStretch];
    return std::max(R(0), 1 - 64 * std::numeric_limits<R>::epsilon() - rate * dt * dt);
  }
};

// The longest interval in each stretch; interval k ends at time[k], the first one begins at
// `begin`.
template <class R>
void FindLongest(std::int64_t n, const R* time, double begin, R* longest) {
  R last = static_cast<R>(begin);
  for (std::int64_t k = 0; k < n; k += Dips<R>::kStretch) {
    const std::int64_t end = std::min(k + Dips<R>::kStretch, n);
    R most = time[k] - last;
    for (std::int64_t l = k + 1; l < end; ++l) most = std::max(most, time[l] - time[l - 1]);
    last = time[end - 1];
    longest[k / Dips<R>::kStretch] = most;
  }
}

// Whether a neuron, or which lanes of a vector, may cross the threshold on the way to (v_end,
// i_end). Necessary for that: either v stands at the threshold at one of the ends; or v passed a
// maximum in between, so that it fell at the end, though not below `dip` times the threshold; and
// v, concave until the maximum, stayed below its first tangent, which must reach the threshold.
template <class T, class Scalar>
JAXSNN_INLINE auto MayCross(const T& v, const T& i, const T& v_end, const T& i_end,
                            const T& threshold, const Scalar& reach, const Scalar& dip) {
  const T tangent = MulAdd(reach, i - v, v);
  return AtLeast(v, threshold) | AtLeast(v_end, threshold) |
         (Less(i_end, v_end) & Less(threshold, i) & AtLeast<T>(v_end, dip * threshold) &
          AtLeast(tangent, threshold));
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

#if defined(JAXSNN_VECTORS)

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
  const Vector dip = own ? Dip<R>(Lanes::Load(p.v_from_v), Lanes::Load(p.v_from_i))
                         : Vector{} + Dip<R>(*p.v_from_v, *p.v_from_i);
  return LaneBits<R>(MayCross(v, i, v_end, decay * i, threshold, reach, dip) |
                     Less<Vector>(Vector{} + now, Lanes::Load(release)));
}

namespace internal {

// Those of some neurons, given as bits, that may cross their thresholds before arrival k.
template <class R, class Solutions>
JAXSNN_INLINE std::uint64_t MarkCrossing(std::uint64_t bits, const Solutions& solutions,
                                         std::int64_t k, const R* thresholds,
                                         const StateLanes<R>& state) {
  std::uint64_t marks = 0;
  for (; bits != 0; bits &= bits - 1) {
    const int b = std::countr_zero(bits);
    const auto over = solutions.Over(k, SingleLanes<R>(), b);
    const R v = state.v[b], i = state.i[b];
    const bool may = MayCross(v, i, state.v_next[b], over.i_from_i * i, thresholds[b], over.reach,
                              Dip<R>(over.v_from_v, over.v_from_i));
    marks |= static_cast<std::uint64_t>(may) << b;
  }
  return marks;
}

template <class R, int kNeurons, template <class, int> class Access, class Solutions>
JAXSNN_NOINLINE Passed PassQuietIn(std::int64_t n, const Solutions& solutions, const Dips<R>& dips,
                                   std::int64_t begin, std::int64_t end, const std::int32_t* index,
                                   const R* weights, std::int64_t row_size, const R* thresholds,
                                   StateLanes<R> state) {
  // Compilers take comparisons of vectors longer than a register apart, lane by lane.
  constexpr int kFit = static_cast<int>(kRegisterBytes / sizeof(R));
  constexpr int kWidth = kNeurons < kFit ? kNeurons : kFit;
  constexpr int kParts = kNeurons / kWidth;
  const Access<R, kWidth> access(n);
  using Vector = typename Registers<R, kWidth>::type;
  Vector v[kParts], i[kParts], bar[kParts]{}, v_end[kParts]{};
  decltype(solutions.Over(begin, access, 0).i_from_i) decay[kParts]{};
  Unroll<kParts>([&](int part) JAXSNN_INLINE_LAMBDA {
    v[part] = access.Load(state.v, part);
    i[part] = access.Load(state.i, part);
  });
  std::int64_t k = begin;
  for (std::int64_t stop = begin; k < end && solutions.Has(k); ++k) {
    if (k >= stop) {
      stop = (k / Dips<R>::kStretch + 1) * Dips<R>::kStretch;
      const R least = dips.Least(k);
      Unroll<kParts>([&](int part) JAXSNN_INLINE_LAMBDA {
        const Vector threshold = access.Load(thresholds, part), lower = least * threshold;
        bar[part] = lower < threshold ? lower : threshold;
      });
    }
    AllBelow<Vector> quiet;
    if constexpr (kNeurons > kNarrowest) {
      const R* const ahead = weights + index[std::min(k + 8, end - 1)] * row_size;
      Unroll<kParts>([&](int part)
                         JAXSNN_INLINE_LAMBDA { __builtin_prefetch(ahead + part * kWidth); });
    }
    Unroll<kParts>([&](int part) JAXSNN_INLINE_LAMBDA {
      const auto over = solutions.Over(k, access, part);
      decay[part] = over.i_from_i;
      v_end[part] = MulAdd(over.v_from_v, v[part], over.v_from_i * i[part]);
      quiet.Add(v_end[part], bar[part]);
    });
    const R* const row = weights + index[k] * row_size;
    if (!quiet.all()) {
      Unroll<kParts>([&](int part) JAXSNN_INLINE_LAMBDA {
        access.Store(v[part], state.v, part);
        access.Store(i[part], state.i, part);
        access.Store(v_end[part], state.v_next, part);
      });
      std::uint64_t high = 0;
      Unroll<kParts>([&](int part) JAXSNN_INLINE_LAMBDA {
        high |= static_cast<std::uint64_t>(LaneBits<R>(AtLeast(v_end[part], bar[part])))
                << part * kWidth;
      });
      high &= ~std::uint64_t{0} >> (64 - n);
      const std::uint64_t may_cross = MarkCrossing<R>(high, solutions, k, thresholds, state);
      if (may_cross != 0) {
        Unroll<kParts>([&](int part) JAXSNN_INLINE_LAMBDA {
          access.Store(MulAdd(decay[part], i[part], access.LoadRow(row, part)), state.i_next, part);
        });
        return {k, may_cross};
      }
    }
    Unroll<kParts>([&](int part) JAXSNN_INLINE_LAMBDA {
      v[part] = v_end[part];
      i[part] = MulAdd(decay[part], i[part], access.LoadRow(row, part));
    });
  }
  Unroll<kParts>([&](int part) JAXSNN_INLINE_LAMBDA {
    access.Store(v[part], state.v, part);
    access.Store(i[part], state.i, part);
  });
  return {k, 0};
}

}  // namespace internal

// Takes n neurons, none of which stands at its threshold, past arrivals begin, begin + 1, ... to
// the first with an interval in front of it in which one may cross, or to `end`. Other numbers of
// neurons than those of narrow layers and blocks stay where they are, and so do all in front of an
// interval without a solution.
template <class R, class Solutions>
Passed PassQuiet(std::int64_t n, const Solutions& solutions, const Dips<R>& dips,
                 std::int64_t begin, std::int64_t end, const std::int32_t* index, const R* weights,
                 std::int64_t row_size, const R* threshold, const StateLanes<R>& state) {
  const auto pass = [&](auto kernel) {
    return kernel(n, solutions, dips, begin, end, index, weights, row_size, threshold, state);
  };
  if (n == 0) return {begin, 0};
  if (n <= 4) return pass(internal::PassQuietIn<R, 4, SomeLanes, Solutions>);
  if (n == 8) return pass(internal::PassQuietIn<R, 8, FullLanes, Solutions>);
  if (n < 8) return pass(internal::PassQuietIn<R, 8, SomeLanes, Solutions>);
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
  return MayCross(*v, *i, *v_end, *p.i_from_i * *i, *threshold, *p.reach,
                  Dip<R>(*p.v_from_v, *p.v_from_i)) |
         (*release > now);
}

template <class R, class Solutions>
Passed PassQuiet(std::int64_t, const Solutions&, const Dips<R>&, std::int64_t begin, std::int64_t,
                 const std::int32_t*, const R*, std::int64_t, const R*, const StateLanes<R>&) {
  return {begin, 0};
}

#endif

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_QUIET_LANES_H_
