// What the CUDA kernels share: loads and stores of any dtype, the way from a thread to its
// elements, and the launch on the current stream.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/macros.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../arguments.h"

namespace reg_engine {

constexpr int kThreads = 256;

// N elements that one thread reads or writes together.
template <typename T, int N>
struct Pack {
  T v[N];
};

// The same as they lie in memory; 16 bytes are one access.
template <typename S, int N>
struct alignas(sizeof(S) * N < 16 ? sizeof(S) * N : 16) Bytes {
  S v[N];
};

template <typename T, typename S>
__device__ T convert(S value) {
  return static_cast<T>(value);
}
template <>
__device__ inline float convert(__half value) {
  return __half2float(value);
}
template <>
__device__ inline double convert(__half value) {
  return __half2float(value);
}
template <>
__device__ inline float convert(__nv_bfloat16 value) {
  return __bfloat162float(value);
}
template <>
__device__ inline double convert(__nv_bfloat16 value) {
  return __bfloat162float(value);
}
// From double through float, as torch does.
template <>
__device__ inline __half convert(float value) {
  return __float2half_rn(value);
}
template <>
__device__ inline __half convert(double value) {
  return __float2half_rn(static_cast<float>(value));
}
template <>
__device__ inline __nv_bfloat16 convert(float value) {
  return __float2bfloat16_rn(value);
}
template <>
__device__ inline __nv_bfloat16 convert(double value) {
  return __float2bfloat16_rn(static_cast<float>(value));
}

template <typename T, typename S, int N>
__device__ Pack<T, N> load_as(const char* data, int64_t at, int64_t stride) {
  const S* source = reinterpret_cast<const S*>(data) + at;
  Pack<T, N> pack;
  if (N > 1 && stride == 1) {
    const Bytes<S, N> bytes = *reinterpret_cast<const Bytes<S, N>*>(source);
#pragma unroll
    for (int i = 0; i < N; ++i) pack.v[i] = convert<T>(bytes.v[i]);
  } else {  // one element, for all of the pack where N > 1
    const T value = convert<T>(*source);
#pragma unroll
    for (int i = 0; i < N; ++i) pack.v[i] = value;
  }
  return pack;
}

template <typename T, typename S, int N>
__device__ void store_as(const Pack<T, N>& pack, char* data, int64_t at) {
  Bytes<S, N> bytes;
#pragma unroll
  for (int i = 0; i < N; ++i) bytes.v[i] = convert<S>(pack.v[i]);
  *reinterpret_cast<Bytes<S, N>*>(reinterpret_cast<S*>(data) + at) = bytes;
}

// A dtype that is asked for at run time. Where one is known when a kernel is compiled its loads are
// issued one after the other; between those of Any a conversion waits for what was loaded.
struct Any {};

// A tensor as a kernel gets it; `stride` along the inner dimension of the walk.
struct Lane {
  char* data = nullptr;
  Dtype dtype = Dtype::kF32;
  int64_t stride = 0;

  Lane() = default;
  Lane(const View& view, const Walk& walk, int operand)
      : data(view.data), dtype(view.dtype), stride(walk.stride(operand)) {}

  // As T; S is the dtype in memory.
  template <typename T, typename S, int N>
  __device__ Pack<T, N> load(int64_t at) const {
    if constexpr (!std::is_same_v<S, Any>) {
      return load_as<T, S, N>(data, at, stride);
    } else {
      switch (dtype) {  // the same for every thread
        case Dtype::kF32: return load_as<T, float, N>(data, at, stride);
        case Dtype::kF64: return load_as<T, double, N>(data, at, stride);
        case Dtype::kF16: return load_as<T, __half, N>(data, at, stride);
        default: return load_as<T, __nv_bfloat16, N>(data, at, stride);
      }
    }
  }

