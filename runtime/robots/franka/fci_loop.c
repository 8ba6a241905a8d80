/* The inner loop of a Franka arm, in a process of its own that Python cannot stop.

   It takes part in the arm's cycle at 1 kHz: it reads a state, works out the torques, and answers. The process that
   started it asks for arming, for commands and for a stop over a socket, and gets a report of each cycle. It may be
   busy, suspended or killed: then commands are missing, or the socket ends, and the arm fades, latches and is let go.

   fci_loop.py starts it and has the same records. The protocol is number 10 of the Franka Control Interface, as
   libfranka-common's rbk_types.h describes it. */

#define _GNU_SOURCE
#include "coriolis.h"
#include "envelope.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    ERRORS = 41,
    MODE_MOVE = 2,
    EXTERNAL_CONTROLLER = 2,
    SILENT_MS = 1000, /* longest wait for the arm once nobody listens */
    QUIET_CYCLES = 10, /* cycles at the start of a motion without a torque: an arm may leave out its first answers */
};

#pragma pack(push, 1)
/* A state of the arm. Names as in rbk_types.h where they are read. */
typedef struct {
    uint64_t message_id;
    float poses[5][16], NE_T_EE[16];
    float m_ee, I_ee[9], F_x_Cee[3];
    float m_load, I_load[9], F_x_Cload[3];
    float elbows[4];
    float tau_J[7], tau_J_d[7], dtau_J[7], q[7], q_d[7], dq[7], dq_d[7], ddq_d[7];
    float contacts[26], forces[25], accelerations[3], commanded[34], motors[14], accelerometers[36];
    uint8_t motion_generator_mode, controller_mode;
    uint8_t errors[ERRORS], reflex_reason[ERRORS];
    uint8_t robot_mode;
    float control_command_success_rate;
} ArmState;

typedef struct {
    uint64_t message_id;
    double motion[38];
    uint8_t valid_elbow, motion_generation_finished;
    double tau_J_d[7];
    uint8_t torque_command_finished;
} ArmCommand;
#pragma pack(pop)
_Static_assert(sizeof(ArmState) == 1377, "protocol 10");
_Static_assert(sizeof(ArmCommand) == 371, "protocol 10");

/* The first packet from Python. */
typedef struct {
    LoopSettings loop;
    ArmLimits limits;
    double damping_nms_rad;
    Link links[ARM_JOINTS];
    double flange_m; /* from the last link to the flange, along z */
    int32_t priority; /* of SCHED_FIFO; 0 for none */
} Settings;

typedef enum { ASK_ARM, ASK_NOT_TO_ARM, ASK_STOP, ASK_COMMAND } Asked;

typedef struct {
    int32_t asked;
    Command command;
    char reason[REASON_LENGTH];
} Request;

/* What Python learns of a cycle. */
typedef struct {
    int64_t number, read_ns, answered_ns; /* answered_ns is 0 in a cycle without an answer */
    uint64_t message_id;
    int64_t arrived; /* states that arrived, those that a newer one overtook too */
    double position[ARM_JOINTS], velocity[ARM_JOINTS], values[MOST_ACTUATORS];
    double written_nm[ARM_JOINTS], had_nm[ARM_JOINTS]; /* torques of the answer, and those that the arm had before */
    int64_t dropped[DROPS];
    uint64_t errors, reflex_reason; /* bits in the order of research_interface::robot::Error */
    double hand_kg, load_kg, success_rate;
    int32_t state, robot_mode, is_driven, is_commanded;
    char reason[REASON_LENGTH];
} Report;

static Settings settings;
static InnerLoop loop;
static Envelope envelope;
static Report report;
static int udp, link_, trace = -1;
static struct in_addr arm_address;
static bool is_arming;
static int driven_cycles; /* of the present motion */
static bool is_ending; /* the arm was told that the motion is finished */
static bool is_alone;  /* nobody listens: the socket has ended */

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static uint64_t bits(const uint8_t *flags) {
    uint64_t found = 0;
    for (int i = 0; i < ERRORS; i++) found |= (uint64_t)(flags[i] != 0) << i;
    return found;
}

