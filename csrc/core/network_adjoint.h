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
#include "core/forward.h"
#include "core/projection.h"
#include "core/propagators.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn {

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
  double time;
  double t_max;
};

template <class Model, class R>
class NetworkReverse {
  using Adjoint = typename Model::template Pair<double>;

 public:
  NetworkReverse(Arena& arena, const Network<R>& network, std::int64_t capacity)
      : p_(network),
        n_(network.n_neurons),
        uniform_(network.uniform_time_constants()),
        arrivals_(arena, network, capacity) {
    constants_ = ConstantsTable<Model, R>::Take(arena, uniform_, n_);
    for (R** lane : {&v_, &i_, &rate_mem_, &rate_syn_, &last_release_}) *lane = arena.Take<R>(n_);
    lanes_ = PropagatorLanes<R>::Take(arena, uniform_ ? 1 : n_);
    for (std::int32_t** list : {&slot_, &clamp_slot_}) *list = arena.Take<std::int32_t>(n_);
    visits_ = arena.Take<Visit>(n_);
    clamps_ = arena.Take<Clamp>(n_);
    releases_ = arena.Take<Release>(capacity + n_);
    pinned_ = arena.Take<double>(n_);
    spike_gradient_ = arena.Take<double>(capacity);
    input_gradient_ = arena.Take<double>(network.queue.size);
    past_gradient_ = arena.Take<double>(network.n_past);
  }

  void Run(const SpikeLog<R>& log, const EndState<R>& end, Status status, const Cotangents<R>& ct,
           NetworkGradients<R>& gradients) {
    constants_.Fill(p_);
    Start(log, end, status, ct, gradients);
    double high = static_cast<double>(*end.time);
    for (;;) {
      const bool first = arrivals_.empty();
      const double low = first ? p_.time : arrivals_.time();
      Visits(log, high);
      FlowBack(low, high);
      high = low;
      if (first) break;
      Arrive(arrivals_.Pop(), gradients);
    }
    Finish(gradients);
  }

 private:
  // A neuron that spikes or is released leaves the common flow up to the previous arrival.
  struct Visit {
    std::int64_t neuron;
    double time;
    Adjoint a;
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

