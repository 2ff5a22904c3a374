// Neurons of an acyclic layer that may do something else than flow freely through an interval: each
// goes from spike to spike on its own.
#ifndef JAXSNN_CORE_WALK_H_
#define JAXSNN_CORE_WALK_H_

#include <algorithm>
#include <cstdint>

#include "core/crossing_lanes.h"
#include "core/pending_spikes.h"
#include "core/problem.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

// From `begin` to the next arrival or the horizon of the window.
template <class R>
struct Interval {
  double begin;
  double horizon;  // crossings are searched up to here
  double stop;     // the state is wanted here: the horizon, or the last spike of the log
  bool closing;    // no arrival follows, so that a crossing at the horizon itself belongs here
  bool last;       // the sweep stops inside, at `final`
  typename PendingSpikes<R>::Spike final;
};

// Neurons of a layer that lie side by side and go from arrival to arrival together, independent of
// all others.
template <class R>
struct NeuronBlock {
  std::int64_t first = 0;  // neuron of the layer
  std::int64_t n = 0;
  R *v = nullptr, *i = nullptr;            // now
  R *v_next = nullptr, *i_next = nullptr;  // and at the end of the interval that comes
  double now = 0;
  std::int64_t head = 0;      // the next arrival
  bool at_threshold = false;  // any neuron, now
  bool done = false;
  Interval<R> span{};      // that its walkers go through
  const R* row = nullptr;  // of weights, that arrive at the end
};

template <class Model, class R>
class Walk {
  using State = typename Model::template Pair<double>;

 public:
  Walk(Arena& arena, const Problem<R>& problem, const ConstantsTable<Model, R>& constants,
       std::int64_t n_neurons)
      : p_(problem), constants_(constants) {
    walkers_ = Places::Take(arena, n_neurons + kWide);
    rest_ = Places::Take(arena, n_neurons);
  }

  // With what neurons have of their own, each at its number in the layer. `refractory`: any of
  // them, at any time.
  void Start(const R* threshold, R* release, bool refractory) {
    threshold_ = threshold;
    release_ = release;
    refractory_ = refractory;
    closed_form_ = ClosedForm();
  }

  void Begin() { count_ = 0; }
  // Neuron b of a block that may do something else than flow, at the beginning of its interval.
  JAXSNN_INLINE void Add(const NeuronBlock<R>& block, std::int64_t b) {
    walkers_.Set(count_++, static_cast<std::int32_t>(block.first + b),
                 {static_cast<double>(block.v[b]), static_cast<double>(block.i[b])},
                 block.span.begin);
  }
  std::int64_t count() const { return count_; }

  // Goes on from spike to spike, all walkers in step, until none of them spikes any more; and puts
  // where they are then, behind the arrival of a row of weights, into the lanes of their blocks.
  // block_of(j) is the block of neuron j; add(spike) takes the spikes, and returns whether there is
  // room for one.
  template <class BlockOf, class AddSpike>
  void Go(const BlockOf& block_of, const AddSpike& add) {
    if (constants_.uniform()) {
      Go(block_of, add, SharedConstants<Model>{constants_[0]});
    } else {
      Go(block_of, add, OwnConstants<Model, R>{constants_});
    }
  }

  const Outcome& outcome() const { return outcome_; }

 private:
  static constexpr int kWide = 16;  // walkers side by side
  static constexpr int kNarrow = 4;

  // Neurons, each at a time of its own.
  struct Places {
    std::int32_t* neuron = nullptr;
    double *v = nullptr, *i = nullptr, *time = nullptr;

    static Places Take(Arena& arena, std::int64_t size) {
      Places places;
      places.neuron = arena.Take<std::int32_t>(size);
      for (double** lane : {&places.v, &places.i, &places.time}) *lane = arena.Take<double>(size);
      return places;
    }
    JAXSNN_INLINE void Set(std::int64_t k, std::int32_t j, const State& x, double at) {
      neuron[k] = j;
      v[k] = x.v;
      i[k] = x.i;
      time[k] = at;
    }
  };

