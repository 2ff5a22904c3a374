// Batch drivers of the sweeps over networks with delays and recurrent connections.

// Loops over a few hundred neurons between one scalar solution and the next: vectors of half the
// size start and end faster.
#define JAXSNN_HALF_VECTORS
#include "cpu/isa_begin.h"

#include "core/models/cuba_lif.h"
#include "core/network_adjoint.h"
#include "core/network_forward.h"
#include "core/projection.h"
#include "cpu/assemble.h"
#include "cpu/reduction.h"

namespace jaxsnn::inline JAXSNN_ISA {
namespace {

// A projection of a batch, with the order of its delays where every example has the same ones.
template <class R>
class BatchProjection {
 public:
  BatchProjection(const Batched<const R>& weights, std::int64_t n_sources, std::int64_t n_neurons,
                  const Batched<const R>& delays, std::int64_t delay_rows, std::int64_t delay_cols,
                  Argument weights_argument, Argument delays_argument)
      : weights_(weights),
        delays_(delays),
        weights_argument_(weights_argument),
        delays_argument_(delays_argument) {
    shape_.n_sources = n_sources;
    shape_.n_neurons = n_neurons;
    shape_.delay_rows = delay_rows;
    shape_.delay_cols = delay_cols;
  }

  // Does once what all examples share.
  void Prepare(ThreadPool& pool) {
    if (shared(weights_)) weights_outcome_ = CheckWeights(0);
    if (!shared(delays_)) return;
    shape_.delays = delays_.data();
    delays_outcome_ = CheckDelays(shape_, delays_argument_);
    if (!sorted_once() || !delays_outcome_.ok()) return;
    order_.resize(static_cast<std::size_t>(shape_.n_delays()));
    sorted_.resize(order_.size());
    const double cost = 40.0 * static_cast<double>(shape_.n_delays());
    const std::int64_t workers = NumWorkers(pool, shape_.delay_rows, cost);
    ParallelFor(pool, shape_.delay_rows, workers, [this](std::int64_t row, std::int64_t) {
      const std::int64_t at = row * shape_.delay_cols;
      SortDelays(shape_, row, order_.data() + at, sorted_.data() + at);
    });
    shape_.order = order_.data();
    shape_.sorted = sorted_.data();
  }

  // The projection of one example, checked. Takes memory for an order of its own delays.
  Projection<R> Make(Arena& arena, std::int64_t example, Outcome& outcome) const {
    Projection<R> p = shape_;
    p.weights = weights_[example];
    p.delays = delays_[example];
    if (outcome.ok()) outcome = shared(weights_) ? weights_outcome_ : CheckWeights(example);
    if (outcome.ok()) {
      outcome = shared(delays_) ? delays_outcome_ : CheckDelays(p, delays_argument_);
    }
    if (!p.per_target() || sorted_once()) return p;
    auto* const order = arena.Take<std::int32_t>(p.n_delays());
    auto* const sorted = arena.Take<R>(p.n_delays());
    p.order = order;
    p.sorted = sorted;
    for (std::int64_t row = 0; order != nullptr && outcome.ok() && row < p.delay_rows; ++row) {
      SortDelays(p, row, order + row * p.delay_cols, sorted + row * p.delay_cols);
    }
    return p;
  }

 private:
  static bool shared(const Batched<const R>& operand) { return operand.layout().n_slots() == 1; }
  bool sorted_once() const { return shared(delays_) && shape_.per_target(); }
  Outcome CheckWeights(std::int64_t example) const {
    return CheckFinite(weights_[example], weights_.core_size(), weights_argument_);
  }

  const Batched<const R>& weights_;
  const Batched<const R>& delays_;
  const Argument weights_argument_;
  const Argument delays_argument_;
  Projection<R> shape_;
  Outcome weights_outcome_, delays_outcome_;
  std::vector<std::int32_t> order_;
  std::vector<R> sorted_;
};

template <class R>
class BatchProjections {
 public:
  explicit BatchProjections(const BatchNetwork<R>& batch)
      : batch_(batch),
        input_(batch.weights, batch.n_inputs, batch.n_neurons, batch.delays, batch.delay_rows,
               batch.delay_cols, Argument::kWeights, Argument::kDelays),
        recurrent_(batch.recurrent, batch.n_sources, batch.n_neurons, batch.recurrent_delays,
                   batch.recurrent_delay_rows, batch.recurrent_delay_cols, Argument::kRecurrent,
                   Argument::kRecurrentDelays) {}

  void Prepare(ThreadPool& pool) {
    input_.Prepare(pool);
    recurrent_.Prepare(pool);
  }

