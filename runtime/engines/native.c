/* A whole tick on a few CPU cores: the prefill and the decodes of a frame, without a call back into Python.

   native_build.py compiles this file for its machine. The model's dimensions are constants:

     LAYERS, WIDTH D, HEADS, HEAD h, HALF_WIDTH F, WINDOW W
     SPAN                     W rounded up to whole pairs of panels
     ROWS                     rows of a frame
     ACTIONS A                action tokens of a frame
     PATCHES, IMAGE_AT        image patches of a prefill, and the row of the first one
     BINS R                   action bins
     FIRST_ID, FIRST_BIN_ID   token ids of the embedding's first row and of the first bin
     MOST_THREADS             largest number of threads
     CODES                    1 if the layers' matrices are int8 codes and their inputs are rounded to 8 bits

   A tick is greedy (a prefill and A - 1 decodes) or exact: the prefill takes a guess of the action tokens along. Each
   row's largest logit is the next guess, and the rows from the first wrong one on are run again. It ends when every
   input is the token that was chosen before it. A row's sums do not depend on the rows beside it, so tokens and logits
   are those of the greedy tick, to the bit.

   A decode reads every weight once and computes little, so the memory's speed limits it. A prefill computes much.
   Both want a matrix in panels: 16 outputs side by side, input after input. A vector of weights then meets one
   broadcast input, and no sum crosses a vector. The cache lies in panels too. Keys have 16 window rows side by side,
   which makes the scores such a product. Values have 16 of a head's numbers side by side, which makes their sum one.

   Threads take the chunks of a phase from counters: first their own share, then chunks that no other thread has begun.
   They go on when all chunks are done. A thread that comes late finds the phase done, so a tick never waits for a
   thread to wake up. */

#define _GNU_SOURCE /* affinity of threads */
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    LANES = 16,
#ifdef __AVX512F__
    TILE = 12, /* rows in a product's registers: 12 rows by 2 vectors */
#else
    TILE = 3, /* a vector takes two registers of 16 */
#endif
    PARTS = 4,     /* a prefill has about 4 tiles; each fetches a quarter of the next chunk's weights */
    AHEAD = 1536,  /* a decode fetches a panel's weights this many numbers before it reads them */
    SPINS = 20000, /* about a millisecond */
    PHASES_A_PASS = LAYERS * 5 + 9,
    INNER = HEADS * HEAD,
    LONGEST = HALF_WIDTH > WIDTH ? HALF_WIDTH : WIDTH,
    INPUTS = LONGEST > INNER ? LONGEST : INNER,
};
/* Numbers from one row of a product's inputs to the next. An odd number of cache lines spreads the rows of a tile over
   the nearest cache. At 2 KB apart they can push each other out: a product alone then took 1.4 times as long. */
#define APART(K) (((K) / LANES | 1) * LANES)
#define NORM_EPSILON 1e-5f
#define HIDDEN -1e30f     /* score of a cache row that the mask hides */
#define ROUNDER 0x1.8p23f /* adding it leaves the nearest whole number in a float's last bits */

/* Seams. A C file may define other norms and gates before it includes this one. */
#ifndef CENTERED
#define CENTERED 1 /* 1: a norm subtracts the mean and adds a bias (LayerNorm); 0: it does neither (RMSNorm) */
#endif
#ifndef ACTIVATION
#define ACTIVATION(x) gelu(x) /* the nonlinear half of a gate (GEGLU) */
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))

/* Structs that Python fills in */

struct matrix {
    const void *panels;   /* (N / 16, K, 16) float32, or (N / 16, K / 4, 16, 4) int8 */
    const float *scales;  /* (N,) scales of the codes */
    const int32_t *offsets; /* (N,) sums of the codes times 128, which the inputs' offset adds */
};

struct layer {
    const float *norm_1, *norm_1_bias, *norm_2, *norm_2_bias;
    struct matrix qkv, out, up, down;
    float *keys;   /* (H, SPAN / 16, h, 16) */
    float *values; /* (H, h / 16, SPAN, 16) */
};

struct eye;

struct model {
    const struct eye *eye; /* NULL without images */
    const float *tokens, *local, *norm, *norm_bias;
    const float *head; /* panels of the bins' embeddings */
    struct layer layers[LAYERS];
};

