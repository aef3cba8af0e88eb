// Tensors as the kernels see them, and the checks that keep a raw call inside memory: the door in
// reg_engine/ops/door.py says the same in the caller's words before.
#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <sstream>
#include <string>

#include "coefficients.h"
#include "walk.h"

namespace reg_engine {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;

enum class Dtype : int { kF32, kF64, kF16, kBF16 };

constexpr int width(Dtype dtype) { return dtype == Dtype::kF64 ? 8 : dtype == Dtype::kF32 ? 4 : 2; }

// A tensor without its sizes, or nothing (data is null then). Strides are borrowed.
struct View {
  char* data = nullptr;
  Dtype dtype = Dtype::kF32;
  const int64_t* strides = nullptr;

  explicit operator bool() const { return data != nullptr; }
  // The same from index `i` of dimension `d` on.
  View from(int d, int64_t i) const {
    return data ? View{data + i * strides[d] * width(dtype), dtype, strides} : View{};
  }
};

inline std::string shown(const Tensor& tensor) {
  std::ostringstream text;
  text << torch::headeronly::toString(tensor.scalar_type()) << " of shape (";
  for (int64_t d = 0; d < tensor.dim(); ++d) text << (d ? ", " : "") << tensor.size(d);
  text << ") on " << (tensor.is_cuda() ? "cuda:" : "cpu");
  if (tensor.is_cuda()) text << tensor.get_device_index();
  return text.str();
}

inline bool is_floating(ScalarType type) {
  return type == ScalarType::Float || type == ScalarType::Double || type == ScalarType::Half ||
         type == ScalarType::BFloat16;
}

inline Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Double: return Dtype::kF64;
    case ScalarType::Half: return Dtype::kF16;
    case ScalarType::BFloat16: return Dtype::kBF16;
    default: return Dtype::kF32;
  }
}

inline View readable(const Tensor& tensor) {
  void* data = const_cast<void*>(tensor.const_data_ptr());
  return {static_cast<char*>(data), dtype_of(tensor), tensor.strides().data()};
}

inline View readable(const Maybe& tensor) { return tensor ? readable(*tensor) : View{}; }

inline View writable(const Tensor& tensor) {
  return {static_cast<char*>(tensor.mutable_data_ptr()), dtype_of(tensor), tensor.strides().data()};
}

inline bool same_device(const Tensor& a, const Tensor& b) {
  return a.is_cuda() == b.is_cuda() &&
         (!a.is_cuda() || a.get_device_index() == b.get_device_index());
}

inline bool same_shape(const Tensor& a, const Tensor& b) { return a.sizes().equals(b.sizes()); }

inline void check_floating(const char* name, const Tensor& tensor) {
  STD_TORCH_CHECK(
      is_floating(tensor.scalar_type()) && tensor.dim() >= 1 && tensor.dim() <= kTensorDims, name,
      " is ", shown(tensor), "; float16, bfloat16, float32 or float64 (B, ...) is needed");
}

// A prediction or a direction: the shape and device of `like`, any floating dtype.
inline void check_like(const char* name, const Tensor& tensor, const Tensor& like) {
  STD_TORCH_CHECK(
      is_floating(tensor.scalar_type()) && same_shape(tensor, like) && same_device(tensor, like),
      name, " is ", shown(tensor), " beside ", shown(like),
      "; the same shape and device are needed");
}

inline void check_like(const char* name, const Maybe& tensor, const Tensor& like) {
  if (tensor) check_like(name, *tensor, like);
}

inline void check_same(const char* name, const Tensor& tensor, const Tensor& like) {
  check_like(name, tensor, like);
  STD_TORCH_CHECK(tensor.scalar_type() == like.scalar_type(), name, " is ", shown(tensor),
                  " beside ", shown(like), "; the same dtype is needed");
}

// An output: no two of its elements share memory by a stride of 0.
inline void check_distinct(const char* name, const Tensor& out) {
  for (int64_t d = 0; d < out.dim(); ++d) {
    STD_TORCH_CHECK(out.stride(d) != 0 || out.size(d) <= 1, name, " is ", shown(out),
                    " expanded along dimension ", d, "; it cannot be written");
  }
}

inline void check_state(const Tensor& x) {
  const ScalarType type = x.scalar_type();
  check_floating("x", x);
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double, "x is ", shown(x),
                  "; a float32 or float64 batch is needed");
}

// One number a sample, in the dtype of x.
inline void check_per_sample(const char* name, const Tensor& values, const Tensor& x) {
  STD_TORCH_CHECK(values.dim() == 1 && values.size(0) == x.size(0) &&
                      values.scalar_type() == x.scalar_type() && same_device(values, x),
                  name, " is ", shown(values), " beside x ", shown(x),
                  "; one number for each sample in the dtype of x is needed");
}

inline void check_table(const Tensor& table, const Tensor& step, const Tensor& x) {
  STD_TORCH_CHECK(table.dim() == 2 && table.size(0) > 0 && table.size(1) > kFirstB &&
                      table.stride(1) == 1 && table.scalar_type() == x.scalar_type() &&
                      same_device(table, x),
                  "table is ", shown(table), " beside x ", shown(x), "; (rows, ", int(kFirstB),
                  " + J) in the dtype of x is needed");
  STD_TORCH_CHECK(
      step.scalar_type() == ScalarType::Long && step.numel() == 1 && same_device(step, x),
      "step is ", shown(step), " beside x ", shown(x), "; one int64 on its device is needed");
}

inline void check_nonfinite(const Tensor& nonfinite, const Tensor& table, const Tensor& x) {
  STD_TORCH_CHECK(nonfinite.dim() == 2 && nonfinite.size(0) == table.size(0) &&
                      nonfinite.size(1) == x.size(0) && nonfinite.is_contiguous() &&
                      nonfinite.scalar_type() == x.scalar_type() && same_device(nonfinite, x),
                  "nonfinite is ", shown(nonfinite), " beside x ", shown(x),
                  "; contiguous (rows, B) in the dtype of x is needed");
}

inline void check_history(const Maybe& history, const Tensor& x, int64_t slots) {
  if (!history) {
    STD_TORCH_CHECK(slots == 1, "history is absent, the table reads ", slots, " values of d");
    return;
  }
  bool fits = history->dim() == x.dim() + 1 && history->scalar_type() == x.scalar_type() &&
              same_device(*history, x) && history->is_contiguous() && history->size(0) >= slots;
  for (int64_t d = 0; fits && d < x.dim(); ++d) fits = history->size(d + 1) == x.size(d);
  STD_TORCH_CHECK(fits, "history is ", shown(*history), " beside x ", shown(x),
                  "; a contiguous ring of ", slots, " slots or more is needed");
}

}  // namespace reg_engine
