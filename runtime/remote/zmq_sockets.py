"""ZeroMQ contexts and sockets with every queue, size and wait bounded.

No arm's process imports this file: a library that talks to strangers lives in the door's process.
"""

from __future__ import annotations

import os

import zmq

from .wire import HANDSHAKE_MS, HEARTBEAT_MS, HEARTBEAT_TIMEOUT_MS, QUEUE_MESSAGES


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return a context whose threads have the calling thread's SCHED_FIFO priority, if it has one.

    No thread inherits it, and the loop waits for these threads in every tick. Behind four CPU hogs
    one answer in seventy came too late without it.
    """
    context = zmq.Context()
    # libzmq aborts when it asks for a scheduler that is not granted.
    if os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_FIFO:
        context.set(zmq.THREAD_SCHED_POLICY, os.SCHED_FIFO)
        context.set(zmq.THREAD_PRIORITY, os.sched_getparam(0).sched_priority)
    return context


def bounded_socket(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, largest_bytes: int
) -> zmq.Socket[bytes]:
    """Return a socket with every queue, size and wait bounded.

    libzmq's own defaults are unbounded or slow.

    Args:
        context: context of the socket.
        kind: socket type, such as `zmq.ROUTER`.
        largest_bytes: longest message accepted. A longer one costs its sender the connection.
    """
    socket = context.socket(kind)
    socket.set(zmq.MAXMSGSIZE, largest_bytes)
    socket.set(zmq.SNDHWM, QUEUE_MESSAGES)
    socket.set(zmq.RCVHWM, QUEUE_MESSAGES)
    socket.set(zmq.BACKLOG, QUEUE_MESSAGES)
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    socket.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)
    # Never reconnect: a new connection is a new session, which only an operator begins.
    socket.set(zmq.RECONNECT_IVL, -1)
    socket.set(zmq.LINGER, 0)
    return socket
