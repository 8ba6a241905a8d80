/* The inner loop of inner_loop.py for an arm whose cycle must not wait for Python.

   inner_loop.py is the reference: it explains the rules. Both give the same values, to the last bit, and the same
   states at the same instants. tests/runtime/test_c_loops.py drives them side by side. Compile with -ffp-contract=off.
*/

#pragma once

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum {
    MOST_ACTUATORS = 8,
    LONGEST_QUEUE = 4,
    MOST_HOLDS = 8,
    REASON_LENGTH = 160,
};
#define MS_NS INT64_C(1000000)
#define FADE_NS (40 * MS_NS)
#define HOLDS_NS (1000 * MS_NS)
#define COMMAND_MARGIN_NS (10 * MS_NS)
#define SAFE_LEAD_NS (5 * MS_NS)
#define LONGEST_VALIDITY_NS (200 * MS_NS)
#define NEVER_NS (INT64_C(1) << 62)

typedef enum { DISARMED, RUN, HOLD, SAFE, LATCHED } State;

/* Reasons to drop a command, in the order of inner_loop.Drop. */
typedef enum {
    DROP_STOPPED,
    DROP_REPEATED,
    DROP_LATE,
    DROP_EARLY,
    DROP_ORDER,
    DROP_VALIDITY,
    DROP_FULL,
    DROP_SHAPE,
    DROP_NOT_FINITE,
    DROPS,
    ACCEPTED = DROPS,
} Drop;

typedef struct {
    int64_t sequence, apply_at_ns, valid_for_ns;
    int32_t count;
    double values[MOST_ACTUATORS];
} Command;

typedef struct {
    int32_t actuators;
    int64_t period_ns, safe_after_ns;
    double low[MOST_ACTUATORS], high[MOST_ACTUATORS], safe[MOST_ACTUATORS];
    double rate_per_s[MOST_ACTUATORS]; /* infinite without a limit */
} LoopSettings;

typedef struct {
    LoopSettings of;
    State state;
    int64_t dropped[DROPS];
    char reason[REASON_LENGTH]; /* empty while the arm was not stopped */
    bool is_commanded;          /* a command has taken effect since the arm was armed */
    double values[MOST_ACTUATORS], target[MOST_ACTUATORS], fade_from[MOST_ACTUATORS];
    Command queue[LONGEST_QUEUE];
    int queued;
    int64_t holds[MOST_HOLDS]; /* instants at which HOLD began, the oldest first */
    int held;
    bool moving;
    int64_t sequence, last_ns, effect_ns, state_ends_ns, next_ns;
} InnerLoop;

static int64_t earlier(int64_t one_ns, int64_t other_ns) { return one_ns < other_ns ? one_ns : other_ns; }
static int64_t later(int64_t one_ns, int64_t other_ns) { return one_ns > other_ns ? one_ns : other_ns; }

static bool is_stopped(State state) { return state == DISARMED || state == SAFE || state == LATCHED; }

static bool reached(const InnerLoop *loop) {
    for (int i = 0; i < loop->of.actuators; i++)
        if (loop->values[i] != loop->target[i]) return false;
    return true;
}

static void loop_start(InnerLoop *loop, const LoopSettings *settings) {
    *loop = (InnerLoop){
        .of = *settings,
        .state = DISARMED,
        .sequence = -1,
        .last_ns = -NEVER_NS,
        .effect_ns = -NEVER_NS,
        .state_ends_ns = NEVER_NS,
        .next_ns = NEVER_NS,
    };
    memcpy(loop->values, settings->safe, sizeof loop->values);
    memcpy(loop->target, settings->safe, sizeof loop->target);
    memcpy(loop->fade_from, settings->safe, sizeof loop->fade_from);
}

static void schedule(InnerLoop *loop) {
    loop->next_ns = loop->state_ends_ns;
    int64_t grace_ns = 0;
    if (loop->state == HOLD)
        grace_ns = earlier(SAFE_LEAD_NS + COMMAND_MARGIN_NS, LONGEST_VALIDITY_NS - loop->of.safe_after_ns);
    if (loop->queued && loop->queue[0].apply_at_ns <= loop->next_ns + grace_ns)
        loop->next_ns = loop->queue[0].apply_at_ns;
}

static void enter(InnerLoop *loop, State state, int64_t ends_ns) {
    loop->state = state;
    loop->state_ends_ns = ends_ns;
    schedule(loop);
}

static void fade(InnerLoop *loop, int64_t now_ns) {
    loop->queued = 0;
    memcpy(loop->fade_from, loop->values, sizeof loop->values);
    memcpy(loop->target, loop->of.safe, sizeof loop->target);
    loop->moving = true;
    enter(loop, SAFE, now_ns + FADE_NS);
}

static void loop_arm(InnerLoop *loop, int64_t now_ns) {
    if (loop->state == SAFE) return;
    loop->queued = 0;
    if (is_stopped(loop->state)) loop->held = 0;
    loop->reason[0] = 0;
    loop->is_commanded = false;
    loop->sequence = -1;
    memcpy(loop->target, loop->of.safe, sizeof loop->target);
    loop->moving = !reached(loop);
    loop->last_ns = loop->effect_ns = now_ns;
    enter(loop, RUN, now_ns + earlier(loop->of.period_ns + COMMAND_MARGIN_NS + 1, loop->of.safe_after_ns));
}

