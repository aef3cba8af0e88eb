// float16 and bfloat16 to float and back, one rounding to nearest even.
//
// Integer arithmetic without branches, which vectorises at every level of x86-64; none needs
// subnormal floats, so that flushing these changes nothing.
#pragma once

#include <cstdint>
#include <cstring>

namespace reg_engine {

template <typename To, typename From>
inline To bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  std::memcpy(&result, &value, sizeof(To));
  return result;
}

inline float from_bf16(uint16_t x) { return bits<float>(uint32_t{x} << 16); }

inline uint16_t to_bf16(float x) {
  const uint32_t v = bits<uint32_t>(x);
  const uint32_t rounded = (v + 0x7fff + ((v >> 16) & 1)) >> 16;
  return static_cast<uint16_t>((v & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
}

inline float from_f16(uint16_t x) {
  const uint32_t magnitude = uint32_t{x} & 0x7fff;
  const uint32_t sign = (uint32_t{x} & 0x8000) << 16;
  const uint32_t normal = (magnitude << 13) + ((127 - 15) << 23);
  const uint32_t huge = normal + ((128 - 16) << 23);  // Inf and NaN
  // Below 2^-14: 2^-14 (1 + m / 1024) - 2^-14.
  const float small = bits<float>((magnitude << 13) + (113u << 23)) - bits<float>(113u << 23);
  const uint32_t value = magnitude >= 0x7c00  ? huge
                         : magnitude < 0x0400 ? bits<uint32_t>(small)
                                              : normal;
  return bits<float>(value | sign);
}

inline uint16_t to_f16(float x) {
  const uint32_t v = bits<uint32_t>(x), magnitude = v & 0x7fffffff;
  // Round to nearest even at bit 13; a carry into the exponent is right, up to Inf.
  const uint32_t normal = (magnitude - ((127 - 15) << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  // Below 2^-14 the sum with 0.5 rounds at 2^-24, and leaves the digits in the low bits.
  const uint32_t small = bits<uint32_t>(bits<float>(magnitude) + 0.5f) - bits<uint32_t>(0.5f);
  const uint32_t huge = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
  const uint32_t value = magnitude >= (143u << 23)  ? huge
                         : magnitude < (113u << 23) ? small
                                                    : normal;
  return static_cast<uint16_t>(value | (v >> 16 & 0x8000));
}

// The two kinds as types, for loops that are written once.
struct BF16 {
  static float wide(uint16_t x) { return from_bf16(x); }
  static uint16_t half(float x) { return to_bf16(x); }
};

struct F16 {
  static float wide(uint16_t x) { return from_f16(x); }
  static uint16_t half(float x) { return to_f16(x); }
};

}  // namespace reg_engine
