/* The envelope of envelope.py for an arm whose cycle must not wait for Python.

   envelope.py is the reference: it explains the rules. Both give the same torques, to the last bit, and the same
   reasons. tests/runtime/test_c_loops.py drives them side by side. Compile with -ffp-contract=off. */

#pragma once

#include "inner_loop.h"

enum { MOST_JOINTS = 7 };
#define CYCLE_S 1e-3
#define TORQUE_MARGIN 0.99
#define TREND_CYCLES 3
#define TOO_FAST_CYCLES 20
#define LIMIT_ZONE_RAD 0.1
#define BRAKING_ZONE_RAD 0.03
#define KEEP_OFF_RAD 0.03
#define LIMIT_MARGIN_RAD 0.005
#define PRESSED_S 0.5
#define STILL_RAD_S 0.03
#define CONSISTENCY_CYCLES 100
#define CONSISTENCY_RAD 0.03
#define REPEATED_CYCLES 50
#define REPEATED_NM 1.0
#define TOOL_CYCLES 10

/* envelope.ArmLimits */
typedef struct {
    int32_t joints;
    double low_rad[MOST_JOINTS], high_rad[MOST_JOINTS], speed_rad_s[MOST_JOINTS], acceleration_rad_s2[MOST_JOINTS];
    double torque_nm[MOST_JOINTS], torque_rate_nm_s[MOST_JOINTS];
    double brake_nm[MOST_JOINTS], brake_nms_rad[MOST_JOINTS], pressed_nm[MOST_JOINTS];
    double frames[MOST_JOINTS + 1][3];
    double box_low_m[3], box_high_m[3];
    double power_w;
    double stopping_rad_s2[MOST_JOINTS]; /* infinite where the speed limit does not fall */
    double stopping_offset_rad_s[MOST_JOINTS];
    double slowing_share, slowing_brake_share;
} ArmLimits;

typedef struct {
    double lead_cycles_nm, most, step, far_low, far_high;
    double written_nm, velocity, acceleration, start, travel, top_rad_s;
    int too_fast, pressed;
} Joint;

typedef struct {
    ArmLimits of;
    char reason[REASON_LENGTH]; /* empty while there is none */
    bool is_blind;
    Joint joints[MOST_JOINTS];
    int64_t cycles;
    double unsure_s;
    int repeated;
    bool has_last;
    double last_position[MOST_JOINTS], last_velocity[MOST_JOINTS];
} Envelope;

static double larger(double one, double other) { return other > one ? other : one; }
static double smaller(double one, double other) { return other < one ? other : one; }

static double way_to_stop(const ArmLimits *of, const Joint *joint, int i, double speed, double driving_nm) {
    double change_s = larger(driving_nm + of->brake_nm[i], 0.0) / joint->step * CYCLE_S;
    return speed * change_s + speed * speed / (2 * of->acceleration_rad_s2[i]);
}

/* Forget the reason and the readings. The torques that were written last are kept. */
static void envelope_reset(Envelope *envelope) {
    envelope->reason[0] = 0;
    envelope->is_blind = false;
    envelope->cycles = 0;
    envelope->unsure_s = 0.0;
    envelope->repeated = 0;
    envelope->has_last = false;
    for (int i = 0; i < envelope->of.joints; i++) {
        Joint *joint = &envelope->joints[i];
        joint->acceleration = joint->travel = joint->top_rad_s = 0.0;
        joint->too_fast = joint->pressed = 0;
        joint->start = NAN;
    }
}

static void envelope_start(Envelope *envelope, const ArmLimits *limits) {
    *envelope = (Envelope){.of = *limits};
    for (int i = 0; i < limits->joints; i++) {
        Joint *joint = &envelope->joints[i];
        joint->most = TORQUE_MARGIN * limits->torque_nm[i];
        joint->step = TORQUE_MARGIN * limits->torque_rate_nm_s[i] * CYCLE_S;
        joint->lead_cycles_nm = 1.0 / joint->step;
        double farthest = way_to_stop(limits, joint, i, limits->speed_rad_s[i], joint->most);
        farthest = farthest + KEEP_OFF_RAD + LIMIT_ZONE_RAD;
        joint->far_low = limits->low_rad[i] + farthest;
        joint->far_high = limits->high_rad[i] - farthest;
    }
    envelope_reset(envelope);
}

static void envelope_let_go(Envelope *envelope, double *written_nm) {
    for (int i = 0; i < envelope->of.joints; i++) {
        Joint *joint = &envelope->joints[i];
        joint->written_nm -= smaller(larger(joint->written_nm, -joint->step), joint->step);
        written_nm[i] = joint->written_nm;
    }
}

static double fastest_towards(const ArmLimits *of, int i, double velocity, double position) {
    if (isinf(of->stopping_rad_s2[i])) return of->speed_rad_s[i];
    double room = velocity > 0.0 ? of->high_rad[i] - position : position - of->low_rad[i];
    double falling = sqrt(2.0 * of->stopping_rad_s2[i] * larger(room, 0.0)) - of->stopping_offset_rad_s[i];
    return smaller(larger(falling, 0.0), of->speed_rad_s[i]);
}