struct pass {
    int64_t rows;
    const int64_t *ids, *local;
    const float *cos, *sin;  /* (t, h / 2) */
    const uint8_t *mask;     /* (t, W) */
    const int64_t *write_index;
    const float *patches; /* (p, 3, 16, 16), NULL for a pass without patches */
    int64_t decides;      /* number of the last rows that choose a token; 0 for a pass that fills the cache alone */
    const float *bias;    /* (decides, R) */
    float *logits;        /* (decides, R) */
    int64_t *tokens;      /* (decides,), `apart` numbers apart */
    int64_t apart;
};

/* An exact tick. */
struct draft {
    struct pass check;    /* over the inputs of the actions but the last, with bias and logits of all but the first */
    const int64_t *guess; /* (A - 1,) */
    int64_t *tokens;      /* (A,), `apart` numbers apart */
    int64_t apart;
    int64_t most; /* largest number of passes that choose tokens */
    int64_t runs; /* number of these passes; 0 if the tokens still changed in the last one */
};

/* Memory of one thread */

struct scratch {
    const float *x; /* inputs of the products, in rows `stride` apart */
    size_t stride;
    float inputs[ROWS][APART(INPUTS)] __attribute__((aligned(64)));
    uint8_t codes[ROWS][INPUTS] __attribute__((aligned(64)));
    float code_scales[ROWS];
    float products[ROWS][HEAD > 64 ? HEAD : 64] __attribute__((aligned(64)));
    float scores[TILE][SPAN] __attribute__((aligned(64)));
};

struct phase {
    atomic_int done __attribute__((aligned(64)));
    atomic_int taken[MOST_THREADS] __attribute__((aligned(64))); /* chunks taken from each thread's share */
};

struct worker {
    struct engine *engine;
    struct scratch *scratch;
    pthread_t thread;
    int index, phase;
    int passed; /* shares of this phase that are used up, its own first */
};

struct engine {
    const struct model *model;
    const struct pass *passes;
    struct draft *draft; /* NULL in a greedy tick */
    /* The guess and the tokens of each pass of an exact tick. None is overwritten within a tick, and the caller may
       change its guess after the tick: a late thread still reads them. */
    int64_t guess[ACTIONS], chosen[ACTIONS][ACTIONS];
    int count, threads;
    float cos[ROWS][HEAD] __attribute__((aligned(64))); /* one cosine for each number of a pair */
    float sin[ROWS][HEAD] __attribute__((aligned(64))); /* sines with the sign of the partner's term */
    int32_t mask[ROWS][SPAN] __attribute__((aligned(64)));
    float x[ROWS][WIDTH] __attribute__((aligned(64)));
    float queries[ROWS][APART(INNER)] __attribute__((aligned(64)));
    float attended[ROWS][APART(INNER)] __attribute__((aligned(64)));
    float gated[ROWS][APART(HALF_WIDTH)] __attribute__((aligned(64)));
    struct sight *sight; /* NULL without images */
    struct phase *phases;
    struct worker workers[MOST_THREADS];
    pthread_mutex_t lock;
    pthread_cond_t wake, idle;
    int64_t ticks;
    int open;   /* 1 if threads may join the tick */
    int ended;  /* 1 if threads must end */
    int inside; /* threads in the tick, without the calling one */
    cpu_set_t cores; /* cores that the threads may use */
    int home;        /* core of the calling thread, which the others leave to it */
};

/* Threads */

/* Return the next chunk of this phase, or -1 if all are taken. */
INLINE int take_chunk(struct worker *me, int chunks) {
    struct phase *phase = &me->engine->phases[me->phase];
    int threads = me->engine->threads;
    for (; me->passed < threads; me->passed++) {
        int owner = (me->index + me->passed) % threads;
        int first = chunks * owner / threads, last = chunks * (owner + 1) / threads;
        if (first + atomic_load_explicit(&phase->taken[owner], memory_order_relaxed) >= last) continue;
        int chunk = first + atomic_fetch_add_explicit(&phase->taken[owner], 1, memory_order_relaxed);
        if (chunk < last) return chunk;
    }
    return -1;
}

INLINE void finish_chunk(struct worker *me) {
    atomic_fetch_add_explicit(&me->engine->phases[me->phase].done, 1, memory_order_release);
}

