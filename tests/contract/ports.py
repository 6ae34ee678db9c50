"""Prints the first of three free ports in a row, twice."""

import random
import socket


def is_free(port):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


# Below every system's range for outgoing connections.
rows = list(range(10_000, 32_000, 3))
random.shuffle(rows)
free = (row for row in rows if all(is_free(row + i) for i in range(3)))
print(next(free), next(free))
