// Batch driver of layers in time steps: the way forward takes one sample after the other, the way
// back a few of them side by side, so that products with recurrent weights are matrix products.
#include "cpu/lif_steps.h"

#include <unordered_map>

#include "cpu/huge_pages.h"
#include "cpu/isa_begin.h"

#include "core/dense.h"
#include "core/lif_steps.h"
#include "cpu/assemble.h"
#include "cpu/steps_projection.h"

namespace jaxsnn::inline JAXSNN_ISA {
namespace {

using internal::CurrentRows;
using internal::Scratch;
using internal::StepsPanels;

// The coefficients of one example; those that neurons share are repeated in `room`.
template <class R>
StepLanes<R> MakeLanes(const BatchSteps<R>& batch, std::int64_t example, R* room) {
  const auto lane = [&](const Batched<const R>& values) -> const R* {
    if (values.core_size() == batch.n_neurons) return values[example];
    R* const own = room;
    room += batch.n_neurons;
    std::fill(own, own + batch.n_neurons, *values[example]);
    return own;
  };
  return {lane(batch.leak), lane(batch.drive),  lane(batch.decay),
          lane(batch.v_th), lane(batch.v_leak), lane(batch.v_reset)};
}

// Nanoseconds for a pass over all examples: elementwise work, a scan of the inputs, and rows.
template <class R>
double PassCost(const BatchSteps<R>& batch) {
  const auto steps = static_cast<double>(batch.n_batch * batch.n_steps);
  const auto neurons = static_cast<double>(batch.n_neurons);
  return steps * (10 + 0.5 * neurons + 0.1 * static_cast<double>(batch.n_inputs));
}

// Forward

template <class R>
struct ForwardScratch {
  R *lanes, *v, *i;
  std::int32_t* hold;
  CurrentRows<R> rows;

  static ForwardScratch Take(Arena& arena, const BatchSteps<R>& batch, StepsPanels<R>* panels) {
    ForwardScratch s;
    s.lanes = arena.Take<R>(6 * batch.n_neurons);
    s.v = arena.Take<R>(batch.n_neurons);
    s.i = arena.Take<R>(batch.n_neurons);
    s.hold = arena.Take<std::int32_t>(batch.n_neurons);
    s.rows = CurrentRows<R>::Take(arena, batch, panels);
    return s;
  }
};

template <class R, bool kBefore, bool kHold>
void ForwardExample(const BatchSteps<R>& batch, const BatchStepsResults<R>& results, std::int64_t b,
                    ForwardScratch<R>& s) {
  const std::int64_t n = batch.n_neurons;
  const StepLanes<R> lanes = MakeLanes(batch, b, s.lanes);
  std::copy_n(batch.v[b], n, s.v);
  std::copy_n(batch.i[b], n, s.i);
  std::copy_n(batch.hold[b], n, s.hold);
  const R* before = batch.spikes[b];
  for (std::int64_t t = 0; t < batch.n_steps; ++t) {
    R* const z = results.spikes[b] + t * n;
    const R* const arriving = s.rows.At(batch, b, t, before);
    StepLanesForward<R, kBefore, kHold>(lanes, batch.refractory, n, arriving, s.v, s.i, s.hold,
                                        results.voltage[b] + t * n, z);
    before = z;
  }
  std::copy_n(s.v, n, results.v[b]);
  std::copy_n(s.i, n, results.i[b]);
  std::copy_n(s.hold, n, results.hold[b]);
}

// Backward

// Examples that go back side by side: they share weights, and where their gradients go.
struct Block {
  std::int64_t begin, end;
};

// Blocks that add to the same sums, one after the other.
template <class R>
struct Group {
  std::int64_t begin, end;  // blocks
  R *weights, *recurrent;   // the slots of the gradients
  R *weight_sums, *recurrent_sums;
};

// What a worker needs for a block.
template <class R>
struct BackwardScratch {
  R *lanes, *av, *ai, *fed, *fed_next, *product, *currents, *v, *i;
  std::int32_t *held, *index;
  double* sums;
  std::int64_t* counts;
  R *recurrent_panels, *weight_panels;
  CurrentRows<R> rows;