/* Wait until all threads together have done all chunks. */
INLINE void finish_phase(struct worker *me, int chunks) {
    struct phase *phase = &me->engine->phases[me->phase++];
    me->passed = 0;
    for (int spins = 0; atomic_load_explicit(&phase->done, memory_order_acquire) < chunks; spins++) {
        /* A real-time thread must sleep to let an ordinary one finish its chunk; yielding is not enough. */
        if (spins < SPINS) _mm_pause();
        else nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
}

#define EACH(chunk, chunks) for (int chunk; (chunk = take_chunk(me, chunks)) >= 0; finish_chunk(me))

/* Elementary functions */

INLINE vec load(const float *x) { return *(const vec *)x; }
INLINE void store(float *x, vec v) { *(vec *)x = v; }
INLINE vec where(ivec so, vec a, vec b) { return (vec)(((ivec)a & so) | ((ivec)b & ~so)); }
/* NaN in either argument gives NaN: the logits of a broken model must not be finite. */
INLINE vec largest(vec a, vec b) { return where((a > b) | (a != a), a, b); }

/* Return each lane's partner, `apart` lanes away. Four such steps fold a vector. */
INLINE vec partner(vec v, int apart) {
    ivec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return __builtin_shuffle(v, lane ^ apart);
}

INLINE float sum(vec v) {
    for (int apart = 8; apart; apart /= 2) v += partner(v, apart);
    return v[0];
}

INLINE float maximum(vec v) {
    for (int apart = 8; apart; apart /= 2) v = largest(v, partner(v, apart));
    return v[0];
}

/* e^x for x <= 88, as 2^n e^r with |r| <= ln 2 / 2. Taylor's polynomial of degree 6 is within 2e-7 of e^r. */
INLINE vec exponential(vec x) {
    x = largest(x, (vec){} - 87.0f);
    vec shifted = x * 1.44269504f + ROUNDER;
    vec n = shifted - ROUNDER;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = 1 + r * (1 + r * (0.5f + r * (1 / 6.0f + r * (1 / 24.0f + r * (1 / 120.0f + r * (1 / 720.0f))))));
    return (vec)((ivec)p + ((ivec)shifted << 23));
}

/* x Phi(x), with erf within 1.5e-7 (Abramowitz and Stegun, 7.1.26). */
INLINE vec gelu(vec x) {
    vec z = x * 0.70710678f;
    vec a = largest(z, -z);
    vec t = 1 / (1 + 0.3275911f * a);
    vec p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    vec erf = 1 - p * exponential(-a * a);
    return 0.5f * x * (1 + where(z < 0, -erf, erf));
}

/* Products */

/* y[r][p] = sum over k of x[r][k] * panel p's vector k. Vectors lie `step` apart, panels `apart`. A prefill computes
   longer than it reads, so it fetches the weights of the next product from `next`. If `next` is NULL, the product
   fetches its own weights ahead. */
INLINE void float_tile(int R, int P, const float *x, size_t stride, const float *w, size_t apart, size_t step, int K,
                       float *y, size_t across, const float *next) {
    vec acc[TILE][4];
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) acc[r][p] = (vec){};
    for (int k = 0; k < K; k++) {
        vec weights[4];
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            weights[p] = load(w + p * apart + k * step);
            if (!next) __builtin_prefetch(w + p * apart + k * step + AHEAD);
            else if (k % PARTS == 0) __builtin_prefetch(next + p * apart + k / PARTS * LANES, 0, 3);
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) acc[r][p] += x[r * stride + k] * weights[p];
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) store(y + r * across + p * LANES, acc[r][p]);
}

/* Work through `rows` in tiles whose height R the compiler knows. `r` is a tile's first row. */
#define BY_TILES(rows, tile)                                                  \
    int r = 0;                                                                \
    for (; (rows) - r >= TILE; r += TILE) tile(TILE);                         \
    for (; TILE > 6 && (rows) - r >= TILE / 2; r += TILE / 2) tile(TILE / 2); \
    for (; TILE > 3 && (rows) - r >= TILE / 4; r += TILE / 4) tile(TILE / 4); \
    for (; (rows) - r >= 1; r += 1) tile(1)

/* y (rows, 16 P) from x (rows, K) and P panels. Never inlined: inside attention's code, its sums would leave the
   registers. */
#define FLOAT_TILE(R) float_tile(R, P, x + (size_t)r * stride, stride, w, apart, step, K, y + r * across, across, NULL)
#define PRODUCT_ARGUMENTS                                                                              \
    int rows, const float *x, size_t stride, const float *w, size_t apart, size_t step, int K, float *y, size_t across
static __attribute__((noinline)) void product_1(PRODUCT_ARGUMENTS) {
    enum { P = 1 };
    BY_TILES(rows, FLOAT_TILE);
}
static __attribute__((noinline)) void product_2(PRODUCT_ARGUMENTS) {
    enum { P = 2 };
    BY_TILES(rows, FLOAT_TILE);
}

