// EventProp: the reverse sweep of an acyclic layer over one example (theory: Wunderlich & Pehle
// 2021, in the form of total derivatives a = dL/d(v, i)).
//
// Between events the adjoint flows back with the transpose of the forward solution. What an event
// does to it is written once, in the functions below; the sweep reads times, order and currents
// from the forward record and never solves for a time again.
#ifndef JAXSNN_CORE_ADJOINT_H_
#define JAXSNN_CORE_ADJOINT_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "core/mul_add.h"
#include "core/problem.h"
#include "core/propagators.h"
#include "core/quiet_back.h"
#include "core/registers.h"
#include "core/spike_lanes.h"
#include "core/spike_log.h"
#include "core/types.h"
#include "core/view.h"

namespace jaxsnn::inline JAXSNN_ISA {

// The end of a refractory period: what the loss owes to its time. The adjoint voltage before it is
// 0.
template <class Model>
JAXSNN_HD double AdjointRelease(const typename Model::Constants& constants, double reset,
                                double current, double v_after) {
  return -Model::Rate(constants, {reset, current}).v * v_after;
}

// An arrival over a weight: what the loss owes to its time, per unit of weight.
template <class Model, class R, class Rate = R>
JAXSNN_HD JAXSNN_INLINE R AdjointArrival(const Rate& rate_mem, const Rate& rate_syn, const R& v,
                                         const R& i) {
  return MulAdd(rate_syn, i, -rate_mem * v);
}

// Whether a spike at `time` is one of a neuron that began the window above its threshold. A neuron
// that began it at the threshold, up to rounding, had come there by a crossing.
template <class R>
JAXSNN_HD bool BeganAbove(const Problem<R>& p, std::int64_t j, double time) {
  if (time != p.time) return false;
  const double scale =
      std::fabs(p.v_th[j]) + std::fabs(p.v_leak[j]) + std::fabs(static_cast<double>(p.i[j]));
  const double rounding = 64 * static_cast<double>(std::numeric_limits<R>::epsilon()) * scale;
  return static_cast<double>(p.v[j]) - p.v_th[j] > rounding;
}

// The loss gradients that enter a sweep, laid out as the forward results.
template <class R>
struct Cotangents {
  const R* spike_time;
  const R* v;
  const R* i;
  const R* release;
  double time;
};

// Where the gradients of one example go. `weights` is added to, all else is written.
template <class R>
struct Gradients {
  R* weights;
  R* v;
  R* i;
  R* release;
  R* input_time;  // null: not asked for
  double time;    // of this block of neurons
  double t_max;
};

// One example after the other, of the same sizes: the problem may become another one between runs.
template <class Model, class R>
class ReverseSweep {
  using Adjoint = typename Model::template Pair<double>;

 public:
  // For up to `n_block` neurons at a time.
  ReverseSweep(Arena& arena, const Problem<R>& problem, std::int64_t capacity, std::int64_t n_block)
      : p_(problem), capacity_(capacity), uniform_(problem.uniform_time_constants()) {
    constants_ = ConstantsTable<Model, R>::Take(arena, uniform_, problem.n_neurons);
    for (R** lane : {&v_, &i_, &rate_mem_, &rate_syn_}) *lane = arena.Take<R>(n_block);
    lanes_ = PropagatorLanes<R>::Take(arena, uniform_ ? problem.queue.size + 1 : 0);
    step_ = StepPropagators<Model, R>::Take(arena, uniform_, problem.n_neurons);
    slot_ = arena.Take<std::int32_t>(n_block);
    pending_release_ = arena.Take<R>(n_block);
    visits_ = arena.Take<Visit>(n_block);
    const std::int64_t stops = 2 * (capacity + n_block);
    for (double** lane : {&stop_.dt, &stop_.v_from_v, &stop_.v_from_i, &stop_.i_from_i}) {
      *lane = arena.Take<double>(stops);
    }
    spike_gradient_ = arena.Take<double>(capacity);
    release_head_ = arena.Take<std::int32_t>(problem.queue.size + 1);
    release_next_ = arena.Take<std::int32_t>(capacity + n_block);
    moments_ = arena.Take<Moment>(2 * capacity + n_block);
    lanes_of_spikes_ = SpikeLanes::Take(arena, n_block);
    met_ = arena.Take<std::int32_t>(n_block);
  }