  // Whether every neuron has a closed form for its crossings.
  bool ClosedForm() const {
    if constexpr (internal::kHasClosedForm<Model>) {
      for (std::int64_t j = 0; j < (constants_.uniform() ? 1 : p_.n_neurons); ++j) {
        if (!Model::HasClosedForm(constants_[j])) return false;
      }
      return true;
    }
    return false;
  }

  template <class BlockOf, class AddSpike, class ConstantsOf>
  void Go(const BlockOf& block_of, const AddSpike& add, const ConstantsOf& constants) {
    std::int64_t n = count_;
    n_rest_ = 0;
    while (n > 0) {
      if (refractory_) n = Release(n, block_of, constants);
      std::int64_t spiking = 0;
      for (std::int64_t k = 0; k < n; k += kWide) {
        const std::int64_t some = std::min<std::int64_t>(n - k, kWide);
        spiking = some <= kNarrow ? Step<kNarrow>(k, some, spiking, block_of, add, constants)
                                  : Step<kWide>(k, some, spiking, block_of, add, constants);
        if (outcome_.failed()) return;
      }
      n = spiking;
    }
    FlowRest(block_of, constants);
    for (std::int64_t k = 0; k < n_rest_; ++k) {
      const std::int32_t j = rest_.neuron[k];
      NeuronBlock<R>& block = block_of(j);
      if (block.span.closing) CrossAtHorizon(k, block.span, add);
      const std::int64_t b = j - block.first;
      block.v_next[b] = static_cast<R>(rest_.v[k]);
      block.i_next[b] = static_cast<R>(rest_.i[k]) + block.row[b];
      block.at_threshold |= block.v_next[b] >= threshold_[j];
    }
  }

  void Rest(std::int32_t j, const State& x, double time) { rest_.Set(n_rest_++, j, x, time); }

  // Takes walkers to the end of their refractory periods. Those that are refractory to the end of
  // the interval rest; returns how many do not.
  template <class BlockOf, class ConstantsOf>
  std::int64_t Release(std::int64_t n, const BlockOf& block_of, const ConstantsOf& constants) {
    std::int64_t left = 0;
    for (std::int64_t k = 0; k < n; ++k) {
      const std::int32_t j = walkers_.neuron[k];
      State x{walkers_.v[k], walkers_.i[k]};
      double time = walkers_.time[k];
      const double release = static_cast<double>(release_[j]), stop = block_of(j).span.stop;
      if (release > time) {
        const double until = std::min(release, stop);
        x = {p_.reset(j), Model::DecayCurrent(constants(j), x.i, until - time)};
        time = until;
      }
      if (release > stop) {
        Rest(j, x, time);
      } else {
        walkers_.Set(left++, j, x, time);
      }
    }
    return left;
  }

  // The next spikes of walkers [first, first + n). Those that spike and may do so again become
  // walkers from number `spiking` on; the others rest. Returns the number behind the last.
  template <int kSize, class BlockOf, class AddSpike, class ConstantsOf>
  std::int64_t Step(std::int64_t first, std::int64_t n, std::int64_t spiking,
                    const BlockOf& block_of, const AddSpike& add, const ConstantsOf& constants) {
    CrossingBlock<kSize> lanes;
    double current[kSize];
    const std::int32_t* const neuron = walkers_.neuron + first;
    // In lanes without a walker nothing happens.
    for (std::int64_t l = 0; l < kSize; ++l) {
      lanes.v[l] = l < n ? walkers_.v[first + l] : 0.0;
      lanes.i[l] = l < n ? walkers_.i[first + l] : 0.0;
      lanes.limit[l] = -1.0;
      lanes.threshold[l] = 1.0;
    }
    for (std::int64_t l = 0; l < n; ++l) {
      lanes.limit[l] = block_of(neuron[l]).span.horizon - walkers_.time[first + l];
      lanes.threshold[l] = static_cast<double>(threshold_[neuron[l]]);
    }
    const auto constants_of =
        constants.template Lanes<kSize>(n, [neuron](std::int64_t l) { return neuron[l]; });
    const int failed = NextCrossings<Model>(constants_of, closed_form_, lanes);
    if (failed != kNoIndex) {
      outcome_ = {Status::kNoConvergence, Argument::kNone, neuron[failed],
                  block_of(neuron[failed]).span.begin};
      return 0;
    }
    std::int64_t any = 0;
    for (int l = 0; l < kSize; ++l) {
      any |= static_cast<std::int64_t>(lanes.at[l] <= lanes.limit[l]);
    }
    for (std::int64_t l = 0; any != 0 && l < kSize; ++l) {
      current[l] = Model::DecayCurrent(constants_of(l), lanes.i[l], lanes.at[l]);
    }
    for (std::int64_t l = 0; l < n; ++l) {
      const std::int32_t j = neuron[l];
      const Interval<R>& span = block_of(j).span;
      const double time = walkers_.time[first + l];
      const double at = std::min(time + lanes.at[l], span.horizon);  // the sum may round up
      if (!(lanes.at[l] <= lanes.limit[l] && Belongs(at, j, span) &&
            add({at, static_cast<R>(current[l]), j}))) {
        Rest(j, {lanes.v[l], lanes.i[l]}, time);
        continue;
      }
      const State x{p_.reset(j), current[l]};
      release_[j] = static_cast<R>(at + p_.t_ref[j]);
      if (refractory_ || lanes.threshold[l] < 0 ||
          internal::MayRise<Model>(constants_of(l), x, lanes.threshold[l], span.horizon - at)) {
        walkers_.Set(spiking++, j, x, at);
      } else {
        Rest(j, x, at);  // cannot spike again
      }
    }
    return spiking;
  }