  static BackwardScratch Take(Arena& arena, const BatchSteps<R>& batch,
                              const BatchStepsGradients<R>& gradients, StepsPanels<R>* panels) {
    const std::int64_t n = batch.n_neurons, k = batch.n_inputs;
    BackwardScratch s;
    s.lanes = arena.Take<R>(kProductRows * 6 * n);
    for (R** row : {&s.av, &s.ai, &s.fed, &s.fed_next}) *row = arena.Take<R>(kProductRows * n);
    s.held = arena.Take<std::int32_t>(kProductRows * n);
    s.index = arena.Take<std::int32_t>(kProductRows * std::max(n, k) + kIndexRoom);
    s.counts = arena.Take<std::int64_t>(kProductRows);
    s.product = arena.Take<R>(kProductRows * std::max(n, k));
    s.recurrent_panels = arena.Take<R>(PanelsSize<R>(n, batch.n_sources));
    s.weight_panels = arena.Take<R>(gradients.want_inputs ? PanelsSize<R>(n, k) : 0);
    const std::int64_t own = gradients.want_parameters ? kProductRows : 0;
    s.currents = arena.Take<R>(own * batch.n_steps * n);
    s.sums = arena.Take<double>(own * 6 * n);
    s.v = arena.Take<R>(own * n);
    s.i = arena.Take<R>(own * n);
    if (own > 0) s.rows = CurrentRows<R>::Take(arena, batch, panels);
    return s;
  }
};

// The adjoint sweep over one block.
template <class R, SurrogateShape kShape>
class BlockSweep {
 public:
  BlockSweep(const BatchSteps<R>& batch, const BatchStepsResults<R>& results,
             const BatchStepsCotangents<R>& cotangents, const BatchStepsGradients<R>& gradients,
             const Block& block, const Group<R>& group, BackwardScratch<R>& scratch)
      : batch_(batch),
        results_(results),
        cotangents_(cotangents),
        gradients_(gradients),
        group_(group),
        s_(scratch),
        first_(block.begin),
        size_(block.end - block.begin),
        n_(batch.n_neurons) {}

  void Run() {
    Begin();
    for (std::int64_t t = batch_.n_steps; t-- > 0;) {
      if (!batch_.jump_first) Project(t);
      for (std::int64_t r = 0; r < size_; ++r) StepBack(r, t);
      if (batch_.jump_first) Project(t);
      std::swap(s_.fed, s_.fed_next);
    }
    End();
  }

 private:
  void Begin() {
    for (std::int64_t r = 0; r < size_; ++r) {
      const std::int64_t b = first_ + r;
      lanes_[r] = MakeLanes(batch_, b, s_.lanes + r * 6 * n_);
      std::copy_n(cotangents_.v[b], n_, s_.av + r * n_);
      std::copy_n(cotangents_.i[b], n_, s_.ai + r * n_);
      std::fill_n(s_.fed + r * n_, n_, R(0));
      std::fill_n(s_.fed_next + r * n_, n_, R(0));
      if (!gradients_.want_parameters) continue;
      std::fill_n(s_.sums + r * 6 * n_, 6 * n_, 0.0);
      FindCurrents(r);
    }
  }

  // The currents that drove the voltages, which the way forward has not kept.
  void FindCurrents(std::int64_t r) {
    const std::int64_t b = first_ + r;
    const R* const decay = lanes_[r].decay;
    std::copy_n(batch_.i[b], n_, s_.i);
    for (std::int64_t t = 0; t < batch_.n_steps; ++t) {
      const R* const arriving = s_.rows.At(batch_, b, t, SpikesBefore(b, t));
      R* const current = s_.currents + (r * batch_.n_steps + t) * n_;
      for (std::int64_t j = 0; j < n_; ++j) {
        current[j] = batch_.jump_first ? s_.i[j] + arriving[j] : s_.i[j];
        const R rest = decay[j] * current[j];
        s_.i[j] = batch_.jump_first ? rest : rest + arriving[j];
      }
    }
  }

  const R* SpikesBefore(std::int64_t b, std::int64_t t) const {
    return t > 0 ? results_.spikes[b] + (t - 1) * n_ : batch_.spikes[b];
  }

