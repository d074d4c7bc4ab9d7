// act(first half) * second half of rows, forward and backward; see activations.py.

#include <cmath>

#include "rows.h"

namespace {

struct Activation {
  float value, slope;
};

// The error function, within 1.5e-7. Source: Abramowitz and Stegun, 7.1.26, as torch's own vectorised kernel has it.
inline Activation gelu(float a) {
  float t = 1.0f / (1.0f + 0.3275911f * (std::fabs(a) * 0.70710678f));
  float density = exp_of_negative(-0.5f * a * a);
  float series = 1.061405429f;
  series = series * t - 1.453152027f;
  series = series * t + 1.421413741f;
  series = series * t - 0.284496736f;
  series = series * t + 0.254829592f;
  float tail = 0.5f * series * t * density;  // the share beyond |a|
  float share = a < 0.0f ? tail : 1.0f - tail;
  return {a * share, share + a * (0.39894228f * density)};
}

inline Activation silu(float a) {
  float small = exp_of_negative(-std::fabs(a));
  float share = (a < 0.0f ? small : 1.0f) / (1.0f + small);
  return {a * share, share * (1.0f + a * (1.0f - share))};
}

template <Activation ACTIVATE(float)>
void forward(const void* x, void* y, int64_t dtype, int64_t x_stride, int64_t rows, int64_t half, int64_t threads) {
#pragma omp parallel num_threads(count_threads(rows * half, threads))
  {
    Buffers buffers(3, half);
    float *first_copy = buffers[0], *second_copy = buffers[1], *result = buffers[2];
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const float* first = read_row(x, dtype, row * x_stride, half, first_copy);
      const float* second = read_row(x, dtype, row * x_stride + half, half, second_copy);
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) result[i] = ACTIVATE(first[i]).value * second[i];
      write_row(y, dtype, row * half, half, result);
    }
  }
}

template <Activation ACTIVATE(float)>
void backward(const void* grad_y, const void* x, void* grad_x, int64_t dtype, int64_t grad_y_stride, int64_t x_stride,
              int64_t rows, int64_t half, int64_t threads) {
#pragma omp parallel num_threads(count_threads(rows * half, threads))
  {
    Buffers buffers(5, half);
    float *first_copy = buffers[0], *second_copy = buffers[1], *upstream = buffers[2];
    float *grad_first = buffers[3], *grad_second = buffers[4];
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const float* first = read_row(x, dtype, row * x_stride, half, first_copy);
      const float* second = read_row(x, dtype, row * x_stride + half, half, second_copy);
      const float* dy = read_row(grad_y, dtype, row * grad_y_stride, half, upstream);
#pragma omp simd
      for (int64_t i = 0; i < half; ++i) {
        Activation act = ACTIVATE(first[i]);
        grad_first[i] = dy[i] * second[i] * act.slope;
        grad_second[i] = dy[i] * act.value;
      }
      write_row(grad_x, dtype, row * 2 * half, half, grad_first);
      write_row(grad_x, dtype, row * 2 * half + half, half, grad_second);
    }
  }
}

}  // namespace

// x: (rows, 2 * half), rows x_stride apart. y: (rows, half).
extern "C" void cram_gated_forward(const void* x, void* y, int64_t dtype, int64_t is_silu, int64_t x_stride,
                                   int64_t rows, int64_t half, int64_t threads) {
  (is_silu ? forward<silu> : forward<gelu>)(x, y, dtype, x_stride, rows, half, threads);
}

// grad_y: (rows, half), rows grad_y_stride apart. x: (rows, 2 * half), rows x_stride apart. grad_x: (rows, 2 * half).
extern "C" void cram_gated_backward(const void* grad_y, const void* x, void* grad_x, int64_t dtype, int64_t is_silu,
                                    int64_t grad_y_stride, int64_t x_stride, int64_t rows, int64_t half,
                                    int64_t threads) {
  (is_silu ? backward<silu> : backward<gelu>)(grad_y, x, grad_x, dtype, grad_y_stride, x_stride, rows, half, threads);
}