  // Neurons [first, last).
  void Run(std::int64_t first, std::int64_t last, const SpikeLog<R>& log, const EndState<R>& end,
           Status status, const Cotangents<R>& ct, Gradients<R>& gradients) {
    first_ = first;
    n_ = last - first;
    constants_.Fill(p_);
    step_.Fill(p_.n_neurons, [this](std::int64_t j) { return constants_[j]; });
    Start(end, status, ct, gradients);
    LinkReleases(log, end);
    double high = static_cast<double>(*end.time);
    if (uniform_) {
      FillIntervals<Model, R>(lanes_, constants_[0], p_.queue, *end.head - p_.queue.head, p_.time,
                              high);
    }
    for (std::int64_t k = *end.head;; --k) {
      RetraceQuietArrivals(log, gradients, k, high);
      const bool first = k == p_.queue.head;
      const double low = first ? p_.time : p_.queue.TimeAt(k - 1);
      double pinned = 0;
      Retrace(log, k, low, high, pinned);
      high = low;
      if (first) {
        gradients.time += pinned;
        break;
      }
      Arrive(k - 1, pinned, gradients);
    }
    Finish(gradients);
  }

 private:
  // A neuron that spikes or is released inside the current interval leaves the common flow.
  struct Visit {
    std::int64_t neuron;  // within the block
    double time;
    Adjoint a;
  };

  // The solutions over the time from the stop of a neuron at a moment to its next one: that of
  // moment m has number m, those of the visits, back to the start of the interval, follow.
  struct Stops {
    double *dt, *v_from_v, *v_from_i, *i_from_i;

    typename Model::template Propagator<double> operator[](std::int64_t m) const {
      return {v_from_v[m], v_from_i[m], i_from_i[m]};
    }
  };

  // A spike, or the end of the refractory period behind it, in the order of the sweep.
  struct Moment {
    double time;
    std::int32_t source;  // a spike of the log, or Initial(j)
    std::int32_t visit;
    bool release;

    bool operator<(const Moment& other) const {
      if (time != other.time) return time > other.time;
      return source != other.source ? source > other.source : release > other.release;
    }
  };

  void Start(const EndState<R>& end, Status status, const Cotangents<R>& ct,
             Gradients<R>& gradients) {
    count_ = *end.count;
    end_head_ = *end.head;
    next_spike_ = count_ - 1;
    const double end_time = static_cast<double>(*end.time);
    // What the loss owes to the time at which the window ends, over all neurons of the example.
    double end_gradient = ct.time;
    const bool from_state = AnyNonZero(ct.v) || AnyNonZero(ct.i);
    for (std::int64_t j = 0; from_state && j < p_.n_neurons; ++j) {
      const bool clamped = static_cast<double>(end.release[j]) > end_time;
      const double v = static_cast<double>(end.v[j]) - p_.v_leak[j];
      end_gradient += Model::TimeSensitivity(
          constants_[j], {v, static_cast<double>(end.i[j])},
          {clamped ? 0.0 : static_cast<double>(ct.v[j]), static_cast<double>(ct.i[j])});
    }
    for (std::int64_t s = 0; s < count_; ++s) {
      spike_gradient_[s] = static_cast<double>(ct.spike_time[s]);
    }
    const bool at_spike = status == Status::kEventCapacity;
    if (at_spike) spike_gradient_[count_ - 1] += end_gradient;
    gradients.t_max = at_spike ? 0 : end_gradient;
    gradients.time = 0;
    pinned_to_start_ = 0;
    const R* JAXSNN_RESTRICT ct_v = ct.v + first_;
    const R* JAXSNN_RESTRICT ct_i = ct.i + first_;
    const R* JAXSNN_RESTRICT ct_release = ct.release + first_;
    const R* JAXSNN_RESTRICT end_release = end.release + first_;
    R* JAXSNN_RESTRICT v = v_;
    R* JAXSNN_RESTRICT i = i_;
    R* JAXSNN_RESTRICT pending = pending_release_;
    const R now = *end.time;
    for (std::int64_t b = 0; b < n_; ++b) {
      const R a_v = ct_v[b];  // read in any case, so that there is no branch
      v[b] = end_release[b] > now ? R(0) : a_v;
      i[b] = ct_i[b];
      pending[b] = ct_release[b];
    }
    std::fill(slot_, slot_ + n_, kNoIndex);
    std::fill(met_, met_ + n_, 0);
    alike_ = uniform_ && !p_.v_th.per_neuron && !p_.v_leak.per_neuron && !p_.v_reset.per_neuron;
    interval_ = 0;
    if (uniform_) {
      std::fill(rate_mem_, rate_mem_ + n_, static_cast<R>(constants_[0].rate_mem));
      std::fill(rate_syn_, rate_syn_ + n_, static_cast<R>(constants_[0].rate_syn));
      return;
    }
    for (std::int64_t b = 0; b < n_; ++b) {
      rate_mem_[b] = static_cast<R>(constants_[first_ + b].rate_mem);
      rate_syn_[b] = static_cast<R>(constants_[first_ + b].rate_syn);
    }
  }

