// How sweeps that keep neurons in registers read what these neurons have of their own, and the
// solutions over the intervals.
#ifndef JAXSNN_CORE_SOLUTIONS_H_
#define JAXSNN_CORE_SOLUTIONS_H_

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/propagators.h"
#include "core/registers.h"
#include "core/types.h"

namespace jaxsnn::inline JAXSNN_ISA {

// The solutions over the intervals, which end at arrivals 0, 1, ...: those that all neurons share
// ...
template <class R>
struct SharedSolutions {
  struct Solution {
    R v_from_v, v_from_i, i_from_i, reach;
  };
  PropagatorLanes<R> lanes;

  bool Has(std::int64_t) const { return true; }
  void Skip(std::int64_t) {}  // the first neurons
  template <class Access>
  JAXSNN_INLINE Solution Over(std::int64_t k, const Access&, int) const {
    return {lanes.v_from_v[k], lanes.v_from_i[k], lanes.i_from_i[k], lanes.reach[k]};
  }
};

// ... or those of neurons with time constants of their own, worked out on the way over short
// intervals.
template <class Model, class R>
struct OwnSolutions {
  template <class Vector>
  struct Solution {
    Vector v_from_v, v_from_i, i_from_i, reach;
  };
  const StepPropagators<Model, R>& step;
  const R* time;           // of the arrivals
  double begin;            // of the window
  std::int64_t first = 0;  // neuron

  double Interval(std::int64_t k) const {
    return static_cast<double>(time[k]) - (k > 0 ? static_cast<double>(time[k - 1]) : begin);
  }
  bool Has(std::int64_t k) const { return step.IsShort(Interval(k)); }
  void Skip(std::int64_t n) { first += n; }
  template <class Access>
  JAXSNN_INLINE auto Over(std::int64_t k, const Access& access, int part) const {
    const auto rate_mem = access.LoadRow(step.rate_mem() + first, part);
    const auto dt = static_cast<R>(Interval(k)) - decltype(rate_mem){};
    const auto p =
        Model::PropagateShort(rate_mem, access.LoadRow(step.difference() + first, part), dt);
    return Solution<std::remove_const_t<decltype(rate_mem)>>{p.v_from_v, p.v_from_i, p.i_from_i,
                                                             dt * rate_mem};
  }
};

// One neuron after the other.
template <class R>
struct SingleLanes {
  JAXSNN_INLINE R LoadRow(const R* data, int neuron) const { return data[neuron]; }
};

#if defined(JAXSNN_VECTORS)

// Blocks of this many neurons and more, powers of two, are loaded as they lie.
inline constexpr std::int64_t kNarrowest = 16;

// How many of some neurons make the next block: as many as registers hold, with room for what the
// loop computes on its way.
template <class R>
constexpr std::int64_t QuietWidth(std::int64_t n_neurons) {
  std::int64_t width = std::max<std::int64_t>(kNarrowest, 4 * kRegisterBytes / sizeof(R));
  while (width > kNarrowest && width > n_neurons) width /= 2;
  return std::min(width, n_neurons);
}

// Neurons that fill vectors.
template <class R, int kWidth>
struct FullLanes {
  using Lanes = Registers<R, kWidth>;

  explicit FullLanes(std::int64_t) {}
  typename Lanes::type Load(const R* data, int part) const {
    return Lanes::Load(data + part * kWidth);
  }
  typename Lanes::type LoadRow(const R* data, int part) const { return Load(data, part); }
  void Store(const typename Lanes::type& vector, R* data, int part) const {
    Lanes::Store(vector, data + part * kWidth);
  }
};

// Fewer. Lanes without a neuron begin as the last one, and nothing arrives there.
template <class R, int kWidth>
struct SomeLanes {
  using Lanes = Registers<R, kWidth>;

  explicit SomeLanes(std::int64_t n) : n_(n) {}
  typename Lanes::type Load(const R* data, int part) const {
    typename Lanes::type vector{};
    for (int l = 0; l < kWidth; ++l) {
      vector[l] = data[std::min<std::int64_t>(part * kWidth + l, n_ - 1)];
    }
    return vector;
  }
  JAXSNN_INLINE typename Lanes::type LoadRow(const R* data, int part) const {
    return Lanes::LoadSome(data + part * kWidth, Count(part));
  }
  void Store(const typename Lanes::type& vector, R* data, int part) const {
    Lanes::StoreSome(vector, data + part * kWidth, Count(part));
  }

 private:
  std::int64_t Count(int part) const {
    return std::clamp<std::int64_t>(n_ - part * kWidth, 0, kWidth);
  }
  std::int64_t n_;
};

#else

inline constexpr std::int64_t kNarrowest = 16;

template <class R>
constexpr std::int64_t QuietWidth(std::int64_t n_neurons) {
  return std::min<std::int64_t>(n_neurons, 64);
}

#endif

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_SOLUTIONS_H_
