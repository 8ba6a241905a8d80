/* Image patches as tokens: one ResNet block a patch, as matrix products. Included by native.c.

   A patch has 4 by 4 cells. Numbers lie cell after cell with the channels side by side. A convolution takes 36 products
   a patch instead of 100 (Winograd; Lavin and Gray, arXiv 1509.09308): along a line, four cells and three taps are two
   polynomials, whose values at six points are multiplied. Both axes make 36 points. Each point's product has a row for
   every patch. The points 0, +-3/4, +-3/2 and infinity keep the error at 1e-5; the usual 0, +-1, +-2 make four times
   that. native_weights.py evaluates the taps. The embedding stays in float32 at every precision. */

enum {
    COLOURS = 3,
    PIXELS = 16,
    CELLS = 16,
    SIDE = 4, /* cells and pixels along one side */
    CHANNELS = 96,
    GROUP = 3, /* channels that are normalised together */
    VALUES = 6, /* points along one side */
    POINTS = VALUES * VALUES,
    SEEN = CELLS * CHANNELS,
    PATCH = COLOURS * PIXELS * PIXELS,
};
#define NEAR 0.75f
#define FAR 1.5f

struct eye {
    const float *root, *root_bias, *norm_1, *norm_1_bias, *conv_1, *conv_1_bias;
    const float *norm_2, *norm_2_bias, *conv_2, *conv_2_bias, *project, *project_bias;
    const float *place; /* (p, D) embedding of each patch's place in its image */
};