static Body carried(double mass_kg, const float *inertia, const float *centre) {
    Body body = {.mass_kg = mass_kg};
    for (int i = 0; i < 9; i++) body.inertia_kgm2[i] = inertia[i];
    for (int i = 0; i < 3; i++) body.centre_m[i] = centre[i];
    body.centre_m[2] += settings.flange_m;
    return body;
}

/* -- Python ------------------------------------------------------------------------------------- */

static void take_states(void);

static void take_requests(void) {
    Request request;
    ssize_t size;
    while ((size = recv(link_, &request, sizeof request, MSG_DONTWAIT)) > 0) {
        if (size != sizeof request) continue;
        switch ((Asked)request.asked) {
        case ASK_ARM:
            take_states(); /* those of a motion before are answered as such */
            is_ending = false;
            is_arming = true;
            break;
        case ASK_NOT_TO_ARM: is_arming = false; break;
        case ASK_STOP:
            is_arming = false;
            loop_stop(&loop, now_ns(), request.reason);
            break;
        case ASK_COMMAND: loop_accept(&loop, &request.command, now_ns()); break;
        }
    }
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    is_alone = true;
    is_arming = false;
    loop_stop(&loop, now_ns(), "the process that drives the arm ended");
}

static void tell(void) {
    report.number++;
    report.state = loop.state;
    report.is_commanded = loop.is_commanded;
    memcpy(report.values, loop.values, sizeof report.values);
    memcpy(report.dropped, loop.dropped, sizeof report.dropped);
    memcpy(report.reason, loop.reason, sizeof report.reason);
    if (trace >= 0 && write(trace, &report, sizeof report) != sizeof report) trace = -1;
    /* A listener that is busy loses reports, and none of them holds up the arm. */
    if (!is_alone) send(link_, &report, sizeof report, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* -- Arm ---------------------------------------------------------------------------------------- */

/* Keep the rate against the torques that the arm has, too. Answers may have been lost or late. */
static void keep_rate(const double *before_nm) {
    for (int i = 0; i < ARM_JOINTS; i++) {
        double step = envelope.joints[i].step, had = report.had_nm[i];
        double low = larger(before_nm[i], had) - step, high = smaller(before_nm[i], had) + step;
        if (low > high) low = had - step, high = had + step;
        report.written_nm[i] = smaller(larger(report.written_nm[i], low), high);
        envelope.joints[i].written_nm = report.written_nm[i];
    }
}

static void answer(const ArmState *state, const struct sockaddr_in *arm, double elapsed_s) {
    bool at_rest = loop.state == DISARMED || loop.state == LATCHED;
    double before_nm[ARM_JOINTS];
    for (int i = 0; i < ARM_JOINTS; i++) before_nm[i] = envelope.joints[i].written_nm;
    if (at_rest) {
        envelope_let_go(&envelope, report.written_nm);
    } else {
        Body bodies[] = {
            carried(state->m_ee, state->I_ee, state->F_x_Cee),
            carried(state->m_load, state->I_load, state->F_x_Cload),
        };
        double wanted[ARM_JOINTS];
        coriolis(settings.links, bodies, 2, report.position, report.velocity, wanted);
        for (int i = 0; i < ARM_JOINTS; i++)
            wanted[i] = loop.values[i] + wanted[i] - settings.damping_nms_rad * report.velocity[i];
        envelope_limit(
            &envelope, wanted, report.position, report.velocity, !is_stopped(loop.state), elapsed_s,
            report.written_nm);
        if (envelope.reason[0]) loop_stop(&loop, report.read_ns, envelope.reason);
    }

    keep_rate(before_nm);

    /* Damping and brakes may outlast the fade: the arm takes over from no torque. */
    ArmCommand command = {.message_id = state->message_id, .torque_command_finished = at_rest && !is_arming};
    for (int i = 0; i < ARM_JOINTS; i++) {
        command.tau_J_d[i] = report.written_nm[i];
        if (report.written_nm[i] != 0.0) command.torque_command_finished = false;
    }
    is_ending = command.torque_command_finished;
    sendto(udp, &command, sizeof command, MSG_DONTWAIT, (const struct sockaddr *)arm, sizeof *arm);
    report.answered_ns = now_ns();
}

static void take_part(const ArmState *state, const struct sockaddr_in *arm) {
    int64_t before_ns = report.read_ns;
    report.read_ns = now_ns();
    report.answered_ns = 0;
    report.message_id = state->message_id;
    report.robot_mode = state->robot_mode;
    report.errors = bits(state->errors);
    report.reflex_reason = bits(state->reflex_reason);
    report.hand_kg = state->m_ee;
    report.load_kg = state->m_load;
    report.success_rate = state->control_command_success_rate;
    for (int i = 0; i < ARM_JOINTS; i++) {
        report.position[i] = state->q[i];
        report.velocity[i] = state->dq[i];
        report.had_nm[i] = state->tau_J_d[i];
    }

    bool was_driven = report.is_driven;
    report.is_driven = state->robot_mode == MODE_MOVE && state->controller_mode == EXTERNAL_CONTROLLER;
    if (report.is_driven && !was_driven) {
        /* The arm has held itself meanwhile: its first torque is one step from zero. */
        envelope_start(&envelope, &settings.limits);
        is_ending = false;
        driven_cycles = 0;
    }
    if (report.is_driven && is_arming && !is_ending && driven_cycles++ >= QUIET_CYCLES) {
        /* Consent that is repeated while the arm is driven must not restart the envelope's rules. */
        if (loop.state == DISARMED || loop.state == LATCHED) envelope_reset(&envelope);
        loop_arm(&loop, report.read_ns);
        is_arming = false;
    }
    if (was_driven && !report.is_driven) loop_stop(&loop, report.read_ns, "the arm stopped itself");

    loop_step(&loop, report.read_ns);
    if (report.is_driven)
        answer(state, arm, (report.read_ns - before_ns) * 1e-9);
    else
        memset(report.written_nm, 0, sizeof report.written_nm);
    tell();
}

/* Take the newest of the states that have arrived, and leave out datagrams of others. */
static void take_states(void) {
    ArmState state, newest = {.message_id = report.message_id};
    struct sockaddr_in from, arm;
    for (;;) {
        socklen_t length = sizeof from;
        ssize_t size = recvfrom(udp, &state, sizeof state, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
        if (size < 0) break;
        if (size != sizeof state || from.sin_addr.s_addr != arm_address.s_addr) continue;
        report.arrived++;
        if (state.message_id > newest.message_id) newest = state, arm = from;
    }
    if (newest.message_id > report.message_id) take_part(&newest, &arm);
}

/* -- Process ------------------------------------------------------------------------------------ */

static void get_ready(void) {
    /* A service that is ended gets these in all its processes. The socket tells this one. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    mlockall(MCL_CURRENT | MCL_FUTURE);
    struct sched_param parameter = {.sched_priority = settings.priority};
    if (settings.priority) sched_setscheduler(0, SCHED_FIFO, &parameter);
    loop_start(&loop, &settings.loop);
    envelope_start(&envelope, &settings.limits);
}

/* Arguments: descriptors of the arm's TCP connection, of its UDP socket, and of the socket to Python; a trace's, or -1.
   The TCP connection is kept open as long as the arm is driven: the arm would stop itself. */
int main(int count, char **arguments) {
    if (count != 5) return 2;
    prctl(PR_SET_NAME, "gatort-fci-loop"); /* the kernel took the number of the descriptor */
    int tcp = atoi(arguments[1]);
    udp = atoi(arguments[2]);
    link_ = atoi(arguments[3]);
    trace = atoi(arguments[4]);
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    if (getpeername(tcp, (struct sockaddr *)&peer, &length)) return 2;
    arm_address = peer.sin_addr;
    if (recv(link_, &settings, sizeof settings, 0) != sizeof settings) return 2;
    get_ready();

    for (;;) {
        struct pollfd sockets[] = {{.fd = udp, .events = POLLIN}, {.fd = is_alone ? -1 : link_, .events = POLLIN}};
        int ready = poll(sockets, 2, SILENT_MS);
        if (sockets[1].revents) take_requests();
        if (sockets[0].revents & POLLIN) take_states();
        bool at_rest = loop.state == DISARMED || loop.state == LATCHED;
        if (is_alone && (!ready || (at_rest && !report.is_driven))) return 0;
    }
}
