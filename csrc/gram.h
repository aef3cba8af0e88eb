// The arguments of reduce, checked: the Gram matrix of (1, u, v, w) of each sample.
#pragma once

#include "arguments.h"

namespace reg_engine {

constexpr int kMaxVectors = 3;
// Sums of v_i, then v_i v_j with i <= j.
constexpr int kMaxSums = kMaxVectors + kMaxVectors * (kMaxVectors + 1) / 2;

struct Gram {
  View views[kMaxVectors];
  int vectors = 0;
  int64_t samples, size;  // elements of a sample
  Walk walk;              // over one sample

  int sums() const { return vectors + vectors * (vectors + 1) / 2; }

  Gram(const Tensor& u, const Maybe& v, const Maybe& w, const Tensor& out) {
    check_floating("u", u);
    check_like("v", v, u);
    check_like("w", w, u);
    views[vectors++] = readable(u);
    if (v) views[vectors++] = readable(*v);
    if (w) views[vectors++] = readable(*w);
    const int64_t k = vectors + 1;
    STD_TORCH_CHECK(out.scalar_type() == ScalarType::Double && out.dim() == 3 &&
                        out.size(0) == u.size(0) && out.size(1) == k && out.size(2) == k &&
                        out.is_contiguous() && same_device(out, u),
                    "out is ", shown(out), " for ", vectors, " vectors ", shown(u),
                    "; contiguous float64 (B, ", k, ", ", k, ") is needed");
    samples = u.size(0);
    size = samples ? u.numel() / samples : 0;
    const int64_t* strides[kMaxVectors];
    for (int i = 0; i < vectors; ++i) strides[i] = views[i].strides + 1;
    if (u.numel()) {
      walk = make_walk(u.sizes().data() + 1, static_cast<int>(u.dim()) - 1, strides, vectors);
    }
  }
};

}  // namespace reg_engine