#if CODES
INLINE ivec dot4(ivec acc, int32_t x, ivec w) {
#ifdef __AVX512VNNI__
    return (ivec)_mm512_dpbusd_epi32((__m512i)acc, _mm512_set1_epi32(x), (__m512i)w);
#else
    for (int j = 0; j < 4; j++) acc += ((x >> 8 * j) & 255) * ((w << (24 - 8 * j)) >> 24);
    return acc;
#endif
}

INLINE void code_tile(int R, int P, const uint8_t *x, size_t stride, const int8_t *w, size_t apart, int K,
                      ivec acc[TILE][2]) {
#pragma GCC unroll 12
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) acc[r][p] = (ivec){};
    for (int k = 0; k < K; k += 4) {
        ivec weights[2];
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            weights[p] = *(const ivec *)(w + p * apart + (size_t)k * LANES);
            __builtin_prefetch(w + p * apart + (size_t)k * LANES + AHEAD * sizeof(float));
        }
#pragma GCC unroll 12
        for (int r = 0; r < R; r++) {
            int32_t four;
            memcpy(&four, x + r * stride + k, sizeof four);
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) acc[r][p] = dot4(acc[r][p], four, weights[p]);
        }
    }
}
#endif

/* Write the product of the thread's inputs and panels `first` and `first` + `apart` to scratch->products (rows, 16 P),
   from column `at` on. */
INLINE void matrix_tile(struct scratch *own, int R, int P, int row, const struct matrix *m, int first, int apart, int K,
                        int at, int few) {
    size_t panel = (size_t)K * LANES;
#if CODES
    ivec acc[TILE][2];
    code_tile(R, P, own->codes[row], INPUTS, (const int8_t *)m->panels + first * panel, apart * panel, K, acc);
#pragma GCC unroll 2
    for (int p = 0; p < P; p++) {
        vec scales = load(m->scales + ((size_t)first + p * apart) * LANES);
        ivec offsets = *(const ivec *)(m->offsets + ((size_t)first + p * apart) * LANES);
#pragma GCC unroll 12
        for (int r = 0; r < R; r++)
            store(&own->products[row + r][at + p * LANES],
                  __builtin_convertvector(acc[r][p] - offsets, vec) * (scales * own->code_scales[row + r]));
    }
#else
    const float *w = (const float *)m->panels + first * panel;
    const float *next = w + (apart == 1 ? P : 1) * panel + row / TILE % PARTS * (K / PARTS) * LANES;
    float_tile(R, P, own->x + row * own->stride, own->stride, w, apart * panel, LANES, K, &own->products[row][at],
               sizeof own->products[0] / sizeof(float), few ? NULL : next);
#endif
}

INLINE void matrix_product(struct scratch *own, int rows, int P, const struct matrix *m, int first, int apart, int K,
                           int at) {
#define FEW_TILE(R) matrix_tile(own, R, P, r, m, first, apart, K, at, 1)
#define MANY_TILE(R) matrix_tile(own, R, P, r, m, first, apart, K, at, R == 1)
    if (rows <= TILE) {
        BY_TILES(rows, FEW_TILE);
    } else {
        BY_TILES(rows, MANY_TILE);
    }
}

#include "native_patches.h"

/* A thread's own inputs. Each thread that takes a chunk computes them itself: that costs more than sharing, and less
   than waiting. */

INLINE void norm(struct scratch *own, int rows, float x[][WIDTH], const float *weight, const float *bias) {
    for (int r = 0; r < rows; r++) {
        vec total = {}, squares = {};
        if (CENTERED)
            for (int i = 0; i < WIDTH; i += LANES) total += load(x[r] + i);
        float mean = CENTERED ? sum(total) / WIDTH : 0;
        for (int i = 0; i < WIDTH; i += LANES) squares += (load(x[r] + i) - mean) * (load(x[r] + i) - mean);
        float scale = 1 / __builtin_sqrtf(sum(squares) / WIDTH + NORM_EPSILON);
        for (int i = 0; i < WIDTH; i += LANES) {
            vec normed = (load(x[r] + i) - mean) * scale * load(weight + i);
            if (CENTERED) normed += load(bias + i);
            store(own->inputs[r] + i, normed);
        }
    }
}

