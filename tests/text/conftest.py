"""No test here reaches beyond this machine, or into a person's cache folder."""

import socket
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _no_network(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection but to 127.0.0.1, as a machine without a network does; give each test a cache folder."""
    connect = socket.socket.connect

    def refused(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and address[0] != "127.0.0.1":
            raise OSError(101, "Network is unreachable")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", _only_local(socket.getaddrinfo))
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def _only_local(resolve: Any) -> Any:
    def resolved(host: Any, *rest: Any, **options: Any) -> Any:
        if host not in ("127.0.0.1", "localhost"):
            raise socket.gaierror(-3, "Temporary failure in name resolution")
        return resolve(host, *rest, **options)

    return resolved


@pytest.fixture
def cache() -> Path:
    """The cache folder of this test."""
    from groundup.text import download

    return download.cache()
