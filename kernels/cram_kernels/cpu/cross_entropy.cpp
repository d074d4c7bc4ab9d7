// Cross-entropy of rows of logits, which become the gradient of each row's loss in place; see cross_entropy.py.

#include <cmath>

#include "rows.h"

// logits: (rows, classes), rows `stride` apart. target: (rows), a class or ignore_index. losses: fp32 (rows).
// Ignored rows get the loss 0 and a gradient of 0.
extern "C" void cram_cross_entropy_in_place(void* logits, int64_t dtype, int64_t stride, const int64_t* target,
                                            float* losses, int64_t ignore_index, double label_smoothing, double z_loss,
                                            int64_t rows, int64_t classes, int64_t threads) {
  float smoothing = static_cast<float>(label_smoothing), z = static_cast<float>(z_loss);
#pragma omp parallel num_threads(count_threads(rows * classes, threads))
  {
    Buffers buffers(2, classes);
    float *copy = buffers[0], *shares = buffers[1];
#pragma omp for schedule(static)
    for (int64_t row = 0; row < rows; ++row) {
      if (target[row] == ignore_index) {
        losses[row] = 0.0f;
        std::memset(shares, 0, classes * sizeof(float));
        write_row(logits, dtype, row * stride, classes, shares);
        continue;
      }
      const float* x = read_row(logits, dtype, row * stride, classes, copy);
      float largest = x[0];
#pragma omp simd reduction(max : largest)
      for (int64_t i = 0; i < classes; ++i) largest = x[i] > largest ? x[i] : largest;
      float sum = 0.0f, gaps = 0.0f;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < classes; ++i) {
        shares[i] = exp_of_negative(x[i] - largest);
        sum += shares[i];
      }
      if (smoothing != 0.0f) {
#pragma omp simd reduction(+ : gaps)
        for (int64_t i = 0; i < classes; ++i) gaps += largest - x[i];
      }
      float log_sum = std::log(sum), lse = largest + log_sum;
      losses[row] = (1 - smoothing) * (largest - x[target[row]]) + log_sum;
      if (smoothing != 0.0f) losses[row] += smoothing * (gaps / classes);
      if (z != 0.0f) losses[row] += z * lse * lse;
      float factor = (1 + 2 * z * lse) / sum, spread = smoothing / classes;
#pragma omp simd
      for (int64_t i = 0; i < classes; ++i) shares[i] = shares[i] * factor - spread;
      shares[target[row]] -= 1 - smoothing;
      write_row(logits, dtype, row * stride, classes, shares);
    }
  }
}
