// Rotation of the heads of queries or keys; see rope.py.

#include "rows.h"

namespace {

template <typename T>
struct Values;
template <>
struct Values<float> {
  static float read(float value) { return value; }
  static float write(float value) { return value; }
};
template <>
struct Values<uint16_t> {
  static float read(uint16_t value) { return widen(value); }
  static uint16_t write(float value) { return narrow(value); }
};

template <typename T>
void rotate(const T* x, T* rotated, const float* cos, const float* sin, const int64_t* strides, int64_t lead,
            int64_t tokens, int64_t heads, int64_t half, float sign, int64_t threads) {
#pragma omp parallel for collapse(2) schedule(static) num_threads(count_threads(lead* tokens* heads* half, threads))
  for (int64_t group = 0; group < lead; ++group) {
    for (int64_t token = 0; token < tokens; ++token) {
      const float* token_cos = cos + group * strides[3] + token * strides[4];
      const float* token_sin = sin + group * strides[5] + token * strides[6];
      for (int64_t head = 0; head < heads; ++head) {
        const T* first = x + group * strides[0] + token * strides[1] + head * strides[2];
        const T* second = first + half;
        T* target = rotated + ((group * tokens + token) * heads + head) * 2 * half;
#pragma omp simd
        for (int64_t i = 0; i < half; ++i) {
          float a = Values<T>::read(first[i]), b = Values<T>::read(second[i]), s = token_sin[i] * sign;
          target[i] = Values<T>::write(a * token_cos[i] - b * s);
          target[half + i] = Values<T>::write(b * token_cos[i] + a * s);
        }
      }
    }
  }
}

}  // namespace

// x: (lead, tokens, heads, 2 * half). rotated: the same, contiguous. cos, sin: fp32 (lead, tokens, half).
// strides: of lead, token and head of x, of lead and token of cos, and of lead and token of sin.
extern "C" void cram_rope(const void* x, void* rotated, const float* cos, const float* sin, int64_t dtype,
                          const int64_t* strides, int64_t lead, int64_t tokens, int64_t heads, int64_t half,
                          int64_t sign, int64_t threads) {
  if (dtype == FLOAT32)
    rotate(static_cast<const float*>(x), static_cast<float*>(rotated), cos, sin, strides, lead, tokens, heads, half,
           static_cast<float>(sign), threads);
  else
    rotate(static_cast<const uint16_t*>(x), static_cast<uint16_t*>(rotated), cos, sin, strides, lead, tokens, heads,
           half, static_cast<float>(sign), threads);
}
