// Rows of fp32 or bf16 values as fp32, and the exponential, for all kernels of this folder.
//
// A kernel copies a row to fp32 in the cache, computes there, and writes the result once.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

enum Dtype : int64_t { FLOAT32 = 0, BFLOAT16 = 1 };

constexpr int64_t SMALLEST_SHARE = 1 << 14;  // values that are worth a thread of their own

inline int count_threads(int64_t values, int64_t threads) {
  int64_t most = values / SMALLEST_SHARE;
  return static_cast<int>(most < 1 ? 1 : most < threads ? most : threads);
}

// Some rows of fp32 values, each from the start of a cache line on: a vector that lies in two lines takes twice as long.
class Buffers {
 public:
  Buffers(int64_t count, int64_t width)
      : stride_((width + 15) / 16 * 16),
        values_(static_cast<float*>(std::aligned_alloc(64, (count * stride_ + 16) * sizeof(float)))) {}
  float* operator[](int64_t row) const { return values_.get() + row * stride_; }

 private:
  struct Free {
    void operator()(float* values) const { std::free(values); }
  };
  int64_t stride_;
  std::unique_ptr<float, Free> values_;
};

inline float widen(uint16_t value) {
  uint32_t bits = static_cast<uint32_t>(value) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof wide);
  return wide;
}

// Rounds to nearest, ties to even. Rounding the bits of a NaN could give an infinity, so NaN is written as such.
inline uint16_t narrow(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return static_cast<uint16_t>(value != value ? 0x7fc0 : rounded);
}

// Returns `count` values from `offset` on as fp32: those in memory themselves, or a copy in `copy`.
inline const float* read_row(const void* values, int64_t dtype, int64_t offset, int64_t count, float* copy) {
  if (dtype == FLOAT32) return static_cast<const float*>(values) + offset;
  const uint16_t* row = static_cast<const uint16_t*>(values) + offset;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) copy[i] = widen(row[i]);
  return copy;
}

inline void write_row(void* values, int64_t dtype, int64_t offset, int64_t count, const float* row) {
  if (dtype == FLOAT32) {
    std::memcpy(static_cast<float*>(values) + offset, row, count * sizeof(float));
    return;
  }
  uint16_t* target = static_cast<uint16_t*>(values) + offset;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) target[i] = narrow(row[i]);
}

// exp(x) for x <= 0 or NaN, within 2 units in the last place; 0 below -87, where fp32 has subnormal numbers only.
// Source: Cephes, expf: x = n ln 2 + r, and a polynomial of r.
inline float exp_of_negative(float x) {
  float bounded = x < -87.0f ? -87.0f : x;
  float shifted = bounded * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: the sum is rounded to a whole number
  float whole = shifted - 12582912.0f;
  float rest = bounded - whole * 0.693359375f - whole * -2.12194440e-4f;
  float series = 1.9875691500e-4f;
  series = series * rest + 1.3981999507e-3f;
  series = series * rest + 8.3334519073e-3f;
  series = series * rest + 4.1665795894e-2f;
  series = series * rest + 1.6666665459e-1f;
  series = series * rest + 5.0000001201e-1f;
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits = (bits - 0x4b400000u + 127u) << 23;
  float power;
  std::memcpy(&power, &bits, sizeof power);
  float value = (series * rest * rest + rest + 1.0f) * power;
  return x < -87.0f ? 0.0f : value;
}
