// probe on the CPU: [x; ...; x; x + h d], times c_in of the row. See reg_engine/ops/formulas.py.
#include "../probe.h"

#include <torch/csrc/stable/library.h>

#include "convert.h"
#include "tiles.h"

namespace reg_engine {
namespace {

template <typename T>
REG_ENGINE_CLONES void scale(T* to, const T* x, T c_in, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) to[i] = c_in * x[i];
}

template <typename T>
REG_ENGINE_CLONES void move(T* to, const T* x, const T* h, const T* d, T c_in, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) to[i] = c_in * (x[i] + h[i] * d[i]);
}

template <typename T>
void probe_as(const Probe& all, T c_in) {
  const Walk walk = all.walk();
  const Lane to(all.views[Probe::kTo], walk, Probe::kTo);
  const Lane x(all.views[Probe::kFrom], walk, Probe::kFrom);
  const Lane direction(all.views[Probe::kAlong], walk, Probe::kAlong);
  const Lane length(all.views[Probe::kBy], walk, Probe::kBy);
  each_tile(walk, [&](const int64_t* at, int64_t n) {
    alignas(64) T x_tile[kTile], h_tile[kTile], d_tile[kTile], result[kTile];
    const T* state = load(x, at[Probe::kFrom], n, x_tile);
    scale(result, state, c_in, n);
    for (int64_t k = 0; k < all.copies; ++k) store<T>(result, to, at[Probe::kTo] + k * all.size, n);
    const T* h = load(length, at[Probe::kBy], n, h_tile);
    move(result, state, h, load(direction, at[Probe::kAlong], n, d_tile), c_in, n);
    store<T>(result, to, at[Probe::kTo] + all.copies * all.size, n);
  });
}

void probe(const Tensor& x, const Tensor& direction, const Tensor& length, const Tensor& table,
           const Tensor& step, int64_t copies, const Tensor& out) {
  const Probe all(x, direction, length, table, step, copies, out);
  const int64_t now = *static_cast<const int64_t*>(step.const_data_ptr());
  STD_TORCH_CHECK(now >= 0 && now < table.size(0), "step is ", now, ", table is ", shown(table));
  if (out.numel() == 0) return;
  const int64_t place = now * table.stride(0) + kCIn;
  if (all.views[Probe::kFrom].dtype == Dtype::kF64) {
    probe_as(all, static_cast<const double*>(table.const_data_ptr())[place]);
  } else {
    probe_as(all, static_cast<const float*>(table.const_data_ptr())[place]);
  }
}

}  // namespace
}  // namespace reg_engine

STABLE_TORCH_LIBRARY_IMPL(reg_engine_csrc, CPU, m) {
  m.impl("probe", TORCH_BOX(&reg_engine::probe));
}
