#include "convert.h"

#include <algorithm>
#include <cstring>

#include "half.h"

namespace reg_engine {
namespace {

REG_ENGINE_CLONES void widen_bf16(const uint16_t* from, float* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = from_bf16(from[i]);
}

REG_ENGINE_CLONES void widen_f16(const uint16_t* from, float* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = from_f16(from[i]);
}

REG_ENGINE_CLONES void narrow_bf16(const float* from, uint16_t* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = to_bf16(from[i]);
}

REG_ENGINE_CLONES void narrow_f16(const float* from, uint16_t* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = to_f16(from[i]);
}

REG_ENGINE_CLONES void widen(const float* from, double* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
}

REG_ENGINE_CLONES void narrow(const double* from, float* __restrict to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]);
}

template <typename U>
void gather(const char* from, int64_t stride, U* to, int64_t n) {
  const U* source = reinterpret_cast<const U*>(from);
  if (stride == 0) {
    std::fill_n(to, n, *source);
  } else {
    for (int64_t i = 0; i < n; ++i) to[i] = source[i * stride];
  }
}

template <typename U>
void scatter(const U* from, char* to, int64_t stride, int64_t n) {
  U* target = reinterpret_cast<U*>(to);
  for (int64_t i = 0; i < n; ++i) target[i * stride] = from[i];
}

// Room for a tile of the widest dtype, as it lies in memory.
struct alignas(64) Raw {
  char bytes[kTile * sizeof(double)];

  uint16_t* halves() { return reinterpret_cast<uint16_t*>(bytes); }
  float* floats() { return reinterpret_cast<float*>(bytes); }
  double* doubles() { return reinterpret_cast<double*>(bytes); }
};

// n elements as they are, densely: in place where they lie so, else in `raw`.
const char* dense(const Lane& from, int64_t offset, int64_t n, Raw& raw) {
  const char* source = from.at(offset);
  if (from.stride == 1) return source;
  switch (width(from.dtype)) {
    case 2: gather(source, from.stride, raw.halves(), n); break;
    case 4: gather(source, from.stride, raw.floats(), n); break;
    default: gather(source, from.stride, raw.doubles(), n);
  }
  return raw.bytes;
}

// Dense elements to where `to` has them.
void spread(const char* from, const Lane& to, int64_t offset, int64_t n) {
  char* target = to.at(offset);
  if (to.stride == 1) {
    std::memmove(target, from, n * width(to.dtype));
    return;
  }
  switch (width(to.dtype)) {
    case 2: scatter(reinterpret_cast<const uint16_t*>(from), target, to.stride, n); break;
    case 4: scatter(reinterpret_cast<const float*>(from), target, to.stride, n); break;
    default: scatter(reinterpret_cast<const double*>(from), target, to.stride, n);
  }
}

}  // namespace

template <typename T>
const T* load(const Lane& from, int64_t offset, int64_t n, T* buffer) {
  if (from.dtype == own_dtype<T>) {
    if (from.stride == 1) return reinterpret_cast<const T*>(from.at(offset));
    gather(from.at(offset), from.stride, buffer, n);
  } else if constexpr (sizeof(T) == sizeof(double)) {
    alignas(64) float single[kTile];
    widen(load(from, offset, n, single), buffer, n);
  } else {
    Raw raw;
    const char* source = dense(from, offset, n, raw);
    switch (from.dtype) {
      case Dtype::kF16: widen_f16(reinterpret_cast<const uint16_t*>(source), buffer, n); break;
      case Dtype::kBF16: widen_bf16(reinterpret_cast<const uint16_t*>(source), buffer, n); break;
      default: narrow(reinterpret_cast<const double*>(source), buffer, n);
    }
  }
  return buffer;
}

template const float* load(const Lane&, int64_t, int64_t, float*);
template const double* load(const Lane&, int64_t, int64_t, double*);

template <>
void store(const float* values, const Lane& to, int64_t offset, int64_t n) {
  Raw raw;
  const char* source = raw.bytes;
  switch (to.dtype) {
    case Dtype::kF32: source = reinterpret_cast<const char*>(values); break;
    case Dtype::kF64: widen(values, raw.doubles(), n); break;
    case Dtype::kF16: narrow_f16(values, raw.halves(), n); break;
    case Dtype::kBF16: narrow_bf16(values, raw.halves(), n); break;
  }
  if (source != to.at(offset)) spread(source, to, offset, n);
}

template <>
void store(const double* values, const Lane& to, int64_t offset, int64_t n) {
  if (to.dtype == Dtype::kF64) {
    const char* source = reinterpret_cast<const char*>(values);
    if (source != to.at(offset)) spread(source, to, offset, n);
    return;
  }
  alignas(64) float single[kTile];
  narrow(values, single, n);
  store<float>(single, to, offset, n);
}

void copy(const Lane& from, int64_t from_offset, const Lane& to, int64_t to_offset, int64_t n) {
  Raw raw;
  spread(dense(from, from_offset, n, raw), to, to_offset, n);
}

}  // namespace reg_engine
