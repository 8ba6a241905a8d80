/* gatort's kernels with Llama's blocks, which every peer runs: RMSNorm for LayerNorm, SwiGLU for GEGLU. */

#define CENTERED 0
/* SiLU, x / (1 + e^-x). Below -87, e^-x is no float any more. */
#define ACTIVATION(x)                               \
    ({                                              \
        vec silu_x = largest((x), (vec){} - 87.0f); \
        silu_x / (1 + exponential(-silu_x));        \
    })

#include "native.c"