  // Takes what the loss owes to the currents to where they came from.
  void Project(std::int64_t t) {
    const R* rows[kProductRows];
    R* out[kProductRows];
    const R* inputs[kProductRows];
    const R* spikes[kProductRows];
    for (std::int64_t r = 0; r < size_; ++r) {
      rows[r] = s_.ai + r * n_;
      inputs[r] = batch_.inputs[first_ + r] + t * batch_.n_inputs;
      spikes[r] = SpikesBefore(first_ + r, t);
    }
    AddOuter(batch_.n_inputs, inputs, rows, group_.weight_sums);
    if (batch_.n_sources > 0) {
      AddOuter(batch_.n_sources, spikes, rows, group_.recurrent_sums);
      for (std::int64_t r = 0; r < size_; ++r) out[r] = s_.fed_next + r * n_;
      MultiplyRows(size_, n_, n_, rows, s_.recurrent_panels, out, s_.product);
    }
    if (gradients_.want_inputs) {
      for (std::int64_t r = 0; r < size_; ++r) {
        out[r] = gradients_.inputs[first_ + r] + t * batch_.n_inputs;
      }
      MultiplyRows(size_, n_, batch_.n_inputs, rows, s_.weight_panels, out, s_.product);
    }
  }

  // sums[k, :] += x[r][k] * rows[r] for all k, and r in ascending order.
  void AddOuter(std::int64_t n_left, const R* const* x, const R* const* rows, R* sums) {
    std::int64_t total = 0;
    for (std::int64_t r = 0; r < size_; ++r) {
      s_.counts[r] = FindNonzeros(n_left, x[r], s_.index + r * n_left);
      total += s_.counts[r];
    }
    if (2 * total > size_ * n_left) return AddOuterByRow(n_left, x, sums);
    for (std::int64_t r = 0; r < size_; ++r) {
      const std::int32_t* const index = s_.index + r * n_left;
      for (std::int64_t c = 0; c < s_.counts[r]; ++c) {
        AddScaled(n_, x[r][index[c]], rows[r], sums + index[c] * n_);
      }
    }
  }

  // The same with a single visit of each row of the sums, for many nonzeros.
  void AddOuterByRow(std::int64_t n_left, const R* const* x, R* sums) {
    for (std::int64_t k = 0; k < n_left; ++k) {
      R values[kProductRows];
      std::int32_t index[kProductRows];
      std::int64_t count = 0;
      for (std::int64_t r = 0; r < size_; ++r) {
        values[r] = x[r][k];
        index[count] = static_cast<std::int32_t>(r);
        count += values[r] != 0;
      }
      AddRows(n_, s_.ai, values, index, count, sums + k * n_);
    }
  }

  void StepBack(std::int64_t r, std::int64_t t) {
    const std::int64_t b = first_ + r;
    const R* const z = results_.spikes[b];
    const R* const u = results_.voltage[b];
    const bool hold = batch_.refractory > 0;
    const StepRecord<R> record{u + t * n_,
                               z + t * n_,
                               s_.held + r * n_,
                               cotangents_.spikes[b] + t * n_,
                               cotangents_.voltage[b] + t * n_,
                               s_.fed + r * n_};
    if (hold) FindHeld(r, t);
    if (t > 0) {  // samples take turns, which is more streams than processors follow
      Prefetch(n_, record.u - n_);
      Prefetch(n_, record.ct_z - n_);
    }
    const StepLanes<R>& lanes = lanes_[r];
    R* const av = s_.av + r * n_;
    R* const ai = s_.ai + r * n_;
    if (gradients_.want_parameters) {
      const R* v = batch_.v[b];
      if (t > 0) {
        for (std::int64_t j = 0; j < n_; ++j) {
          const std::int64_t at = (t - 1) * n_ + j;
          s_.v[j] = z[at] != 0 ? lanes.v_reset[j] : u[at];
        }
        v = s_.v;
      }
      const auto add =
          hold ? AddStepGradients<R, kShape, true> : AddStepGradients<R, kShape, false>;
      add(lanes, slope(), scale(), n_, record, v, s_.currents + (r * batch_.n_steps + t) * n_, av,
          ai, Sums(r));
    }
    const auto back =
        hold ? StepLanesBackward<R, kShape, true> : StepLanesBackward<R, kShape, false>;
    back(lanes, slope(), scale(), n_, record, av, ai);
  }

  // Which neurons were held in step t.
  void FindHeld(std::int64_t r, std::int64_t t) {
    const std::int64_t b = first_ + r;
    std::int32_t* const held = s_.held + r * n_;
    const std::int32_t* const hold = batch_.hold[b];
    for (std::int64_t j = 0; j < n_; ++j) held[j] = hold[j] > t;
    for (std::int64_t before = t - 1; before >= 0 && t - before <= batch_.refractory; --before) {
      const R* const z = results_.spikes[b] + before * n_;
      for (std::int64_t j = 0; j < n_; ++j) held[j] |= z[j] != 0;
    }
  }

