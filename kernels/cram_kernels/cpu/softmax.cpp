// Masked softmax of rows, forward and backward; see softmax.py.

#include <limits>

#include "rows.h"

// x, shares: (sizes[0], sizes[1], sizes[2], width). mask: bool, its strides given, or null.
extern "C" void cram_softmax_forward(const void* x, void* shares, int64_t dtype, double scale, const uint8_t* mask,
                                     const int64_t* mask_strides, const int64_t* sizes, int64_t width,
                                     int64_t threads) {
  const float lowest = -std::numeric_limits<float>::infinity();
  int64_t rows = sizes[0] * sizes[1] * sizes[2];
  float factor = static_cast<float>(scale);
#pragma omp parallel num_threads(count_threads(rows * width, threads))
  {
    Buffers buffers(2, width);
    float *copy = buffers[0], *result = buffers[1];
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const float* values = read_row(x, dtype, row * width, width, copy);
      const uint8_t* keep = nullptr;
      uint8_t any = 1;
      if (mask != nullptr) {
        keep = mask + row / (sizes[1] * sizes[2]) * mask_strides[0] + row / sizes[2] % sizes[1] * mask_strides[1] +
               row % sizes[2] * mask_strides[2];
        any = 0;
        for (int64_t i = 0; i < width; ++i) any |= keep[i * mask_strides[3]];
      }
      if (!any) {
        std::memset(result, 0, width * sizeof(float));
        write_row(shares, dtype, row * width, width, result);
        continue;
      }
      float largest = lowest, sum = 0.0f;
      if (mask == nullptr) {
#pragma omp simd reduction(max : largest)
        for (int64_t i = 0; i < width; ++i) {
          result[i] = values[i] * factor;
          largest = result[i] > largest ? result[i] : largest;
        }
      } else if (mask_strides[3] == 1) {
#pragma omp simd reduction(max : largest)
        for (int64_t i = 0; i < width; ++i) {
          result[i] = keep[i] ? values[i] * factor : lowest;
          largest = result[i] > largest ? result[i] : largest;
        }
      } else {
        for (int64_t i = 0; i < width; ++i) {
          result[i] = keep[i * mask_strides[3]] ? values[i] * factor : lowest;
          largest = result[i] > largest ? result[i] : largest;
        }
      }
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < width; ++i) {
        result[i] = exp_of_negative(result[i] - largest);
        sum += result[i];
      }
      float share = 1.0f / sum;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) result[i] *= share;
      write_row(shares, dtype, row * width, width, result);
    }
  }
}

// grad_shares, shares, grad_x: (rows, width).
extern "C" void cram_softmax_backward(const void* grad_shares, const void* shares, void* grad_x, int64_t dtype,
                                      double scale, int64_t rows, int64_t width, int64_t threads) {
  float factor = static_cast<float>(scale);
#pragma omp parallel num_threads(count_threads(rows * width, threads))
  {
    Buffers buffers(3, width);
    float *copy = buffers[0], *upstream = buffers[1], *result = buffers[2];
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const float* p = read_row(shares, dtype, row * width, width, copy);
      const float* dp = read_row(grad_shares, dtype, row * width, width, upstream);
      float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < width; ++i) sum += p[i] * dp[i];
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) result[i] = factor * p[i] * (dp[i] - sum);
      write_row(grad_x, dtype, row * width, width, result);
    }
  }
}
