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

// What all neurons of a block have of their own. Neuron b of the block is first + b of the layer.
template <class R>
struct BlockLanes {
  std::int64_t first = 0;
  R* threshold = nullptr;
  R* release = nullptr;
  bool refractory = false;  // whether any of them is refractory at any time
};

template <class Model, class R>
class Walk {
  using State = typename Model::template Pair<double>;

 public:
  Walk(Arena& arena, const Problem<R>& problem, const ConstantsTable<Model, R>& constants,
       std::int64_t n_neurons, std::int64_t capacity)
      : p_(problem), constants_(constants) {
    walkers_ = Places::Take(arena, n_neurons + kWide);
    rest_ = Places::Take(arena, n_neurons);
    pending_ = PendingSpikes<R>::Take(arena, capacity);
  }

  void Start(const BlockLanes<R>& lanes) {
    lanes_ = lanes;
    closed_form_ = ClosedForm();
  }

  // Begins an interval, in which there is room for this many further spikes.
  void Begin(const Interval<R>& span, std::int64_t room) {
    span_ = span;
    room_ = room;
    pending_.Clear();
    count_ = 0;
  }
  // A neuron that may do something else, with its state at the beginning.
  JAXSNN_INLINE void Add(std::int64_t b, R v, R i) {
    walkers_.Set(count_++, static_cast<std::int32_t>(b),
                 {static_cast<double>(v), static_cast<double>(i)}, span_.begin);
  }
  std::int64_t count() const { return count_; }

  // Goes on from spike to spike, all walkers in step, until none of them spikes any more; and puts
  // where they are then, behind the arrival of a row of weights, into the lanes of the block.
  void Go(const R* row, R* v_next, R* i_next) {
    if (constants_.uniform()) {
      Go(row, v_next, i_next, SharedConstants<Model>{constants_[0]});
    } else {
      Go(row, v_next, i_next, OwnConstants<Model, R>{constants_, lanes_.first});
    }
  }