  void Start(const SpikeLog<R>& log, const EndState<R>& end, Status status, const Cotangents<R>& ct,
             NetworkGradients<R>& gradients) {
    const std::int64_t count = *end.count;
    next_spike_ = count - 1;
    const double end_time = static_cast<double>(*end.time);
    arrivals_.Start(log.time, log.index, count, end_time);
    for (std::int64_t s = 0; s < count; ++s) {
      spike_gradient_[s] = static_cast<double>(ct.spike_time[s]);
    }
    std::fill(input_gradient_, input_gradient_ + p_.queue.size, 0.0);
    std::fill(past_gradient_, past_gradient_ + p_.n_past, 0.0);
    // What the loss owes to the time at which the window ends.
    double end_gradient = ct.time;
    for (std::int64_t j = 0; j < n_; ++j) {
      const bool clamped = static_cast<double>(end.release[j]) > end_time;
      v_[j] = clamped ? R(0) : ct.v[j];
      i_[j] = ct.i[j];
      last_release_[j] = ct.release[j];
      rate_mem_[j] = static_cast<R>(constants_[j].rate_mem);
      rate_syn_[j] = static_cast<R>(constants_[j].rate_syn);
      slot_[j] = clamp_slot_[j] = kNoIndex;
      pinned_[j] = 0;
      gradients.release[j] = 0;
      end_gradient += Model::TimeSensitivity(
          constants_[j],
          {static_cast<double>(end.v[j]) - p_.v_leak[j], static_cast<double>(end.i[j])},
          {static_cast<double>(v_[j]), static_cast<double>(i_[j])});
    }
    const bool at_spike = status == Status::kEventCapacity;
    if (at_spike) spike_gradient_[count - 1] += end_gradient;
    gradients.t_max = at_spike ? 0 : end_gradient;
    gradients.time = 0;
    pinned_to_start_ = 0;
    ListReleases(log, count, end_time);
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

  // All spikes and releases behind the next arrival, latest first. A release comes before the
  // arrivals of the same time. A spike comes behind them, except for those that it has caused.
  void Visits(const SpikeLog<R>& log, double high) {
    n_visits_ = 0;
    const double arrival = arrivals_.empty() ? -kNever : arrivals_.time();
    for (;;) {
      const double spike = next_spike_ >= 0 ? static_cast<double>(log.time[next_spike_]) : -kNever;
      const double release = n_releases_ > 0 ? releases_[n_releases_ - 1].time : -kNever;
      if (spike >= release) {
        const bool caused = spike == arrival && arrivals_.IsOwn(arrivals_.source()) &&
                            arrivals_.OwnOf(arrivals_.source()) >= next_spike_;
        if (next_spike_ < 0 || spike < arrival || caused) return;
        VisitSpike(log, next_spike_--, high);
      } else {
        if (release <= arrival) return;
        VisitRelease(releases_[--n_releases_], high);
      }
    }
  }

  // Takes a neuron out of the common flow, at `time`.
  Visit& Stop(std::int64_t j, double time, double high) {
    if (slot_[j] == kNoIndex) {
      slot_[j] = static_cast<std::int32_t>(n_visits_++);
      visits_[slot_[j]] = {j, high, {static_cast<double>(v_[j]), static_cast<double>(i_[j])}};
    }
    Visit& visit = visits_[slot_[j]];
    visit.a = Model::AdjointFlow(Model::Propagate(constants_[j], visit.time - time), visit.a);
    visit.time = time;
    return visit;
  }

  void VisitSpike(const SpikeLog<R>& log, std::int64_t s, double high) {
    const std::int64_t j = log.index[s];
    const double time = static_cast<double>(log.time[s]);
    const double current = static_cast<double>(log.current[s]);
    Visit& visit = Stop(j, time, high);
    const double gradient = spike_gradient_[s] + TakeRelease(j, time, current);
    const double threshold = p_.threshold(j), reset = p_.reset(j);
    const bool began_above = BeganAbove(p_, j, time);
    if (began_above || !(current > threshold)) {
      // No crossing: the neuron stood at the threshold when the window began, or when something
      // arrived, whose time it shares. Its voltage had no say in that.
      double& pinned = began_above ? pinned_to_start_ : pinned_[j];
      pinned += gradient - Model::Rate(constants_[j], {reset, current}).v * visit.a.v;
      any_pinned_ |= !began_above;
      visit.a.v = 0;
      return;
    }
    visit.a.v = AdjointSpike<Model>(constants_[j], threshold, reset, current, gradient, visit.a.v);
  }

  void VisitRelease(const Release& release, double high) {
    const std::int64_t j = release.neuron;
    Visit& visit = Stop(j, release.time, high);
    // The gradient is linear in the state at the release, of which the current is not known yet.
    const double rest = AdjointRelease<Model>(constants_[j], p_.reset(j), 0, visit.a.v);
    const double per_current = AdjointRelease<Model>(constants_[j], 0, 1, visit.a.v);
    clamp_slot_[j] = static_cast<std::int32_t>(n_clamps_);
    clamps_[n_clamps_++] = {release.neuron, release.time, per_current, rest};
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
      Visit& visit = visits_[m];
      visit.a =
          Model::AdjointFlow(Model::Propagate(constants_[visit.neuron], visit.time - low), visit.a);
    }
    if (high > low) FlowLanes(high - low);
    for (std::int64_t m = 0; m < n_visits_; ++m) {
      const Visit& visit = visits_[m];
      v_[visit.neuron] = static_cast<R>(visit.a.v);
      i_[visit.neuron] = static_cast<R>(visit.a.i);
      slot_[visit.neuron] = kNoIndex;
    }
  }

