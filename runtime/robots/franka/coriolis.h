/* Coriolis and centrifugal torques of an arm, by the recursive Newton-Euler method.

   Source: Luh, Walker, Paul, "On-Line Computational Scheme for Mechanical Manipulators", 1980. Gravity and the joints'
   accelerations are left out: what remains are the torques of C(q, dq)·dq. */

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { ARM_JOINTS = 7 };

typedef struct {
    double mass_kg;
    double centre_m[3];
    double inertia_kgm2[9]; /* about the centre, row by row */
} Body;

/* A link: its frame in the frame before it while its joint is at zero, and its body. The joint turns about z. */
typedef struct {
    double rotation[9];
    double place_m[3];
    Body body;
} Link;

static void cross(const double *a, const double *b, double *out) {
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

static void turn(const double *rotation, const double *v, double *out) {
    for (int row = 0; row < 3; row++)
        out[row] = rotation[3 * row] * v[0] + rotation[3 * row + 1] * v[1] + rotation[3 * row + 2] * v[2];
}

static void turn_back(const double *rotation, const double *v, double *out) {
    for (int row = 0; row < 3; row++)
        out[row] = rotation[row] * v[0] + rotation[3 + row] * v[1] + rotation[6 + row] * v[2];
}

/* Motion of a link in its own frame. */
typedef struct {
    double turning[3], turning_faster[3], speeding[3]; /* rad/s, rad/s², m/s² */
} Motion;

/* Acceleration of a point of a link. */
static void accelerate(const Motion *motion, const double *point, double *out) {
    double along[3], inward[3], swept[3];
    cross(motion->turning_faster, point, along);
    cross(motion->turning, point, swept);
    cross(motion->turning, swept, inward);
    for (int i = 0; i < 3; i++) out[i] = motion->speeding[i] + along[i] + inward[i];
}

/* Add the force, and the moment about the link's origin, that keep a body of a link moving as it does. */
static void add_body(const Motion *motion, const Body *body, double *force, double *moment) {
    double acceleration[3], carried[3], momentum[3], gyroscopic[3], faster[3], own[3];
    accelerate(motion, body->centre_m, acceleration);
    for (int i = 0; i < 3; i++) own[i] = body->mass_kg * acceleration[i];
    turn(body->inertia_kgm2, motion->turning_faster, faster);
    turn(body->inertia_kgm2, motion->turning, momentum);
    cross(motion->turning, momentum, gyroscopic);
    cross(body->centre_m, own, carried);
    for (int i = 0; i < 3; i++) {
        force[i] += own[i];
        moment[i] += faster[i] + gyroscopic[i] + carried[i];
    }
}

/* Give the torques. `carried` are `count` more bodies in the frame of the last link: a hand, a load. */
static void coriolis(
    const Link *links, const Body *carried, int count, const double *position, const double *velocity,
    double *torque_nm) {
    double rotations[ARM_JOINTS][9], forces[ARM_JOINTS][3], moments[ARM_JOINTS][3];
    Motion motion = {0};
    for (int joint = 0; joint < ARM_JOINTS; joint++) {
        double c = cos(position[joint]), s = sin(position[joint]);
        double *rotation = rotations[joint];
        for (int row = 0; row < 3; row++) {
            const double *fixed = links[joint].rotation + 3 * row;
            rotation[3 * row] = fixed[0] * c + fixed[1] * s;
            rotation[3 * row + 1] = fixed[1] * c - fixed[0] * s;
            rotation[3 * row + 2] = fixed[2];
        }
        Motion before = motion;
        double speeding[3];
        accelerate(&before, links[joint].place_m, speeding);
        turn_back(rotation, speeding, motion.speeding);
        turn_back(rotation, before.turning, motion.turning);
        turn_back(rotation, before.turning_faster, motion.turning_faster);
        motion.turning_faster[0] += motion.turning[1] * velocity[joint];
        motion.turning_faster[1] -= motion.turning[0] * velocity[joint];
        motion.turning[2] += velocity[joint];

        memset(forces[joint], 0, sizeof forces[joint]);
        memset(moments[joint], 0, sizeof moments[joint]);
        add_body(&motion, &links[joint].body, forces[joint], moments[joint]);
        for (int i = 0; joint == ARM_JOINTS - 1 && i < count; i++)
            add_body(&motion, &carried[i], forces[joint], moments[joint]);
    }
    for (int joint = ARM_JOINTS - 1; joint >= 0; joint--) {
        torque_nm[joint] = moments[joint][2];
        if (!joint) break;
        double force[3], moment[3], lever[3];
        turn(rotations[joint], forces[joint], force);
        turn(rotations[joint], moments[joint], moment);
        cross(links[joint].place_m, force, lever);
        for (int i = 0; i < 3; i++) {
            forces[joint - 1][i] += force[i];
            moments[joint - 1][i] += moment[i] + lever[i];
        }
    }
}
