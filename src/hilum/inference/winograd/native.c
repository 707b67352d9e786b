/* Pieces of a U-Net's layers at its finest resolutions, each from its inputs to its outputs within a core's cache.
 *
 * Comes in: fields (see fields.py) and weights packed in panels of 32 channels. Goes out: fields, and of convolutions
 * the mean and the sum of squared distances from it of each channel. The same arithmetic as layers.py and sources.py in
 * PyTorch's operations. Knows no thread: whoever calls hands out the pieces, and one piece is always done in one order.
 *
 * W voxels of C channels lie side by side, so that x[w], x[w + 1] and x[w + 2] are one row of 3 C numbers and a
 * convolution along W is a product of matrices whose rows overlap. Channels of tiles are multiples of 16, of outputs 32.
 */
#include <stddef.h>
#include <string.h>

#define PANEL 32
#define ROWS 4         /* outputs of a tile along H */
#define HIGH (ROWS + 2)
#define MOST 6         /* inputs of a tile along D, at most */
#define MOST_CHANNELS 512
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 36")

/* Raised whenever a call's arguments change: native.py refuses a library that was compiled before. */
int hilum_calls(void) { return 1; }

/* Numbers that a register holds, and as many sums as there are registers for: BLOCK rows of WIDE registers. */
#if defined(__AVX512F__)
#define LANES 16
#define BLOCK 12
#define WIDE 2
#elif defined(__AVX2__)
#define LANES 8
#define BLOCK 6
#define WIDE 2
#elif defined(__aarch64__)
#define LANES 4
#define BLOCK 6
#define WIDE 4
#else
#define LANES 4
#define BLOCK 4
#define WIDE 2
#endif
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4)));

/* Row y of plane z begins at data + z * plane + (y % 4) * rest + (y / 4) * row. */
typedef struct {
    float *data;
    ptrdiff_t rest, plane, row, channels;
} field;

typedef struct {
    double count, mean[MOST_CHANNELS], off[MOST_CHANNELS];
} moments;

INLINE float *line_of(const field *of, ptrdiff_t z, ptrdiff_t y) {
    return of->data + z * of->plane + (y % ROWS) * of->rest + (y / ROWS) * of->row;
}

/* out[m][0..] = start + the sum over r and k of x[r][m * step + k] * kernel[r][k][0..], for `some` m. */
#define PRODUCTS(NAME, SOME)                                                                                           \
    INLINE void NAME(const float *const *x, int rows, ptrdiff_t step, ptrdiff_t depth, const float *kernel,            \
                     const float *start, float *out, ptrdiff_t to) {                                                   \
        for (int half = 0; half < PANEL; half += WIDE * LANES) {                                                       \
            lanes sum[SOME][WIDE];                                                                                     \
            UNROLL for (int m = 0; m < SOME; m++)                                                                      \
                UNROLL for (int n = 0; n < WIDE; n++)                                                                  \
                    sum[m][n] = start ? *(const lanes *)(start + half + n * LANES) : (lanes){0};                       \
            const float *weights = kernel + half;                                                                      \
            for (int r = 0; r < rows; r++)                                                                             \
                for (ptrdiff_t k = 0; k < depth; k++, weights += PANEL) {                                              \
                    lanes weight[WIDE];                                                                                \
                    UNROLL for (int n = 0; n < WIDE; n++) weight[n] = *(const lanes *)(weights + n * LANES);           \
                    UNROLL for (int m = 0; m < SOME; m++)                                                              \
                        UNROLL for (int n = 0; n < WIDE; n++) sum[m][n] += x[r][m * step + k] * weight[n];             \
                }                                                                                                      \
            UNROLL for (int m = 0; m < SOME; m++)                                                                      \
                UNROLL for (int n = 0; n < WIDE; n++) *(lanes *)(out + m * to + half + n * LANES) = sum[m][n];         \
        }                                                                                                              \
    }
PRODUCTS(block, BLOCK)
PRODUCTS(four, 4)
PRODUCTS(one, 1)