  void FlowLanes(double dt) {
    R* JAXSNN_RESTRICT v = v_;
    R* JAXSNN_RESTRICT i = i_;
    const R* JAXSNN_RESTRICT vv = lanes_.v_from_v;
    const R* JAXSNN_RESTRICT vi = lanes_.v_from_i;
    const R* JAXSNN_RESTRICT ii = lanes_.i_from_i;
    if (uniform_) {
      lanes_.template Set<Model>(0, constants_[0], dt);
      const R vv0 = vv[0], vi0 = vi[0], ii0 = ii[0];
      for (std::int64_t j = 0; j < n_; ++j) {
        i[j] = vi0 * v[j] + ii0 * i[j];
        v[j] = vv0 * v[j];
      }
      return;
    }
    for (std::int64_t j = 0; j < n_; ++j) lanes_.template Set<Model>(j, constants_[j], dt);
    for (std::int64_t j = 0; j < n_; ++j) {
      i[j] = vi[j] * v[j] + ii[j] * i[j];
      v[j] = vv[j] * v[j];
    }
  }

  void Arrive(const Arrival<R>& arrival, NetworkGradients<R>& gradients) {
    const Projection<R>& projection = arrivals_.ProjectionOf(arrival.source);
    const ProjectionGradients<R>& own =
        arrivals_.IsInput(arrival.source) ? gradients.input : gradients.recurrent;
    const std::int64_t source = arrivals_.RowOf(arrival.source);
    const double time = static_cast<double>(arrival.time);
    const double gradient = projection.per_target()
                                ? ArriveAtSome(projection, arrival, source, time, own)
                                : ArriveAtAll(projection, source, time, own);
    (arrivals_.IsOwn(arrival.source)     ? spike_gradient_[arrivals_.OwnOf(arrival.source)]
     : arrivals_.IsInput(arrival.source) ? input_gradient_[arrivals_.InputOf(arrival.source)]
                                         : past_gradient_[arrival.source]) += gradient;
  }

  double ArriveAtAll(const Projection<R>& projection, std::int64_t source, double time,
                     const ProjectionGradients<R>& own) {
    const R* JAXSNN_RESTRICT row = projection.row(source);
    R* JAXSNN_RESTRICT row_gradient = own.weights + source * n_;
    const R* JAXSNN_RESTRICT v = v_;
    const R* JAXSNN_RESTRICT i = i_;
    const R* JAXSNN_RESTRICT rate_mem = rate_mem_;
    const R* JAXSNN_RESTRICT rate_syn = rate_syn_;
    double sum = 0;
    for (std::int64_t j = 0; j < n_; ++j) {
      row_gradient[j] += i[j];
      sum += static_cast<double>(row[j] *
                                 AdjointArrival<Model, R>(rate_mem[j], rate_syn[j], v[j], i[j]));
    }
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
      gradients.v[j] = v_[j];
      gradients.i[j] = i_[j];
      gradients.release[j] = static_cast<R>(TakeRelease(j, p_.time, current));
      gradients.time +=
          TakePinned(j) - Model::TimeSensitivity(
                              constants_[j], {static_cast<double>(p_.v[j]) - p_.v_leak[j], current},
                              {static_cast<double>(v_[j]), static_cast<double>(i_[j])});
    }
    for (std::int64_t k = 0; k < p_.queue.size; ++k) {
      gradients.input_time[k] = static_cast<R>(input_gradient_[k]);
    }
    for (std::int64_t k = 0; k < p_.n_past; ++k) {
      gradients.past_time[k] = static_cast<R>(past_gradient_[k]);
    }
  }

  const Network<R>& p_;
  const std::int64_t n_;
  const bool uniform_;
  ArrivalQueue<R, Direction::kBackward> arrivals_;
  ConstantsTable<Model, R> constants_;
  R *v_, *i_, *rate_mem_, *rate_syn_, *last_release_;
  PropagatorLanes<R> lanes_;
  std::int32_t *slot_, *clamp_slot_;
  Visit* visits_;
  Clamp* clamps_;
  Release* releases_;
  double *pinned_, *spike_gradient_, *input_gradient_, *past_gradient_;

  double pinned_to_start_ = 0;
  std::int64_t next_spike_ = 0;
  std::int64_t n_visits_ = 0;
  std::int64_t n_clamps_ = 0;
  std::int64_t n_releases_ = 0;
  bool any_pinned_ = false;
};

}  // namespace jaxsnn

#endif  // JAXSNN_CORE_NETWORK_ADJOINT_H_