/* Make these rows the inputs of the next products. With CODES, round each to 8 bits around 128. */
INLINE void set_inputs(struct scratch *own, int rows, const float *x, size_t stride, int K) {
    own->x = x;
    own->stride = stride;
    for (int r = 0; CODES && r < rows; r++) {
        const float *from = x + r * stride;
        vec most = {};
        for (int i = 0; i < K; i += LANES) most = largest(most, largest(load(from + i), -load(from + i)));
        float limit = maximum(most) + 1e-20f;
        own->code_scales[r] = limit / 127;
        for (int i = 0; i < K; i += LANES) {
            ivec codes = (ivec)(load(from + i) * (127 / limit) + ROUNDER) - (ivec)((vec){} + ROUNDER) + 128;
            for (int j = 0; j < LANES; j++) own->codes[r][i + j] = (uint8_t)codes[j];
        }
    }
}

/* Phases */

/* Return what a row is looked up as: a token's embedding, or the place of a patch. */
INLINE const float *looked_up(const struct model *model, const struct pass *pass, int row) {
    if (!pass->patches || row < IMAGE_AT) return model->tokens + (pass->ids[row] - FIRST_ID) * WIDTH;
    if (row < IMAGE_AT + PATCHES) return model->eye->place + (size_t)(row - IMAGE_AT) * WIDTH;
    return model->tokens + (pass->ids[row - PATCHES] - FIRST_ID) * WIDTH;
}

static void embed(struct worker *me, const struct pass *pass) {
    struct engine *e = me->engine;
    EACH(row, (int)pass->rows) {
        const uint8_t *mask = pass->mask + (size_t)row * WINDOW;
        for (int w = 0; w < WINDOW; w++) e->mask[row][w] = -(int32_t)mask[w]; /* all bits 1 where true */
        for (int i = 0; i < HEAD; i++) {
            e->cos[row][i] = pass->cos[(size_t)row * (HEAD / 2) + i / 2];
            e->sin[row][i] = pass->sin[(size_t)row * (HEAD / 2) + i / 2] * (i % 2 ? 1 : -1);
        }
        const float *token = looked_up(e->model, pass, row);
        const float *local = e->model->local + pass->local[row] * WIDTH;
        for (int i = 0; i < WIDTH; i += LANES) store(e->x[row] + i, load(token + i) + load(local + i));
    }
    finish_phase(me, (int)pass->rows);
}

/* A chunk is one head of the queries, the keys or the values. Keys and values go straight into the cache. */
static void project(struct worker *me, const struct pass *pass, const struct layer *layer) {
    enum { PANELS = HEAD / LANES, STEP = PANELS % 2 ? 1 : 2 };
    struct engine *e = me->engine;
    struct scratch *own = me->scratch;
    int rows = (int)pass->rows, ready = 0;
    EACH(chunk, 3 * HEADS) {
        if (!ready) {
            norm(own, rows, e->x, layer->norm_1, layer->norm_1_bias);
            set_inputs(own, rows, own->inputs[0], APART(INPUTS), WIDTH);
            ready = 1;
        }
        for (int p = 0; p < PANELS; p += STEP)
            matrix_product(own, rows, STEP, &layer->qkv, chunk * PANELS + p, 1, WIDTH, p * LANES);
        int head = chunk % HEADS, kind = chunk / HEADS;
        for (int r = 0; r < rows; r++) {
            float *y = own->products[r];
            int64_t row = pass->write_index[0] + r;
            for (int i = 0; kind < 2 && i < HEAD; i += LANES) {
                vec v = load(y + i);
                store(y + i, v * load(e->cos[r] + i) + partner(v, 1) * load(e->sin[r] + i));
            }
            if (kind == 0)
                for (int i = 0; i < HEAD; i += LANES)
                    store(&e->queries[r][head * HEAD + i], load(y + i) * (1 / __builtin_sqrtf(HEAD)));
            else if (kind == 1)
                for (int i = 0; i < HEAD; i++)
                    layer->keys[(((size_t)head * (SPAN / LANES) + row / LANES) * HEAD + i) * LANES + row % LANES] = y[i];
            else
                for (int i = 0; i < HEAD; i += LANES)
                    store(layer->values + ((size_t)head * SPAN * HEAD + (size_t)i * SPAN + row * LANES), load(y + i));
        }
    }
    finish_phase(me, 3 * HEADS);
}