  // The spikes of the interval, to be sorted.
  PendingSpikes<R>& pending() { return pending_; }
  const Outcome& outcome() const { return outcome_; }
  // Whether a neuron stands at its threshold at the end of the interval.
  bool at_threshold() const { return at_threshold_; }

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
    JAXSNN_INLINE void Set(std::int64_t k, std::int32_t b, const State& x, double at) {
      neuron[k] = b;
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

  double Reset(std::int64_t b) const { return p_.reset(lanes_.first + b); }
  double RefractoryTime(std::int64_t b) const { return p_.t_ref[lanes_.first + b]; }
  std::int32_t Neuron(std::int64_t b) const { return static_cast<std::int32_t>(lanes_.first + b); }

  template <class ConstantsOf>
  void Go(const R* row, R* v_next, R* i_next, const ConstantsOf& constants) {
    std::int64_t n = count_;
    n_rest_ = 0;
    at_threshold_ = false;
    while (n > 0) {
      if (lanes_.refractory) n = Release(n, constants);
      std::int64_t spiking = 0;
      for (std::int64_t k = 0; k < n; k += kWide) {
        const std::int64_t some = std::min<std::int64_t>(n - k, kWide);
        spiking = some <= kNarrow ? Step<kNarrow>(k, some, spiking, constants)
                                  : Step<kWide>(k, some, spiking, constants);
        if (outcome_.failed()) return;
      }
      n = spiking;
    }
    FlowRest(constants);
    if (span_.closing) CrossAtHorizon();
    for (std::int64_t k = 0; k < n_rest_; ++k) {
      const std::int32_t b = rest_.neuron[k];
      v_next[b] = static_cast<R>(rest_.v[k]);
      i_next[b] = static_cast<R>(rest_.i[k]) + row[b];
      at_threshold_ |= v_next[b] >= lanes_.threshold[b];
    }
  }

  void Rest(std::int32_t b, const State& x, double time) { rest_.Set(n_rest_++, b, x, time); }

  // Takes walkers to the end of their refractory periods. Those that are refractory to the end of
  // the interval rest; returns how many do not.
  template <class ConstantsOf>
  std::int64_t Release(std::int64_t n, const ConstantsOf& constants) {
    std::int64_t left = 0;
    for (std::int64_t k = 0; k < n; ++k) {
      const std::int32_t b = walkers_.neuron[k];
      State x{walkers_.v[k], walkers_.i[k]};
      double time = walkers_.time[k];
      const double release = static_cast<double>(lanes_.release[b]);
      if (release > time) {
        const double until = std::min(release, span_.stop);
        x = {Reset(b), Model::DecayCurrent(constants(b), x.i, until - time)};
        time = until;
      }
      if (release > span_.stop) {
        Rest(b, x, time);
      } else {
        walkers_.Set(left++, b, x, time);
      }
    }
    return left;
  }

  // The next spikes of walkers [first, first + n). Those that spike and may do so again become
  // walkers from number `spiking` on; the others rest. Returns the number behind the last.
  template <int kSize, class ConstantsOf>
  std::int64_t Step(std::int64_t first, std::int64_t n, std::int64_t spiking,
                    const ConstantsOf& constants) {
    CrossingBlock<kSize> block;
    double current[kSize];
    const double horizon = span_.horizon;
    // In lanes without a walker nothing happens.
    for (std::int64_t l = 0; l < kSize; ++l) {
      block.v[l] = l < n ? walkers_.v[first + l] : 0.0;
      block.i[l] = l < n ? walkers_.i[first + l] : 0.0;
      block.limit[l] = l < n ? horizon - walkers_.time[first + l] : -1.0;
      block.threshold[l] = 1.0;
    }
    const std::int32_t* const neuron = walkers_.neuron + first;
    for (std::int64_t l = 0; l < n; ++l) {
      block.threshold[l] = static_cast<double>(lanes_.threshold[neuron[l]]);
    }
    const auto constants_of =
        constants.template Lanes<kSize>(n, [neuron](std::int64_t l) { return neuron[l]; });
    const int failed = NextCrossings<Model>(constants_of, closed_form_, block);
    if (failed != kNoIndex) {
      outcome_ = {Status::kNoConvergence, Argument::kNone, Neuron(neuron[failed]), span_.begin};
      return 0;
    }
    std::int64_t any = 0;
    for (int l = 0; l < kSize; ++l) {
      any |= static_cast<std::int64_t>(block.at[l] <= block.limit[l]);
    }
    for (std::int64_t l = 0; any != 0 && l < kSize; ++l) {
      current[l] = Model::DecayCurrent(constants_of(l), block.i[l], block.at[l]);
    }
    for (std::int64_t l = 0; l < n; ++l) {
      const std::int32_t b = neuron[l];
      const double time = walkers_.time[first + l];
      const double at = std::min(time + block.at[l], horizon);  // the sum may round up
      if (!(block.at[l] <= block.limit[l] && Belongs(at, Neuron(b)) &&
            pending_.Add({at, static_cast<R>(current[l]), Neuron(b)}, room_))) {
        Rest(b, {block.v[l], block.i[l]}, time);
        continue;
      }
      const State x{Reset(b), current[l]};
      lanes_.release[b] = static_cast<R>(at + RefractoryTime(b));
      if (lanes_.refractory || block.threshold[l] < 0 ||
          internal::MayRise<Model>(constants_of(l), x, block.threshold[l], horizon - at)) {
        walkers_.Set(spiking++, b, x, at);
      } else {
        Rest(b, x, at);  // cannot spike again
      }
    }
    return spiking;
  }

  // Those that rest, to the end of the interval.
  template <class ConstantsOf>
  void FlowRest(const ConstantsOf& constants) {
    const std::int32_t* JAXSNN_RESTRICT neuron = rest_.neuron;
    const double* JAXSNN_RESTRICT time = rest_.time;
    double* JAXSNN_RESTRICT v = rest_.v;
    double* JAXSNN_RESTRICT i = rest_.i;
    const double stop = span_.stop;
    for (std::int64_t begin = 0; begin < n_rest_; begin += kWide) {
      const std::int64_t n = std::min<std::int64_t>(n_rest_ - begin, kWide);
      const auto constants_of = constants.template Lanes<kWide>(
          n, [neuron, begin](std::int64_t l) { return neuron[begin + l]; });
      for (std::int64_t l = 0; l < n; ++l) {
        const std::int64_t k = begin + l;
        const State end =
            Model::Flow(Model::Propagate(constants_of(l), stop - time[k]), State{v[k], i[k]});
        v[k] = end.v;
        i[k] = end.i;
      }
    }
  }

  // A neuron that stands at its threshold when the window closes has crossed it: the crossing was
  // rounded to just behind the horizon.
  void CrossAtHorizon() {
    for (std::int64_t k = 0; k < n_rest_; ++k) {
      const std::int32_t b = rest_.neuron[k], j = Neuron(b);
      if (rest_.v[k] < p_.threshold(j) || !Belongs(span_.horizon, j)) continue;
      if (!pending_.Add({span_.horizon, static_cast<R>(rest_.i[k]), j}, room_)) continue;
      rest_.v[k] = Reset(b);
      lanes_.release[b] = static_cast<R>(span_.horizon + RefractoryTime(b));
    }
  }

  // Whether a crossing is one of this interval. One that coincides with the next arrival comes
  // after it, and thus at the start of the next interval.
  bool Belongs(double at, std::int32_t j) const {
    if (span_.closing ? !(at <= span_.horizon) : !(at < span_.horizon)) return false;
    return !span_.last || at < span_.final.time ||
           (at == span_.final.time && j <= span_.final.neuron);
  }

  const Problem<R>& p_;
  const ConstantsTable<Model, R>& constants_;
  BlockLanes<R> lanes_;
  Places walkers_, rest_;
  PendingSpikes<R> pending_;

  Outcome outcome_;
  Interval<R> span_{};
  std::int64_t room_ = 0;
  std::int64_t count_ = 0;  // of walkers at the beginning of the interval
  std::int64_t n_rest_ = 0;
  bool closed_form_ = false;
  bool at_threshold_ = false;
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_WALK_H_
