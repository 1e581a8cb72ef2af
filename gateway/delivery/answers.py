"""What the replies to a transaction's commands come to for each recipient (RFC 5321 4.3.2)."""

from gateway.core.reply import Reply, reply


def judge_envelope(mail: Reply, rcpts: list[Reply]) -> list[Reply | None]:
    """A refusal for each recipient, None where it was accepted so far."""
    if not mail.is_success:
        return [mail] * len(rcpts)
    # RFC 5321 4.5.3.1.10: 552 to RCPT is the old way to say too many recipients.
    return [
        None if answer.is_success else Reply(452, "4.5.3", answer.lines) if answer.code == 552 else answer
        for answer in rcpts
    ]


def fill(answers: list[Reply | None], last: Reply) -> list[Reply]:
    return [last if answer is None else answer for answer in answers]


def odd(answer: Reply) -> Reply:
    return reply(451, "4.5.0", f"Unexpected reply to DATA: {answer}"[:400])
