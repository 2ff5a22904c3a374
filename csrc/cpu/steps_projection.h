// What the spikes of a step bring to a layer in time steps: rows of weights, or a product where
// most inputs are not zero.
#ifndef JAXSNN_CPU_STEPS_PROJECTION_H_
#define JAXSNN_CPU_STEPS_PROJECTION_H_

#include <algorithm>
#include <cstdint>

#include "core/dense.h"
#include "core/view.h"
#include "cpu/lif_steps.h"

namespace jaxsnn::inline JAXSNN_ISA::internal {

// Which weights a worker has cut into panels.
template <class R>
struct StepsPanels {
  const R* weights = nullptr;
};

// Of one worker. Inputs do not depend on what the layer does, so several steps are looked at once.
template <class R>
class CurrentRows {
 public:
  static CurrentRows Take(Arena& arena, const BatchSteps<R>& batch, StepsPanels<R>* made) {
    CurrentRows rows;
    rows.made_ = made;
    rows.arriving_ = arena.Take<R>(kProductRows * batch.n_neurons);
    rows.fed_back_ = arena.Take<R>(batch.n_sources);
    rows.index_ = arena.Take<std::int32_t>(kProductRows * batch.n_inputs + kIndexRoom);
    rows.sources_ = arena.Take<std::int32_t>(batch.n_sources + kIndexRoom);
    rows.product_ = arena.Take<R>(kProductRows * batch.n_inputs);
    rows.panels_ = arena.Take<R>(PanelsSize<R>(batch.n_inputs, batch.n_neurons));
    return rows;
  }

  // The currents [n_neurons] of step t, where `before` are the spikes of the step before. Steps of
  // an example are asked for one after the other.
  const R* At(const BatchSteps<R>& batch, std::int64_t example, std::int64_t t, const R* before) {
    const std::int64_t row = t % kProductRows;
    if (row == 0) LookAhead(batch, example, t);
    R* const arriving = arriving_ + row * batch.n_neurons;
    if (batch.n_sources > 0) {
      const std::int64_t count = FindNonzeros(batch.n_sources, before, sources_);
      if (count == 0) return arriving;
      std::fill_n(fed_back_, batch.n_neurons, R(0));
      AddRows(
          batch.n_neurons, batch.recurrent[example], sources_, count,
          [&](std::int32_t source) { return before[source]; }, fed_back_);
      AddScaled(batch.n_neurons, R(1), fed_back_, arriving);
    }
    return arriving;
  }

 private:
  void LookAhead(const BatchSteps<R>& batch, std::int64_t example, std::int64_t first) {
    const std::int64_t k = batch.n_inputs, n = batch.n_neurons;
    const std::int64_t n_rows = std::min<std::int64_t>(kProductRows, batch.n_steps - first);
    const R* const weights = batch.weights[example];
    const R* inputs[kProductRows];
    R* out[kProductRows];
    std::int64_t counts[kProductRows], total = 0;
    for (std::int64_t r = 0; r < n_rows; ++r) {
      inputs[r] = batch.inputs[example] + (first + r) * k;
      out[r] = arriving_ + r * n;
      counts[r] = FindNonzeros(k, inputs[r], index_ + r * k);
      total += counts[r];
    }
    if (2 * total > n_rows * k && n_rows == kProductRows) {
      if (made_->weights != weights) PackPanels<R, false>(k, n, weights, panels_);
      made_->weights = weights;
      return MultiplyRows(n_rows, k, n, inputs, panels_, out, product_);
    }
    for (std::int64_t r = 0; r < n_rows; ++r) {
      std::fill_n(out[r], n, R(0));
      AddRows(
          n, weights, index_ + r * k, counts[r],
          [&](std::int32_t input) { return inputs[r][input]; }, out[r]);
    }
  }

  StepsPanels<R>* made_ = nullptr;
  R *arriving_ = nullptr, *fed_back_ = nullptr, *product_ = nullptr, *panels_ = nullptr;
  std::int32_t *index_ = nullptr, *sources_ = nullptr;
};

}  // namespace jaxsnn::inline JAXSNN_ISA::internal

#endif  // JAXSNN_CPU_STEPS_PROJECTION_H_
