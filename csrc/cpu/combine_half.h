// combine in one loop, where all operands lie densely in one 16-bit kind: what is converted stays
// in registers, and only the result is rounded.
#pragma once

#include <cstdint>
#include <type_traits>

#include "half.h"
#include "tiles.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define REG_ENGINE_F16C __attribute__((target("avx2,f16c")))
#endif

namespace reg_engine {

// ref or term may be null, not both. `to` may be one of the others.
struct Halves {
  uint16_t* to;
  const uint16_t *cond, *ref, *term;
};

template <typename Kind, bool kRef, bool kTerm>
REG_ENGINE_CLONES void combine_loop(uint16_t* to, const uint16_t* cond, const uint16_t* ref,
                                    const uint16_t* term, float w, int64_t first, int64_t n) {
#pragma GCC ivdep
  for (int64_t i = first; i < n; ++i) {
    const float c = Kind::wide(cond[i]);
    float direction = 1;
    if constexpr (kTerm) direction = Kind::wide(term[i]);
    if constexpr (kRef) direction *= c - Kind::wide(ref[i]);
    to[i] = Kind::half(c + w * direction);
  }
}

#ifdef REG_ENGINE_F16C
// GCC does not vectorise the processor's own conversions of float16: eight at a time by hand.
REG_ENGINE_F16C inline __m256 wide8(const uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

// The elements before the last n % 8; returns how many that are.
template <bool kRef, bool kTerm>
REG_ENGINE_F16C int64_t combine_f16c(const Halves& at, float w, int64_t n) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 c = wide8(at.cond + i);
    __m256 direction = _mm256_set1_ps(1);
    if constexpr (kTerm) direction = wide8(at.term + i);
    if constexpr (kRef) direction *= c - wide8(at.ref + i);
    const __m256 guided = c + w * direction;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at.to + i),
                     _mm256_cvtps_ph(guided, _MM_FROUND_TO_NEAREST_INT));
  }
  return i;
}
#endif

template <typename Kind, bool kRef, bool kTerm>
void combine_as_said(const Halves& at, float w, int64_t n) {
  int64_t first = 0;
#ifdef REG_ENGINE_F16C
  static const bool f16c = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");
  if (std::is_same_v<Kind, F16> && f16c) first = combine_f16c<kRef, kTerm>(at, w, n);
#endif
  combine_loop<Kind, kRef, kTerm>(at.to, at.cond, at.ref, at.term, w, first, n);
}

template <typename Kind>
void combine_halves(const Halves& at, float w, int64_t n) {
  if (!at.ref) {
    combine_as_said<Kind, false, true>(at, w, n);
  } else if (!at.term) {
    combine_as_said<Kind, true, false>(at, w, n);
  } else {
    combine_as_said<Kind, true, true>(at, w, n);
  }
}

}  // namespace reg_engine