/* Turn scores into weights. Return the factor that makes their sum 1. */
INLINE float softmax(float *scores, const int32_t *mask) {
    vec most = (vec){} + HIDDEN, total = {};
    for (int w = 0; w < SPAN; w += LANES) {
        vec masked = where(*(const ivec *)(mask + w), load(scores + w), (vec){} + HIDDEN);
        store(scores + w, masked);
        most = largest(most, masked);
    }
    float top = maximum(most);
    for (int w = 0; w < SPAN; w += LANES) {
        vec p = where(*(const ivec *)(mask + w), exponential(load(scores + w) - top), (vec){});
        store(scores + w, p);
        total += p;
    }
    return 1 / sum(total);
}

/* A chunk is some rows of one head. */
static void attend(struct worker *me, const struct pass *pass, const struct layer *layer, int from) {
    struct engine *e = me->engine;
    float(*scores)[SPAN] = me->scratch->scores;
    int left = (int)pass->rows - from, tiles = (left + TILE - 1) / TILE;
    EACH(chunk, HEADS * tiles) {
        int head = chunk / tiles, row = from + chunk % tiles * TILE, rows = (int)pass->rows - row;
        if (rows > TILE) rows = TILE;
        const float *query = &e->queries[row][head * HEAD], *keys = layer->keys + (size_t)head * SPAN * HEAD;
        const float *values = layer->values + (size_t)head * SPAN * HEAD;
        float *y = &e->attended[row - from][head * HEAD], scales[TILE];
        for (int w = 0; w < SPAN; w += 2 * LANES)
            product_2(rows, query, APART(INNER), keys + (size_t)w * HEAD, (size_t)LANES * HEAD, LANES, HEAD,
                      &scores[0][w], SPAN);
        for (int r = 0; r < rows; r++) scales[r] = softmax(scores[r], e->mask[row + r]);
        for (int i = 0; i < HEAD / LANES / 2 * 2 * LANES; i += 2 * LANES)
            product_2(rows, scores[0], SPAN, values + (size_t)i * SPAN, (size_t)SPAN * LANES, LANES, WINDOW, y + i,
                      APART(INNER));
        if (HEAD / LANES % 2)
            product_1(rows, scores[0], SPAN, values + (size_t)(HEAD - LANES) * SPAN, 0, LANES, WINDOW, y + HEAD - LANES,
                      APART(INNER));
        for (int r = 0; r < rows; r++)
            for (int i = 0; i < HEAD; i += LANES) {
                float *to = y + r * APART(INNER) + i;
                store(to, load(to) * scales[r]);
            }
    }
    finish_phase(me, HEADS * tiles);
}

/* x += matrix · y. A chunk is one panel or two. */
static void add_product(struct worker *me, int rows, const struct matrix *m, const float *y, int K, int from) {
    enum { PANELS = WIDTH % (2 * LANES) ? 1 : 2, CHUNKS = WIDTH / LANES / PANELS };
    struct engine *e = me->engine;
    struct scratch *own = me->scratch;
    int ready = 0;
    EACH(chunk, CHUNKS) {
        if (!ready) {
            set_inputs(own, rows, y, APART(K), K);
            ready = 1;
        }
        matrix_product(own, rows, PANELS, m, chunk * PANELS, 1, K, 0);
        for (int r = 0; r < rows; r++)
            for (int p = 0; p < PANELS; p++) {
                int i = (chunk * PANELS + p) * LANES;
                store(e->x[r] + i, load(e->x[from + r] + i) + load(&own->products[r][p * LANES]));
            }
    }
    finish_phase(me, CHUNKS);
}

static void gate(struct worker *me, int rows, const struct layer *layer) {
    enum { CHUNKS = HALF_WIDTH / LANES };
    struct engine *e = me->engine;
    struct scratch *own = me->scratch;
    int ready = 0;
    EACH(chunk, CHUNKS) {
        if (!ready) {
            norm(own, rows, e->x, layer->norm_2, layer->norm_2_bias);
            set_inputs(own, rows, own->inputs[0], APART(INPUTS), WIDTH);
            ready = 1;
        }
        matrix_product(own, rows, 2, &layer->up, chunk, CHUNKS, WIDTH, 0);
        for (int r = 0; r < rows; r++) {
            vec x = load(own->products[r]), value = load(own->products[r] + LANES);
            store(e->gated[r] + chunk * LANES, ACTIVATION(x) * value);
        }
    }
    finish_phase(me, CHUNKS);
}