  bool AnyNonZero(const R* data) const {
    Mask<R> any = 0;
    for (std::int64_t j = 0; j < p_.n_neurons; ++j) any |= static_cast<Mask<R>>(data[j] != R(0));
    return any != 0;
  }

  // Stands for the spike, before the window, that left neuron j refractory.
  static std::int32_t Initial(std::int64_t j) { return static_cast<std::int32_t>(-2 - j); }
  static bool IsInitial(std::int32_t source) { return source <= -2; }
  static std::int64_t Neuron(const SpikeLog<R>& log, std::int32_t source) {
    return IsInitial(source) ? -2 - source : log.index[source];
  }
  std::int64_t Link(std::int32_t source) const {
    return IsInitial(source) ? capacity_ + (-2 - source) - first_ : source;
  }

  bool Inside(std::int64_t j) const { return j >= first_ && j < first_ + n_; }

  double ReleaseTime(const SpikeLog<R>& log, std::int32_t source) const {
    if (IsInitial(source)) return static_cast<double>(p_.release[Neuron(log, source)]);
    return static_cast<double>(log.time[source]) + p_.t_ref[log.index[source]];
  }

  // Whether any neuron of the block may be refractory at any time.
  bool MayRefract() const {
    for (std::int64_t j = 0; j < p_.t_ref.size(p_.n_neurons); ++j) {
      if (p_.t_ref[j] > 0) return true;
    }
    const R* release = p_.release + first_;
    const R begin = static_cast<R>(p_.time);
    Mask<R> any = 0;
    for (std::int64_t b = 0; b < n_; ++b) any |= static_cast<Mask<R>>(release[b] > begin);
    return any != 0;
  }

  // Sorts the ends of refractory periods by the interval in which they lie: per interval a list.
  void LinkReleases(const SpikeLog<R>& log, const EndState<R>& end) {
    any_release_ = false;
    if (!MayRefract()) return;
    const double end_time = static_cast<double>(*end.time);
    std::fill(release_head_, release_head_ + p_.queue.size + 1, kNoIndex);
    const auto link = [&](std::int32_t source, std::int64_t from) {
      const double release = ReleaseTime(log, source);
      std::int64_t k = from;
      while (k < *end.head && p_.queue.TimeAt(k) < release) ++k;
      release_next_[Link(source)] = release_head_[k];
      release_head_[k] = source;
      any_release_ = true;
    };
    // Backwards, so that the first spike met of a neuron is its last: only that one can still be
    // refractory at the end.
    for (std::int64_t s = count_ - 1; s >= 0; --s) {
      const std::int64_t j = log.index[s];
      if (!Inside(j) || !(p_.t_ref[j] > 0)) continue;
      const std::int64_t b = j - first_;
      const bool clamped = slot_[b] == kNoIndex && static_cast<double>(end.release[j]) > end_time;
      slot_[b] = 0;
      if (!clamped) link(static_cast<std::int32_t>(s), log.position[s]);
    }
    for (std::int64_t b = 0; b < n_; ++b) {
      const double release = static_cast<double>(p_.release[first_ + b]);
      if (release > p_.time && release <= end_time) {
        link(Initial(first_ + b), p_.queue.head);
      }
      slot_[b] = kNoIndex;
    }
  }