/* Memory of one tick's patches, shared by the threads. */
struct sight {
    float seen[PATCHES + 1][APART(SEEN)] __attribute__((aligned(64))); /* cells of each patch */
    float spread[POINTS][PATCHES + 1][CHANNELS] __attribute__((aligned(64)));
    float filtered[POINTS][PATCHES + 1][CHANNELS] __attribute__((aligned(64)));
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

/* Evaluate a line of four cells at the six points. */
INLINE void spread_line(const vec x[SIDE], vec at[VALUES]) {
    const float near = NEAR * NEAR, far = FAR * FAR;
    vec even_near = x[3] - far * x[1], odd_near = NEAR * (x[2] - far * x[0]);
    vec even_far = x[3] - near * x[1], odd_far = FAR * (x[2] - near * x[0]);
    at[0] = x[3] - (near + far) * x[1];
    at[1] = even_near + odd_near;
    at[2] = even_near - odd_near;
    at[3] = even_far + odd_far;
    at[4] = even_far - odd_far;
    at[5] = near * far * x[0] - (near + far) * x[2];
}

/* Return from the products at six points to four cells. */
INLINE void gather_line(const vec at[VALUES], vec y[SIDE]) {
    const float near = NEAR * NEAR, far = FAR * FAR;
    vec even_near = at[1] + at[2], odd_near = NEAR * (at[1] - at[2]);
    vec even_far = at[3] + at[4], odd_far = FAR * (at[3] - at[4]);
    y[0] = at[0] + even_near + even_far;
    y[1] = odd_near + odd_far;
    y[2] = near * even_near + far * even_far;
    y[3] = near * odd_near + far * odd_far + at[5];
}

/* Evaluate a patch's cells at all points. */
static void spread(float x[][CHANNELS], struct sight *sight, int patch) {
    for (int i = 0; i < CHANNELS; i += LANES) {
        vec rows[VALUES][SIDE];
        for (int row = 0; row < SIDE; row++) {
            vec line[SIDE], at[VALUES];
            for (int column = 0; column < SIDE; column++) line[column] = load(&x[row * SIDE + column][i]);
            spread_line(line, at);
            for (int value = 0; value < VALUES; value++) rows[value][row] = at[value];
        }
        for (int value = 0; value < VALUES; value++) {
            vec at[VALUES];
            spread_line(rows[value], at);
            for (int down = 0; down < VALUES; down++)
                store(&sight->spread[down * VALUES + value][patch][i], at[down]);
        }
    }
}

/* y += a patch's cells from the products at all points. */
static void gather(const struct sight *sight, int patch, float y[][CHANNELS]) {
    for (int i = 0; i < CHANNELS; i += LANES) {
        vec rows[SIDE][VALUES];
        for (int value = 0; value < VALUES; value++) {
            vec line[VALUES], at[SIDE];
            for (int down = 0; down < VALUES; down++)
                line[down] = load(&sight->filtered[down * VALUES + value][patch][i]);
            gather_line(line, at);
            for (int row = 0; row < SIDE; row++) rows[row][value] = at[row];
        }
        for (int row = 0; row < SIDE; row++) {
            vec at[SIDE];
            gather_line(rows[row], at);
            for (int column = 0; column < SIDE; column++) {
                float *to = &y[row * SIDE + column][i];
                store(to, load(to) + at[column]);
            }
        }
    }
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

INLINE void fill(float y[][CHANNELS], const float *bias) {
    for (int cell = 0; cell < CELLS; cell++) memcpy(y[cell], bias, CHANNELS * sizeof(float));
}

INLINE void add(float y[][CHANNELS], const float *bias) {
    for (int cell = 0; cell < CELLS; cell++)
        for (int i = 0; i < CHANNELS; i += LANES) store(&y[cell][i], load(&y[cell][i]) + load(bias + i));
}

/* Phases. A chunk is a patch, but for the products: there it is a point. */

/* seen = root(pixels); spread = gelu(norm_1(seen)) */
static void look(struct worker *me, const struct eye *eye, const float *patches) {
    enum { K = COLOURS * SIDE * SIDE };
    struct sight *sight = me->engine->sight;
    EACH(patch, PATCHES) {
        float pixels[CELLS][K], bent[CELLS][CHANNELS], (*x)[CHANNELS] = (void *)sight->seen[patch];
        cells_of(patches + (size_t)patch * PATCH, pixels);
        for (int i = 0; i < CHANNELS; i += 2 * LANES)
            product_2(CELLS, pixels[0], K, eye->root + (size_t)i * K, (size_t)LANES * K, LANES, K, &x[0][i], CHANNELS);
        add(x, eye->root_bias);
        norm_and_bend(x, eye->norm_1, eye->norm_1_bias, bent);
        spread(bent, sight, patch);
    }
    finish_phase(me, PATCHES);
}

static void filter(struct worker *me, const float *w) {
    struct sight *sight = me->engine->sight;
    EACH(point, POINTS) {
        for (int i = 0; i < CHANNELS; i += 2 * LANES)
            product_2(PATCHES, sight->spread[point][0], CHANNELS, w + (size_t)(point * CHANNELS + i) * CHANNELS,
                      (size_t)LANES * CHANNELS, LANES, CHANNELS, &sight->filtered[point][0][i], CHANNELS);
    }
    finish_phase(me, POINTS);
}

/* spread = gelu(norm_2(conv_1's cells)) */
static void bend(struct worker *me, const struct eye *eye) {
    struct sight *sight = me->engine->sight;
    EACH(patch, PATCHES) {
        float y[CELLS][CHANNELS], bent[CELLS][CHANNELS];
        fill(y, eye->conv_1_bias);
        gather(sight, patch, y);
        norm_and_bend(y, eye->norm_2, eye->norm_2_bias, bent);
        spread(bent, sight, patch);
    }
    finish_phase(me, PATCHES);
}

/* seen += conv_2's cells */
static void sum_up(struct worker *me, const struct eye *eye) {
    struct sight *sight = me->engine->sight;
    EACH(patch, PATCHES) {
        float(*x)[CHANNELS] = (void *)sight->seen[patch];
        gather(sight, patch, x);
        add(x, eye->conv_2_bias);
    }
    finish_phase(me, PATCHES);
}

static void see(struct worker *me, const struct pass *pass) {
    const struct eye *eye = me->engine->model->eye;
    look(me, eye, pass->patches);
    filter(me, eye->conv_1);
    bend(me, eye);
    filter(me, eye->conv_2);
    sum_up(me, eye);
}

/* Add the patches' embeddings to their rows. A chunk is one panel or two. */
static void embed_patches(struct worker *me) {
    enum { PANELS = WIDTH % (2 * LANES) ? 1 : 2, CHUNKS = WIDTH / LANES / PANELS };
    struct engine *e = me->engine;
    struct scratch *own = me->scratch;
    const struct eye *eye = e->model->eye;
    EACH(chunk, CHUNKS) {
        int at = chunk * PANELS * LANES;
        const float *w = eye->project + (size_t)at * SEEN;
        (PANELS == 2 ? product_2 : product_1)(PATCHES, e->sight->seen[0], APART(SEEN), w, (size_t)LANES * SEEN, LANES,
                                              SEEN, own->products[0], sizeof own->products[0] / sizeof(float));
        for (int r = 0; r < PATCHES; r++)
            for (int i = 0; i < PANELS * LANES; i += LANES) {
                float *x = e->x[IMAGE_AT + r] + at + i;
                store(x, load(x) + load(&own->products[r][i]) + load(eye->project_bias + at + i));
            }
    }
    finish_phase(me, CHUNKS);
}