/* One panel of a line: (width, 32 of the channels). */
INLINE void panel(const float *const *x, int rows, ptrdiff_t step, ptrdiff_t depth, ptrdiff_t width,
                  const float *kernel, const float *start, float *out, ptrdiff_t channels) {
    const float *at[9];
    memcpy(at, x, rows * sizeof(*at));
    ptrdiff_t m = 0;
    for (; m + BLOCK <= width; m += BLOCK, out += BLOCK * channels) {
        block(at, rows, step, depth, kernel, start, out, channels);
        for (int r = 0; r < rows; r++) at[r] += BLOCK * step;
    }
    for (; m + 4 <= width; m += 4, out += 4 * channels) {
        four(at, rows, step, depth, kernel, start, out, channels);
        for (int r = 0; r < rows; r++) at[r] += 4 * step;
    }
    for (; m < width; m++, out += channels) {
        one(at, rows, step, depth, kernel, start, out, channels);
        for (int r = 0; r < rows; r++) at[r] += step;
    }
}

/* y = B x along one axis of n inputs; the points 0 and infinity leave its corners zero. */
INLINE void to_tile(int n, const float *b, const lanes *x, int from, lanes *y, int to) {
    UNROLL for (int i = 0; i < n; i++) {
        int first = i == 0 ? 0 : 1, last = i == n - 1 ? n - 1 : n - 2;
        lanes sum = b[i * n + first] * x[first * from];
        UNROLL for (int k = first + 1; k <= last; k++) sum += b[i * n + k] * x[k * from];
        y[i * to] = sum;
    }
}

/* y = A x along one axis, n inputs to n - 2 outputs. */
INLINE void from_tile(int n, const float *a, const lanes *x, int from, lanes *y, int to) {
    UNROLL for (int i = 0; i < n - 2; i++) {
        int first = i == 0 ? 0 : 1, last = i == n - 3 ? n - 1 : n - 2;
        lanes sum = a[i * n + first] * x[first * from];
        UNROLL for (int k = first + 1; k <= last; k++) sum += a[i * n + k] * x[k * from];
        y[i * to] = sum;
    }
}

/* The inputs of tile t of one source, transformed: deep x 6 images of (wide, all), from channel `at` on. */
INLINE void inputs(int deep, const float *b_deep, const float *b_high, const field *from, ptrdiff_t t, ptrdiff_t wide,
                   ptrdiff_t at, ptrdiff_t all, float *images) {
    for (ptrdiff_t w = 0; w < wide; w++)
        for (ptrdiff_t c = 0; c < from->channels; c += LANES) {
            lanes raw[MOST * HIGH], half[MOST * HIGH], done[MOST * HIGH];
            const float *here = from->data + t * from->row + w * from->channels + c;
            UNROLL for (int d = 0; d < deep; d++)
                UNROLL for (int h = 0; h < HIGH; h++)
                    raw[d * HIGH + h] = *(const lanes *)(here + d * from->plane + (h % ROWS) * from->rest
                                                         + (h / ROWS) * from->row);
            UNROLL for (int d = 0; d < deep; d++) to_tile(HIGH, b_high, raw + d * HIGH, 1, half + d * HIGH, 1);
            if (deep == 1) memcpy(done, half, HIGH * sizeof(lanes));
            else UNROLL for (int h = 0; h < HIGH; h++) to_tile(deep, b_deep, half + h, HIGH, done + h, HIGH);
            UNROLL for (int f = 0; f < deep * HIGH; f++)
                *(lanes *)(images + (f * wide + w) * all + at + c) = done[f];
        }
}

/* Images back to lines: (deep - 2 planes, 4 rows) of (width, channels). */
INLINE void outputs(int deep, const float *a_deep, const float *a_high, const float *images, ptrdiff_t width,
                    ptrdiff_t channels, float *const *lines) {
    int planes = deep == 1 ? 1 : deep - 2;
    for (ptrdiff_t at = 0; at < width * channels; at += LANES) {
        lanes raw[MOST * HIGH], half[MOST * ROWS], done[(MOST - 2) * ROWS];
        UNROLL for (int f = 0; f < deep * HIGH; f++) raw[f] = *(const lanes *)(images + f * width * channels + at);
        UNROLL for (int d = 0; d < deep; d++) from_tile(HIGH, a_high, raw + d * HIGH, 1, half + d * ROWS, 1);
        if (deep == 1) memcpy(done, half, ROWS * sizeof(lanes));
        else UNROLL for (int h = 0; h < ROWS; h++) from_tile(deep, a_deep, half + h, ROWS, done + h, ROWS);
        UNROLL for (int n = 0; n < planes * ROWS; n++) *(lanes *)(lines[n] + at) = done[n];
    }
}