  // Goes back over arrivals for as long as no neuron spikes or is released.
  void RetraceQuietArrivals(const SpikeLog<R>& log, Gradients<R>& gradients, std::int64_t& k,
                            double& high) {
    if (any_release_) return;
    // Spikes of other blocks do not matter here.
    while (next_spike_ >= 0 && !Inside(log.index[next_spike_])) --next_spike_;
    const std::int64_t spike = next_spike_ >= 0 ? log.position[next_spike_] : 0;
    const std::int64_t stop = std::max(spike, p_.queue.head);
    const std::int64_t from = k;
    if (uniform_) {
      if (k > stop && RetraceNarrow(gradients, k, stop)) {
        k = stop;
      } else {
        k = FlowBackOver(SharedSolutions<R>{lanes_}, gradients, k, stop);
      }
    } else if (k < end_head_) {  // the interval behind the last arrival ends elsewhere
      k = FlowBackOver(
          OwnSolutions<Model, R>{step_, p_.queue.time + p_.queue.head, p_.time, first_}, gradients,
          k, stop);
    }
    if (k < from) high = p_.queue.TimeAt(k);
  }

  // Arrivals k - 1 down to `stop`, or to an interval without a solution. Returns where it stops.
  template <class Solutions>
  std::int64_t FlowBackOver(const Solutions& solutions, Gradients<R>& gradients, std::int64_t k,
                            std::int64_t stop) {
    if (gradients.input_time != nullptr) return k;
    const std::int64_t head = p_.queue.head;
    std::int64_t last = k;
    while (last > stop && solutions.Has(last - head)) --last;
    if (last < k) {
      FlowBackOverArrivals(n_, solutions, k - head, last - head, p_.queue.index + head,
                           p_.n_neurons, gradients.weights + first_, v_, i_);
    }
    return last;
  }

  // The same for a narrow layer in registers; false where there are none for it.
  bool RetraceNarrow([[maybe_unused]] Gradients<R>& gradients, [[maybe_unused]] std::int64_t from,
                     [[maybe_unused]] std::int64_t stop) {
#if defined(JAXSNN_VECTORS)
    if (n_ == 0 || n_ > 16) return false;
    if (n_ <= 4) {
      RetraceInRegisters<4>(gradients, from, stop);
    } else if (n_ <= 8) {
      RetraceInRegisters<8>(gradients, from, stop);
    } else {
      RetraceInRegisters<16>(gradients, from, stop);
    }
    return true;
#else
    return false;
#endif
  }

#if defined(JAXSNN_VECTORS)
  // The adjoints of a narrow layer stay in registers from arrival to arrival. Lanes without a
  // neuron repeat the last one.
  template <int kWidth>
  void RetraceInRegisters(Gradients<R>& gradients, std::int64_t from, std::int64_t stop) {
    using Lanes = Registers<R, kWidth>;
    std::int64_t neuron[kWidth];
    for (int l = 0; l < kWidth; ++l) neuron[l] = std::min<std::int64_t>(l, n_ - 1);
    auto v = Lanes::Gather(v_, neuron), i = Lanes::Gather(i_, neuron);
    const PropagatorLanes<R> lanes = lanes_.At(-p_.queue.head);
    const R rate_mem = rate_mem_[0], rate_syn = rate_syn_[0];
    for (std::int64_t k = from; k > stop; --k) {
      i = MulAdd(lanes.i_from_i[k], i, lanes.v_from_i[k] * v);
      v = lanes.v_from_v[k] * v;
      const std::int64_t offset = p_.row(k - 1) - p_.weights + first_;
      R* const row_gradient = gradients.weights + offset;
      Lanes::StoreSome(Lanes::LoadSome(row_gradient, n_) + i, row_gradient, n_);
      if (gradients.input_time == nullptr) continue;
      const auto row = Lanes::LoadSome(p_.weights + offset, n_);
      const auto product = row * AdjointArrival<Model>(rate_mem, rate_syn, v, i);
      double terms[kWidth];
      for (int l = 0; l < kWidth; ++l) terms[l] = static_cast<double>(product[l]);
      gradients.input_time[k - 1] = static_cast<R>(SumLanes<double, kWidth>(terms));
    }
    for (int l = 0; l < kWidth; ++l) {
      v_[neuron[l]] = v[l];
      i_[neuron[l]] = i[l];
    }
  }
#endif