  // One example, with the first thing that is wrong about it, if any.
  Network<R> Make(Arena& arena, std::int64_t example, Outcome& outcome) const {
    Network<R> network;
    static_cast<Problem<R>&>(network) = internal::MakeProblem(batch_, example);
    network.past_time = batch_.past_time[example];
    network.past_index = batch_.past_index[example];
    network.n_past = batch_.past_time.core_size();
    network.probe_time = batch_.probe_time[example];
    network.n_probes = batch_.probe_time.core_size();
    network.input = input_.Make(arena, example, outcome);
    network.recurrent = recurrent_.Make(arena, example, outcome);
    if (outcome.ok()) outcome = CheckNetwork(network);
    return network;
  }

 private:
  const BatchNetwork<R>& batch_;
  BatchProjection<R> input_, recurrent_;
};

template <class R>
Populations MakePopulations(const BatchNetwork<R>& batch) {
  return {batch.population_sizes.data(), batch.population_capacities.data(),
          static_cast<std::int64_t>(batch.population_sizes.size())};
}

template <class R>
Views<R> MakeViews(const LoopResults<R>& results, std::int64_t example) {
  Views<R> views{results.probe_v[example], results.probe_i[example], {}};
  if (results.max_v.core_size() > 0) {
    views.maximum = {results.max_v[example], results.max_time[example],
                     results.max_current[example]};
  }
  return views;
}

template <class R>
ViewCotangents<R> MakeViewCotangents(const LoopResults<R>& results, const BatchCotangents<R>& ct,
                                     std::int64_t example) {
  return {MakeViews(results, example), ct.probe_v[example], ct.probe_i[example],
          results.max_v.core_size() > 0 ? ct.max_v[example] : nullptr};
}

// body(arena, network, outcome) for one example, on scratch memory.
template <class R, class Body>
void WithNetwork(const BatchProjections<R>& projections, std::byte* scratch, std::int64_t example,
                 const Body& body) {
  Arena arena(scratch);
  Outcome outcome;
  const Network<R> network = projections.Make(arena, example, outcome);
  body(arena, network, outcome);
}

// How much of it body(arena, network) takes.
template <class R, class Body>
std::size_t Bytes(const BatchProjections<R>& projections, const Body& body) {
  std::size_t bytes = 0;
  WithNetwork(projections, nullptr, 0, [&](Arena& measure, const Network<R>& network, Outcome) {
    body(measure, network);
    bytes = measure.used();
  });
  return bytes;
}

// A rough price of one example, in nanoseconds.
template <class R>
double NetworkCost(const BatchNetwork<R>& batch, std::int64_t capacity) {
  const auto neurons = static_cast<double>(batch.n_neurons);
  const auto spikes = static_cast<double>(batch.input_time.core_size()) +
                      std::min(static_cast<double>(capacity), 4 * neurons);
  return spikes * (100 + neurons);
}

// The batch is cut in a way that follows from the shapes alone, so that sums come out the same for
// any number of threads.
template <class R>
std::int64_t CountChunks(std::int64_t n_batch, const std::array<const Batched<R>*, 4>& reduced) {
  constexpr std::int64_t kMost = 16;
  constexpr std::int64_t kFew = 4;
  constexpr std::int64_t kPartialBytes = 1 << 22;
  std::int64_t bytes = 1;
  for (const Batched<R>* total : reduced) {
    const bool shared = total->layout().n_slots() == 1;
    if (!shared && !total->layout().full()) return 1;  // neither all nor none: one after the other
    if (shared) bytes += total->core_size() * static_cast<std::int64_t>(sizeof(R));
  }
  return std::min(n_batch, std::clamp(kPartialBytes / bytes, kFew, kMost));
}

template <class R, bool kParameters>
void Backward(const BatchNetwork<R>& batch, const LoopResults<R>& results,
              const BatchCotangents<R>& cotangents, const BatchNetworkGradients<R>& gradients,
              ThreadPool& pool) {
  using Sweep = NetworkReverse<CubaLif, R, kParameters>;
  const std::array<const Batched<R>*, 4> reduced{&gradients.weights, &gradients.recurrent,
                                                 &gradients.delays, &gradients.recurrent_delays};
  const std::int64_t n_chunks = CountChunks(batch.n_batch, reduced);
  std::vector<internal::Reduction<R>> sums;
  for (const Batched<R>* total : reduced) sums.emplace_back(*total, n_chunks);
  if (batch.n_batch == 0) return;

  BatchProjections<R> projections(batch);
  projections.Prepare(pool);
  const auto bytes = Bytes(projections, [&](Arena& measure, const Network<R>& network) {
    Sweep(measure, network, results.max_events);
  });
  const double cost = NetworkCost(batch, results.max_events) * static_cast<double>(batch.n_batch);
  const std::int64_t workers = NumWorkers(pool, n_chunks, cost);
  const internal::Scratch scratch(workers, bytes);
  ParallelFor(pool, n_chunks, workers, [&](std::int64_t chunk, std::int64_t worker) {
    for (internal::Reduction<R>& sum : sums) sum.Begin(chunk);
    const std::int64_t end = batch.n_batch * (chunk + 1) / n_chunks;
    for (std::int64_t b = batch.n_batch * chunk / n_chunks; b < end; ++b) {
      std::array<R*, 4> own;
      for (std::size_t k = 0; k < own.size(); ++k) own[k] = sums[k].Of(chunk, b);
      NetworkGradients<R> g{{own[0], own[2]},
                            {own[1], own[3]},
                            gradients.v[b],
                            gradients.i[b],
                            gradients.release[b],
                            gradients.input_time[b],
                            gradients.past_time[b],
                            gradients.probe_time[b],
                            0,
                            0,
                            {},
                            gradients.want_arrivals};
      if (kParameters) {
        g.params = internal::MakeParamGradients(gradients.params, b, batch.n_neurons);
      }
      const Outcome outcome{static_cast<Status>(*results.outcome.status[b])};
      if (outcome.failed()) {
        for (std::size_t k = 0; k < own.size(); ++k) {
          internal::FillNaN(own[k], reduced[k]->core_size());
        }
        for (R* lane : {g.v, g.i, g.release}) internal::FillNaN(lane, batch.n_neurons);
        internal::FillNaN(g.input_time, gradients.input_time.core_size());
        internal::FillNaN(g.past_time, gradients.past_time.core_size());
        internal::FillNaN(g.probe_time, gradients.probe_time.core_size());
        g.time = g.t_max = std::numeric_limits<double>::quiet_NaN();
        if (kParameters) internal::Poison(gradients.params, b);
      } else {
        WithNetwork(projections, scratch.of(worker), b,
                    [&](Arena& arena, const Network<R>& network, Outcome) {
                      Sweep sweep(arena, network, results.max_events);
                      sweep.Run(internal::MakeLog(results, b), internal::MakeEnd(results, b),
                                outcome.status, internal::MakeCotangents(cotangents, b),
                                MakeViewCotangents(results, cotangents, b), g);
                    });
      }
      *gradients.time[b] = static_cast<R>(g.time);
      *gradients.t_max[b] = static_cast<R>(g.t_max);
    }
  });
  for (internal::Reduction<R>& sum : sums) sum.Finish(pool);
}

}  // namespace

}  // namespace jaxsnn::inline JAXSNN_ISA

