/* Image patches as tokens: one ResNet block a patch, as matrix products. Included by native.c.

   A patch has 4 by 4 cells. Numbers lie cell after cell with the channels side by side. A convolution is then a sum of
   products, one for each of a cell's nine neighbours (taps). Nothing is copied, and nothing is multiplied by the zeros
   beyond a patch, which would be three products in ten. The embedding stays in float32 at every precision. */

enum {
    COLOURS = 3,
    PIXELS = 16,
    CELLS = 16,
    SIDE = 4,           /* cells and pixels along one side */
    CHANNELS = 96,
    GROUP = 3,          /* channels that are normalised together */
    TOGETHER = 3,       /* patches in a chunk: 48 cells, four whole tiles */
    TAPS = 9,
    SEEN = CELLS * CHANNELS,
    PATCH = COLOURS * PIXELS * PIXELS,
};

struct eye {
    const float *root, *root_bias, *norm_1, *norm_1_bias, *conv_1, *conv_1_bias;
    const float *norm_2, *norm_2_bias, *conv_2, *conv_2_bias, *project, *project_bias;
    const float *place; /* (p, D) embedding of each patch's place in its image */
};

struct patch_scratch {
    float pixels[TOGETHER * CELLS][COLOURS * SIDE * SIDE] __attribute__((aligned(64)));
    float x[TOGETHER * CELLS][CHANNELS] __attribute__((aligned(64)));
    float y[TOGETHER * CELLS][CHANNELS] __attribute__((aligned(64)));
    float bent[TOGETHER * CELLS][CHANNELS] __attribute__((aligned(64)));
};

/* Copy the 4 by 4 pixels of each cell into a row: colour, row, column. */
INLINE void cells_of(const float *patch, float pixels[][COLOURS * SIDE * SIDE]) {
    for (int cell = 0; cell < CELLS; cell++)
        for (int colour = 0; colour < COLOURS; colour++)
            for (int row = 0; row < SIDE; row++)
                memcpy(&pixels[cell][(colour * SIDE + row) * SIDE],
                       patch + (colour * PIXELS + cell / SIDE * SIDE + row) * PIXELS + cell % SIDE * SIDE,
                       SIDE * sizeof(float));
}

/* y[r] += x[r] times the weights of one tap, for two panels of channels. */
INLINE void tap_tile(int R, const float *const *x, const float *w, float *const *y) {
    enum { PANEL = TAPS * CHANNELS * LANES };
    vec acc[TILE][2];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
        acc[r][0] = load(y[r]);
        acc[r][1] = load(y[r] + LANES);
    }
    for (int k = 0; k < CHANNELS; k++) {
        vec first = load(w + k * LANES), second = load(w + PANEL + k * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            acc[r][0] += x[r][k] * first;
            acc[r][1] += x[r][k] * second;
        }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; r++) {
        store(y[r], acc[r][0]);
        store(y[r] + LANES, acc[r][1]);
    }
}

/* Add a tap's products to the channels from `at` on of every cell whose neighbour lies inside its patch. */
static void add_tap(int tap, int count, float x[][CHANNELS], const float *w, float y[][CHANNELS], int at) {
    const float *from[TOGETHER * CELLS];
    float *to[TOGETHER * CELLS];
    int down = tap / 3 - 1, right = tap % 3 - 1, cells = 0;
    for (int cell = 0; cell < count * CELLS; cell++) {
        int row = cell % CELLS / SIDE + down, column = cell % SIDE + right;
        if (row < 0 || row >= SIDE || column < 0 || column >= SIDE) continue;
        from[cells] = x[cell + down * SIDE + right];
        to[cells++] = &y[cell][at];
    }
#define TAP_TILE(R) tap_tile(R, from + r, w, to + r)
    BY_TILES(cells, TAP_TILE);
}