  // All spikes and releases of the interval in front of queue entry k, latest first, then the flow
  // back to its start.
  void Retrace(const SpikeLog<R>& log, std::int64_t k, double low, double high, double& pinned) {
    if (RetraceApart(log, k, low, high)) return;
    n_visits_ = 0;
    const std::int64_t n = ListMoments(log, k);
    if (n > 0) {
      PlanStops(log, n, low, high);
      for (std::int64_t m = 0; m < n; ++m) {
        Visit& visit = visits_[moments_[m].visit];
        visit.a = Model::AdjointFlow(stop_[m], visit.a);
        if (moments_[m].release) {
          VisitRelease(log, moments_[m], k, visit);
        } else {
          VisitSpike(log, moments_[m].source, visit, pinned);
        }
      }
    }
    if (high > low) FlowLanes(k, high - low);
    for (std::int64_t m = 0; m < n_visits_; ++m) {
      const Visit& visit = visits_[m];
      const Adjoint a = Model::AdjointFlow(stop_[n + m], visit.a);
      v_[visit.neuron] = static_cast<R>(a.v);
      i_[visit.neuron] = static_cast<R>(a.i);
      slot_[visit.neuron] = kNoIndex;
    }
  }

  // The same where all of them are spikes of different neurons, with parameters that these share,
  // and have crossed their thresholds; else false.
  bool RetraceApart(const SpikeLog<R>& log, std::int64_t k, double low, double high) {
    if (!alike_ || any_release_) return false;
    const SpikeLanes& lanes = lanes_of_spikes_;
    const double threshold = p_.threshold(0);
    ++interval_;
    std::int64_t n = 0, s = next_spike_;
    for (; s >= 0 && log.position[s] == k; --s) {
      const std::int64_t b = log.index[s] - first_;
      if (b < 0 || b >= n_) continue;
      const double time = static_cast<double>(log.time[s]);
      const double current = static_cast<double>(log.current[s]);
      if (met_[b] == interval_ || !(current > threshold) || time == p_.time) return false;
      met_[b] = interval_;
      lanes.neuron[n] = static_cast<std::int32_t>(b);
      lanes.v[n] = static_cast<double>(v_[b]);
      lanes.i[n] = static_cast<double>(i_[b]);
      lanes.time[n] = time;
      lanes.current[n] = current;
      lanes.gradient[n] = spike_gradient_[s] + static_cast<double>(pending_release_[b]);
      ++n;
    }
    if (n == 0) return false;
    next_spike_ = s;
    WithConstants<Model>(constants_[0], [&](const auto& constants) {
      RetraceSpikes<Model>(n, constants, threshold, p_.reset(0), low, high, lanes);
    });
    if (high > low) FlowLanes(k, high - low);
    for (std::int64_t m = 0; m < n; ++m) {
      const std::int32_t b = lanes.neuron[m];
      v_[b] = static_cast<R>(lanes.v[m]);
      i_[b] = static_cast<R>(lanes.i[m]);
      pending_release_[b] = 0;
    }
    return true;
  }

  std::int64_t ListMoments(const SpikeLog<R>& log, std::int64_t k) {
    std::int64_t n = 0;
    for (; next_spike_ >= 0 && log.position[next_spike_] == k; --next_spike_) {
      if (!Inside(log.index[next_spike_])) continue;
      moments_[n++] = {static_cast<double>(log.time[next_spike_]),
                       static_cast<std::int32_t>(next_spike_), kNoIndex, false};
    }
    if (!any_release_ || release_head_[k] == kNoIndex) return n;
    for (std::int32_t r = release_head_[k]; r != kNoIndex; r = release_next_[Link(r)]) {
      moments_[n++] = {ReleaseTime(log, r), r, kNoIndex, true};
    }
    std::sort(moments_, moments_ + n);
    return n;
  }

  // When each neuron stops, and all solutions between the stops, in a loop that vectorises.
  void PlanStops(const SpikeLog<R>& log, std::int64_t n, double low, double high) {
    for (std::int64_t m = 0; m < n; ++m) {
      const std::int64_t b = Neuron(log, moments_[m].source) - first_;
      if (slot_[b] == kNoIndex) {
        slot_[b] = static_cast<std::int32_t>(n_visits_);
        visits_[n_visits_++] = {b, high, {static_cast<double>(v_[b]), static_cast<double>(i_[b])}};
      }
      moments_[m].visit = slot_[b];
      Visit& visit = visits_[slot_[b]];
      stop_.dt[m] = visit.time - moments_[m].time;
      visit.time = moments_[m].time;
    }
    for (std::int64_t m = 0; m < n_visits_; ++m) stop_.dt[n + m] = visits_[m].time - low;
    if (uniform_) {
      WithConstants<Model>(constants_[0], [&](const auto& shared) {
        FillStops(n + n_visits_, SharedConstants<std::remove_cvref_t<decltype(shared)>>{shared},
                  [](std::int64_t) { return 0; });
      });
    } else {
      FillStops(
          n + n_visits_, OwnConstants<Model, R>{constants_, first_},
          [this, n](std::int64_t m) { return visits_[m < n ? moments_[m].visit : m - n].neuron; });
    }
  }

