/* A bare thread that answers a datagram a millisecond and does nothing else, for benchmarks/franka_cycles.py.

   Another thread takes the arm's part: it wakes every millisecond and sends as many bytes as a Franka arm. For each
   datagram the time from its arrival to the return of `sendto` goes to standard output, in ns, as int64. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STATE_BYTES = 1377, ANSWER_BYTES = 371, PERIOD_NS = 1000000, SECOND_NS = 1000000000 };

static int arm, bare;
static struct sockaddr_in bare_address;
static int datagrams;

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static int bound(struct sockaddr_in *address) {
    int made = socket(AF_INET, SOCK_DGRAM, 0);
    socklen_t length = sizeof *address;
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(made, (struct sockaddr *)address, length) || getsockname(made, (struct sockaddr *)address, &length)) exit(2);
    return made;
}

static void *send_states(void *unused) {
    static const char state[STATE_BYTES];
    struct timespec next;
    clock_gettime(CLOCK_MONOTONIC, &next);
    for (int sent = 0; sent < datagrams; sent++) {
        next.tv_nsec += PERIOD_NS;
        if (next.tv_nsec >= SECOND_NS) next.tv_nsec -= SECOND_NS, next.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
        sendto(arm, state, sizeof state, 0, (struct sockaddr *)&bare_address, sizeof bare_address);
    }
    return unused;
}

/* Arguments: number of datagrams, and the SCHED_FIFO priority or 0. */
int main(int count, char **arguments) {
    if (count != 3) return 2;
    datagrams = atoi(arguments[1]);
    struct sched_param parameter = {.sched_priority = atoi(arguments[2])};
    int64_t *took_ns = calloc(datagrams, sizeof *took_ns);
    struct sockaddr_in arm_address;
    pthread_t sender;
    arm = bound(&arm_address);
    bare = bound(&bare_address);
    mlockall(MCL_CURRENT | MCL_FUTURE);
    if (pthread_create(&sender, NULL, send_states, NULL)) return 2;
    if (parameter.sched_priority) sched_setscheduler(0, SCHED_FIFO, &parameter);

    int answered = 0;
    char state[STATE_BYTES], answer[ANSWER_BYTES] = {0};
    struct pollfd arrival = {.fd = bare, .events = POLLIN};
    while (answered < datagrams && poll(&arrival, 1, 1000) > 0) {
        struct sockaddr_in from;
        socklen_t length = sizeof from;
        if (recvfrom(bare, state, sizeof state, MSG_DONTWAIT, (struct sockaddr *)&from, &length) < 0) continue;
        int64_t read_ns = now_ns();
        sendto(bare, answer, sizeof answer, MSG_DONTWAIT, (struct sockaddr *)&from, length);
        took_ns[answered++] = now_ns() - read_ns;
    }
    return write(1, took_ns, answered * sizeof *took_ns) < 0;
}
