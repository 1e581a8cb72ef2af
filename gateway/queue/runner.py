"""The runner: claims what is due, fair by destination, delivers many at once, and settles each claim in one
transaction.

A destination begins with two deliveries at once and earns more by success; one that is down makes all its mail wait
and keeps nobody else's. Every claim ends in settle or release; a claim lost by a crash comes back when its lease is
void.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, assert_never

from gateway.accounts.directory import AccountDirectory
from gateway.core.address import Domain
from gateway.core.errors import StorageBroken
from gateway.core.outcome import Deferred, Delivered, Failed, Outcome
from gateway.core.ports import Clock
from gateway.core.reply import reply
from gateway.delivery.connection import LeaseLost
from gateway.delivery.local import LocalDelivery
from gateway.delivery.relay import Delivery, Relay
from gateway.delivery.routes import ByMx, FixedHost, Local, NoRoute, Routes
from gateway.message.blob import INLINE_LIMIT
from gateway.message.dsn import Report
from gateway.queue.bounce import is_wanted, notices
from gateway.queue.schedule import RetryPlan
from gateway.queue.store import LEASE_S, TOKENS, Claim, ClaimedRecipient, NewMessage, QueueStore, Retry, Settlement
from gateway.senderauth.signing import SigningKeys, nearest_keys

POLL_S = 1.0  # backs up the wake-up datagram
SWEEP_S = 30.0
SWEEP_LIMIT = 200
RENEW_S = LEASE_S / 3
INITIAL_SLOTS = 2
LOCAL_SLOTS = 32
FAULT_RETRY_S = 60.0
SETTLE_RETRY_S = 0.5
GATHER_S = 0.003  # completions that come together are followed by one claim

EXPIRED = reply(554, "5.4.7", "Delivery time expired")
NOT_YET = reply(451, "4.4.7", "Not delivered yet")


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    hostname: str
    plan: RetryPlan
    concurrency: int = 20  # deliveries at once to one destination
    in_flight: int = 200  # deliveries at once in all


class Observer(Protocol):
    """Told of everything worth counting, logging and tracing."""

    def attempted(
        self, claim: Claim, transport: str, outcomes: list[tuple[ClaimedRecipient, Outcome]], seconds: float
    ) -> None: ...

    def noticed(self, claim: Claim, action: str, notice_id: str) -> None: ...

    def failed(self, what: str, error: BaseException) -> None: ...


class Runner:
    def __init__(
        self,
        store: QueueStore,
        routes: Routes,
        relay: Relay,
        local: LocalDelivery,
        directory: AccountDirectory,
        settings: RunnerSettings,
        observer: Observer,
        clock: Clock,
        keys: SigningKeys,
    ) -> None:
        self._store = store
        self._routes = routes
        self._relay = relay
        self._local = local
        self._directory = directory
        self._settings = settings
        self._observer = observer
        self._clock = clock
        self._keys = keys
        self._wake = asyncio.Event()
        self._stopping = False
        self._active: dict[int, Claim] = {}  # by token
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight: dict[str, int] = defaultdict(int)  # by lane
        self._allowed: dict[str, int] = {}  # lanes that earned more than INITIAL_SLOTS

    def wake(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Until `stop`; then what is under way is finished (the caller has the deadline)."""
        await self._store.recover()
        helpers = [asyncio.create_task(self._renew_forever()), asyncio.create_task(self._sweep_forever())]
        try:
            while not self._stopping:
                await self._turn()
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for helper in helpers:
                helper.cancel()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _turn(self) -> None:
        self._wake.clear()
        room = self._settings.in_flight - len(self._active)
        due = None
        claims: list[Claim] = []
        if room > 0:
            try:
                claims, due = await self._store.claim(room, self._lanes())
            except Exception as error:
                self._observer.failed("claim", error)
                await asyncio.sleep(POLL_S)
                return
            for claim in claims:
                self._start(claim)
        wait = POLL_S if due is None else min(POLL_S, max(0.0, due - self._clock.now()))
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(GATHER_S)

    # --- lanes: what shares a limit -------------------------------------------------------------------------------

    def _lane(self, destination: str) -> str:
        match self._routes.route(destination):
            case Local():
                return "local"
            case FixedHost(host=host, port=port):
                return f"{host}:{port}"
            case ByMx() | NoRoute():
                return destination
            case other:
                assert_never(other)

    def _limit(self, lane: str) -> int:
        if lane == "local":
            return LOCAL_SLOTS
        return min(self._allowed.get(lane, INITIAL_SLOTS), self._settings.concurrency)

    def _lanes(self) -> Callable[[str], bool]:
        """A claim's view of the free slots: asked once for each group that it would take."""
        taken = dict(self._in_flight)

        def take(destination: str) -> bool:
            lane = self._lane(destination)
            if taken.get(lane, 0) >= self._limit(lane):
                return False
            taken[lane] = taken.get(lane, 0) + 1
            return True

        return take

    def _learn(self, lane: str, outcomes: list[Outcome]) -> None:
        """Success earns a slot, a host that is down loses all but one."""
        if any(isinstance(outcome, Deferred) and outcome.host_down for outcome in outcomes):
            self._allowed[lane] = 1
        elif any(isinstance(outcome, Delivered) for outcome in outcomes):
            earned = self._allowed.get(lane, INITIAL_SLOTS) + 1
            if earned <= self._settings.concurrency:
                self._allowed[lane] = earned
        if len(self._allowed) > 20_000:
            self._allowed.clear()

    # --- one claim ------------------------------------------------------------------------------------------------

    def _start(self, claim: Claim) -> None:
        lane = self._lane(claim.destination)
        self._active[claim.token] = claim
        self._in_flight[lane] += 1
        task = asyncio.create_task(self._work(claim, lane))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, claim: Claim, lane: str) -> None:
        try:
            await self._deliver(claim, lane)
        except LeaseLost as error:
            self._observer.failed("lease lost", error)
        except Exception as error:
            self._observer.failed("delivery", error)
            await self._give_back(claim, FAULT_RETRY_S)
        finally:
            del self._active[claim.token]
            self._in_flight[lane] -= 1
            if not self._in_flight[lane]:
                del self._in_flight[lane]
            self._wake.set()

    async def _give_back(self, claim: Claim, delay: float) -> None:
        try:
            await self._store.release(claim, self._clock.now() + delay)
        except Exception as error:
            self._observer.failed("release", error)  # the lease runs out by itself

    async def _deliver(self, claim: Claim, lane: str) -> None:
        started = asyncio.get_running_loop().time()
        route = self._routes.route(claim.destination)
        delivery = _delivery(claim)
        if isinstance(route, Local):
            transport = "local"
            outcomes = await self._local.deliver(delivery, claim.message.queue_id, claim.message.created)
        elif isinstance(route, NoRoute):
            transport = "smtp"
            answer = reply(451, "4.3.5", f"The configuration has no route {route.name}")
            outcomes = [Deferred(answer, host_down=True)] * len(claim.recipients)
        else:
            transport = "lmtp" if isinstance(route, FixedHost) and route.is_lmtp else "smtp"
            outcomes = await self._relay.deliver(delivery, Domain(claim.destination), route, claim.is_valid)
        self._learn(lane, outcomes)
        first = outcomes[0]
        if isinstance(first, Deferred) and first.again_in_s:
            await self._give_back(claim, first.again_in_s)
            return
        seconds = asyncio.get_running_loop().time() - started
        pairs = list(zip(claim.recipients, outcomes, strict=True))
        if await self._settle_surely(claim, pairs):
            self._observer.attempted(claim, transport, pairs, seconds)
        else:
            self._observer.failed("settle", LeaseLost(f"{claim.message.queue_id}: the lease was lost after delivery"))

    async def _settle_surely(self, claim: Claim, pairs: list[tuple[ClaimedRecipient, Outcome]]) -> bool:
        """What was delivered must never be given back: hold the lease and try until the store takes it."""
        delay = SETTLE_RETRY_S
        while True:
            try:
                return await self._settle(claim, pairs)
            except StorageBroken:
                raise
            except Exception as error:
                self._observer.failed("settle", error)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 30.0)

    async def _settle(self, claim: Claim, pairs: list[tuple[ClaimedRecipient, Outcome]]) -> bool:
        now = self._clock.now()
        message = claim.message
        done: list[int] = []
        retries: dict[int, Retry] = {}
        reports: list[Report] = []
        for recipient, outcome in pairs:
            match outcome:
                case Delivered():
                    done.append(recipient.row)
                    action = "relayed" if outcome.remote else "delivered"
                    if not outcome.relayed_dsn:
                        reports += _report(recipient, action, outcome)
                case Failed():
                    done.append(recipient.row)
                    reports += _report(recipient, "failed", outcome)
                case Deferred():
                    if now >= message.expires:
                        done.append(recipient.row)
                        reports += _report(recipient, "failed", outcome)
                    else:
                        retries[recipient.row], warning = self._retry(claim, recipient, outcome, now)
                        reports += warning
                case _:
                    assert_never(outcome)
        down = any(isinstance(outcome, Deferred) and outcome.host_down for _, outcome in pairs)
        until = now + self._settings.plan.retry[0] if down else None
        return await self._commit(claim, tuple(done), retries, reports, until)

    def _retry(
        self, claim: Claim, recipient: ClaimedRecipient, outcome: Deferred, now: float
    ) -> tuple[Retry, list[Report]]:
        plan, message = self._settings.plan, claim.message
        attempts = recipient.attempts + 1
        spread = claim.token / TOKENS  # the same for all of a claim, so that they stay together
        due = min(now + plan.delay(attempts, spread), message.expires)
        warn = not recipient.warned and now - message.created >= plan.warn_after_s
        warning = _report(recipient, "delayed", outcome, message.expires) if warn else []
        return Retry(due, str(outcome.reply), attempts, recipient.warned or warn), warning

    async def _commit(
        self,
        claim: Claim,
        done: tuple[int, ...],
        retries: Mapping[int, Retry],
        reports: list[Report],
        until: float | None,
    ) -> bool:
        found = await self._notices(claim, reports)
        settled = await self._store.settle(Settlement(claim, done, retries, found, until))
        if settled:
            for notice in found:
                self._observer.noticed(claim, notice.info["kind"], notice.queue_id)
        return settled

    async def _notices(self, claim: Claim, reports: list[Report]) -> tuple[NewMessage, ...]:
        """A DSN that cannot be composed (its message's file is unreadable) must not keep the claim from settling."""
        if not reports:
            return ()
        settings, message = self._settings, claim.message
        now, expire_s, hostname = self._clock.now(), settings.plan.expire_s, settings.hostname
        try:
            keys = nearest_keys(hostname, self._keys)
            arguments = (message, reports, self._directory, hostname, expire_s, now, keys)
            if message.size <= INLINE_LIMIT:
                return notices(*arguments)
            return await asyncio.to_thread(notices, *arguments)
        except Exception as error:
            self._observer.failed("dsn", error)
            return ()

    # --- upkeep ---------------------------------------------------------------------------------------------------

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                if self._active:
                    await self._store.renew(list(self._active.values()))
                await self._store.reap()
            except Exception as error:
                self._observer.failed("renew", error)

    async def _sweep_forever(self) -> None:
        """What waits because its destination is down is warned about and expires though nothing was attempted."""
        while True:
            await asyncio.sleep(min(SWEEP_S, self._settings.plan.expire_s / 2))
            try:
                warn_before = self._clock.now() - self._settings.plan.warn_after_s
                for claim in await self._store.overdue(warn_before, SWEEP_LIMIT):
                    await self._settle_overdue(claim)
            except Exception as error:
                self._observer.failed("sweep", error)

    async def _settle_overdue(self, claim: Claim) -> None:
        now = self._clock.now()
        if now >= claim.message.expires:
            outcome = Failed(EXPIRED)
            pairs: list[tuple[ClaimedRecipient, Outcome]] = [(recipient, outcome) for recipient in claim.recipients]
            if await self._settle(claim, pairs):
                self._observer.attempted(claim, "queue", pairs, 0.0)
            return
        until = claim.message.expires
        retries = {to.row: Retry(to.due, str(NOT_YET), to.attempts, warned=True) for to in claim.recipients}
        reports = [r for recipient in claim.recipients for r in _report(recipient, "delayed", Deferred(NOT_YET), until)]
        await self._commit(claim, (), retries, reports, None)


def _delivery(claim: Claim) -> Delivery:
    message = claim.message
    return Delivery(
        reverse_path=message.reverse_path,
        recipients=tuple((to.forward_path, to.orcpt, to.notify) for to in claim.recipients),
        header=message.header,
        blob=message.blob,
        offset=message.offset,
        body=message.body,
        smtputf8=message.smtputf8,
        ret=message.ret,
        envid=message.envid,
        protection=message.protection,
    )


def _report(
    recipient: ClaimedRecipient, action: str, outcome: Outcome, retry_until: float | None = None
) -> list[Report]:
    if not is_wanted(action, recipient.notify):
        return []
    return [Report(recipient.forward_path, recipient.orcpt, action, outcome.reply, outcome.remote, retry_until)]