static double keep_off_limit(
    const ArmLimits *of, const Joint *joint, int i, double wanted, double position, double velocity) {
    for (int side = 0; side < 2; side++) {
        double sign = side ? -1.0 : 1.0;
        double room = side ? position - of->low_rad[i] : of->high_rad[i] - position;
        double speed = larger(sign * velocity, 0.0);
        double left = room - KEEP_OFF_RAD - way_to_stop(of, joint, i, speed, sign * joint->written_nm);
        if (left >= LIMIT_ZONE_RAD) continue;
        if (sign * wanted > 0) wanted *= larger(left / LIMIT_ZONE_RAD, 0.0);
        if (left < 0 && speed > 0) wanted -= sign * of->brake_nm[i] * smaller(-left / BRAKING_ZONE_RAD, 1.0);
    }
    return wanted;
}

static double slow_down(const ArmLimits *of, int i, double wanted, double coming, double fastest) {
    double over = fabs(coming) - of->slowing_share * fastest;
    double left = fastest - of->slowing_share * fastest;
    if (wanted * coming > 0.0) wanted *= left > 0.0 ? larger(1.0 - over / left, 0.0) : 0.0;
    return wanted - copysign(of->brake_nms_rad[i] * over, coming);
}

static double limit_joint(
    const ArmLimits *of, Joint *joint, int i, double wanted, double position, double velocity) {
    double before = joint->written_nm;
    if (!isfinite(wanted + position + velocity)) {
        wanted = 0.0;
    } else {
        double gained = velocity - joint->velocity;
        joint->velocity = velocity;
        joint->acceleration += (gained - joint->acceleration) / TREND_CYCLES;
        double lead_cycles = (fabs(before) + of->slowing_brake_share * of->brake_nm[i]) * joint->lead_cycles_nm;
        double coming = velocity + joint->acceleration * lead_cycles;
        if (!(joint->far_low < position && position < joint->far_high))
            wanted = keep_off_limit(of, joint, i, wanted, position, velocity);
        double fastest = fastest_towards(of, i, coming, position + velocity * lead_cycles * CYCLE_S);
        if (fabs(coming) >= of->slowing_share * fastest && coming * velocity > 0.0)
            wanted = slow_down(of, i, wanted, coming, fastest);
    }
    wanted = smaller(larger(wanted, -joint->most), joint->most);
    joint->written_nm = smaller(larger(wanted, before - joint->step), before + joint->step);
    return joint->written_nm;
}

static bool readings_repeat(
    Envelope *envelope, const double *written, const double *position, const double *velocity) {
    size_t size = sizeof(double) * envelope->of.joints;
    double largest = 0.0;
    bool same = envelope->has_last;
    for (int i = 0; i < envelope->of.joints; i++) {
        largest = larger(largest, fabs(written[i]));
        same = same && position[i] == envelope->last_position[i] && velocity[i] == envelope->last_velocity[i];
    }
    if (!same || largest <= REPEATED_NM) {
        envelope->repeated = 0;
        envelope->has_last = true;
        memcpy(envelope->last_position, position, size);
        memcpy(envelope->last_velocity, velocity, size);
        return false;
    }
    return ++envelope->repeated >= REPEATED_CYCLES;
}

/* Compare the way of every joint since the last call with the sum of its velocities. The first reason counts. */
static void compare_ways(Envelope *envelope, const double *position) {
    double unsure_s = fabs(envelope->unsure_s);
    envelope->unsure_s = 0.0;
    for (int i = 0; i < envelope->of.joints; i++) {
        Joint *joint = &envelope->joints[i];
        double difference = fabs(position[i] - joint->start - joint->travel);
        double allowed = CONSISTENCY_RAD + joint->top_rad_s * unsure_s;
        joint->start = position[i];
        joint->travel = joint->top_rad_s = 0.0;
        if (difference > allowed && !envelope->reason[0]) /* never at the first call, where it is NaN */
            snprintf(
                envelope->reason, REASON_LENGTH,
                "joint %d: its position and its velocity differ by %.3f rad after %d cycles", i + 1, difference,
                CONSISTENCY_CYCLES);
    }
}

/* Find out why the joints' readings cannot be true. */
static void distrust(
    Envelope *envelope, const double *written, const double *position, const double *velocity, double elapsed_s) {
    for (int i = 0; i < envelope->of.joints; i++)
        if (!isfinite(position[i]) || !isfinite(velocity[i])) {
            snprintf(envelope->reason, REASON_LENGTH, "joint %d: its readings are not finite", i + 1);
            return;
        }
    for (int i = 0; i < envelope->of.joints; i++) {
        Joint *joint = &envelope->joints[i];
        joint->travel += velocity[i] * CYCLE_S;
        joint->top_rad_s = larger(joint->top_rad_s, fabs(velocity[i]));
    }
    envelope->unsure_s += elapsed_s - CYCLE_S;
    envelope->cycles++;
    if (readings_repeat(envelope, written, position, velocity))
        snprintf(
            envelope->reason, REASON_LENGTH, "the joints' readings were the same for %d cycles under torque",
            REPEATED_CYCLES);
    else if (envelope->cycles % CONSISTENCY_CYCLES == 1)
        compare_ways(envelope, position);
}