static void loop_stop(InnerLoop *loop, int64_t now_ns, const char *reason) {
    if (is_stopped(loop->state)) return;
    snprintf(loop->reason, sizeof loop->reason, "%s", reason);
    fade(loop, later(now_ns, loop->last_ns));
}

static Drop reason_to_drop(const InnerLoop *loop, const Command *command, int64_t now_ns) {
    if (is_stopped(loop->state)) return DROP_STOPPED;
    if (command->sequence <= loop->sequence) return DROP_REPEATED;
    if (now_ns > command->apply_at_ns) return DROP_LATE;
    if (command->apply_at_ns > now_ns + loop->of.period_ns) return DROP_EARLY;
    if (command->valid_for_ns <= 0 || command->valid_for_ns > LONGEST_VALIDITY_NS) return DROP_VALIDITY;
    if (loop->queued >= LONGEST_QUEUE) return DROP_FULL;
    if (loop->queued && command->apply_at_ns <= loop->queue[loop->queued - 1].apply_at_ns) return DROP_ORDER;
    if (command->count != loop->of.actuators) return DROP_SHAPE;
    for (int i = 0; i < command->count; i++)
        if (!isfinite(command->values[i])) return DROP_NOT_FINITE;
    return ACCEPTED;
}

static Drop loop_accept(InnerLoop *loop, const Command *command, int64_t now_ns) {
    Drop reason = reason_to_drop(loop, command, now_ns);
    if (reason != ACCEPTED) {
        loop->dropped[reason]++;
        return reason;
    }
    Command *queued = &loop->queue[loop->queued++];
    *queued = *command;
    for (int i = 0; i < loop->of.actuators; i++)
        queued->values[i] = fmin(fmax(command->values[i], loop->of.low[i]), loop->of.high[i]);
    loop->sequence = command->sequence;
    schedule(loop);
    return ACCEPTED;
}

static void slew(InnerLoop *loop, double dt_s) {
    if (dt_s < 0.0) return;
    for (int i = 0; i < loop->of.actuators; i++) {
        double reach = loop->of.rate_per_s[i] * dt_s; /* NaN without a limit at no time: then it is reached at once */
        double gap = loop->target[i] - loop->values[i];
        if (gap > reach)
            loop->values[i] += reach;
        else if (gap < -reach)
            loop->values[i] -= reach;
        else
            loop->values[i] = loop->target[i];
    }
    loop->moving = !reached(loop);
}

static void move(InnerLoop *loop, int64_t now_ns) {
    if (loop->state != SAFE) {
        slew(loop, (double)(now_ns - loop->last_ns) * 1e-9);
        return;
    }
    double done = fmin(fmax(1.0 - (double)(loop->state_ends_ns - now_ns) / (double)FADE_NS, 0.0), 1.0);
    for (int i = 0; i < loop->of.actuators; i++)
        loop->values[i] = loop->fade_from[i] + (loop->of.safe[i] - loop->fade_from[i]) * done;
    loop->moving = done < 1.0;
}

static void hold(InnerLoop *loop, int64_t at_ns) {
    if (loop->held == MOST_HOLDS) memmove(loop->holds, loop->holds + 1, sizeof loop->holds[0] * --loop->held);
    loop->holds[loop->held++] = at_ns;
    if (loop->held == MOST_HOLDS && at_ns - loop->holds[0] <= HOLDS_NS) {
        snprintf(loop->reason, sizeof loop->reason, "%d times without a command in time within 1 s", MOST_HOLDS);
        fade(loop, at_ns);
    } else {
        enter(loop, HOLD, loop->effect_ns + loop->of.safe_after_ns);
    }
}

static void take_effect(InnerLoop *loop, int64_t at_ns) {
    Command command = loop->queue[0];
    memmove(loop->queue, loop->queue + 1, sizeof command * --loop->queued);
    memcpy(loop->target, command.values, sizeof loop->target);
    loop->moving = !reached(loop);
    loop->effect_ns = at_ns;
    loop->is_commanded = true;
    enter(loop, RUN, at_ns + earlier(command.valid_for_ns + 1, loop->of.safe_after_ns));
}

static void pass_events(InnerLoop *loop, int64_t now_ns) {
    int64_t at_ns;
    while ((at_ns = loop->next_ns) <= now_ns) {
        if (loop->moving) move(loop, at_ns);
        loop->last_ns = later(loop->last_ns, at_ns);
        if (loop->queued && loop->queue[0].apply_at_ns <= at_ns) {
            take_effect(loop, at_ns);
        } else if (loop->state == RUN) {
            hold(loop, at_ns);
        } else if (loop->state == HOLD) {
            double waited_ms = (double)loop->of.safe_after_ns * 1e-6;
            snprintf(loop->reason, sizeof loop->reason, "no command for %g ms", waited_ms);
            fade(loop, at_ns);
        } else {
            enter(loop, LATCHED, NEVER_NS);
        }
    }
}

/* Bring `values` to an instant. */
static void loop_step(InnerLoop *loop, int64_t now_ns) {
    if (now_ns >= loop->next_ns) pass_events(loop, now_ns);
    if (loop->moving) move(loop, now_ns);
    loop->last_ns = later(loop->last_ns, now_ns);
}
