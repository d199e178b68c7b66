"""A small TCP proxy in front of a server: it may stop forwarding, or cut a connection in the middle of a row.

It runs in a process of its own, because libpq's describing holds Python's lock until the answer is there: in one process, the
proxy's threads would wait for the client, and the client for them.
"""

import random
import socket
import struct
import threading
import time
from contextlib import suppress
from multiprocessing.managers import BaseManager

ROW = b"d"  # CopyData, in PostgreSQL's protocol


class Proxy:
    """Listens on a port of its own and forwards to the target until it is closed.

    Rows are found by reading the server's messages (a type, a length, the rest), so connections must be without TLS.
    """

    def __init__(self, host, port):
        self.target = host, port
        self._accepted, self._cut = 0, 0
        self._frozen, self._cuts = set(), []
        self._sockets, self._lock = [], threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    def port(self):
        """Where it listens."""
        return self._listener.getsockname()[1]

    def accepted(self):
        """How many connections there were."""
        return self._accepted

    def times_cut(self):
        """How many of them were cut inside a row."""
        return self._cut

    def close(self):
        """End all of them."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            pairs, self._sockets = self._sockets, None
        for pair in pairs:
            self._close(pair)

    def freeze(self):
        """Forward no more byte of the connections that are open now, in neither direction; they stay open. Says how many."""
        with self._lock:
            open_ones = {pair for pair in self._sockets if all(one.fileno() >= 0 for one in pair)}
            self._frozen |= open_ones
            return len(open_ones)

    def cuts(self, seed, times, within=40):
        """Cut that many connections, each inside one of the next rows that it sends: which row and where, by the seed."""
        rng = random.Random(seed)
        with self._lock:
            self._cuts = [(rng.randrange(within), rng.random(), rng.random() < 0.5) for _ in range(times)]

    def _accept(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self.target, timeout=10)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                pair = client, server
                with self._lock:
                    if self._sockets is None:
                        return self._close(pair)
                    self._accepted += 1
                    self._sockets.append(pair)
                for one, other, pump in ((client, server, self._forward), (server, client, self._answer)):
                    threading.Thread(target=pump, args=(pair, one, other), daemon=True).start()

    def _forward(self, pair, one, other):
        with suppress(OSError):
            while data := one.recv(65536):
                self._wait_while_frozen(pair)
                other.sendall(data)
        self._close(pair)

    def _answer(self, pair, one, other):
        with suppress(OSError):
            for message in _messages(one):
                self._wait_while_frozen(pair)
                if message[:1] == ROW and (cut := self._cut_here()):
                    share, reset = cut
                    other.sendall(message[: 1 + int(share * (len(message) - 1))])  # at least a byte, never all
                    if reset:
                        other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                other.sendall(message)
        self._close(pair)

    def _cut_here(self):
        """How much of this row goes through, if it is the one to cut, and whether the connection is reset, not closed."""
        with self._lock:
            if not self._cuts:
                return None
            left, share, reset = self._cuts[0]
            if left:
                self._cuts[0] = left - 1, share, reset
                return None
            self._cuts.pop(0)
            self._cut += 1
            return share, reset

    def _wait_while_frozen(self, pair):
        while pair in self._frozen:
            if self._sockets is None:
                raise OSError("closed")
            time.sleep(0.02)

    @staticmethod
    def _close(pair):
        for one in pair:
            with suppress(OSError):  # wakes the thread that waits there
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _messages(sock):
    """What a server says, message by message."""
    buffer = bytearray()
    while data := sock.recv(65536):
        buffer += data
        while len(buffer) >= 5 and len(buffer) >= (size := 1 + int.from_bytes(buffer[1:5], "big")):
            yield bytes(buffer[:size])
            del buffer[:size]


class Proxies(BaseManager):
    """Makes proxies, in a process of its own."""


Proxies.register("Proxy", Proxy)