/* Find out why an arm must be stopped whose joint is at this position. The first reason counts. */
static void judge_joint(Envelope *envelope, int i, double position, double velocity) {
    const ArmLimits *of = &envelope->of;
    Joint *joint = &envelope->joints[i];
    double speed = fabs(velocity);
    double fastest = fastest_towards(of, i, velocity, position);
    joint->too_fast = speed > fastest ? joint->too_fast + 1 : 0;
    bool is_pressed = speed < STILL_RAD_S && fabs(joint->written_nm) > of->pressed_nm[i];
    joint->pressed = is_pressed ? joint->pressed + 1 : 0;
    if (envelope->reason[0]) return;

    double low = of->low_rad[i], high = of->high_rad[i];
    if (!(low + LIMIT_MARGIN_RAD <= position && position <= high - LIMIT_MARGIN_RAD))
        snprintf(
            envelope->reason, REASON_LENGTH, "joint %d came to %.3f rad, at its limit (%g to %g)", i + 1, position,
            low, high);
    else if (joint->too_fast >= TOO_FAST_CYCLES)
        snprintf(
            envelope->reason, REASON_LENGTH, "joint %d turned at %.2f rad/s, above its limit of %.4g", i + 1, speed,
            fastest);
    else if (joint->pressed * CYCLE_S >= PRESSED_S)
        snprintf(
            envelope->reason, REASON_LENGTH, "joint %d was pressed with %.0f N·m for %g s and did not move", i + 1,
            fabs(joint->written_nm), PRESSED_S);
}

static void tool_place(const ArmLimits *of, const double *position, double *place) {
    double x = 0.0, y = 0.0, z = 0.0;
    for (int i = of->joints; i >= 0; i--) { /* backwards from the tool: each frame turns and shifts a point */
        double theta = i == of->joints ? 0.0 : position[i];
        double a = of->frames[i][0], alpha = of->frames[i][1], d = of->frames[i][2];
        double cos_theta = cos(theta), sin_theta = sin(theta), cos_alpha = cos(alpha), sin_alpha = sin(alpha);
        double turned_x = cos_theta * x - sin_theta * y, turned_y = sin_theta * x + cos_theta * y;
        z += d;
        x = turned_x + a;
        y = cos_alpha * turned_y - sin_alpha * z;
        z = sin_alpha * turned_y + cos_alpha * z;
    }
    place[0] = x, place[1] = y, place[2] = z;
}

static void judge_tool(Envelope *envelope, const double *position) {
    const ArmLimits *of = &envelope->of;
    double place[3];
    tool_place(of, position, place);
    for (int axis = 0; axis < 3; axis++)
        if (!(of->box_low_m[axis] <= place[axis] && place[axis] <= of->box_high_m[axis])) {
            snprintf(
                envelope->reason, REASON_LENGTH, "the tool came to %c = %.3f m, outside its box (%g to %g)",
                "xyz"[axis], place[axis], of->box_low_m[axis], of->box_high_m[axis]);
            return;
        }
}

static void judge_power(Envelope *envelope, const double *written, const double *velocity) {
    double power_w = 0.0;
    for (int i = 0; i < envelope->of.joints; i++) power_w += larger(written[i] * velocity[i], 0.0);
    if (power_w > envelope->of.power_w)
        snprintf(
            envelope->reason, REASON_LENGTH, "the joints got %.0f W, above the limit of %g", power_w,
            envelope->of.power_w);
}

static void find_reason(
    Envelope *envelope, const double *written, const double *position, const double *velocity, double elapsed_s) {
    distrust(envelope, written, position, velocity, elapsed_s);
    if (envelope->reason[0]) {
        envelope->is_blind = true;
        return;
    }
    for (int i = 0; i < envelope->of.joints; i++) judge_joint(envelope, i, position[i], velocity[i]);
    if (!envelope->reason[0] && envelope->of.power_w < INFINITY) judge_power(envelope, written, velocity);
    if (!envelope->reason[0] && envelope->cycles % TOOL_CYCLES == 0) judge_tool(envelope, position);
}

/* Give the torques to write in this cycle. Call it once per cycle. */
static void envelope_limit(
    Envelope *envelope, const double *torque_nm, const double *position, const double *velocity, bool is_driven,
    double elapsed_s, double *written_nm) {
    if (envelope->is_blind) {
        envelope_let_go(envelope, written_nm);
        return;
    }
    bool all_finite = true;
    for (int i = 0; i < envelope->of.joints; i++) {
        written_nm[i] =
            limit_joint(&envelope->of, &envelope->joints[i], i, torque_nm[i], position[i], velocity[i]);
        all_finite = all_finite && isfinite(torque_nm[i]);
    }
    if (!is_driven || envelope->reason[0]) return;
    if (all_finite)
        find_reason(envelope, written_nm, position, velocity, elapsed_s);
    else
        snprintf(envelope->reason, REASON_LENGTH, "a wanted torque is not finite");
}
