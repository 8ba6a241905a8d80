/* The loops of runtime/inner_loop.h and runtime/envelope.h as functions that a test calls. */

#include "envelope.h"

#include <stddef.h>

static InnerLoop loop;
static Envelope envelope;

void start_loop(const LoopSettings *settings) { loop_start(&loop, settings); }
void arm(int64_t now_ns) { loop_arm(&loop, now_ns); }
void stop(int64_t now_ns) { loop_stop(&loop, now_ns, "a test"); }
int accept_command(const Command *command, int64_t now_ns) { return loop_accept(&loop, command, now_ns); }
int step(int64_t now_ns, double *values, char *reason) {
    loop_step(&loop, now_ns);
    memcpy(values, loop.values, sizeof(double) * loop.of.actuators);
    strcpy(reason, loop.reason);
    return loop.state;
}

void start_envelope(const ArmLimits *limits) { envelope_start(&envelope, limits); }
void reset(void) { envelope_reset(&envelope); }
void let_go(double *written) { envelope_let_go(&envelope, written); }
void limit(
    const double *torque, const double *position, const double *velocity, bool is_driven, double elapsed_s,
    double *written, char *reason) {
    envelope_limit(&envelope, torque, position, velocity, is_driven, elapsed_s, written);
    strcpy(reason, envelope.reason);
}