static void choose(struct worker *me, const struct pass *pass) {
    enum { PANELS = 4, CHUNKS = BINS / LANES / PANELS };
    struct engine *e = me->engine;
    struct scratch *own = me->scratch;
    int rows = (int)pass->decides, ready = 0;
    EACH(chunk, CHUNKS) {
        if (!ready) norm(own, rows, e->x, e->model->norm, e->model->norm_bias);
        ready = 1;
        const float *w = e->model->head + (size_t)chunk * PANELS * LANES * WIDTH;
        float *logits = pass->logits + chunk * PANELS * LANES;
        size_t panel = (size_t)LANES * WIDTH;
        if (rows == 1) float_tile(1, PANELS, own->inputs[0], 0, w, panel, LANES, WIDTH, logits, 0, NULL);
        else
            for (int p = 0; p < PANELS; p += 2)
                product_2(rows, own->inputs[0], APART(INPUTS), w + p * panel, panel, LANES, WIDTH, logits + p * LANES, BINS);
    }
    finish_phase(me, CHUNKS);
    /* A phase of its own: a token must be written before any thread embeds it. */
    EACH(row, rows) {
        const float *logits = pass->logits + (size_t)row * BINS, *bias = pass->bias + (size_t)row * BINS;
        int best = 0;
        for (int i = 1; i < BINS; i++)
            if (logits[i] + bias[i] > logits[best] + bias[best]) best = i;
        pass->tokens[row * pass->apart] = FIRST_BIN_ID + best;
    }
    finish_phase(me, rows);
}

static void run_pass(struct worker *me, const struct pass *pass) {
    struct engine *e = me->engine;
    int rows = (int)pass->rows;
    if (pass->patches) see(me, pass);
    embed(me, pass);
    if (pass->patches) embed_patches(me);
    for (int index = 0; index < LAYERS; index++) {
        const struct layer *layer = &e->model->layers[index];
        /* Of the last layer, only the positions that choose are needed. */
        int from = index + 1 < LAYERS ? 0 : rows - (int)pass->decides, left = rows - from;
        project(me, pass, layer);
        if (!left) return;
        attend(me, pass, layer, from);
        add_product(me, left, &layer->out, e->attended[0], INNER, from);
        gate(me, left, layer);
        add_product(me, left, &layer->down, e->gated[0], HALF_WIDTH, 0);
    }
    choose(me, pass);
}

/* Run the inputs of the actions again from the first wrong one on, until none is wrong. All threads come to the same
   passes by themselves, from the tokens of each pass. */
static void check(struct worker *me) {
    struct engine *e = me->engine;
    struct draft *draft = e->draft;
    const struct pass *all = &draft->check;
    int64_t inputs[ACTIONS];
    int right = 0, run = 0; /* number of inputs that are known to be right; number of the last pass */
    memcpy(inputs, e->guess, (ACTIONS - 1) * sizeof *inputs);
    for (;; run++) {
        const int64_t *chosen = e->chosen[run];
        while (right < ACTIONS - 1 && inputs[right] == chosen[right]) right++;
        if (right == ACTIONS - 1 || run + 1 == draft->most) break;
        for (int i = right; i < ACTIONS - 1; i++) inputs[i] = chosen[i];
        int64_t write_index = *all->write_index + right;
        struct pass again = {
            .rows = ACTIONS - 1 - right,
            .decides = ACTIONS - 1 - right,
            .ids = inputs + right,
            .local = all->local + right,
            .cos = all->cos + (size_t)right * (HEAD / 2),
            .sin = all->sin + (size_t)right * (HEAD / 2),
            .mask = all->mask + (size_t)right * WINDOW,
            .write_index = &write_index,
            .bias = all->bias + (size_t)right * BINS,
            .logits = all->logits + (size_t)right * BINS,
            .tokens = e->chosen[run + 1] + right + 1,
            .apart = 1,
        };
        run_pass(me, &again);
        right++; /* The token of a right row is right. */
    }
    if (me->index) return;
    inputs[ACTIONS - 1] = e->chosen[run][ACTIONS - 1];
    for (int i = 0; i < ACTIONS; i++) draft->tokens[i * draft->apart] = inputs[i];
    draft->runs = right == ACTIONS - 1 ? run + 1 : 0;
}

static void run_passes(struct worker *me) {
    unsigned floats = _mm_getcsr();
    _mm_setcsr(floats | 0x8040); /* treat denormal inputs and results as zero */
    me->phase = me->passed = 0;
    for (int i = 0; i < me->engine->count; i++) run_pass(me, &me->engine->passes[i]);
    if (me->engine->draft) check(me);
    _mm_setcsr(floats);
}

