"""Ports for the servers of tests."""

import socket


def free_port(address: str = "127.0.0.1") -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