  void End() {
    for (std::int64_t r = 0; r < size_; ++r) {
      const std::int64_t b = first_ + r;
      std::copy_n(s_.av + r * n_, n_, gradients_.v[b]);
      std::copy_n(s_.ai + r * n_, n_, gradients_.i[b]);
      std::copy_n(s_.fed + r * n_, n_, gradients_.spikes[b]);
      if (!gradients_.want_parameters) continue;
      const StepGradients sums = Sums(r);
      Write(sums.leak, gradients_.leak, b);
      Write(sums.drive, gradients_.drive, b);
      Write(sums.decay, gradients_.decay, b);
      Write(sums.v_th, gradients_.v_th, b);
      Write(sums.v_leak, gradients_.v_leak, b);
      Write(sums.v_reset, gradients_.v_reset, b);
    }
  }

  void Write(const double* sums, const Batched<R>& gradient, std::int64_t b) const {
    if (gradient.core_size() == n_) {
      for (std::int64_t j = 0; j < n_; ++j) gradient[b][j] = static_cast<R>(sums[j]);
    } else {
      *gradient[b] = static_cast<R>(SumOf(n_, [&](std::int64_t j) { return sums[j]; }));
    }
  }

  StepGradients Sums(std::int64_t r) const {
    double* const own = s_.sums + r * 6 * n_;
    return {own, own + n_, own + 2 * n_, own + 3 * n_, own + 4 * n_, own + 5 * n_};
  }
  R slope() const { return static_cast<R>(batch_.slope); }
  R scale() const { return static_cast<R>(batch_.scale); }

  const BatchSteps<R>& batch_;
  const BatchStepsResults<R>& results_;
  const BatchStepsCotangents<R>& cotangents_;
  const BatchStepsGradients<R>& gradients_;
  const Group<R>& group_;
  BackwardScratch<R>& s_;
  const std::int64_t first_, size_, n_;
  StepLanes<R> lanes_[kProductRows];
};

// All blocks and groups of a batch, which its shape alone decides, and the sums of the groups.
template <class R>
class Plan {
 public:
  Plan(const BatchSteps<R>& batch, const BatchStepsGradients<R>& gradients) : batch_(batch) {
    for (std::int64_t b = 0; b < batch.n_batch;) {
      const std::int64_t begin = b;
      const auto shared = [&](std::int64_t other) {
        return batch.weights[other] == batch.weights[begin] &&
               batch.recurrent[other] == batch.recurrent[begin] &&
               gradients.weights[other] == gradients.weights[begin] &&
               gradients.recurrent[other] == gradients.recurrent[begin];
      };
      while (b < batch.n_batch && shared(b)) ++b;
      AddRun(begin, b, gradients);
    }
    std::unordered_map<const R*, std::int64_t> of_weights, of_recurrent;
    for (const Group<R>& group : groups) {
      ++of_weights[group.weights];
      ++of_recurrent[group.recurrent];
    }
    const std::int64_t weights = batch.n_inputs * batch.n_neurons;
    const std::int64_t recurrent = batch.n_sources * batch.n_neurons;
    std::int64_t size = 0;
    const auto offset = [&size](std::int64_t n) { return (size += n) - n; };
    std::vector<std::pair<std::int64_t, std::int64_t>> offsets;
    for (const Group<R>& group : groups) {
      offsets.emplace_back(of_weights[group.weights] > 1 ? offset(weights) : -1,
                           of_recurrent[group.recurrent] > 1 ? offset(recurrent) : -1);
    }
    partial_ = std::make_unique_for_overwrite<R[]>(static_cast<std::size_t>(size));
    AdviseHugePages(partial_.get(), size);
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const auto [w, r] = offsets[g];
      groups[g].weight_sums = w < 0 ? groups[g].weights : partial_.get() + w;
      groups[g].recurrent_sums = r < 0 ? groups[g].recurrent : partial_.get() + r;
    }
  }

  void Clear(const Group<R>& group) const {
    std::fill_n(group.weight_sums, batch_.n_inputs * batch_.n_neurons, R(0));
    std::fill_n(group.recurrent_sums, batch_.n_sources * batch_.n_neurons, R(0));
  }

