"""Exceptions: "the plan broke". Expected outcomes are values (see `core.outcome`, `core.verdict`)."""


class SmarthostError(Exception):
    """Base of everything raised on purpose. The text is for operators, never for a peer."""


class TemporaryError(SmarthostError):
    """It may work later: a store is busy, a deadline passed."""


class ConfigError(SmarthostError):
    """The configuration or a policy is wrong; the text names the place (`listen.smtp`, `file:line:column`)."""


class StoreError(SmarthostError):
    """A store failed in a way that a retry of the same call will not mend."""


class StorageFull(TemporaryError):
    """No space, or less than the reserve: answer 452 and go on."""


class StorageBroken(StoreError):
    """A sync failed: what is on disk is not known any more; the process must stop accepting and restart."""
