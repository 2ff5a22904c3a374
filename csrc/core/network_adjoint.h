// EventProp on a network with delays and recurrent connections: the reverse sweep over one example.
//
// It walks through all events backwards. Arrivals come out of the same queue as in the forward
// sweep, run the other way; spikes come from the log. The adjoint of all neurons flows back from
// arrival to arrival in loops that vectorise; a neuron that spikes or is released in between goes
// there on its own.
#ifndef JAXSNN_CORE_NETWORK_ADJOINT_H_
#define JAXSNN_CORE_NETWORK_ADJOINT_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "core/adjoint.h"
#include "core/arrivals.h"
#include "core/arrivals_ahead.h"
#include "core/lanes.h"
#include "core/network_forward.h"
#include "core/parameter_lanes.h"
#include "core/projection.h"
#include "core/propagators.h"
#include "core/spike_log.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

// Gradients with respect to what belongs to a projection, both added to.
template <class R>
struct ProjectionGradients {
  R* weights;
  R* delays;
};

// Where the gradients of one example go.
template <class R>
struct NetworkGradients {
  ProjectionGradients<R> input;
  ProjectionGradients<R> recurrent;
  // The rest is written.
  R* v;
  R* i;
  R* release;
  R* input_time;
  R* past_time;
  R* probe_time;
  double time;
  double t_max;
  ParameterGradients<R> params;  // unless the sweep leaves them out
  bool want_arrivals = true;     // the times and delays of inputs
};

// The loss gradients that enter besides Cotangents, and the views that they belong to.
template <class R>
struct ViewCotangents {
  Views<R> views;
  const R* probe_v = nullptr;
  const R* probe_i = nullptr;
  const R* maximum = nullptr;
};

// kParameters: with the gradients of neuron parameters.
template <class Model, class R, bool kParameters>
class NetworkReverse {
  using Adjoint = typename Model::template Pair<double>;
  using Memory = typename ParameterLanes<Model, R>::Memory;

 public:
  NetworkReverse(Arena& arena, const Network<R>& network, std::int64_t capacity)
      : p_(network),
        n_(network.n_neurons),
        n_lanes_(PaddedLanes(n_)),
        uniform_(network.uniform_time_constants()),
        ahead_(arena, network, capacity, uniform_),
        arrivals_(ahead_.queue()),
        parameters_(arena, kParameters ? n_ : 0, uniform_) {
    constants_ = ConstantsTable<Model, R>::Take(arena, uniform_, n_);
    for (R** lane : {&v_, &i_, &rate_mem_, &rate_syn_, &last_release_}) {
      *lane = arena.Take<R>(n_lanes_);
    }
    step_ = StepPropagators<Model, R>::Take(arena, uniform_, n_lanes_);
    for (std::int32_t** list : {&slot_, &clamp_slot_}) *list = arena.Take<std::int32_t>(n_);
    visits_ = arena.Take<Visit>(n_);
    clamps_ = arena.Take<Clamp>(n_);
    releases_ = arena.Take<Release>(capacity + n_);
    pinned_ = arena.Take<double>(n_);
    spike_gradient_ = arena.Take<double>(capacity);
    input_gradient_ = arena.Take<double>(network.queue.size);
    past_gradient_ = arena.Take<double>(network.n_past);
    held_ = arena.Take<bool>(n_);
    peaks_ = arena.Take<Peak>(n_);
  }

  void Run(const SpikeLog<R>& log, const EndState<R>& end, Status status, const Cotangents<R>& ct,
           const ViewCotangents<R>& views, NetworkGradients<R>& gradients) {
    constants_.Fill(p_);
    step_.Fill(n_lanes_, [this](std::int64_t j) { return constants_[j < n_ ? j : 0]; });
    Start(log, end, status, ct, views, gradients);
    double high = static_cast<double>(*end.time);
    for (;;) {
      const double arrival = ahead_.empty() ? -kNever : static_cast<double>(ahead_.first().time);
      const double probe = next_probe_ >= 0 ? ProbeTime(next_probe_) : -kNever;
      const bool first = arrival == -kNever && probe == -kNever;
      // Which arrivals of the time of a probe come behind it: those that a spike has caused.
      const bool at_probe = probe > arrival || (probe == arrival && !IsCaused(log));
      const double low = first ? p_.time : at_probe ? probe : arrival;
      Visits(log, high, first ? -kNever : low, !first && !at_probe);
      FlowBack(low, high);
      high = low;
      if (first) break;
      if (at_probe) {
        Probe(next_probe_--, views, gradients);
      } else {
        Arrive(ahead_.Pop(), gradients);
      }
    }
    Finish(gradients);
  }

