"""The address of a console."""

from __future__ import annotations

import ipaddress

import msgspec

from gatort.runtime.errors import ConfigError


class Address(msgspec.Struct, frozen=True):
    """Address of a console."""

    host: str = "127.0.0.1"
    """IP address of this computer, or `localhost`."""
    port: int = 0
    """Port; 0 takes a free one."""

    @classmethod
    def read(cls, text: str) -> Address:
        """Read HOST:PORT.

        Raises:
            ConfigError: the text is no address, or stands for every address of this computer.
        """
        host, colon, port = text.rpartition(":")
        host = host.strip("[]")
        number = int(port) if port.isascii() and port.isdigit() else -1
        if not colon or not host or not 0 <= number < 1 << 16:
            raise ConfigError(
                f"--listen: expected HOST:PORT, such as 192.168.1.5:8765, found {text!r}"
            )
        try:
            address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        except ValueError as error:
            raise ConfigError(
                f"--listen: expected the IP address of this computer, found {host!r}"
            ) from error
        if address.is_unspecified:
            raise ConfigError(
                f"--listen: expected one address of this computer, found {host}, which stands for "
                "all: name the one that the browser will use"
            )
        return cls(host, number)

    @property
    def is_loopback(self) -> bool:
        """True if only this computer reaches the address."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    @property
    def hosts(self) -> frozenset[str]:
        """Values of the header `Host` that a browser sends for this address."""
        names = {self._written_host, "localhost"} if self.is_loopback else {self._written_host}
        return frozenset(f"{name}:{self.port}" for name in names)

    @property
    def origin(self) -> str:
        """Beginning of the page's URL."""
        return f"http://{self._written_host}:{self.port}"

    @property
    def warning(self) -> str | None:
        """Sentence on the missing encryption; `None` if only this computer reaches the console."""
        if self.is_loopback:
            return None
        return (
            f"the console at {self.origin} is not encrypted. People who can read the traffic of "
            "the network see the run and the page's cookie, and can stop the run. They cannot arm "
            "an arm"
        )

    @property
    def _written_host(self) -> str:
        """Host as a URL has it: an IPv6 address stands in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host
