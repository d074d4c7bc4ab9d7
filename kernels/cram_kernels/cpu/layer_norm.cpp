// Layer normalisation of rows with an optional residual sum in front of it, forward and backward; see layer_norm.py.

#include <cmath>

#include "rows.h"

namespace {

float sum_row(const float* row, int64_t width) {
  float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) sum += row[i];
  return sum;
}

// Writes row - mean to `centred`. The mean of values at a large offset is rounded, and what is left is taken off again.
// Returns the mean.
float centre(const float* row, int64_t width, float mean, float* centred) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) centred[i] = row[i] - mean;
  float shift = sum_row(centred, width) / width;
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) centred[i] -= shift;
  return mean + shift;
}

}  // namespace

// x, residual, y, sum: (rows, width); residual and sum may be null. weight, bias: fp32 (width), or null.
// mean, rstd: fp32 (rows).
extern "C" void cram_layer_norm_forward(const void* x, int64_t x_dtype, const void* residual, int64_t residual_dtype,
                                        const float* weight, const float* bias, void* y, void* sum, int64_t sum_dtype,
                                        float* mean, float* rstd, double eps, int64_t rows, int64_t width,
                                        int64_t threads) {
#pragma omp parallel num_threads(count_threads(rows * width, threads))
  {
    Buffers buffers(3, width);
    float *copy = buffers[0], *other = buffers[1], *centred = buffers[2];
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      const float* total = read_row(x, x_dtype, row * width, width, copy);
      if (residual != nullptr) {
        const float* added = read_row(residual, residual_dtype, row * width, width, other);
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) copy[i] = total[i] + added[i];
        write_row(sum, sum_dtype, row * width, width, copy);
        // What is normalised is the sum as it was stored.
        total = sum_dtype == FLOAT32 ? copy : read_row(sum, sum_dtype, row * width, width, copy);
      }
      mean[row] = centre(total, width, sum_row(total, width) / width, centred);
      float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < width; ++i) squares += centred[i] * centred[i];
      float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(squares) / width + eps));
      rstd[row] = scale;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i)
        centred[i] = centred[i] * scale * (weight ? weight[i] : 1.0f) + (bias ? bias[i] : 0.0f);
      write_row(y, sum_dtype, row * width, width, centred);
    }
  }
}

// grad_y, grad_sum, sum, grad: (rows, width), grad_sum may be null. weight: fp32 (width), or null. mean, rstd: fp32
// (rows). weight_sums, bias_sums: fp32 (threads, width), zeros, for the gradients of weight and bias; or null.
extern "C" void cram_layer_norm_backward(const void* grad_y, int64_t grad_y_dtype, const void* grad_sum,
                                         int64_t grad_sum_dtype, const void* sum, int64_t sum_dtype,
                                         const float* weight, const float* mean, const float* rstd, void* grad,
                                         float* weight_sums, float* bias_sums, int64_t rows, int64_t width,
                                         int64_t threads) {
  int used = count_threads(rows * width, threads);
#pragma omp parallel for num_threads(used) schedule(static, 1)
  for (int part = 0; part < used; ++part) {
    Buffers buffers(5, width);
    float *copy = buffers[0], *upstream = buffers[1], *other = buffers[2], *normal = buffers[3], *result = buffers[4];
    float* weight_sum = weight_sums ? weight_sums + part * width : nullptr;
    float* bias_sum = bias_sums ? bias_sums + part * width : nullptr;
    for (int64_t row = rows * part / used; row < rows * (part + 1) / used; ++row) {
      const float* dy = read_row(grad_y, grad_y_dtype, row * width, width, upstream);
      centre(read_row(sum, sum_dtype, row * width, width, copy), width, mean[row], normal);
      float scale = rstd[row], mean_g = 0.0f, mean_gn = 0.0f;
#pragma omp simd reduction(+ : mean_g, mean_gn)
      for (int64_t i = 0; i < width; ++i) {
        float g = dy[i] * (weight ? weight[i] : 1.0f);
        normal[i] *= scale;
        mean_g += g;
        mean_gn += g * normal[i];
      }
      mean_g /= width;
      mean_gn /= width;
#pragma omp simd
      for (int64_t i = 0; i < width; ++i)
        result[i] = (dy[i] * (weight ? weight[i] : 1.0f) - mean_g - normal[i] * mean_gn) * scale;
      if (grad_sum != nullptr) {
        const float* added = read_row(grad_sum, grad_sum_dtype, row * width, width, other);
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) result[i] += added[i];
      }
      write_row(grad, sum_dtype, row * width, width, result);
      if (weight_sum != nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) weight_sum[i] += dy[i] * normal[i];
      }
      if (bias_sum != nullptr) {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) bias_sum[i] += dy[i];
      }
    }
  }
}