 private:
  // A neuron that spikes or is released leaves the common flow up to the previous arrival.
  struct Visit {
    std::int64_t neuron;
    double time;
    Adjoint a;
    Memory memory;
  };

  // The end of a refractory period.
  struct Release {
    double time;
    std::int32_t neuron;
  };

  // A refractory period that is being walked through. What the loss owes to its end depends on the
  // current there, and thus on everything that arrived since the spike: it is collected on the way
  // back to the spike.
  struct Clamp {
    std::int32_t neuron;
    double release;
    double per_current;
    double gradient;
  };

  // The maximum of a neuron, which the loss depends on.
  struct Peak {
    double time;
    std::int32_t neuron;
    double gradient;
    double rate;  // of the voltage right behind it
  };

  void Start(const SpikeLog<R>& log, const EndState<R>& end, Status status, const Cotangents<R>& ct,
             const ViewCotangents<R>& views, NetworkGradients<R>& gradients) {
    const std::int64_t count = *end.count;
    next_spike_ = count - 1;
    const double end_time = static_cast<double>(*end.time);
    ahead_.Start(log.time, log.index, count, end_time, constants_[0]);
    for (std::int64_t s = 0; s < count; ++s) {
      spike_gradient_[s] = static_cast<double>(ct.spike_time[s]);
    }
    std::fill(input_gradient_, input_gradient_ + p_.queue.size, 0.0);
    std::fill(past_gradient_, past_gradient_ + p_.n_past, 0.0);
    if constexpr (kParameters) parameters_.Start();
    // What the loss owes to the time at which the window ends.
    double end_gradient = ct.time;
    for (std::int64_t j = 0; j < n_; ++j) {
      const bool clamped = static_cast<double>(end.release[j]) > end_time;
      if (kParameters && clamped) parameters_.AtReset(j, static_cast<double>(ct.v[j]));
      v_[j] = clamped ? R(0) : ct.v[j];
      i_[j] = ct.i[j];
      last_release_[j] = ct.release[j];
      rate_mem_[j] = static_cast<R>(constants_[j].rate_mem);
      rate_syn_[j] = static_cast<R>(constants_[j].rate_syn);
      slot_[j] = clamp_slot_[j] = kNoIndex;
      held_[j] = clamped;
      pinned_[j] = 0;
      gradients.release[j] = 0;
      end_gradient += Model::TimeSensitivity(
          constants_[j],
          {static_cast<double>(end.v[j]) - p_.v_leak[j], static_cast<double>(end.i[j])},
          {static_cast<double>(v_[j]), static_cast<double>(i_[j])});
    }
    // Lanes without a neuron stay 0.
    for (std::int64_t j = n_; j < n_lanes_; ++j) v_[j] = i_[j] = 0;
    end_gradient += ListPeaks(views, end_time);
    const bool at_spike = status == Status::kEventCapacity;
    if (at_spike) spike_gradient_[count - 1] += end_gradient;
    gradients.t_max = at_spike ? 0 : end_gradient;
    gradients.time = 0;
    pinned_to_start_ = 0;
    ListReleases(log, count, end_time);
    next_probe_ = p_.n_probes - 1;
    while (next_probe_ >= 0 && ProbeTime(next_probe_) > end_time) {
      gradients.probe_time[next_probe_--] = 0;
    }
  }

  double ProbeTime(std::int64_t k) const { return static_cast<double>(p_.probe_time[k]); }