namespace jaxsnn {

template <Isa isa, class R>
void NetworkLoopForward(const BatchNetwork<R>& batch, const LoopResults<R>& results,
                        ThreadPool& pool) {
  if (batch.n_batch == 0) return;
  using Sweep = NetworkForward<CubaLif, R>;
  const Populations populations = MakePopulations(batch);
  BatchProjections<R> projections(batch);
  projections.Prepare(pool);
  const auto bytes = Bytes(projections, [&](Arena& measure, const Network<R>& network) {
    Sweep(measure, network, populations);
  });
  const double cost = NetworkCost(batch, results.max_events) * static_cast<double>(batch.n_batch);
  // Two examples in turns, where there is work for every thread.
  constexpr std::int64_t kTogether = 2;
  const std::int64_t together = batch.n_batch < kTogether * pool.num_threads() ? 1 : kTogether;
  const std::int64_t n_tasks = (batch.n_batch + together - 1) / together;
  const std::int64_t workers = NumWorkers(pool, n_tasks, cost);
  const internal::Scratch scratch(kTogether * workers, bytes);
  ParallelFor(pool, n_tasks, workers, [&](std::int64_t task, std::int64_t worker) {
    const std::int64_t first = task * together;
    const std::int64_t n = std::min(together, batch.n_batch - first);
    std::array<Network<R>, kTogether> networks;
    std::array<Outcome, kTogether> outcomes;
    std::array<std::optional<Sweep>, kTogether> sweeps;
    for (std::int64_t k = 0; k < n; ++k) {
      Arena arena(scratch.of(kTogether * worker + k));
      networks[k] = projections.Make(arena, first + k, outcomes[k]);
      if (!outcomes[k].ok()) continue;
      sweeps[k].emplace(arena, networks[k], populations);
      sweeps[k]->Begin(internal::MakeLog(results, first + k), MakeViews(results, first + k));
    }
    RunTogether(sweeps[0] ? &*sweeps[0] : nullptr, sweeps[1] ? &*sweeps[1] : nullptr);
    for (std::int64_t k = 0; k < n; ++k) {
      const std::int64_t b = first + k;
      if (sweeps[k]) outcomes[k] = sweeps[k]->End(internal::MakeEnd(results, b));
      if (outcomes[k].failed()) {
        internal::PoisonLoop(results, b, networks[k].queue.head);
        for (const Batched<R>* view : {&results.probe_v, &results.probe_i, &results.max_v,
                                       &results.max_time, &results.max_current}) {
          internal::FillNaN((*view)[b], view->core_size());
        }
      }
      results.outcome.Set(b, outcomes[k]);
    }
  });
}

template <Isa isa, class R>
void NetworkLoopBackward(const BatchNetwork<R>& batch, const LoopResults<R>& results,
                         const BatchCotangents<R>& cotangents,
                         const BatchNetworkGradients<R>& gradients, ThreadPool& pool) {
  const auto backward = gradients.params.wanted ? Backward<R, true> : Backward<R, false>;
  backward(batch, results, cotangents, gradients, pool);
}

template <Isa isa, class R>
void EventLoopParameterGradients(const BatchProblem<R>& batch, const LoopResults<R>& results,
                                 const BatchCotangents<R>& cotangents,
                                 const BatchGradients<R>& gradients, ThreadPool& pool) {
  static constexpr R kNoDelay = 0;
  const BatchLayout one({batch.n_batch}, {1});
  BatchNetwork<R> network;
  static_cast<BatchProblem<R>&>(network) = batch;
  network.recurrent = Batched<const R>(&kNoDelay, 0, one);
  network.delays = network.recurrent_delays = Batched<const R>(&kNoDelay, 1, one);
  network.past_time = Batched<const R>(&kNoDelay, 0, one);
  network.past_index = Batched<const std::int32_t>(nullptr, 0, one);
  network.probe_time = network.past_time;
  network.population_sizes = {batch.n_neurons};
  network.population_capacities = {results.max_events};
  std::array<R, 2> delays;  // that nobody asks for
  BatchNetworkGradients<R> all;
  all.weights = gradients.weights;
  all.recurrent = Batched<R>(delays.data(), 0, one);
  all.delays = Batched<R>(delays.data(), 1, one);
  all.recurrent_delays = Batched<R>(delays.data() + 1, 1, one);
  all.v = gradients.v;
  all.i = gradients.i;
  all.release = gradients.release;
  all.time = gradients.time;
  all.input_time = gradients.input_time;
  all.past_time = all.probe_time = Batched<R>(delays.data(), 0, one);
  all.t_max = gradients.t_max;
  all.params = gradients.params;
  all.want_arrivals = gradients.want_input_time;
  Backward<R, true>(network, results, cotangents, all, pool);
}

template <Isa isa, class R>
SpikeCount CountSpikes(const BatchNetwork<R>& batch, std::int64_t example, std::int64_t population,
                       std::int64_t limit, ThreadPool& pool) {
  using Sweep = NetworkForward<CubaLif, R>;
  // No other population may end the count before the one asked for has filled its room again.
  std::vector<std::int64_t> limits = batch.population_capacities;
  for (std::int64_t& room : limits) room = std::max(room, limit);
  const Populations populations{batch.population_sizes.data(), limits.data(),
                                static_cast<std::int64_t>(limits.size())};
  BatchProjections<R> projections(batch);
  projections.Prepare(pool);
  internal::OwnResults<R> results(populations.capacity(), batch.n_neurons);
  const auto bytes = Bytes(projections, [&](Arena& arena, const Network<R>& network) {
    Sweep(arena, network, populations);
  });
  SpikeCount spikes{0, false};
  const internal::Scratch scratch(1, bytes);
  WithNetwork(projections, scratch.of(0), example,
              [&](Arena& arena, const Network<R>& network, Outcome) {
                Network<R> unseen = network;
                unseen.n_probes = 0;
                Sweep sweep(arena, unseen, populations);
                spikes.complete = sweep.Run(results.log(), results.end(), {}).ok();
              });
  for (std::int64_t s = 0; s < results.count; ++s) {
    spikes.count += populations.Of(results.index[static_cast<std::size_t>(s)]) == population;
  }
  return spikes;
}

#define JAXSNN_INSTANTIATE(R)                                                                  \
  template void NetworkLoopForward<kIsa, R>(const BatchNetwork<R>&, const LoopResults<R>&,     \
                                            ThreadPool&);                                      \
  template void NetworkLoopBackward<kIsa, R>(const BatchNetwork<R>&, const LoopResults<R>&,    \
                                             const BatchCotangents<R>&,                        \
                                             const BatchNetworkGradients<R>&, ThreadPool&);    \
  template void EventLoopParameterGradients<kIsa, R>(                                          \
      const BatchProblem<R>&, const LoopResults<R>&, const BatchCotangents<R>&,                \
      const BatchGradients<R>&, ThreadPool&);                                                  \
  template SpikeCount CountSpikes<kIsa, R>(const BatchNetwork<R>&, std::int64_t, std::int64_t, \
                                           std::int64_t, ThreadPool&)
JAXSNN_INSTANTIATE(float);
JAXSNN_INSTANTIATE(double);
#undef JAXSNN_INSTANTIATE

}  // namespace jaxsnn

#include "cpu/isa_end.h"