/* Lines just written join the moments: their own in single precision about their own mean, the rest in double. */
static void look(float *const *lines, int count, ptrdiff_t width, ptrdiff_t channels, moments *of) {
    double many = (double)count * width, before = of->count, all = before + many;
    for (ptrdiff_t c = 0; c < channels; c += LANES) {
        lanes total = {0}, first = {0}, second = {0};
        for (int n = 0; n < count; n++)
            for (ptrdiff_t w = 0; w < width; w++) total += *(const lanes *)(lines[n] + w * channels + c);
        lanes about = total * (float)(1 / many);
        for (int n = 0; n < count; n++)
            for (ptrdiff_t w = 0; w < width; w++) {
                lanes far = *(const lanes *)(lines[n] + w * channels + c) - about;
                first += far;
                second += far * far;
            }
        for (int i = 0; i < LANES; i++) {
            double step = about[i] + first[i] / many - of->mean[c + i];
            of->off[c + i] += second[i] - (double)first[i] * first[i] / many + step * step * before * many / all;
            of->mean[c + i] += step * many / all;
        }
    }
    of->count = all;
}

INLINE void piece(int deep, const float *b_deep, const float *a_deep, const float *b_high, const float *a_high,
                  const field *from, int sources, ptrdiff_t count, ptrdiff_t width, const float *kernels,
                  const field *out, float *of_inputs, float *of_outputs, moments *found) {
    ptrdiff_t all = 0, wide = width + 2, channels = out->channels;
    int planes = deep == 1 ? 1 : deep - 2;
    for (int s = 0; s < sources; s++) all += from[s].channels;
    for (ptrdiff_t t = 0; t < count; t++) {
        ptrdiff_t at = 0;
        for (int s = 0; s < sources; at += from[s].channels, s++)
            inputs(deep, b_deep, b_high, from + s, t, wide, at, all, of_inputs);
        for (int f = 0; f < deep * HIGH; f++) {
            const float *x = of_inputs + f * wide * all;
            for (ptrdiff_t n = 0; n < channels; n += PANEL)
                panel(&x, 1, all, 3 * all, width, kernels + (f * channels + n) * 3 * all, NULL,
                      of_outputs + f * width * channels + n, channels);
        }
        float *lines[(MOST - 2) * ROWS];
        for (int n = 0; n < planes * ROWS; n++) lines[n] = line_of(out, n / ROWS, ROWS * t + n % ROWS + 1);
        outputs(deep, a_deep, a_high, of_outputs, width, channels, lines);
        look(lines, planes * ROWS, width, channels, found);
    }
}

/* A convolution of size (3 or 1) x 3 x 3 by tiles, `count` of them one below the other.
 *
 * from: begin at the tiles' first plane and row; out: at the plane written first, row -1 of the first tile, column 0.
 * kernels: (deep * 6, channels / 32, 3 * all, 32). of_inputs, of_outputs: room for deep * 6 images. */
void hilum_tiles(int deep, const float *b_deep, const float *a_deep, const float *b_high, const float *a_high,
                 const field *from, int sources, ptrdiff_t count, ptrdiff_t width, const float *kernels,
                 const field *out, float *of_inputs, float *of_outputs, moments *found) {
#define WITH(N)                                                                                                        \
    piece(N, b_deep, a_deep, b_high, a_high, from, sources, count, width, kernels, out, of_inputs, of_outputs, found)
    if (deep == 6) WITH(6);
    else if (deep == 4) WITH(4);
    else WITH(1);
}

