// reduce on the CPU, in float64: see reg_engine/ops/formulas.py for what it computes.
//
// A sample is cut into chunks of a fixed number of tiles, whatever the number of threads; sums of
// chunks are added in their order. So every bit depends on the arguments alone.
#include <torch/csrc/stable/library.h>

#include <vector>

#include "../gram.h"
#include "convert.h"
#include "tiles.h"

namespace reg_engine {
namespace {

constexpr int64_t kChunk = 16;  // tiles

template <typename T>
REG_ENGINE_CLONES void add_sums(const T* u, int64_t n, double* sums) {
  double a = 0, aa = 0;
#pragma omp simd reduction(+ : a, aa)
  for (int64_t i = 0; i < n; ++i) {
    const double x = u[i];
    a += x, aa += x * x;
  }
  sums[0] += a, sums[1] += aa;
}

template <typename T>
REG_ENGINE_CLONES void add_sums(const T* u, const T* v, int64_t n, double* sums) {
  double a = 0, b = 0, aa = 0, ab = 0, bb = 0;
#pragma omp simd reduction(+ : a, b, aa, ab, bb)
  for (int64_t i = 0; i < n; ++i) {
    const double x = u[i], y = v[i];
    a += x, b += y, aa += x * x, ab += x * y, bb += y * y;
  }
  sums[0] += a, sums[1] += b, sums[2] += aa, sums[3] += ab, sums[4] += bb;
}

template <typename T>
REG_ENGINE_CLONES void add_sums(const T* u, const T* v, const T* w, int64_t n, double* sums) {
  double a = 0, b = 0, c = 0, aa = 0, ab = 0, ac = 0, bb = 0, bc = 0, cc = 0;
#pragma omp simd reduction(+ : a, b, c, aa, ab, ac, bb, bc, cc)
  for (int64_t i = 0; i < n; ++i) {
    const double x = u[i], y = v[i], z = w[i];
    a += x, b += y, c += z;
    aa += x * x, ab += x * y, ac += x * z, bb += y * y, bc += y * z, cc += z * z;
  }
  sums[0] += a, sums[1] += b, sums[2] += c, sums[3] += aa, sums[4] += ab, sums[5] += ac;
  sums[6] += bb, sums[7] += bc, sums[8] += cc;
}

// Sums of the tiles [begin, end) of one sample. T: the widest dtype among the vectors.
template <typename T>
void add_chunk(const Gram& gram, int64_t sample, int64_t begin, int64_t end, double* sums) {
  Lane lanes[kMaxVectors];
  for (int i = 0; i < gram.vectors; ++i) {
    lanes[i] = Lane(gram.views[i].from(0, sample), gram.walk, i);
  }
  visit_tiles(gram.walk, begin, end, [&](const int64_t* at, int64_t n) {
    alignas(64) T tiles[kMaxVectors][kTile];
    const T* values[kMaxVectors];
    for (int i = 0; i < gram.vectors; ++i) values[i] = load(lanes[i], at[i], n, tiles[i]);
    switch (gram.vectors) {
      case 1: add_sums(values[0], n, sums); break;
      case 2: add_sums(values[0], values[1], n, sums); break;
      default: add_sums(values[0], values[1], values[2], n, sums);
    }
  });
}

// The symmetric matrix from the sums of a sample's chunks.
void fill(const Gram& gram, const double* chunks, int64_t count, double* out) {
  double sums[kMaxSums] = {};
  for (int64_t c = 0; c < count; ++c) {
    for (int i = 0; i < gram.sums(); ++i) sums[i] += chunks[c * gram.sums() + i];
  }
  const int k = gram.vectors + 1;
  int next = gram.vectors;
  out[0] = static_cast<double>(gram.size);
  for (int i = 1; i < k; ++i) {
    out[i] = out[i * k] = sums[i - 1];
    for (int j = i; j < k; ++j) out[i * k + j] = out[j * k + i] = sums[next++];
  }
}

void reduce(const Tensor& u, const Maybe& v, const Maybe& w, const Tensor& out) {
  const Gram gram(u, v, w, out);
  double* result = static_cast<double*>(out.mutable_data_ptr());
  const int64_t entries = (gram.vectors + 1) * (gram.vectors + 1);
  std::fill_n(result, out.numel(), 0.0);
  if (gram.samples == 0 || gram.size == 0) return;
  bool wide = false;
  for (int i = 0; i < gram.vectors; ++i) wide |= gram.views[i].dtype == Dtype::kF64;
  const int64_t tiles = gram.walk.rows() * tiles_of_row(gram.walk);
  const int64_t chunks = (tiles + kChunk - 1) / kChunk;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::min(gram.size, kChunk * kTile));
  std::vector<double> partial(gram.samples * chunks * gram.sums());
  torch::stable::parallel_for(0, gram.samples * chunks, grain, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t sample = c / chunks, first = c % chunks * kChunk;
      const int64_t last = std::min(tiles, first + kChunk);
      double* sums = partial.data() + c * gram.sums();
      if (wide) {
        add_chunk<double>(gram, sample, first, last, sums);
      } else {
        add_chunk<float>(gram, sample, first, last, sums);
      }
    }
  });
  for (int64_t b = 0; b < gram.samples; ++b) {
    fill(gram, partial.data() + b * chunks * gram.sums(), chunks, result + b * entries);
  }
}

}  // namespace
}  // namespace reg_engine

STABLE_TORCH_LIBRARY_IMPL(reg_engine_csrc, CPU, m) {
  m.impl("reduce", TORCH_BOX(&reg_engine::reduce));
}