  template <class ConstantsOf, class NeuronOf>
  void FillStops(std::int64_t n, const ConstantsOf& constants, const NeuronOf& neuron) {
    const double* JAXSNN_RESTRICT dt = stop_.dt;
    double* JAXSNN_RESTRICT v_from_v = stop_.v_from_v;
    double* JAXSNN_RESTRICT v_from_i = stop_.v_from_i;
    double* JAXSNN_RESTRICT i_from_i = stop_.i_from_i;
    constexpr int kSize = 8;
    for (std::int64_t begin = 0; begin < n; begin += kSize) {
      const std::int64_t size = std::min<std::int64_t>(n - begin, kSize);
      const auto constants_of = constants.template Lanes<kSize>(
          size, [&neuron, begin](std::int64_t l) { return neuron(begin + l); });
      for (std::int64_t l = 0; l < size; ++l) {
        const std::int64_t m = begin + l;
        const auto p = Model::Propagate(constants_of(l), dt[m]);
        v_from_v[m] = p.v_from_v;
        v_from_i[m] = p.v_from_i;
        i_from_i[m] = p.i_from_i;
      }
    }
  }

  void VisitSpike(const SpikeLog<R>& log, std::int64_t s, Visit& visit, double& pinned) {
    const std::int64_t j = log.index[s];
    double gradient = spike_gradient_[s] + static_cast<double>(pending_release_[visit.neuron]);
    pending_release_[visit.neuron] = 0;
    const double threshold = p_.threshold(j), reset = p_.reset(j);
    const double current = static_cast<double>(log.current[s]);
    const bool began_above = BeganAbove(p_, j, static_cast<double>(log.time[s]));
    if (began_above || !(current > threshold)) {
      // No crossing: the neuron stood at the threshold when the window began, or when something
      // arrived, whose time it shares. Its voltage had no say in that.
      (began_above ? pinned_to_start_ : pinned) +=
          gradient - Model::Rate(constants_[j], {reset, current}).v * visit.a.v;
      visit.a.v = 0;
      return;
    }
    visit.a.v = AdjointSpike<Model>(constants_[j], threshold, reset, current, gradient, visit.a.v);
  }

  void VisitRelease(const SpikeLog<R>& log, const Moment& moment, std::int64_t k, Visit& visit) {
    const bool initial = IsInitial(moment.source);
    const std::int64_t s = moment.source;
    const std::int64_t j = Neuron(log, moment.source);
    const double from = initial ? p_.time : static_cast<double>(log.time[s]);
    double current = static_cast<double>(initial ? p_.i[j] : log.current[s]);
    current = Model::DecayCurrent(constants_[j], current, moment.time - from);
    for (std::int64_t e = initial ? p_.queue.head : log.position[s]; e < k; ++e) {
      current += Model::DecayCurrent(constants_[j], static_cast<double>(p_.row(e)[j]),
                                     moment.time - p_.queue.TimeAt(e));
    }
    const double gradient = AdjointRelease<Model>(constants_[j], p_.reset(j), current, visit.a.v);
    if (initial) {
      pending_release_[visit.neuron] += static_cast<R>(gradient);
    } else {
      spike_gradient_[s] += gradient;
    }
    visit.a.v = 0;
  }

  void FlowLanes(std::int64_t k, double dt) {
    R* JAXSNN_RESTRICT v = v_;
    R* JAXSNN_RESTRICT i = i_;
    if (uniform_) {
      const auto lanes = lanes_.At(k - p_.queue.head);
      const R vv = *lanes.v_from_v, vi = *lanes.v_from_i, ii = *lanes.i_from_i;
      for (std::int64_t b = 0; b < n_; ++b) {
        i[b] = MulAdd(ii, i[b], vi * v[b]);
        v[b] = vv * v[b];
      }
      return;
    }
    const PropagatorLanes<R> lanes = step_.Over(dt, first_, n_);
    const R* JAXSNN_RESTRICT vv = lanes.v_from_v;
    const R* JAXSNN_RESTRICT vi = lanes.v_from_i;
    const R* JAXSNN_RESTRICT ii = lanes.i_from_i;
    for (std::int64_t b = 0; b < n_; ++b) {
      i[b] = MulAdd(ii[b], i[b], vi[b] * v[b]);
      v[b] = vv[b] * v[b];
    }
  }