  // Whether the next arrival comes from a spike of its own time.
  bool IsCaused(const SpikeLog<R>& log) const {
    if (ahead_.empty() || !arrivals_.IsOwn(ahead_.first().source)) return false;
    return log.time[arrivals_.OwnOf(ahead_.first().source)] == ahead_.first().time;
  }

  // All maxima that the loss depends on, in the order of time. Returns what it owes through them to
  // the end of the window.
  double ListPeaks(const ViewCotangents<R>& views, double end_time) {
    double end_gradient = 0;
    n_peaks_ = 0;
    for (std::int64_t j = 0; views.maximum != nullptr && j < n_; ++j) {
      const double gradient = static_cast<double>(views.maximum[j]);
      if (gradient == 0) continue;
      const MaximumLog<R>& log = views.views.maximum;
      if (log.v[j] == static_cast<R>(p_.threshold(j) + p_.v_leak[j])) {
        // At a spike: the highest is the threshold, wherever the spike moves.
        if constexpr (kParameters) parameters_.Threshold(j, gradient);
        continue;
      }
      const double rate = static_cast<double>(log.current[j] - log.v[j]) * constants_[j].rate_mem;
      Peak peak{static_cast<double>(log.time[j]), static_cast<std::int32_t>(j), gradient, rate};
      if (peak.time == end_time) {
        end_gradient += rate * gradient;
        peak.rate = 0;
      }
      peaks_[n_peaks_++] = peak;
    }
    std::sort(peaks_, peaks_ + n_peaks_,
              [](const Peak& a, const Peak& b) { return a.time < b.time; });
    return end_gradient;
  }

  // All ends of refractory periods inside the window, in the order of time.
  void ListReleases(const SpikeLog<R>& log, std::int64_t count, double end_time) {
    n_releases_ = 0;
    const auto list = [&](std::int64_t j, double from, double release) {
      if (release > from && release <= end_time) {
        releases_[n_releases_++] = {release, static_cast<std::int32_t>(j)};
      }
    };
    for (std::int64_t j = 0; j < n_; ++j) list(j, p_.time, static_cast<double>(p_.release[j]));
    for (std::int64_t s = 0; s < count; ++s) {
      const std::int64_t j = log.index[s];
      const double from = static_cast<double>(log.time[s]);
      // As the forward sweep has it, rounded.
      list(j, from, static_cast<double>(static_cast<R>(from + p_.t_ref[j])));
    }
    std::sort(releases_, releases_ + n_releases_,
              [](const Release& a, const Release& b) { return a.time < b.time; });
  }

  // All spikes, releases and maxima down to `low`, where an arrival or a probe is; latest first. A
  // release comes before the arrivals and probes of the same time, and a spike behind them, except
  // for the arrivals that it has caused. A maximum is behind all, those arrivals included.
  void Visits(const SpikeLog<R>& log, double high, double low, bool at_arrival) {
    n_visits_ = 0;
    for (;;) {
      const double spike = next_spike_ >= 0 ? static_cast<double>(log.time[next_spike_]) : -kNever;
      const double release = n_releases_ > 0 ? releases_[n_releases_ - 1].time : -kNever;
      const double peak = n_peaks_ > 0 ? peaks_[n_peaks_ - 1].time : -kNever;
      if (peak > -kNever && peak >= low && peak >= spike && peak >= release) {
        VisitPeak(peaks_[--n_peaks_], high);
      } else if (spike >= release) {
        const bool caused = at_arrival && spike == low && arrivals_.IsOwn(ahead_.first().source) &&
                            arrivals_.OwnOf(ahead_.first().source) >= next_spike_;
        if (next_spike_ < 0 || spike < low || caused) return;
        VisitSpike(log, next_spike_--, high);
      } else {
        if (release <= low) return;
        VisitRelease(releases_[--n_releases_], high);
      }
    }
  }

  // Takes a neuron out of the common flow, at `time`.
  Visit& Stop(std::int64_t j, double time, double high) {
    if (slot_[j] == kNoIndex) {
      slot_[j] = static_cast<std::int32_t>(n_visits_++);
      visits_[slot_[j]] = {j, high, {static_cast<double>(v_[j]), static_cast<double>(i_[j])}, {}};
      if constexpr (kParameters) visits_[slot_[j]].memory = parameters_.Get(j);
    }
    Visit& visit = visits_[slot_[j]];
    Move(visit, time);
    return visit;
  }