  template <typename T, typename S, int N>
  __device__ void store(const Pack<T, N>& pack, int64_t at) const {
    if constexpr (!std::is_same_v<S, Any>) {
      store_as<T, S, N>(pack, data, at);
    } else {
      switch (dtype) {
        case Dtype::kF32: return store_as<T, float, N>(pack, data, at);
        case Dtype::kF64: return store_as<T, double, N>(pack, data, at);
        case Dtype::kF16: return store_as<T, __half, N>(pack, data, at);
        default: return store_as<T, __nv_bfloat16, N>(pack, data, at);
      }
    }
  }
};

template <typename S>
struct Type {
  using type = S;
};

// launch(Type<S>{}) with S what views[first], ..., views[last] have in common, or Any. In float64,
// which nobody guides in for speed, and for single elements it is Any.
template <typename T, int N, typename Launch>
void with_dtype(const View* views, int first, int last, const Launch& launch) {
  if constexpr (N > 1 && !std::is_same_v<T, double>) {
    const Dtype dtype = views[first].dtype;
    bool known = true;
    for (int o = first + 1; o <= last; ++o) known = known && (!views[o] || views[o].dtype == dtype);
    if (known && dtype == Dtype::kF32) return launch(Type<float>{});
    if (known && dtype == Dtype::kF16) return launch(Type<__half>{});
    if (known && dtype == Dtype::kBF16) return launch(Type<__nv_bfloat16>{});
  }
  launch(Type<Any>{});
}

__device__ inline int64_t divide(int64_t n, int64_t by, int64_t* rest) {
  const bool narrow = ((n | by) >> 32) == 0;  // 64-bit division is many times slower
  const int64_t whole = narrow ? int64_t(uint32_t(n) / uint32_t(by)) : n / by;
  *rest = n - whole * by;
  return whole;
}

// Where pack number `index` of N elements along the inner dimension lies, in each operand.
template <int N>
__device__ void locate(const Walk& walk, int64_t index, int64_t* offsets) {
  int64_t place = index, row = 0;
  const int last = walk.dims - 1;
  if (last > 0) row = divide(index, walk.sizes[last] / N, &place);
#pragma unroll
  for (int o = 0; o < kMaxOperands; ++o) offsets[o] = place * N * walk.strides[o][last];
  for (int d = last - 1; d >= 0; --d) {
    row = divide(row, walk.sizes[d], &place);
#pragma unroll
    for (int o = 0; o < kMaxOperands; ++o) offsets[o] += place * walk.strides[o][d];
  }
}

// Whether packs of N elements of an operand are aligned wherever the walk goes.
inline bool packs(const View& view, const Walk& walk, int operand, int N) {
  if (!view || walk.stride(operand) == 0) return true;
  const int64_t bytes = std::min(16, N * width(view.dtype));
  bool aligned = walk.stride(operand) == 1 && walk.inner() % N == 0 &&
                 reinterpret_cast<uintptr_t>(view.data) % bytes == 0;
  for (int d = 0; d < walk.dims - 1; ++d) {
    aligned = aligned && walk.strides[operand][d] % N == 0;
  }
  return aligned;
}

inline bool packs(const View* views, const Walk& walk, int N) {
  for (int o = 0; o < walk.operands; ++o) {
    if (!packs(views[o], walk, o, N)) return false;
  }
  return walk.inner() % N == 0 && N > 1;
}

inline cudaStream_t stream_of(const Tensor& tensor) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

// Blocks for `threads` threads of a grid-stride loop: one turn for each, unless there are too many.
// Blocks that end early make room for the loads of others, which a loop in each would wait for.
inline int blocks_for(int64_t threads) {
  return static_cast<int>(std::min<int64_t>((threads + kThreads - 1) / kThreads, INT32_MAX));
}

// The row of a step, or null where the table has no such row.
template <typename T>
struct Table {
  const T* numbers;
  const int64_t* step;
  int64_t rows, stride, columns;

  Table(const Tensor& table, const Tensor& which)
      : numbers(static_cast<const T*>(table.const_data_ptr())),
        step(static_cast<const int64_t*>(which.const_data_ptr())),
        rows(table.size(0)),
        stride(table.stride(0)),
        columns(table.size(1)) {}

  __device__ const T* row() const {
    return *step >= 0 && *step < rows ? numbers + *step * stride : nullptr;
  }
};

template <typename T>
__device__ T not_a_number() {
  return static_cast<T>(__int_as_float(0x7fc00000));
}

}  // namespace reg_engine
