// How several tensors of one shape are visited together: few dimensions, the last one the longest
// run. What lies densely and alike becomes one dimension, whatever the memory format is called.
#pragma once

#include <torch/headeronly/util/Exception.h>

#include <cstdint>

namespace reg_engine {

constexpr int kMaxDims = 8;       // after merging
constexpr int kMaxOperands = 10;  // tensors in one walk
constexpr int kTensorDims = 64;  // before; as in torch's own loops
constexpr int64_t kShortRun = 32;

struct Walk {
  int dims = 0;
  int operands = 0;
  int64_t sizes[kMaxDims] = {};
  int64_t strides[kMaxOperands][kMaxDims] = {};  // in elements; 0 for an operand that is absent

  int64_t inner() const { return sizes[dims - 1]; }
  int64_t stride(int operand) const { return strides[operand][dims - 1]; }
  int64_t rows() const {
    int64_t count = 1;
    for (int d = 0; d < dims - 1; ++d) count *= sizes[d];
    return count;
  }
};

// Swap the longest dimension inside where the inner one is too short to be worth a loop.
inline void lengthen_inner(Walk& walk) {
  int longest = walk.dims - 1;
  if (walk.inner() >= kShortRun) return;
  for (int d = 0; d < walk.dims; ++d) {
    if (walk.sizes[d] > walk.sizes[longest]) longest = d;
  }
  const auto swap = [&](int64_t* values) {
    const int64_t kept = values[longest];
    values[longest] = values[walk.dims - 1];
    values[walk.dims - 1] = kept;
  };
  swap(walk.sizes);
  for (int o = 0; o < walk.operands; ++o) swap(walk.strides[o]);
}

// The walk of `operands` tensors of shape sizes[0..dims). strides[o] may be null: operand o is
// absent. Dimensions, kTensorDims at most, are ordered as they lie in operand 0, which is there.
inline Walk make_walk(const int64_t* sizes, int dims, const int64_t* const* strides, int operands) {
  int order[kTensorDims], count = 0;
  for (int d = 0; d < dims; ++d) {
    if (sizes[d] == 1) continue;
    int place = count++;
    for (; place > 0 && strides[0][order[place - 1]] < strides[0][d]; --place) {
      order[place] = order[place - 1];
    }
    order[place] = d;
  }
  Walk walk;
  walk.operands = operands;
  const auto merges = [&](int d) {
    for (int o = 0; o < operands; ++o) {
      if (strides[o] && walk.stride(o) != strides[o][d] * sizes[d]) return false;
    }
    return true;
  };
  for (int k = 0; k < count; ++k) {
    const int d = order[k];
    if (walk.dims > 0 && merges(d)) {
      walk.sizes[walk.dims - 1] *= sizes[d];
    } else {
      STD_TORCH_CHECK(walk.dims < kMaxDims, "tensors lie in more than ", kMaxDims,
                      " dimensions that do not merge; make them contiguous");
      walk.sizes[walk.dims++] = sizes[d];
    }
    for (int o = 0; o < operands; ++o) {
      walk.strides[o][walk.dims - 1] = strides[o] ? strides[o][d] : 0;
    }
  }
  if (walk.dims == 0) {
    walk.sizes[walk.dims++] = 1;
    for (int o = 0; o < operands; ++o) walk.strides[o][0] = 1;
  }
  lengthen_inner(walk);
  return walk;
}

}  // namespace reg_engine