  // Adds up the sums of the groups in ascending order.
  void Reduce(ThreadPool& pool) const {
    ReduceInto(pool, batch_.n_inputs * batch_.n_neurons, &Group<R>::weights,
               &Group<R>::weight_sums);
    ReduceInto(pool, batch_.n_sources * batch_.n_neurons, &Group<R>::recurrent,
               &Group<R>::recurrent_sums);
  }

  std::vector<Block> blocks;
  std::vector<Group<R>> groups;

 private:
  // Enough groups to share the work, and no more than there is memory for.
  void AddRun(std::int64_t begin, std::int64_t end, const BatchStepsGradients<R>& gradients) {
    constexpr std::int64_t kFewGroups = 16, kManyGroups = 256, kValues = std::int64_t{1} << 24;
    const std::int64_t size = (batch_.n_inputs + batch_.n_sources) * batch_.n_neurons;
    const std::int64_t most =
        std::clamp(kValues / std::max<std::int64_t>(size, 1), kFewGroups, kManyGroups);
    const std::int64_t n_blocks = (end - begin + kProductRows - 1) / kProductRows;
    const std::int64_t each = (n_blocks + most - 1) / most;
    for (std::int64_t first = 0; first < n_blocks; first += each) {
      const auto at = static_cast<std::int64_t>(blocks.size());
      const std::int64_t last = std::min(first + each, n_blocks);
      for (std::int64_t k = first; k < last; ++k) {
        const std::int64_t from = begin + k * kProductRows;
        blocks.push_back({from, std::min(from + kProductRows, end)});
      }
      groups.push_back({at, static_cast<std::int64_t>(blocks.size()), gradients.weights[begin],
                        gradients.recurrent[begin], nullptr, nullptr});
    }
  }

  void ReduceInto(ThreadPool& pool, std::int64_t size, R* Group<R>::* slot,
                  R* Group<R>::* sums) const {
    constexpr std::int64_t kChunk = 8192;
    const std::int64_t n_tasks = (size + kChunk - 1) / kChunk;
    const double cost = 0.2 * static_cast<double>(size * static_cast<std::int64_t>(groups.size()));
    const std::int64_t workers = NumWorkers(pool, n_tasks, cost);
    ParallelFor(pool, n_tasks, workers, [&](std::int64_t task, std::int64_t) {
      const std::int64_t from = task * kChunk, n = std::min(kChunk, size - from);
      const R* cleared = nullptr;
      for (const Group<R>& group : groups) {
        R* const out = group.*slot;
        if (group.*sums == out) continue;
        if (out != cleared) {
          Start(group, slot, from, n);
          cleared = out;
        }
        AddScaled(n, R(1), group.*sums + from, out + from);
      }
    });
  }

  // Clears a slot at the first group that adds to it.
  void Start(const Group<R>& group, R* Group<R>::* slot, std::int64_t from, std::int64_t n) const {
    const auto same = [&](const Group<R>& other) { return other.*slot == group.*slot; };
    if (&*std::find_if(groups.begin(), groups.end(), same) != &group) return;
    std::fill_n(group.*slot + from, n, R(0));
  }

  const BatchSteps<R>& batch_;
  std::unique_ptr<R[]> partial_;
};

// The panels that a block needs, made anew where its weights are not those of the block before.
template <class R>
void PreparePanels(const BatchSteps<R>& batch, const BatchStepsGradients<R>& gradients,
                   std::int64_t example, BackwardScratch<R>& s, const R*& weights,
                   const R*& recurrent) {
  const std::int64_t n = batch.n_neurons;
  if (batch.n_sources > 0 && recurrent != batch.recurrent[example]) {
    recurrent = batch.recurrent[example];
    PackPanels<R, true>(n, n, recurrent, s.recurrent_panels);
  }
  if (gradients.want_inputs && weights != batch.weights[example]) {
    weights = batch.weights[example];
    PackPanels<R, true>(n, batch.n_inputs, weights, s.weight_panels);
  }
}

// Calls body.operator()<shape>().
template <class Body>
void OnShape(int shape, const Body& body) {
  using enum SurrogateShape;
  switch (static_cast<SurrogateShape>(shape)) {
    case kSuperspike:
      return body.template operator()<kSuperspike>();
    case kSigmoid:
      return body.template operator()<kSigmoid>();
    case kArctan:
      return body.template operator()<kArctan>();
    case kTriangle:
      return body.template operator()<kTriangle>();
    case kGaussian:
      return body.template operator()<kGaussian>();
  }
}

}  // namespace

}  // namespace jaxsnn::inline JAXSNN_ISA