  void Arrive(std::int64_t entry, double pinned, Gradients<R>& gradients) {
    const std::int64_t offset = p_.row(entry) - p_.weights + first_;
    R* JAXSNN_RESTRICT row_gradient = gradients.weights + offset;
    const R* JAXSNN_RESTRICT v = v_;
    const R* JAXSNN_RESTRICT i = i_;
    for (std::int64_t b = 0; b < n_; ++b) row_gradient[b] += i[b];
    if (gradients.input_time == nullptr) return;
    const R* JAXSNN_RESTRICT row = p_.weights + offset;
    const R* JAXSNN_RESTRICT rate_mem = rate_mem_;
    const R* JAXSNN_RESTRICT rate_syn = rate_syn_;
    const double sum = SumOf(n_, [&](std::int64_t b) {
      return static_cast<double>(row[b] *
                                 AdjointArrival<Model, R>(rate_mem[b], rate_syn[b], v[b], i[b]));
    });
    gradients.input_time[entry] = static_cast<R>(pinned + sum);
  }

  void Finish(Gradients<R>& gradients) {
    gradients.time += pinned_to_start_;
    std::copy(v_, v_ + n_, gradients.v + first_);
    std::copy(i_, i_ + n_, gradients.i + first_);
    std::copy(pending_release_, pending_release_ + n_, gradients.release + first_);
    if (uniform_ && !p_.v_leak.per_neuron) {
      const auto constants = constants_[0];
      const double leak = p_.v_leak[0];
      gradients.time -=
          TimeGradient([&constants](std::int64_t) -> const auto& { return constants; },
                       [leak](std::int64_t) { return leak; });
    } else {
      gradients.time -=
          TimeGradient([this](std::int64_t j) -> const auto& { return constants_[j]; },
                       [this](std::int64_t j) { return p_.v_leak[j]; });
    }
  }

  // What the loss gains if the initial state is held a little longer.
  template <class ConstantsOf, class LeakOf>
  double TimeGradient(const ConstantsOf& constants, const LeakOf& leak) const {
    const R* JAXSNN_RESTRICT v = p_.v + first_;
    const R* JAXSNN_RESTRICT i = p_.i + first_;
    const R* JAXSNN_RESTRICT a_v = v_;
    const R* JAXSNN_RESTRICT a_i = i_;
    return SumOf(n_, [&](std::int64_t b) {
      return Model::TimeSensitivity(
          constants(first_ + b),
          {static_cast<double>(v[b]) - leak(first_ + b), static_cast<double>(i[b])},
          {static_cast<double>(a_v[b]), static_cast<double>(a_i[b])});
    });
  }

  const Problem<R>& p_;
  const std::int64_t capacity_;
  const bool uniform_;
  std::int64_t first_ = 0, n_ = 0;
  ConstantsTable<Model, R> constants_;
  R *v_, *i_, *rate_mem_, *rate_syn_, *pending_release_;
  PropagatorLanes<R> lanes_;  // per interval, if shared by the neurons
  StepPropagators<Model, R> step_;
  std::int32_t *slot_, *release_head_, *release_next_;
  Visit* visits_;
  Stops stop_;
  double* spike_gradient_;
  Moment* moments_;
  SpikeLanes lanes_of_spikes_;
  std::int32_t* met_;  // the last interval, counted from 1 on, in which each neuron spiked

  double pinned_to_start_ = 0;
  std::int64_t count_ = 0;
  std::int64_t end_head_ = 0;
  std::int64_t next_spike_ = 0;
  std::int64_t n_visits_ = 0;
  bool any_release_ = false;
  bool alike_ = false;  // all neurons, in their parameters
  std::int32_t interval_ = 0;
};

}  // namespace jaxsnn::inline JAXSNN_ISA

#endif  // JAXSNN_CORE_ADJOINT_H_
