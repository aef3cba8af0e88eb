// The arguments of combine and guided_step, checked, as views; and the part of the channels that
// is guided apart from the part that is not, so that no kernel asks which channel it is in.
#pragma once

#include "arguments.h"

namespace reg_engine {

enum Operand {
  kTo,
  kCond,
  kRef,
  kTerm,
  kState,
  kWeight,
  kGain,
  kNoise,
  kHistory,
  kNonfinite,
  kOperands
};

// Channels [first, first + count) of dim 1.
struct Part {
  int64_t first, count;
  bool guided;
};

struct Guidance {
  View views[kOperands];
  // One number a sample, broadcast to the shape of the samples.
  int64_t weight_strides[kTensorDims] = {};
  int64_t gain_strides[kTensorDims] = {};
  int64_t nonfinite_strides[kTensorDims] = {};
  const Tensor* like = nullptr;
  Part parts[2];
  int count = 0;

  Guidance() = default;
  Guidance(const Guidance&) = delete;  // views point inside

  bool plain() const { return !views[kRef] && !views[kTerm]; }

  // At most two parts: what is guided by the first `channels` (-1: all), and what is not.
  void split(int64_t channels) {
    const int64_t all = like->dim() > 1 ? like->size(1) : 1;
    const int64_t guided = plain() ? 0 : channels < 0 || channels > all ? all : channels;
    if (guided > 0) parts[count++] = {0, guided, true};
    if (guided < all) parts[count++] = {guided, all - guided, false};
  }

  // The walk over one part; `own` gets its views.
  Walk walk(const Part& part, View* own) const {
    const int64_t* strides[kOperands];
    int64_t sizes[kTensorDims];
    const int dims = static_cast<int>(like->dim());
    for (int d = 0; d < dims; ++d) sizes[d] = d == 1 ? part.count : like->size(d);
    for (int o = 0; o < kOperands; ++o) {
      const bool absent = !part.guided && (o == kRef || o == kTerm || o == kWeight);
      own[o] = absent ? View{} : part.first ? views[o].from(1, part.first) : views[o];
      strides[o] = own[o] ? own[o].strides : nullptr;
    }
    return make_walk(sizes, dims, strides, kOperands);
  }
};

inline void take_predictions(Guidance& all, const Tensor& cond, const Maybe& ref, const Maybe& term,
                             const Tensor& out, const Tensor& like) {
  check_like("cond", cond, like);
  check_like("ref", ref, like);
  check_like("term", term, like);
  check_same("out", out, like);
  check_distinct("out", out);
  all.like = &like;
  all.views[kTo] = writable(out);
  all.views[kCond] = readable(cond);
  all.views[kRef] = readable(ref);
  all.views[kTerm] = readable(term);
}

inline void take_combine(Guidance& all, const Tensor& cond, const Maybe& ref, const Maybe& term,
                         double w, int64_t channels, const Tensor& out) {
  check_floating("cond", cond);
  take_predictions(all, cond, ref, term, out, cond);
  if (w == 0) all.views[kRef] = all.views[kTerm] = View{};
  all.split(channels);
}

inline View per_sample(const char* name, const Maybe& values, const Tensor& x, int64_t* strides) {
  if (!values) return View{};
  check_per_sample(name, *values, x);
  View view = readable(*values);
  strides[0] = values->stride(0);
  view.strides = strides;
  return view;
}

// views[kHistory] is slot 0 of the ring, views[kNonfinite] row 0. What the row of the table leaves
// out is still to be said.
inline void take_step(Guidance& all, const Tensor& x, const Tensor& cond, const Tensor& table,
                      const Tensor& step, const Maybe& ref, const Maybe& term, const Maybe& weight,
                      const Maybe& gain, const Maybe& noise, const Maybe& history,
                      const Maybe& nonfinite, const Tensor& out) {
  check_state(x);
  take_predictions(all, cond, ref, term, out, x);
  check_table(table, step, x);
  check_history(history, x, table.size(1) - kFirstB);
  all.views[kState] = readable(x);
  all.views[kWeight] = per_sample("weight", weight, x, all.weight_strides);
  all.views[kGain] = per_sample("gain", gain, x, all.gain_strides);
  if (nonfinite) {
    check_nonfinite(*nonfinite, table, x);
    all.nonfinite_strides[0] = 1;
    all.views[kNonfinite] = writable(*nonfinite);
    all.views[kNonfinite].strides = all.nonfinite_strides;
  }
  if (noise) {
    check_same("noise", *noise, x);
    all.views[kNoise] = readable(*noise);
  }
  if (history) {
    all.views[kHistory] = writable(*history);
    ++all.views[kHistory].strides;
  }
}

}  // namespace reg_engine
