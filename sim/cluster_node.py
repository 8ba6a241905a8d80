"""A machine of a cluster: checks that it is like the one that asks, and works on seeds."""

from __future__ import annotations

import platform
from functools import lru_cache
from typing import Any, Self

from gatort.runtime.errors import GatortError, WorkerError
from gatort.runtime.machine import this_machine
from gatort.runtime.spec import Strict
from gatort.sim.trials.journal import code_sha256

from .portable import Parcel, PortableWork, SeedWork


class Order(Strict):
    """Work, with the code and the packages that it is to be done with."""

    work: Parcel
    code_sha256: str
    """Hash of gatort's code that decides how a trial goes."""
    versions: dict[str, str]
    """Versions of the packages that compute. A machine may lack some."""

    @classmethod
    def of(cls, work: PortableWork[Any]) -> Self:
        """Order work as this machine would do it."""
        return cls(
            work=Parcel.of(work), code_sha256=code_sha256(), versions=this_machine().versions
        )

    def require_alike(self) -> None:
        """Check that this machine has the code and packages of the one that asks.

        Raises:
            WorkerError: it has others.
        """
        if code_sha256() != self.code_sha256:
            raise WorkerError(
                "expected gatort's code as on the machine that asks, found another; install the "
                "same there"
            )
        for name, found in this_machine().versions.items():
            wanted = self.versions.get(name, found)
            if found != wanted:
                raise WorkerError(
                    f"expected {name} {wanted} as on the machine that asks, found {found}; "
                    "install the same there"
                )


def refusal(order: str) -> str | None:
    """Return the sentence on the reason why this machine cannot work, or `None` if it can."""
    try:
        _prepared(order)
    except GatortError as error:
        return _here(error)
    return None


def work_on(order: str, seed: int) -> bytes | str:
    """Return the result of a seed, or a sentence on the reason why there is none."""
    try:
        return _prepared(order)(seed)
    except GatortError as error:
        return _here(error)


@lru_cache(1)  # A process serves one series of trials after another.
def _prepared(order: str) -> SeedWork[bytes]:
    found = Order.model_validate_json(order)
    found.require_alike()
    work: PortableWork[Any] = found.work.unpack()
    return work.prepare_far()


def _here(error: GatortError) -> str:
    return f"machine {platform.node()} of the cluster: {error}"
