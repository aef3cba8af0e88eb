// The arithmetic of combine and guided_step over a tile: short loops that become vector code.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "../coefficients.h"
#include "tiles.h"

namespace reg_engine {

// Pointers of one loop may be equal (a step in place), never shifted: hence ivdep, not restrict.
template <typename T>
REG_ENGINE_CLONES void guide(T* to, const T* cond, const T* ref, T w, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) to[i] = cond[i] + w * (cond[i] - ref[i]);
}

template <typename T>
REG_ENGINE_CLONES void rectify(T* to, const T* cond, const T* ref, const T* term, T w, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) to[i] = cond[i] + w * (term[i] * (cond[i] - ref[i]));
}

template <typename T>
REG_ENGINE_CLONES void add(T* to, const T* a, const T* b, T w, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) to[i] = a[i] + w * b[i];
}

// The same with a weight of each sample; where that is 0, `cond` alone, whatever lies beside it.
template <typename T>
REG_ENGINE_CLONES void weigh(T* to, const T* cond, const T* direction, const T* w, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const T guided = cond[i] + w[i] * direction[i];
    to[i] = w[i] == 0 ? cond[i] : guided;
  }
}

template <typename T>
REG_ENGINE_CLONES void subtract(T* to, const T* a, const T* b, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) to[i] = a[i] - b[i];
}

template <typename T>
REG_ENGINE_CLONES bool any_nonfinite(const T* values, int64_t n) {
  const T largest = std::numeric_limits<T>::max();
  int found = 0;
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) found |= !(std::abs(values[i]) <= largest);
  return found != 0;
}

template <typename T>
REG_ENGINE_CLONES void multiply(T* to, const T* a, const T* b, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) to[i] = a[i] * b[i];
}

// As `update`, denoised clipped.
template <typename T>
REG_ENGINE_CLONES void update_clipped(T* x_s, T* d, const T* x, const T* g, const T* row,
                                      int64_t n) {
  const T skip = row[kSkip], out = row[kOut], p = row[kP], q = row[kQ];
  const T a = row[kA], b = row[kFirstB], limit = row[kLimit], keep = row[kKeep];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const T denoised = skip * x[i] + out * g[i];
    const T within = denoised < -limit ? -limit : denoised > limit ? limit : denoised;
    const T clipped = within + keep * (within - denoised);
    const T kept = p * x[i] + q * clipped;
    const T next = a * x[i] + b * kept;
    d[i] = kept;
    x_s[i] = next;
  }
}

// x_s without noise and earlier d, and d, from x and the guided prediction g.
template <typename T>
REG_ENGINE_CLONES void update(T* x_s, T* d, const T* x, const T* g, const T* row, int64_t n) {
  const T skip = row[kSkip], out = row[kOut], p = row[kP], q = row[kQ];
  const T a = row[kA], b = row[kFirstB];
#pragma GCC ivdep
  for (int64_t i = 0; i < n; ++i) {
    const T kept = p * x[i] + q * (skip * x[i] + out * g[i]);
    const T next = a * x[i] + b * kept;
    d[i] = kept;
    x_s[i] = next;
  }
}

}  // namespace reg_engine
