// reduce on CUDA, in float64: see reg_engine/ops/formulas.py for what it computes.
//
// Two stages without atomics: blocks sum chunks of a sample, then one block sums a sample's
// chunks. Chunks are of a fixed size, so every bit depends on the arguments alone.
#include <torch/csrc/stable/ops.h>

#include "../gram.h"
#include "device.cuh"

namespace reg_engine {
namespace {

constexpr int kPacksOfThread = 8;

__host__ __device__ constexpr int sums_of(int vectors) {
  return vectors + vectors * (vectors + 1) / 2;
}

struct Lanes {
  Lane lane[kMaxVectors];
  int64_t sample[kMaxVectors];  // bytes from one sample to the next
};

// The sum over the block, in thread 0. Every thread calls it.
__device__ double block_sum(double value) {
  __shared__ double of_warp[kThreads / 32];
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) value += __shfl_down_sync(~0u, value, lane);
  __syncthreads();  // the last sum has been read
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  value = 0;
  if (threadIdx.x == 0) {
#pragma unroll
    for (int k = 0; k < kThreads / 32; ++k) value += of_warp[k];
  }
  return value;
}

// partial[(sample, chunk, sum)]; V vectors of dtype S, N elements at a time, `count` packs in a
// sample. Fused multiply-adds: a product of float32 is exact in float64, fused or not.
template <typename S, int V, int N>
__global__ void __launch_bounds__(kThreads)
    chunk_kernel(Walk walk, int64_t count, int64_t chunks, Lanes lanes, double* partial) {
  int64_t chunk;
  const int64_t sample = divide(blockIdx.x, chunks, &chunk);
#pragma unroll
  for (int v = 0; v < V; ++v) lanes.lane[v].data += sample * lanes.sample[v];
  double sums[sums_of(V)] = {};
  const int64_t first = chunk * kPacksOfThread * kThreads + threadIdx.x;
#pragma unroll 2
  for (int p = 0; p < kPacksOfThread; ++p) {
    const int64_t k = first + p * kThreads;
    if (k >= count) break;
    int64_t at[kMaxOperands];
    locate<N>(walk, k, at);
    Pack<double, N> packs[V];
#pragma unroll
    for (int v = 0; v < V; ++v) packs[v] = lanes.lane[v].load<double, S, N>(at[v]);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      int next = V;
#pragma unroll
      for (int i = 0; i < V; ++i) {
        sums[i] += packs[i].v[n];
#pragma unroll
        for (int j = i; j < V; ++j, ++next) {
          sums[next] = __fma_rn(packs[i].v[n], packs[j].v[n], sums[next]);
        }
      }
    }
  }
#pragma unroll
  for (int s = 0; s < sums_of(V); ++s) {
    const double total = block_sum(sums[s]);
    if (threadIdx.x == 0) partial[int64_t(blockIdx.x) * sums_of(V) + s] = total;
  }
}

// One block a sample: its chunks, then the symmetric matrix.
__global__ void __launch_bounds__(kThreads)
    matrix_kernel(const double* partial, int64_t chunks, int vectors, double size, double* out) {
  const int k = vectors + 1, sums = sums_of(vectors);
  const double* own = partial + int64_t(blockIdx.x) * chunks * sums;
  double* matrix = out + int64_t(blockIdx.x) * k * k;
  if (threadIdx.x == 0) matrix[0] = size;
  int i = 0, j = 0;  // sums are those of (0, 1) ... (0, V), then (1, 1), (1, 2) ... (V, V)
  for (int s = 0; s < sums; ++s) {
    if (++j == k) ++i, j = i;
    double value = 0;
    for (int64_t c = threadIdx.x; c < chunks; c += kThreads) value += own[c * sums + s];
    value = block_sum(value);
    if (threadIdx.x == 0) matrix[i * k + j] = matrix[j * k + i] = value;
  }
}

template <typename S, int V, int N>
void launch(const Gram& gram, const Lanes& lanes, const Tensor& out) {
  constexpr int64_t chunk = kThreads * kPacksOfThread;
  const int64_t count = gram.walk.rows() * (gram.walk.inner() / N);
  const int64_t chunks = (count + chunk - 1) / chunk;
  const int64_t shape[] = {gram.samples, chunks, sums_of(V)};
  STD_TORCH_CHECK(gram.samples * chunks <= INT32_MAX, "u has ", gram.samples, " samples of ",
                  gram.size, " elements; fewer at a time are needed");
  const Tensor partial = torch::stable::new_empty(out, {shape, 3});
  double* sums = static_cast<double*>(partial.mutable_data_ptr());
  const cudaStream_t stream = stream_of(out);
  chunk_kernel<S, V, N><<<static_cast<unsigned>(gram.samples * chunks), kThreads, 0, stream>>>(
      gram.walk, count, chunks, lanes, sums);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  matrix_kernel<<<static_cast<unsigned>(gram.samples), kThreads, 0, stream>>>(
      sums, chunks, V, static_cast<double>(gram.size),
      static_cast<double*>(out.mutable_data_ptr()));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
}

template <int V>
void reduce_as(const Gram& gram, const Tensor& out) {
  Lanes lanes;
  bool packed = true;
  for (int v = 0; v < V; ++v) {
    const View& view = gram.views[v];
    lanes.lane[v] = Lane(view, gram.walk, v);
    lanes.sample[v] = view.strides[0] * width(view.dtype);
    packed = packed && packs(view, gram.walk, v, 4) && view.strides[0] % 4 == 0;
  }
  if (packed && gram.walk.inner() % 4 == 0) {
    with_dtype<float, 4>(gram.views, 0, V - 1, [&](auto dtype) {
      launch<typename decltype(dtype)::type, V, 4>(gram, lanes, out);
    });
  } else {
    launch<Any, V, 1>(gram, lanes, out);
  }
}

void reduce(const Tensor& u, const Maybe& v, const Maybe& w, const Tensor& out) {
  const Gram gram(u, v, w, out);
  if (out.numel() == 0) return;
  const torch::stable::accelerator::DeviceGuard guard(out.get_device_index());
  if (gram.size == 0) {
    STD_CUDA_CHECK(
        cudaMemsetAsync(out.mutable_data_ptr(), 0, out.numel() * sizeof(double), stream_of(out)));
    return;
  }
  switch (gram.vectors) {
    case 1: return reduce_as<1>(gram, out);
    case 2: return reduce_as<2>(gram, out);
    default: return reduce_as<3>(gram, out);
  }
}

}  // namespace
}  // namespace reg_engine

STABLE_TORCH_LIBRARY_IMPL(reg_engine_csrc, CUDA, m) {
  m.impl("reduce", TORCH_BOX(&reg_engine::reduce));
}
