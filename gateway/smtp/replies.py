"""Every reply that the protocol itself gives (RFC 5321 4.2, RFC 3463, RFC 5248). Judgement's are in policies."""

from gateway.core.reply import Reply, reply

OK = reply(250, "2.0.0", "OK")
SENDER_OK = reply(250, "2.1.0", "Sender OK")
RECIPIENT_OK = reply(250, "2.1.5", "Recipient OK")
START_DATA = Reply(354, "", ("End data with <CR><LF>.<CR><LF>",))
VRFY = reply(252, "2.5.0", "Will not verify, but will take mail and try")
HELP = reply(214, "2.0.0", "See RFC 5321")

NO_ARGUMENT = reply(501, "5.5.4", "This command takes no argument")
VRFY_SYNTAX = reply(501, "5.5.4", "Syntax: VRFY address")
UNKNOWN_COMMAND = reply(500, "5.5.2", "Command not recognised")
NOT_OFFERED = reply(502, "5.5.1", "Command not offered here")
NOT_SMTP = reply(421, "4.7.0", "This is an SMTP server")
BAD_CHARACTER = reply(500, "5.5.2", "Command holds a control character")
BARE_LF_COMMAND = reply(500, "5.5.2", "Command lines end in CR LF; a bare LF was received")
LINE_TOO_LONG = reply(500, "5.5.2", "Command line too long")
TOO_MANY_COMMANDS = reply(421, "4.7.0", "Too many commands in this session")
TOO_MANY_ERRORS = reply(421, "4.7.0", "Too many errors in this session")
HELO_FIRST = reply(503, "5.5.1", "Send EHLO first")
MAIL_FIRST = reply(503, "5.5.1", "Send MAIL first")
NESTED_MAIL = reply(503, "5.5.1", "A transaction is open already")
BAD_SEQUENCE = reply(503, "5.5.1", "Not at this point of the session")
NO_RECIPIENTS = reply(554, "5.5.1", "No valid recipients")
TOO_MANY_RECIPIENTS = reply(452, "4.5.3", "Too many recipients for one message; send the rest in another")

TLS_READY = reply(220, "2.0.0", "Ready to start TLS")
TLS_ALREADY = reply(503, "5.5.1", "TLS is active already")
TLS_INJECTION = reply(421, "4.7.0", "Commands must not follow STARTTLS before the handshake")

AUTH_DONE = reply(235, "2.7.0", "Authentication successful")
AUTH_NEEDS_TLS = reply(538, "5.7.11", "Encryption required: STARTTLS first")
AUTH_REQUIRED = reply(530, "5.7.0", "Authentication required")
AUTH_UNKNOWN = reply(504, "5.5.4", "Mechanism not offered")
AUTH_MALFORMED = reply(501, "5.5.2", "Malformed authentication response")
AUTH_TOO_LONG = reply(500, "5.5.6", "Authentication exchange line is too long")
AUTH_CANCELLED = reply(501, "5.7.0", "Authentication cancelled")

BDAT_SYNTAX = reply(501, "5.5.4", "Syntax: BDAT size [LAST]")
IN_BDAT = reply(503, "5.5.1", "A BDAT sequence is open: BDAT or RSET")
BARE_LINE_END = reply(550, "5.6.11", "Message holds a bare CR or LF; lines end in CR LF")
SMUGGLING = reply(550, "5.6.11", "A lone dot between bare line ends is not the end of a message")
NUL_OCTET = reply(550, "5.6.0", "Message holds a NUL octet")


def too_big(limit: int) -> Reply:
    return reply(552, "5.3.4", f"Message too big: the limit is {limit} octets")


def long_line(limit: int) -> Reply:
    return reply(550, "5.6.0", f"Message has a line of over {limit} octets")


def too_many_messages(hostname: str) -> Reply:
    return reply(421, "4.7.0", f"{hostname} too many messages in this session; connect again")


def idle_timeout(hostname: str) -> Reply:
    return reply(421, "4.4.2", f"{hostname} idle for too long")


def data_timeout(hostname: str) -> Reply:
    return reply(421, "4.4.2", f"{hostname} message took too long to arrive")


def shutting_down(hostname: str) -> Reply:
    return reply(421, "4.3.2", f"{hostname} shutting down; try again soon")


# Of the driver.
FULL = reply(452, "4.3.1", "Not enough space; try again later")
LOCAL_ERROR = reply(451, "4.3.0", "Local error; try again later")
GOING_AWAY = reply(421, "4.3.0", "Local error; closing")
MESSAGE_TIMEOUT = reply(451, "4.3.0", "Checks took too long; try again later")
WRONG_PASSWORD = reply(535, "5.7.8", "Authentication credentials invalid")
LOCKED_OUT = reply(454, "4.7.0", "Too many failed logins; try again later")
NO_POSTMASTER = reply(550, "5.1.1", "No postmaster here")
