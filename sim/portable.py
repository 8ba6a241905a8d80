"""Work on seeds in plain text, so that another machine can do it too."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any, Final, Generic, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, PlainSerializer
from pydantic_core import PydanticCustomError

from gatort.runtime.policy import Policy
from gatort.runtime.remote.address import LAST_PORT
from gatort.runtime.spec import Strict

SCHEME: Final = "ray"
Result = TypeVar("Result")
SeedWork = Callable[[int], Result]
"""Work on one seed."""


class Parcel(Strict):
    """A model as text, with the name of its class."""

    kind: str
    """Module and name of the class, with a colon between them."""
    text: str
    """The model in JSON."""

    @classmethod
    def of(cls, model: BaseModel) -> Self:
        """Put a model into words."""
        kind = type(model)
        return cls(kind=f"{kind.__module__}:{kind.__qualname__}", text=model.model_dump_json())

    def unpack(self) -> Any:
        """Return the model again, checked as a new one."""
        module, _, name = self.kind.partition(":")
        return getattr(import_module(module), name).model_validate_json(self.text)


def _packed(loader: Any) -> dict[str, str]:
    return Parcel.of(loader).model_dump()


def _unpacked(found: Any) -> Any:
    return Parcel.model_validate(found).unpack() if isinstance(found, dict) else found


PolicyLoader = Annotated[
    Callable[[], Policy], BeforeValidator(_unpacked), PlainSerializer(_packed, when_used="json")
]
"""Loads a policy in the process that runs it, and is picklable. On a cluster, it is a model."""


class PortableWork(Strict, Generic[Result]):
    """Description of work on seeds."""

    def prepare(self) -> SeedWork[Result]:
        """Make the work, once in each process of this machine."""
        raise NotImplementedError

    def prepare_far(self) -> SeedWork[bytes]:
        """Make the work, once in each process of another machine, with results as bytes.

        Raises:
            GatortError: that machine lacks something.
        """
        raise NotImplementedError

    def receive(self, seed: int, content: bytes) -> Result:
        """Return the result of a seed that another machine worked on."""
        raise NotImplementedError


def _known_address(found: str) -> str:
    scheme, _, place = found.partition("://")
    host, _, port = place.rpartition(":")
    if scheme != SCHEME or not host or not port.isdecimal() or not 0 < int(port) <= LAST_PORT:
        expected = f"expected the address of a Ray cluster, such as {SCHEME}://10.0.0.1:10001"
        raise PydanticCustomError("cluster", "{expected}", {"expected": expected})
    return found


ClusterAddress = Annotated[str, AfterValidator(_known_address)]
"""Address of a Ray cluster, ray://HOST:PORT."""
Workers = int | ClusterAddress
"""Largest number of processes on this machine, or a cluster."""
