// The loop over all elements on the CPU: tiles of at most kTile elements that lie along one
// dimension, so that what a kernel keeps of a tile stays in the innermost cache.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>

#include "../walk.h"

// GCC compiles one copy for each level of x86-64 and picks one when the library is loaded.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define REG_ENGINE_CLONES \
  __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define REG_ENGINE_CLONES
#endif

namespace reg_engine {

constexpr int64_t kTile = 1024;
constexpr int64_t kGrain = 32768;  // elements that are worth another thread; as in torch

inline int64_t tiles_of_row(const Walk& walk) { return (walk.inner() + kTile - 1) / kTile; }

// Tiles of a walk that are worth another thread.
inline int64_t grain_of(const Walk& walk) {
  return std::max<int64_t>(1, kGrain / std::min(walk.inner(), kTile));
}

// visit(offsets, n) for the tiles [begin, end): offsets[o] of the first element of operand o.
template <typename F>
void visit_tiles(const Walk& walk, int64_t begin, int64_t end, const F& visit) {
  const int64_t per_row = tiles_of_row(walk);
  int64_t offsets[kMaxOperands];
  for (int64_t tile = begin; tile < end; ++tile) {
    int64_t row = tile / per_row;
    const int64_t first = (tile - row * per_row) * kTile;
    for (int o = 0; o < walk.operands; ++o) offsets[o] = first * walk.stride(o);
    for (int d = walk.dims - 2; d >= 0; --d) {
      const int64_t index = row % walk.sizes[d];
      row /= walk.sizes[d];
      for (int o = 0; o < walk.operands; ++o) offsets[o] += index * walk.strides[o][d];
    }
    visit(offsets, std::min(kTile, walk.inner() - first));
  }
}

template <typename F>
void each_tile(const Walk& walk, const F& visit) {
  torch::stable::parallel_for(
      0, walk.rows() * tiles_of_row(walk), grain_of(walk),
      [&](int64_t begin, int64_t end) { visit_tiles(walk, begin, end, visit); });
}

}  // namespace reg_engine