  // Those that rest, to the end of the interval.
  template <class BlockOf, class ConstantsOf>
  void FlowRest(const BlockOf& block_of, const ConstantsOf& constants) {
    const std::int32_t* JAXSNN_RESTRICT neuron = rest_.neuron;
    const double* JAXSNN_RESTRICT time = rest_.time;
    double* JAXSNN_RESTRICT v = rest_.v;
    double* JAXSNN_RESTRICT i = rest_.i;
    double until[kWide];
    for (std::int64_t begin = 0; begin < n_rest_; begin += kWide) {
      const std::int64_t n = std::min<std::int64_t>(n_rest_ - begin, kWide);
      const auto constants_of = constants.template Lanes<kWide>(
          n, [neuron, begin](std::int64_t l) { return neuron[begin + l]; });
      for (std::int64_t l = 0; l < n; ++l) until[l] = block_of(neuron[begin + l]).span.stop;
      for (std::int64_t l = 0; l < n; ++l) {
        const std::int64_t k = begin + l;
        const State end =
            Model::Flow(Model::Propagate(constants_of(l), until[l] - time[k]), State{v[k], i[k]});
        v[k] = end.v;
        i[k] = end.i;
      }
    }
  }

  // A neuron that stands at its threshold when the window closes has crossed it: the crossing was
  // rounded to just behind the horizon.
  template <class AddSpike>
  void CrossAtHorizon(std::int64_t k, const Interval<R>& span, const AddSpike& add) {
    const std::int32_t j = rest_.neuron[k];
    if (rest_.v[k] < p_.threshold(j) || !Belongs(span.horizon, j, span)) return;
    if (!add({span.horizon, static_cast<R>(rest_.i[k]), j})) return;
    rest_.v[k] = p_.reset(j);
    release_[j] = static_cast<R>(span.horizon + p_.t_ref[j]);
  }

  // Whether a crossing is one of an interval. One that coincides with the next arrival comes after
  // it, and thus at the start of the next interval.
  static bool Belongs(double at, std::int32_t j, const Interval<R>& span) {
    if (span.closing ? !(at <= span.horizon) : !(at < span.horizon)) return false;
    return !span.last || at < span.final.time || (at == span.final.time && j <= span.final.neuron);
  }

  const Problem<R>& p_;
  const ConstantsTable<Model, R>& constants_;
  const R* threshold_ = nullptr;
  R* release_ = nullptr;
  bool refractory_ = false;
  bool closed_form_ = false;
  Places walkers_, rest_;

  Outcome outcome_;
  std::int64_t count_ = 0;  // of walkers at the beginning of their intervals
  std::int64_t n_rest_ = 0;
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_WALK_H_
