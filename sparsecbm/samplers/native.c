/* Inner loops of the samplers that PyTorch's operations cannot fuse; built and called by native.py.
 *
 * Plain loops without branches, for the compiler to turn into vector code. Logarithm and exponential are the
 * single-precision polynomials of Cephes (Moshier 1989; logf.c, expf.c), good to about one unit in the last place.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float as_float(int32_t bits) { float x; memcpy(&x, &bits, sizeof x); return x; }
static inline int32_t as_bits(float x) { int32_t bits; memcpy(&bits, &x, sizeof bits); return bits; }

#define SQRT_HALF_BITS 0x3f3504f3
#define LN2_HIGH 0.693359375f
#define LN2_LOW -2.12194440e-4f

/* exponent * ln 2 + log(1 + f), sqrt(1/2) - 1 <= f <= sqrt(2) - 1. */
static inline float log_of(int32_t exponent, float f) {
    float z = f * f, e = (float)exponent, p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    return e * LN2_HIGH + (f + (e * LN2_LOW + (z * f * p - 0.5f * z)));
}

/* log x, x > 0 and normal. */
static inline float log_positive(float x) {
    int32_t bits = as_bits(x) - SQRT_HALF_BITS;
    return log_of(bits >> 23, as_float((bits & 0x7fffff) + SQRT_HALF_BITS) - 1.0f);
}

/* log(1 + x), 0 < x < 2^33; for small x precise to the last places of x. */
static inline float log_one_plus(float x) {
    int32_t exponent = (as_bits(1.0f + x) - SQRT_HALF_BITS) >> 23;
    float scale = as_float((127 - exponent) << 23);
    return log_of(exponent, x * scale + (scale - 1.0f));
}

/* exp x, x <= 0; what would be subnormal stays at about 1e-38. */
static inline float exp_negative(float x) {
    float y = x < -87.0f ? -87.0f : x, shifted = y * 1.44269504f + 12582912.0f, k = shifted - 12582912.0f;
    int32_t power = as_bits(shifted) - as_bits(12582912.0f);
    float r = y - k * LN2_HIGH - k * LN2_LOW, p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * r * r + r + 1.0f) * as_float((power + 127) << 23);
}

/* Words position to position + count - 1 of the stream of a key, as in _bits.WordStream. */
void words(uint64_t key, uint64_t position, int64_t count, int64_t *out) {
    for (int64_t i = 0; i < count; i++) {
        uint64_t z = (position + (uint64_t)i) * 0x9E3779B97F4A7C15u ^ key;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        out[i] = (int64_t)z ^ (int64_t)z >> 31;
    }
}

/* (b, a) of noise.UniformPairs, from the low 31 bits of half a word: the odds against, b / a. */
static inline float odds(int32_t half) {
    int32_t k = half & 0x7fffffff;
    return ((float)(k ^ 0x7fffffff) + 0.5f) / ((float)k + 0.5f);
}

/* Noise from the words of a key from `position` on, two numbers a word, a chunk that stays in the innermost cache at
 * a time. Gumbel noise takes two loops, for one with both logarithms runs out of registers. */
enum { CHUNK = 1024 };

static inline int64_t chunk(uint64_t key, uint64_t position, int64_t start, int64_t count, int64_t *buffer) {
    int64_t size = count - start < CHUNK ? count - start : CHUNK;
    words(key, position + (uint64_t)start / 2, (size + 1) / 2, buffer);
    return size;
}

void logistic(uint64_t key, uint64_t position, int64_t count, float *out) {
    int64_t buffer[CHUNK / 2];
    const int32_t *halves = (const int32_t *)buffer;
    for (int64_t start = 0; start < count; start += CHUNK, out += CHUNK) {
        int64_t size = chunk(key, position, start, count, buffer);
        for (int64_t j = 0; j < size; j++) out[j] = log_positive(odds(halves[j]));
    }
}

void gumbel(uint64_t key, uint64_t position, int64_t count, float *out) {
    int64_t buffer[CHUNK / 2];
    const int32_t *halves = (const int32_t *)buffer;
    for (int64_t start = 0; start < count; start += CHUNK, out += CHUNK) {
        int64_t size = chunk(key, position, start, count, buffer);
        for (int64_t j = 0; j < size; j++) out[j] = log_one_plus(odds(halves[j]));
        for (int64_t j = 0; j < size; j++) out[j] = -log_positive(out[j]);
    }
}

/* Rows first to last - 1 of log_softmax((logits + Gumbel noise) / temperature), as concrete.Concrete draws them.
 *
 * stretch: noise.fill hands out the words in stretches of so many entries, each from a new word on.
 * logits: batch x n; temperature: batch; row r uses their row r modulo batch. buffer: n / 2 + 2 words. y: all rows.
 */
void log_simplex(uint64_t key, int64_t first, int64_t last, int64_t n, int64_t stretch, int64_t batch,
                 const float *logits, const float *temperature, int64_t *buffer, float *y) {
    for (int64_t row = first; row < last; row++) {
        int64_t offset = row * n % stretch, start = row * n / stretch * ((stretch + 1) / 2) + offset / 2;
        const float *l = logits + row % batch * n;
        float *out = y + row * n, t = temperature[row % batch], top = -INFINITY, sum = 0.0f;
        words(key, (uint64_t)start, n / 2 + 1, buffer);
        const int32_t *halves = (const int32_t *)buffer + offset % 2;
        for (int64_t j = 0; j < n; j++) out[j] = log_one_plus(odds(halves[j]));
        for (int64_t j = 0; j < n; j++) out[j] = (l[j] - log_positive(out[j])) / t;
#pragma omp simd reduction(max : top)
        for (int64_t j = 0; j < n; j++) top = out[j] > top ? out[j] : top;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < n; j++) {
            out[j] -= top;
            sum += exp_negative(out[j]);
        }
        sum = logf(sum);
        for (int64_t j = 0; j < n; j++) out[j] -= sum;
    }
}
