"""Many IMAP sessions that idle, in a process of their own, so that their cost is not the server's.

    .venv/bin/python -m bench.idle_clients PORT CONNECTIONS ACCOUNTS PATTERN PASSWORD

PATTERN names an account by its number ("user%d@example.org"). Prints "ready" when all idle; ends with its input.
"""

import sys
import threading

from bench.imap_client import ImapClient

HANDS = 4  # connections that are made at once


def main(port: int, connections: int, accounts: int, pattern: str, password: str) -> None:
    clients: list[ImapClient] = []

    def connect(first: int) -> None:
        for number in range(first, connections, HANDS):
            name = pattern % (number % accounts) if "%" in pattern else pattern
            client = ImapClient(port, name, password, chunk=4096)
            client.run("SELECT INBOX")
            client.begin_idle()
            clients.append(client)

    hands = [threading.Thread(target=connect, args=(first,)) for first in range(HANDS)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    print("ready" if len(clients) == connections else f"only {len(clients)}", flush=True)
    sys.stdin.read()
    for client in clients:
        client.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
