// Tiles of any dtype and stride as plain arrays of float or double, and back.
#pragma once

#include <cstdint>

#include "../arguments.h"
#include "tiles.h"

namespace reg_engine {

// One tensor along the inner dimension of a walk.
struct Lane {
  char* data = nullptr;
  Dtype dtype = Dtype::kF32;
  int64_t stride = 0;

  Lane() = default;
  Lane(const View& view, const Walk& walk, int operand)
      : data(view.data), dtype(view.dtype), stride(walk.stride(operand)) {}

  explicit operator bool() const { return data != nullptr; }
  char* at(int64_t offset) const { return data + offset * width(dtype); }
};

template <typename T>
constexpr Dtype own_dtype = sizeof(T) == 8 ? Dtype::kF64 : Dtype::kF32;

// n <= kTile elements from `offset` on: where they lie if they are T's and dense, else in `buffer`.
template <typename T>
const T* load(const Lane& from, int64_t offset, int64_t n, T* buffer);

// Where a kernel may write n elements of T for `store`: in place, or `buffer`.
template <typename T>
T* target(const Lane& to, int64_t offset, T* buffer) {
  const bool direct = to.dtype == own_dtype<T> && to.stride == 1;
  return direct ? reinterpret_cast<T*>(to.at(offset)) : buffer;
}

// Write what `target` gave to where it belongs; one rounding, through float as torch does.
template <typename T>
void store(const T* values, const Lane& to, int64_t offset, int64_t n);

// The same bits, from one place to another of the same dtype.
void copy(const Lane& from, int64_t from_offset, const Lane& to, int64_t to_offset, int64_t n);

}  // namespace reg_engine
