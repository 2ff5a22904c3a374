// Neurons of an acyclic layer that may do something else than flow freely through an interval: each
// goes from spike to spike on its own.
#ifndef JAXSNN_CORE_WALK_H_
#define JAXSNN_CORE_WALK_H_

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

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
    // Lanes are read up to the end of a vector.
    walkers_ = Walkers::Take(arena, n_neurons + kWide);
    reset_ = arena.Take<double>(n_neurons);
  }

  // With what neurons have of their own, each at its number in the layer. `refractory`: any of
  // them, at any time.
  void Start(const R* threshold, R* release, bool refractory) {
    threshold_ = threshold;
    release_ = release;
    refractory_ = refractory;
    closed_form_ = ClosedForm();
    outcome_ = {};
    for (std::int64_t j = 0; j < p_.n_neurons; ++j) reset_[j] = p_.reset(j);
  }

  void Begin() { count_ = 0; }
  // Neurons of a block that may do something else than flow, as bits, the first of which stands for
  // number `begin` of the block.
  JAXSNN_INLINE void Add(const NeuronBlock<R>& block, std::int64_t begin, std::uint64_t bits) {
    const auto first = static_cast<std::int32_t>(block.first + begin);
    std::int32_t* next = walkers_.neuron + count_;
    for (; bits != 0; bits &= bits - 1) *next++ = first + std::countr_zero(bits);
    count_ = next - walkers_.neuron;
  }
  // Puts those that were added from number `from` on to the beginning of the interval of their
  // block.
  void Place(const NeuronBlock<R>& block, std::int64_t from) {
    const Walkers some = walkers_.At(from);
    const Interval<R>& span = block.span;
    PlaceLanes(count_ - from, some.neuron, block.v - block.first, block.i - block.first,
               block.row - block.first, threshold_, reset_, span.begin, span.horizon,
               span.closing ? kNever : span.horizon, span.stop, some.v, some.i, some.arriving,
               some.threshold, some.reset, some.time, some.horizon, some.before, some.stop);
  }
  std::int64_t count() const { return count_; }

  // Goes on from spike to spike, all walkers in step, until none of them spikes any more; and puts
  // where they are then, behind the arrival of a row of weights, into the lanes of their blocks.
  // block_of(j) is the block of neuron j; add(spike) takes the spikes, and returns whether there is
  // room for one.
  template <class BlockOf, class AddSpike>
  void Go(const BlockOf& block_of, const AddSpike& add) {
    if (constants_.uniform()) {
      WithConstants<Model>(constants_[0], [&](const auto& shared) {
        Go(block_of, add, SharedConstants<std::remove_cvref_t<decltype(shared)>>{shared});
      });
    } else {
      Go(block_of, add, OwnConstants<Model, R>{constants_});
    }
  }

  const Outcome& outcome() const { return outcome_; }

 private:
  static constexpr int kWide = 16;  // walkers side by side
  static constexpr int kNarrow = 4;

  // Neurons, each at a time of its own in an interval of its own.
  struct Walkers {
    std::int32_t* neuron = nullptr;
    double *v = nullptr, *i = nullptr, *time = nullptr;
    double *horizon = nullptr, *before = nullptr, *stop = nullptr;  // spikes come before `before`
    double *threshold = nullptr, *reset = nullptr;
    R* arriving = nullptr;  // weight at the end of the interval

    static Walkers Take(Arena& arena, std::int64_t size) {
      Walkers walkers;
      walkers.neuron = arena.Take<std::int32_t>(size);
      for (double** lane : {&walkers.v, &walkers.i, &walkers.time, &walkers.horizon,
                            &walkers.before, &walkers.stop, &walkers.threshold, &walkers.reset}) {
        *lane = arena.Take<double>(size);
        // Lanes without a walker take part in the arithmetic, if to no effect.
        if (*lane != nullptr) std::fill_n(*lane, size, 0.0);
      }
      walkers.arriving = arena.Take<R>(size);
      return walkers;
    }
    Walkers At(std::int64_t k) const {
      return {neuron + k, v + k,    i + k,         time + k,  horizon + k,
              before + k, stop + k, threshold + k, reset + k, arriving + k};
    }
    // Number `from` becomes number `to`, at another place of its interval.
    void Move(std::int64_t from, std::int64_t to, const State& x, double at) const {
      neuron[to] = neuron[from];
      horizon[to] = horizon[from];
      before[to] = before[from];
      stop[to] = stop[from];
      threshold[to] = threshold[from];
      reset[to] = reset[from];
      arriving[to] = arriving[from];
      v[to] = x.v;
      i[to] = x.i;
      time[to] = at;
    }
  };

  JAXSNN_NOINLINE static void PlaceLanes(
      std::int64_t n, const std::int32_t* JAXSNN_RESTRICT neuron, const R* JAXSNN_RESTRICT v_of,
      const R* JAXSNN_RESTRICT i_of, const R* JAXSNN_RESTRICT arriving_of,
      const R* JAXSNN_RESTRICT threshold_of, const double* JAXSNN_RESTRICT reset_of, double time_of,
      double horizon_of, double before_of, double stop_of, double* JAXSNN_RESTRICT v,
      double* JAXSNN_RESTRICT i, R* JAXSNN_RESTRICT arriving, double* JAXSNN_RESTRICT threshold,
      double* JAXSNN_RESTRICT reset, double* JAXSNN_RESTRICT time, double* JAXSNN_RESTRICT horizon,
      double* JAXSNN_RESTRICT before, double* JAXSNN_RESTRICT stop) {
    for (std::int64_t k = 0; k < n; ++k) {
      const std::int32_t j = neuron[k];
      v[k] = static_cast<double>(v_of[j]);
      i[k] = static_cast<double>(i_of[j]);
      arriving[k] = arriving_of[j];
      threshold[k] = static_cast<double>(threshold_of[j]);
      reset[k] = reset_of[j];
      time[k] = time_of;
      horizon[k] = horizon_of;
      before[k] = before_of;
      stop[k] = stop_of;
    }
  }

  // Walkers side by side, from where they are to their next spikes, and on to the ends of their
  // intervals.
  template <int kSize>
  struct Lanes {
    CrossingBlock<kSize> search;
    double spike[kSize], current[kSize], v_end[kSize], i_end[kSize];
    std::int64_t spikes[kSize], again[kSize];
  };

  // Whether solutions behind a crossing follow from that, without exponentials of times that are
  // only known then.
  template <class ConstantsOf>
  static constexpr bool kClosed =
      std::is_same_v<ConstantsOf, SharedConstants<typename Model::ClosedConstants>>;

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
    while (n > 0) {
      if (refractory_) n = Release(n, block_of, add, constants);
      std::int64_t spiking = 0;
      for (std::int64_t k = 0; k < n; k += kWide) {
        const std::int64_t some = std::min<std::int64_t>(n - k, kWide);
        spiking = some <= kNarrow ? Step<kNarrow>(k, some, spiking, block_of, add, constants)
                                  : Step<kWide>(k, some, spiking, block_of, add, constants);
        if (outcome_.failed()) return;
      }
      n = spiking;
    }
  }

  // Takes walkers to the end of their refractory periods. Those that are refractory to the end of
  // the interval rest; returns how many do not.
  template <class BlockOf, class AddSpike, class ConstantsOf>
  std::int64_t Release(std::int64_t n, const BlockOf& block_of, const AddSpike& add,
                       const ConstantsOf& constants) {
    std::int64_t left = 0;
    for (std::int64_t k = 0; k < n; ++k) {
      const std::int32_t j = walkers_.neuron[k];
      State x{walkers_.v[k], walkers_.i[k]};
      double time = walkers_.time[k];
      const double release = static_cast<double>(release_[j]), stop = walkers_.stop[k];
      if (release > time) {
        const double until = std::min(release, stop);
        x = {reset_[j], Model::DecayCurrent(constants(j), x.i, until - time)};
        time = until;
      }
      if (release > stop) {
        Rest(block_of(j), k, x, add);
      } else {
        walkers_.Move(k, left++, x, time);
      }
    }
    return left;
  }

  // The next spikes of walkers [first, first + n). Those that spike and may do so again become
  // walkers from number `spiking` on; the others rest. Returns the number behind the last.
  template <int kSize, class BlockOf, class AddSpike, class ConstantsOf>
  std::int64_t Step(std::int64_t first, std::int64_t n, std::int64_t spiking,
                    const BlockOf& block_of, const AddSpike& add, const ConstantsOf& constants) {
    Lanes<kSize> lanes;
    const Walkers some = walkers_.At(first);
    const auto constants_of =
        constants.template Lanes<kSize>(n, [&some](std::int64_t l) { return some.neuron[l]; });
    // In lanes without a walker nothing happens.
    for (std::int64_t l = 0; l < kSize; ++l) {
      lanes.search.v[l] = some.v[l];
      lanes.search.i[l] = some.i[l];
      lanes.search.limit[l] = l < n ? some.horizon[l] - some.time[l] : -1.0;
      lanes.search.threshold[l] = l < n ? some.threshold[l] : 1.0;
    }
    const int failed = NextCrossings<Model>(constants_of, closed_form_, lanes.search);
    if (failed != kNoIndex) {
      outcome_ = {Status::kNoConvergence, Argument::kNone, some.neuron[failed],
                  block_of(some.neuron[failed]).span.begin};
      return 0;
    }
    FindSpikes(constants_of, some, lanes);
    const bool last = block_of(some.neuron[0]).span.last;  // of all blocks, or none
    for (std::int64_t l = 0; last && l < n; ++l) {
      const Interval<R>& span = block_of(some.neuron[l]).span;
      lanes.spikes[l] &= static_cast<std::int64_t>(Belongs(lanes.spike[l], some.neuron[l], span));
    }
    FlowToEnd(constants_of, some, lanes);
    for (std::int64_t l = 0; l < n; ++l) {
      const std::int32_t j = some.neuron[l];
      State end{lanes.v_end[l], lanes.i_end[l]};
      if (lanes.spikes[l] != 0) {
        const double at = lanes.spike[l];
        if (add({at, static_cast<R>(lanes.current[l]), j})) {
          release_[j] = static_cast<R>(at + p_.t_ref[j]);
          if (lanes.again[l] != 0) {
            walkers_.Move(first + l, spiking++, {some.reset[l], lanes.current[l]}, at);
            continue;
          }
        } else {
          // This sweep is of no use, or stops at the last spike that there is room for, about now.
          end = {lanes.search.v[l], lanes.search.i[l]};
        }
      }
      Rest(block_of(j), first + l, end, add);
    }
    return spiking;
  }

  // Which crossings are spikes of their intervals, see Belongs, with what currents, and which
  // neurons may spike once more.
  template <int kSize, class ConstantsOf>
  JAXSNN_INLINE void FindSpikes(const ConstantsOf& constants_of, const Walkers& some,
                                Lanes<kSize>& lanes) const {
    const auto refractory = static_cast<std::int64_t>(refractory_);
    std::int64_t any = 0;
    for (int l = 0; l < kSize; ++l) {
      const double at = lanes.search.at[l], horizon = some.horizon[l];
      const double sum = some.time[l] + at;  // may round up
      const double time = sum < horizon ? sum : horizon;
      lanes.spike[l] = time;
      lanes.spikes[l] = static_cast<std::int64_t>(at <= lanes.search.limit[l]) &
                        static_cast<std::int64_t>(time < some.before[l]);
      any |= lanes.spikes[l];
    }
    for (int l = 0; any != 0 && l < kSize; ++l) {
      const auto& constants = constants_of(l);
      const double i = lanes.search.i[l], kept = lanes.search.kept[l];
      const double current = kClosed<ConstantsOf>
                                 ? i * (kept * kept)
                                 : Model::DecayCurrent(constants, i, lanes.search.at[l]);
      const double threshold = lanes.search.threshold[l];
      lanes.current[l] = current;
      lanes.again[l] =
          refractory | static_cast<std::int64_t>(threshold < 0) |
          static_cast<std::int64_t>(internal::MayRise<Model>(
              constants, {some.reset[l], current}, threshold, some.horizon[l] - lanes.spike[l]));
    }
  }

  // From the spike, or from where the walker was, to the end of the interval.
  template <int kSize, class ConstantsOf>
  JAXSNN_INLINE void FlowToEnd(const ConstantsOf& constants_of, const Walkers& some,
                               Lanes<kSize>& lanes) const {
    for (int l = 0; l < kSize; ++l) {
      const bool spikes = lanes.spikes[l] != 0;
      const State x{spikes ? some.reset[l] : lanes.search.v[l],
                    spikes ? lanes.current[l] : lanes.search.i[l]};
      State end;
      if constexpr (kClosed<ConstantsOf>) {
        const double kept = spikes ? lanes.search.kept[l] : 1;
        end = Model::Flow(
            Model::PropagateBeyond(constants_of(l), kept, some.stop[l] - some.time[l]), x);
      } else {
        const double dt = some.stop[l] - (spikes ? lanes.spike[l] : some.time[l]);
        end = Model::Flow(Model::Propagate(constants_of(l), dt), x);
      }
      lanes.v_end[l] = end.v;
      lanes.i_end[l] = end.i;
    }
  }

  // Walker number k at the end of its interval.
  template <class AddSpike>
  JAXSNN_INLINE void Rest(NeuronBlock<R>& block, std::int64_t k, State x, const AddSpike& add) {
    const std::int32_t j = walkers_.neuron[k];
    if (block.span.closing) CrossAtHorizon(j, x, block.span, add);
    const std::int64_t b = j - block.first;
    const R v = static_cast<R>(x.v);
    block.v_next[b] = v;
    block.i_next[b] = static_cast<R>(x.i) + walkers_.arriving[k];
    block.at_threshold |= v >= threshold_[j];
  }

  // A neuron that stands at its threshold when the window closes has crossed it: the crossing was
  // rounded to just behind the horizon.
  template <class AddSpike>
  void CrossAtHorizon(std::int32_t j, State& x, const Interval<R>& span, const AddSpike& add) {
    if (x.v < p_.threshold(j) || !Belongs(span.horizon, j, span)) return;
    if (!add({span.horizon, static_cast<R>(x.i), j})) return;
    x.v = reset_[j];
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
  Walkers walkers_;
  double* reset_;  // of each neuron

  Outcome outcome_;
  std::int64_t count_ = 0;  // of walkers at the beginning of their intervals
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_WALK_H_