  // A neuron on its own, back to `time`.
  void Move(Visit& visit, double time) {
    const double dt = visit.time - time;
    if (!(dt > 0)) return;
    const auto& constants = constants_[visit.neuron];
    const auto p = Model::Propagate(constants, dt);
    if constexpr (kParameters) {
      visit.memory = Model::Recall(p, Model::Remember(constants, p, dt), visit.memory, visit.a);
    }
    visit.a = Model::AdjointFlow(p, visit.a);
    visit.time = time;
  }

  // Back into the common flow.
  void Return(const Visit& visit) {
    v_[visit.neuron] = static_cast<R>(visit.a.v);
    i_[visit.neuron] = static_cast<R>(visit.a.i);
    if constexpr (kParameters) parameters_.Put(visit.neuron, visit.memory);
    slot_[visit.neuron] = kNoIndex;
  }

  void VisitSpike(const SpikeLog<R>& log, std::int64_t s, double high) {
    const std::int64_t j = log.index[s];
    const double time = static_cast<double>(log.time[s]);
    const double current = static_cast<double>(log.current[s]);
    Visit& visit = Stop(j, time, high);
    const double v_after = visit.a.v;
    const double release = TakeRelease(j, time, current);
    const double gradient = spike_gradient_[s] + release;
    const double threshold = p_.threshold(j), reset = p_.reset(j);
    visit.a.v = 0;
    held_[j] = false;
    const bool began_above = BeganAbove(p_, j, time);
    if (began_above || !(current > threshold)) {
      // No crossing: the neuron stood at the threshold when the window began, or when something
      // arrived, whose time it shares. Its voltage had no say in that.
      double& pinned = began_above ? pinned_to_start_ : pinned_[j];
      pinned += gradient - Model::Rate(constants_[j], {reset, current}).v * v_after;
      any_pinned_ |= !began_above;
    } else {
      visit.a.v = AdjointSpike<Model>(constants_[j], threshold, reset, current, gradient, v_after);
    }
    if constexpr (kParameters) {
      parameters_.Reset(j, reset, v_after, visit.memory);
      parameters_.Threshold(j, -visit.a.v);
      parameters_.Release(j, release);
    }
  }

  void VisitPeak(const Peak& peak, double high) {
    const std::int64_t j = peak.neuron;
    if (held_[j]) {
      if constexpr (kParameters) parameters_.AtReset(j, peak.gradient);
      return;
    }
    Stop(j, peak.time, high).a.v += peak.gradient;
    if (peak.rate == 0) return;
    // A kink: the maximum moves with the arrival that makes it.
    pinned_[j] += peak.rate * peak.gradient;
    any_pinned_ = true;
  }

  void VisitRelease(const Release& release, double high) {
    const std::int64_t j = release.neuron;
    held_[j] = true;
    Visit& visit = Stop(j, release.time, high);
    const double reset = p_.reset(j);
    // The gradient is linear in the state at the release, of which the current is not known yet.
    const double rest = AdjointRelease<Model>(constants_[j], reset, 0, visit.a.v);
    const double per_current = AdjointRelease<Model>(constants_[j], 0, 1, visit.a.v);
    clamp_slot_[j] = static_cast<std::int32_t>(n_clamps_);
    clamps_[n_clamps_++] = {release.neuron, release.time, per_current, rest};
    if constexpr (kParameters) parameters_.Reset(j, reset, visit.a.v, visit.memory);
    visit.a.v = 0;
  }

  // A current that the neuron had at `time` reaches its release, if it is clamped.
  void AddToClamp(std::int64_t j, double time, double current) {
    if (clamp_slot_[j] == kNoIndex) return;
    Clamp& clamp = clamps_[clamp_slot_[j]];
    clamp.gradient +=
        clamp.per_current * Model::DecayCurrent(constants_[j], current, clamp.release - time);
  }

