"""How fast a server takes mail by LMTP: so many messages over so many connections, each one recipient's."""

import contextlib
import smtplib
import threading
import time

from bench.messages import message


def lmtp_rate(port: int, recipient: str, messages: int, connections: int, size: int = 5000) -> float:
    """Messages a second until the last one is accepted. Made before the clock starts; each transaction is its own."""
    made = [message(number, size) for number in range(messages)]
    clients = [smtplib.LMTP("127.0.0.1", port) for _ in range(connections)]
    errors: list[BaseException] = []

    def send(first: int) -> None:
        client = clients[first]
        try:
            for at in range(first, messages, connections):
                refused = client.sendmail("sender@elsewhere.test", [recipient], made[at])
                if refused:
                    raise RuntimeError(f"refused: {refused}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(connections)]
    for client in clients:
        client.ehlo_or_helo_if_needed()  # LHLO
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    for client in clients:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            client.quit()
    if errors:
        raise errors[0]
    return messages / seconds
