// The way back over a few examples of a layer in time steps, side by side.
#ifndef JAXSNN_CPU_STEPS_BACKWARD_H_
#define JAXSNN_CPU_STEPS_BACKWARD_H_

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/dense.h"
#include "core/lif_steps.h"
#include "core/math.h"
#include "core/view.h"
#include "cpu/lif_steps.h"
#include "cpu/steps_history.h"
#include "cpu/steps_plan.h"
#include "cpu/steps_projection.h"

namespace jaxsnn::inline JAXSNN_ISA::internal {

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

// What a worker needs for a block.
template <class R>
struct BackwardScratch {
  R *lanes, *av, *fed, *fed_next, *product, *currents, *v, *i;
  std::int32_t* held;
  double* sums;
  R *recurrent_panels, *weight_panels;
  StepsHistory<R> history;
  CurrentRows<R> rows;

  static BackwardScratch Take(Arena& arena, const BatchSteps<R>& batch,
                              const BatchStepsGradients<R>& gradients, StepsPanels<R>* panels) {
    const std::int64_t n = batch.n_neurons, k = batch.n_inputs;
    BackwardScratch s;
    s.lanes = arena.Take<R>(kProductRows * 6 * n);
    for (R** row : {&s.av, &s.fed, &s.fed_next}) *row = arena.Take<R>(kProductRows * n);
    s.held = arena.Take<std::int32_t>(kProductRows * n);
    s.history = StepsHistory<R>::Take(arena, batch);
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
      ai_[r] = s_.history.At(r, batch_.jump_first ? batch_.n_steps : batch_.n_steps - 1);
      std::copy_n(cotangents_.i[b], n_, ai_[r]);
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
    R* out[kProductRows];
    if (s_.history.Complete(t)) AddToWeights(t);
    if (batch_.n_sources > 0) {
      for (std::int64_t r = 0; r < size_; ++r) out[r] = s_.fed_next + r * n_;
      MultiplyRows(size_, n_, n_, ai_, s_.recurrent_panels, out, s_.product);
    }
    if (gradients_.want_inputs) {
      for (std::int64_t r = 0; r < size_; ++r) {
        out[r] = gradients_.inputs[first_ + r] + t * batch_.n_inputs;
      }
      MultiplyRows(size_, n_, batch_.n_inputs, ai_, s_.weight_panels, out, s_.product);
    }
  }

  // The gradients of the steps from `first` on that were kept.
  void AddToWeights(std::int64_t first) {
    const auto inputs = [this](std::int64_t r, std::int64_t t) {
      return batch_.inputs[first_ + r] + t * batch_.n_inputs;
    };
    const auto spikes = [this](std::int64_t r, std::int64_t t) {
      return SpikesBefore(first_ + r, t);
    };
    s_.history.AddOuter(size_, first, batch_.n_steps, batch_.n_inputs, inputs, group_.weight_sums);
    if (batch_.n_sources == 0) return;
    s_.history.AddOuter(size_, first, batch_.n_steps, n_, spikes, group_.recurrent_sums);
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
    R* const ai = ai_[r];
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
    ai_[r] = s_.history.At(r, batch_.jump_first ? t : t - 1);
    back(lanes, slope(), scale(), n_, record, av, ai, ai_[r]);
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
      std::copy_n(ai_[r], n_, gradients_.i[b]);
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
  R* ai_[kProductRows];  // the adjoints of the currents, in the history
};

}  // namespace jaxsnn::inline JAXSNN_ISA::internal

#endif  // JAXSNN_CPU_STEPS_BACKWARD_H_