  // What the loss owes to the release behind a spike, or behind the start of the window, through
  // all that it led to: once only.
  double TakeRelease(std::int64_t j, double time, double current) {
    double gradient = static_cast<double>(last_release_[j]);
    last_release_[j] = 0;
    if (clamp_slot_[j] == kNoIndex) return gradient;
    AddToClamp(j, time, current);
    gradient += clamps_[clamp_slot_[j]].gradient;
    Clamp& moved = clamps_[--n_clamps_];
    clamp_slot_[moved.neuron] = clamp_slot_[j];
    clamps_[clamp_slot_[j]] = moved;
    clamp_slot_[j] = kNoIndex;
    return gradient;
  }

  // Everything back to the time of the previous arrival.
  void FlowBack(double low, double high) {
    for (std::int64_t m = 0; m < n_visits_; ++m) {
      // A spike often coincides with the arrival that it caused: then it has not left.
      if (visits_[m].time == high) {
        Return(visits_[m]);
      } else {
        Move(visits_[m], low);
      }
    }
    if (high > low) FlowAll(low, high);
    for (std::int64_t m = 0; m < n_visits_; ++m) {
      if (slot_[visits_[m].neuron] != kNoIndex) Return(visits_[m]);
    }
  }

  void FlowAll(double low, double high) {
    const double dt = high - low;
    const PropagatorLanes<R> lanes =
        ahead_.HasSolution(high, low) ? ahead_.solution() : step_.Over(dt);
    for (std::int64_t j = 0; kParameters && j < (uniform_ ? 1 : n_); ++j) {
      parameters_.SetStep(j, constants_[j], dt);
    }
    if constexpr (kParameters) parameters_.FlowBack(lanes, v_, i_);
    const auto flow = uniform_ ? AdjointFlowLanes<R, true> : AdjointFlowLanes<R, false>;
    flow(lanes, n_lanes_, v_, i_);
  }

  void Arrive(const Arrival<R>& arrival, NetworkGradients<R>& gradients) {
    const Projection<R>& projection = arrivals_.ProjectionOf(arrival.source);
    const ProjectionGradients<R>& own =
        arrivals_.IsInput(arrival.source) ? gradients.input : gradients.recurrent;
    const std::int64_t source = arrivals_.RowOf(arrival.source);
    const double time = static_cast<double>(arrival.time);
    const double gradient =
        projection.per_target()
            ? ArriveAtSome(projection, arrival, source, time, own)
            : ArriveAtAll(projection, source, time, own,
                          gradients.want_arrivals || !arrivals_.IsInput(arrival.source));
    (arrivals_.IsOwn(arrival.source)     ? spike_gradient_[arrivals_.OwnOf(arrival.source)]
     : arrivals_.IsInput(arrival.source) ? input_gradient_[arrivals_.InputOf(arrival.source)]
                                         : past_gradient_[arrival.source]) += gradient;
  }

  void Probe(std::int64_t k, const ViewCotangents<R>& views, NetworkGradients<R>& gradients) {
    double sum = 0;
    for (std::int64_t j = 0; j < n_; ++j) {
      const std::int64_t at = k * n_ + j;
      if (kParameters && held_[j]) {
        parameters_.AtReset(j, static_cast<double>(views.probe_v[at]));
      }
      const R a_v = held_[j] ? R(0) : views.probe_v[at], a_i = views.probe_i[at];
      v_[j] += a_v;
      i_[j] += a_i;
      sum += Model::TimeSensitivity(constants_[j],
                                    {static_cast<double>(views.views.probe_v[at]) - p_.v_leak[j],
                                     static_cast<double>(views.views.probe_i[at])},
                                    {static_cast<double>(a_v), static_cast<double>(a_i)});
    }
    gradients.probe_time[k] = static_cast<R>(sum);
  }