/* y = x convolved by 3 by 3 taps, for `count` patches. A tap's weights stay in the nearest cache for all cells. */
static void convolve(int count, float x[][CHANNELS], const float *w, const float *bias, float y[][CHANNELS]) {
    for (int cell = 0; cell < count * CELLS; cell++) memcpy(y[cell], bias, CHANNELS * sizeof(float));
    for (int i = 0; i < CHANNELS; i += 2 * LANES)
        for (int tap = 0; tap < TAPS; tap++)
            add_tap(tap, count, x, w + ((size_t)i * TAPS + tap * LANES) * CHANNELS, y, i);
}

/* to = gelu(norm(x)) over the cells of one patch, each group of channels on its own. */
static void norm_and_bend(float x[][CHANNELS], const float *weight, const float *bias, float to[][CHANNELS]) {
    float total[CHANNELS], scale[CHANNELS], shift[CHANNELS];
    for (int i = 0; i < CHANNELS; i += LANES) {
        vec sums = {};
        for (int cell = 0; cell < CELLS; cell++) sums += load(&x[cell][i]);
        store(total + i, sums);
    }
    for (int c = 0; c < CHANNELS; c += GROUP) {
        float mean = (total[c] + total[c + 1] + total[c + 2]) / (GROUP * CELLS);
        shift[c] = shift[c + 1] = shift[c + 2] = mean;
    }
    for (int i = 0; i < CHANNELS; i += LANES) {
        vec squares = {}, mean = load(shift + i);
        for (int cell = 0; cell < CELLS; cell++) squares += (load(&x[cell][i]) - mean) * (load(&x[cell][i]) - mean);
        store(total + i, squares);
    }
    for (int c = 0; c < CHANNELS; c += GROUP) {
        float variance = (total[c] + total[c + 1] + total[c + 2]) / (GROUP * CELLS);
        float inverse = 1 / __builtin_sqrtf(variance + NORM_EPSILON);
        for (int i = c; i < c + GROUP; i++) {
            scale[i] = inverse * weight[i];
            shift[i] = bias[i] - shift[i] * scale[i];
        }
    }
    for (int cell = 0; cell < CELLS; cell++)
        for (int i = 0; i < CHANNELS; i += LANES)
            store(&to[cell][i], gelu(load(&x[cell][i]) * load(scale + i) + load(shift + i)));
}

/* Compute the block of `count` patches and write their cells to `seen` (count, 1536). */
static void see_patches(struct patch_scratch *own, const struct eye *eye, const float *patches, int count,
                        float seen[][APART(SEEN)]) {
    enum { K = COLOURS * SIDE * SIDE };
    float(*x)[CHANNELS] = own->x, (*y)[CHANNELS] = own->y, (*bent)[CHANNELS] = own->bent;
    int rows = count * CELLS;
    for (int i = 0; i < count; i++) cells_of(patches + i * PATCH, own->pixels + i * CELLS);
    for (int i = 0; i < CHANNELS; i += 2 * LANES)
        product_2(rows, own->pixels[0], K, eye->root + (size_t)i * K, (size_t)LANES * K, LANES, K, &x[0][i], CHANNELS);
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < CHANNELS; i += LANES) store(&x[r][i], load(&x[r][i]) + load(eye->root_bias + i));

    for (int i = 0; i < rows; i += CELLS) norm_and_bend(x + i, eye->norm_1, eye->norm_1_bias, bent + i);
    convolve(count, bent, eye->conv_1, eye->conv_1_bias, y);
    for (int i = 0; i < rows; i += CELLS) norm_and_bend(y + i, eye->norm_2, eye->norm_2_bias, bent + i);
    convolve(count, bent, eye->conv_2, eye->conv_2_bias, y);

    for (int r = 0; r < rows; r++)
        for (int i = 0; i < CHANNELS; i += LANES)
            store(&seen[r / CELLS][r % CELLS * CHANNELS + i], load(&x[r][i]) + load(&y[r][i]));
}