static void *serve(void *argument) {
    struct worker *me = argument;
    struct engine *e = me->engine;
    int64_t seen = 0;
    pthread_mutex_lock(&e->lock);
    while (!e->ended) {
        if (!e->open || e->ticks == seen) {
            pthread_cond_wait(&e->wake, &e->lock);
            continue;
        }
        seen = e->ticks;
        e->inside++;
        pthread_mutex_unlock(&e->lock);
        run_passes(me);
        pthread_mutex_lock(&e->lock);
        if (--e->inside == 0) pthread_cond_signal(&e->idle);
    }
    pthread_mutex_unlock(&e->lock);
    return NULL;
}

static void *zeros(size_t size) {
    void *memory = aligned_alloc(64, (size + 63) / 64 * 64);
    return memory ? memset(memory, 0, size) : NULL;
}

/* Functions that Python calls */

void stop(struct engine *e) {
    pthread_mutex_lock(&e->lock);
    e->ended = 1;
    pthread_cond_broadcast(&e->wake);
    pthread_mutex_unlock(&e->lock);
    for (int i = 0; i < e->threads; i++) {
        if (i) pthread_join(e->workers[i].thread, NULL);
        free(e->workers[i].scratch);
    }
    free(e->sight);
    free(e->phases);
    free(e);
}

/* Return NULL if memory or threads are lacking. */
struct engine *start(const struct model *model, int threads, int most_passes) {
    struct engine *e = zeros(sizeof *e);
    if (!e) return NULL;
    e->model = model;
    e->home = -1;
    sched_getaffinity(0, sizeof e->cores, &e->cores);
    e->phases = zeros((size_t)most_passes * PHASES_A_PASS * sizeof(struct phase));
    pthread_mutexattr_t inherit; /* a thread that holds the lock inherits the priority of one that waits for it */
    pthread_mutexattr_init(&inherit);
    pthread_mutexattr_setprotocol(&inherit, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&e->lock, &inherit);
    pthread_cond_init(&e->wake, NULL);
    pthread_cond_init(&e->idle, NULL);
    if (PATCHES) e->sight = zeros(sizeof(struct sight));
    int whole = e->phases && (!PATCHES || e->sight);
    for (; whole && e->threads < threads; e->threads++) {
        struct worker *worker = &e->workers[e->threads];
        *worker = (struct worker){.engine = e, .scratch = zeros(sizeof(struct scratch)), .index = e->threads};
        if (!worker->scratch || (e->threads && pthread_create(&worker->thread, NULL, serve, worker))) {
            free(worker->scratch);
            break;
        }
    }
    if (e->threads == threads) return e;
    stop(e);
    return NULL;
}

/* Keep the other threads off the core of the calling one. Linux may wake a thread on the core of the thread that wakes
   it, although another core is idle: after a pause of 10 ms a tick of two threads took longer than one of one thread. */
static void keep_apart(struct engine *e) {
    int home = sched_getcpu();
    if (home == e->home || home < 0 || CPU_COUNT(&e->cores) < 2) return;
    cpu_set_t others = e->cores;
    CPU_CLR(home, &others);
    for (int i = 1; i < e->threads; i++) pthread_setaffinity_np(e->workers[i].thread, sizeof others, &others);
    e->home = home;
}

/* Run passes. With a draft, the last of them must choose all A tokens, and the draft is checked. */
void tick(struct engine *e, struct pass *passes, int count, struct draft *draft) {
    keep_apart(e);
    pthread_mutex_lock(&e->lock);
    /* No thread may still be in the last tick's phases. */
    while (e->inside) pthread_cond_wait(&e->idle, &e->lock);
    size_t most = count + (draft ? ACTIONS - 1 : 0);
    memset(e->phases, 0, most * PHASES_A_PASS * sizeof(struct phase));
    if (draft) {
        passes[count - 1].tokens = e->chosen[0];
        memcpy(e->guess, draft->guess, (ACTIONS - 1) * sizeof *e->guess);
    }
    e->draft = draft;
    e->passes = passes;
    e->count = count;
    e->ticks++;
    e->open = 1;
    pthread_cond_broadcast(&e->wake);
    pthread_mutex_unlock(&e->lock);
    run_passes(&e->workers[0]);
    pthread_mutex_lock(&e->lock);
    e->open = 0;
    pthread_mutex_unlock(&e->lock);
}