/* A convolution of size (deep, 3, 3) as it is, output planes first to last - 1.
 *
 * from: with a border of one voxel, beginning there; the first plane is that of the first tap. out: at its column 0.
 * kernel: (channels / 32, deep * 3 * 3 * C, 32). */
void hilum_direct(int deep, const ptrdiff_t *stride, const field *from, ptrdiff_t first, ptrdiff_t last,
                  ptrdiff_t height, ptrdiff_t width, const float *kernel, const field *out, moments *found) {
    ptrdiff_t depth = 3 * from->channels, channels = out->channels;
    for (ptrdiff_t z = first; z < last; z++) {
        for (ptrdiff_t n = 0; n < channels; n += PANEL)
            for (ptrdiff_t y = 0; y < height; y++) {
                const float *x[9];
                for (int r = 0; r < 3 * deep; r++) x[r] = line_of(from, z * stride[0] + r / 3, y * stride[1] + r % 3);
                panel(x, 3 * deep, stride[2] * from->channels, depth, width, kernel + n * 3 * deep * depth, NULL,
                      line_of(out, z, y + 1) + n, channels);
            }
        for (ptrdiff_t y = 0; y < height; y++) {
            float *line = line_of(out, z, y + 1);
            look(&line, 1, width, channels, found);
        }
    }
}

/* A coarser field brought up, as much of it as some tiles need: a transposed convolution whose kernel is its stride.
 *
 * from: row 0, column 0 of the coarser image; row: how many rows of it lie before from->data in its dealing (0 or 1).
 * out: (4, planes, count + 1, W + 2, channels); planes and rows outside the image, and both columns, become zero.
 * first: plane of the bordered image; top: first tile. kernel: (stride[0] * stride[1], panels, C, 32); bias beside it. */
void hilum_up(const field *from, ptrdiff_t row, const ptrdiff_t *coarse, const ptrdiff_t *stride, const float *kernel,
              const float *bias, ptrdiff_t first, ptrdiff_t planes, ptrdiff_t top, ptrdiff_t count, const field *out) {
    ptrdiff_t channels = out->channels, columns = stride[2] * channels, width = coarse[2] * stride[2];
    for (ptrdiff_t z = 0; z < planes; z++)
        for (ptrdiff_t y = 0; y < ROWS * (count + 1); y++) {
            float *line = line_of(out, z, y);
            ptrdiff_t at_z = first + z - 1, at_y = ROWS * top + y - 1;
            if (at_z < 0 || at_z >= coarse[0] * stride[0] || at_y < 0 || at_y >= coarse[1] * stride[1]) {
                memset(line, 0, (width + 2) * channels * sizeof(float));
                continue;
            }
            if (y >= ROWS * count + 2) continue; /* nobody reads these */
            memset(line, 0, channels * sizeof(float));
            memset(line + (width + 1) * channels, 0, channels * sizeof(float));
            const float *x = line_of(from, at_z / stride[0], at_y / stride[1] + row);
            ptrdiff_t part = (at_z % stride[0]) * stride[1] + at_y % stride[1];
            for (ptrdiff_t n = 0; n < columns; n += PANEL)
                panel(&x, 1, from->channels, from->channels, coarse[2], kernel + (part * columns + n) * from->channels,
                      bias + n, line + channels + n, columns);
        }
}

/* x = x * scale + shift (+ beside), then the leaky ReLU unless slope is 1; rows of (width, channels). */
void hilum_normalise(float *x, const float *beside, ptrdiff_t rows, ptrdiff_t step, ptrdiff_t step_beside,
                     ptrdiff_t width, ptrdiff_t channels, const float *scale, const float *shift, float slope) {
    for (ptrdiff_t n = 0; n < rows; n++, x += step, beside += beside ? step_beside : 0)
        for (ptrdiff_t w = 0; w < width; w++)
            for (ptrdiff_t c = 0; c < channels; c++) {
                float y = x[w * channels + c] * scale[c] + shift[c];
                if (beside) y += beside[w * channels + c];
                x[w * channels + c] = y > 0.0f ? y : y * slope;
            }
}