namespace jaxsnn {

template <Isa isa, class R>
void LifStepsForward(const BatchSteps<R>& batch, const BatchStepsResults<R>& results,
                     ThreadPool& pool) {
  if (batch.n_batch == 0) return;
  AdviseHugePages(results.spikes.data(), results.spikes.size());
  AdviseHugePages(results.voltage.data(), results.voltage.size());
  const std::int64_t workers = NumWorkers(pool, batch.n_batch, PassCost(batch));
  std::vector<StepsPanels<R>> panels(static_cast<std::size_t>(workers));
  Arena measure(nullptr);
  ForwardScratch<R>::Take(measure, batch, nullptr);
  const Scratch scratch(workers, measure.used());
  ParallelFor(pool, batch.n_batch, workers, [&](std::int64_t b, std::int64_t worker) {
    Arena arena(scratch.of(worker));
    auto own = ForwardScratch<R>::Take(arena, batch, &panels[static_cast<std::size_t>(worker)]);
    const bool hold = batch.refractory > 0;
    const auto run =
        batch.jump_first
            ? (hold ? ForwardExample<R, true, true> : ForwardExample<R, true, false>)
            : (hold ? ForwardExample<R, false, true> : ForwardExample<R, false, false>);
    run(batch, results, b, own);
  });
}

template <Isa isa, class R>
void LifStepsBackward(const BatchSteps<R>& batch, const BatchStepsResults<R>& results,
                      const BatchStepsCotangents<R>& cotangents,
                      const BatchStepsGradients<R>& gradients, ThreadPool& pool) {
  if (batch.n_batch == 0) {
    std::fill_n(gradients.weights.data(), gradients.weights.size(), R(0));
    std::fill_n(gradients.recurrent.data(), gradients.recurrent.size(), R(0));
    return;
  }
  if (gradients.want_inputs) {
    AdviseHugePages(gradients.inputs.data(), gradients.inputs.size());
  }
  const Plan<R> plan(batch, gradients);
  const auto n_groups = static_cast<std::int64_t>(plan.groups.size());
  const std::int64_t workers = NumWorkers(pool, n_groups, 3 * PassCost(batch));
  struct Worker {
    const R* weights = nullptr;
    const R* recurrent = nullptr;
    StepsPanels<R> panels;
  };
  std::vector<Worker> made(static_cast<std::size_t>(workers));
  Arena measure(nullptr);
  BackwardScratch<R>::Take(measure, batch, gradients, nullptr);
  const Scratch scratch(workers, measure.used());
  ParallelFor(pool, n_groups, workers, [&](std::int64_t g, std::int64_t worker) {
    const Group<R>& group = plan.groups[static_cast<std::size_t>(g)];
    Worker& own = made[static_cast<std::size_t>(worker)];
    Arena arena(scratch.of(worker));
    auto room = BackwardScratch<R>::Take(arena, batch, gradients, &own.panels);
    plan.Clear(group);
    for (std::int64_t k = group.begin; k < group.end; ++k) {
      const Block& block = plan.blocks[static_cast<std::size_t>(k)];
      PreparePanels(batch, gradients, block.begin, room, own.weights, own.recurrent);
      OnShape(batch.shape, [&]<SurrogateShape kShape>() {
        BlockSweep<R, kShape>(batch, results, cotangents, gradients, block, group, room).Run();
      });
    }
  });
  plan.Reduce(pool);
}

#define JAXSNN_INSTANTIATE(R)                                                                \
  template void LifStepsForward<kIsa, R>(const BatchSteps<R>&, const BatchStepsResults<R>&,  \
                                         ThreadPool&);                                       \
  template void LifStepsBackward<kIsa, R>(const BatchSteps<R>&, const BatchStepsResults<R>&, \
                                          const BatchStepsCotangents<R>&,                    \
                                          const BatchStepsGradients<R>&, ThreadPool&)
JAXSNN_INSTANTIATE(float);
JAXSNN_INSTANTIATE(double);
#undef JAXSNN_INSTANTIATE

}  // namespace jaxsnn

#include "cpu/isa_end.h"