  double ArriveAtAll(const Projection<R>& projection, std::int64_t source, double time,
                     const ProjectionGradients<R>& own, bool want_time) {
    const R* const row = projection.row(source);
    R* const row_gradient = own.weights + source * n_;
    const auto arrive =
        uniform_ ? AdjointArrivalLanes<Model, R, true> : AdjointArrivalLanes<Model, R, false>;
    double sum = 0;
    if (want_time) {
      sum = static_cast<double>(arrive(n_, row, rate_mem_, rate_syn_, v_, i_, row_gradient));
    } else {
      AddLanes(n_, i_, row_gradient);
    }
    if constexpr (kParameters) parameters_.Arrive(row);
    for (std::int64_t k = 0; k < n_clamps_; ++k) {
      const std::int64_t j = clamps_[k].neuron;
      AddToClamp(j, time, static_cast<double>(row[j]));
    }
    if (any_pinned_) {
      for (std::int64_t j = 0; j < n_; ++j) sum += TakePinned(j);
      any_pinned_ = false;
    }
    own.delays[projection.delay_row(source)] += static_cast<R>(sum);
    return sum;
  }

  double ArriveAtSome(const Projection<R>& projection, const Arrival<R>& arrival,
                      std::int64_t source, double time, const ProjectionGradients<R>& own) {
    const R* const row = projection.row(source);
    const std::int64_t delays = projection.delay_row(source) * n_;
    double sum = 0;
    for (std::int64_t k = arrival.begin; k < arrival.end; ++k) {
      const std::int64_t j = projection.order[delays + k];
      own.weights[source * n_ + j] += i_[j];
      if constexpr (kParameters) parameters_.Arrive(j, row[j]);
      const double gradient =
          static_cast<double>(row[j] *
                              AdjointArrival<Model, R>(rate_mem_[j], rate_syn_[j], v_[j], i_[j])) +
          TakePinned(j);
      own.delays[delays + j] += static_cast<R>(gradient);
      AddToClamp(j, time, static_cast<double>(row[j]));
      sum += gradient;
    }
    return sum;
  }

  double TakePinned(std::int64_t j) {
    const double pinned = pinned_[j];
    pinned_[j] = 0;
    return pinned;
  }

  void Finish(NetworkGradients<R>& gradients) {
    gradients.time += pinned_to_start_;
    for (std::int64_t j = 0; j < n_; ++j) {
      const double current = static_cast<double>(p_.i[j]);
      const Adjoint start{static_cast<double>(p_.v[j]) - p_.v_leak[j], current};
      if constexpr (kParameters) parameters_.Begin(j, start);
      gradients.v[j] = v_[j];
      gradients.i[j] = i_[j];
      gradients.release[j] = static_cast<R>(TakeRelease(j, p_.time, current));
      gradients.time += TakePinned(j) - Model::TimeSensitivity(constants_[j], start,
                                                               {static_cast<double>(v_[j]),
                                                                static_cast<double>(i_[j])});
    }
    if constexpr (kParameters) parameters_.Write(constants_, gradients.params);
    for (std::int64_t k = 0; k < p_.queue.size; ++k) {
      gradients.input_time[k] = static_cast<R>(input_gradient_[k]);
    }
    for (std::int64_t k = 0; k < p_.n_past; ++k) {
      gradients.past_time[k] = static_cast<R>(past_gradient_[k]);
    }
  }

  const Network<R>& p_;
  const std::int64_t n_, n_lanes_;
  const bool uniform_;
  ArrivalsAhead<Model, R> ahead_;
  const ArrivalQueue<R, Direction::kBackward>& arrivals_;  // tells what sources are
  ParameterLanes<Model, R> parameters_;
  ConstantsTable<Model, R> constants_;
  R *v_, *i_, *rate_mem_, *rate_syn_, *last_release_;
  StepPropagators<Model, R> step_;
  std::int32_t *slot_, *clamp_slot_;
  bool* held_;  // refractory at this point of the sweep
  Peak* peaks_;
  Visit* visits_;
  Clamp* clamps_;
  Release* releases_;
  double *pinned_, *spike_gradient_, *input_gradient_, *past_gradient_;

  double pinned_to_start_ = 0;
  std::int64_t next_spike_ = 0;
  std::int64_t n_visits_ = 0;
  std::int64_t n_clamps_ = 0;
  std::int64_t n_releases_ = 0;
  std::int64_t n_peaks_ = 0;
  std::int64_t next_probe_ = 0;
  bool any_pinned_ = false;
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_NETWORK_ADJOINT_H_
