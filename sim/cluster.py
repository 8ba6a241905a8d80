"""Work on seeds, shared by the machines of a Ray cluster.

Ray runs the work of a machine that is lost on another one. It moves Python objects by pickle, so a
cluster trusts everybody who reaches its ports. gatort sends text and receives text or bytes.
"""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gatort.runtime.errors import WorkerError

from .cluster_node import Order
from .portable import ClusterAddress, PortableWork, Result

RETRIES: Final = 3
"""Number of times that a seed is worked on again after its worker or machine was lost."""
AHEAD: Final = 2
"""Number of seeds that a processor has at most: one it works on, and the next."""
LOOK_S: Final = 5.0
"""Time between two looks at the cluster while no result comes."""
CONNECT_S: Final = 10.0
CONNECT_TRIES: Final = 3
LOST: Final = (NodeDiedError, ObjectLostError, OutOfMemoryError, WorkerCrashedError)


def spread_on_cluster(
    work: PortableWork[Result], seeds: Sequence[int], address: ClusterAddress
) -> Iterator[Result]:
    """Work on every seed and yield results as they finish, in any order.

    The work on the cluster ends when the iterator is closed, or when this process has ended.

    Args:
        work: work in plain text.
        seeds: seeds to work on.
        address: address of the cluster.

    Raises:
        WorkerError: the cluster cannot be reached, or has no processor left. One of its machines
            differs from this one, or lacks a bundle. The workers of a seed were lost again and
            again.
    """
    if not seeds:
        return
    order = Order.of(work).model_dump_json()
    with _connected(address):
        _require_able(order)
        for seed, content in _results(order, seeds):
            yield work.receive(seed, content)


@contextmanager
def _connected(address: ClusterAddress) -> Iterator[None]:
    """Connect to a cluster until the end of the context, which ends the work there."""
    try:
        _require_listening(address)
        _connect(address)
    except (OSError, RuntimeError) as error:
        raise WorkerError(
            f"--cluster {address}: expected the head of a Ray cluster, found: "
            f"{str(error).splitlines()[0]}; start one as docs/studies.md says"
        ) from error
    try:
        yield
    except RayTaskError:  # A fault of gatort on another machine.
        raise
    except (ConnectionError, RayError) as error:
        raise WorkerError(
            f"--cluster {address}: expected the cluster until the end, found it lost; the same "
            "command continues"
        ) from error
    finally:
        ray.shutdown()


def _require_listening(address: ClusterAddress) -> None:
    """Check that something listens. Ray itself would try for half a minute."""
    host, _, port = address.partition("://")[2].rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()


def _connect(address: ClusterAddress) -> None:
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # The sentences here say it.
    for left in reversed(range(CONNECT_TRIES)):
        try:
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
            return
        except ConnectionAbortedError:  # Now and then the head cannot start its part in time.
            if not left:
                raise


def _require_able(order: str) -> None:
    """Check every machine before the first trial. Later ones are checked when they come.

    Raises:
        WorkerError: a machine cannot do the work.
    """
    refusal, _ = _functions()
    asked = [
        refusal.options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], False)
        ).remote(order)
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["Resources"].get("CPU", 0)
    ]
    for answer in asked:
        with suppress(TaskUnschedulableError, *LOST):  # The machine has left the cluster.
            sentence = ray.get(answer)
            if sentence is not None:
                raise WorkerError(sentence)


def _results(order: str, seeds: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    _, work_on = _functions()
    waiting = deque(seeds)
    running: dict[Any, int] = {}
    while waiting or running:
        room = _room()
        while waiting and len(running) < room:
            seed = waiting.popleft()
            running[work_on.remote(order, seed)] = seed
        done, _ = ray.wait(list(running), timeout=LOOK_S)
        for each in done:
            seed = running.pop(each)
            yield seed, _content(each, seed)


def _room() -> int:
    """Return the number of seeds that the cluster takes at once.

    Raises:
        WorkerError: it has no processor.
    """
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    processors = int(resources.get("CPU", 0))
    if not processors:
        raise WorkerError(
            "expected a machine with a processor in the cluster, found none; start one "
            "(`ray start --address HOST:PORT`) and give the same command again"
        )
    return AHEAD * processors


def _content(answer: Any, seed: int) -> bytes:
    try:
        content: bytes | str = ray.get(answer)
    except LOST as error:
        raise WorkerError(
            f"the worker of seed {seed} was lost {RETRIES + 1} times, most likely because its "
            "machine's memory was used up: start Ray there with a smaller --num-cpus"
        ) from error
    if isinstance(content, str):
        raise WorkerError(content)
    return content


def _functions() -> tuple[Any, Any]:
    """Return the two functions that run on machines of the cluster.

    They are defined inside a function, so that Ray sends them whole. A machine without gatort then
    answers with a sentence, instead of failing to find them.
    """

    def refusal(order: str) -> str | None:
        import platform

        try:
            from gatort.sim import cluster_node
        except ImportError as error:
            return (
                f"machine {platform.node()} of the cluster: expected gatort there, found: {error}"
            )
        return cluster_node.refusal(order)

    def work_on(order: str, seed: int) -> bytes | str:
        from gatort.sim import cluster_node

        return cluster_node.work_on(order, seed)

    return ray.remote(refusal), ray.remote(num_cpus=1, max_retries=RETRIES)(work_on)
