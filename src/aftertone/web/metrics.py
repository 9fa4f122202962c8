"""The numbers of the machine in Prometheus' text form.

Owns: names and help texts of what the desk counts, and who may read them. Refuses to know: what the line's own numbers
mean; they pass through with the prefix ``aftertone_line_``. Specification: Prometheus text exposition format 0.0.4.

Theory of operation: nothing is kept between two readings: each takes the catalog's counts and the roles' status files as
they are. The numbers name nobody, so a program on the same machine may read them without login; a request that came
through a proxy is not from this machine, whatever its address says.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.responses import Response

from aftertone.model import Kind, State
from aftertone.store.catalog import Catalog
from aftertone.web.events import Feed
from aftertone.web.gate import require_api
from aftertone.web.services import Desk, DeskServices
from aftertone.web.standing import Standing, standing_of

_PAGE: Final = 1000
_PAGES: Final = 20
"""Unheard messages that are looked through for the oldest: 20,000."""


def oldest_unheard_ms(catalog: Catalog) -> int | None:
    """Return when the oldest message that nobody has heard came in, None when all are heard."""
    oldest = None
    before = None
    for _ in range(_PAGES):
        page = catalog.messages(kind=Kind.MESSAGE, states=(State.NEW,), limit=_PAGE, before=before)
        if page:
            oldest, before = page[-1].started_unix_ms, page[-1].id
        if len(page) < _PAGE:
            break
    return oldest


_REFUSED: Final = re.compile(r"sip_refused_(\w+)_total")


def _line_metrics(standing: Standing) -> Iterator[Metric]:
    refused = CounterMetricFamily("aftertone_sip_refused", "What the line refused to a source.", labels=["reason"])
    for name, value in standing.line_metrics:
        reason = _REFUSED.fullmatch(name)
        if reason is not None:
            refused.add_metric([reason[1]], value)
            continue
        text = f"The line's own count: {name}."
        if name.endswith("_total"):
            family: Metric = CounterMetricFamily(f"aftertone_line_{name.removesuffix('_total')}", text, value=value)
        else:
            family = GaugeMetricFamily(f"aftertone_line_{name}", text, value=value)
        yield family
    yield refused


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"aftertone_{name}", text, value=value)


class _Reading(Collector):
    def __init__(self, services: DeskServices, feed: Feed) -> None:
        self._services = services
        self._feed = feed

    def collect(self) -> Iterator[Metric]:
        services = self._services
        standing = standing_of(services)
        up = GaugeMetricFamily("aftertone_role_up", "Whether a role was heard of lately.", labels=["role"])
        for role, is_up in (("line", standing.line_up), ("delivery", standing.delivery_up), ("desk", True)):
            up.add_metric([role], float(is_up))
        yield up
        yield _gauge("taking_calls", "Whether the machine takes calls.", float(standing.taking_calls))
        yield _gauge("calls", "Calls at this moment.", float(standing.calls))
        yield _gauge("alarms", "Alarms that are on.", float(len(standing.alarms)))
        yield _gauge("event_listeners", "Open event streams.", float(self._feed.listeners))
        messages = GaugeMetricFamily("aftertone_messages", "Messages by state.", labels=["mailbox", "state"])
        for row in services.catalog.mailboxes():
            counts = services.catalog.counts(row.name)
            for state, number in (
                ("new", counts.new),
                ("heard", counts.heard),
                ("hangup", counts.hangups),
                ("deleted", counts.deleted),
            ):
                messages.add_metric([row.name, state], float(number))
        yield messages
        oldest_ms = oldest_unheard_ms(services.catalog)
        age_s = 0.0 if oldest_ms is None else max(0.0, (services.now_unix_ms() - oldest_ms) / 1000)
        yield _gauge("oldest_unheard_age_seconds", "Age of the oldest unheard message; 0 when there is none.", age_s)
        by_line = CounterMetricFamily("aftertone_calls_by_line", "Answered calls of a line.", labels=["kind", "name"])
        for line in standing.lines:
            by_line.add_metric([line.kind, line.name], float(line.calls))
        yield by_line
        build = GaugeMetricFamily("aftertone_build_info", "The running version.", labels=["version"])
        build.add_metric([services.version], 1.0)
        yield build
        accounts = GaugeMetricFamily(
            "aftertone_sip_account_registered", "Whether an account is registered.", labels=["account"]
        )
        for name, registered in standing.accounts:
            accounts.add_metric([name], float(registered))
        yield accounts
        yield from _line_metrics(standing)


def _from_this_machine(request: Request) -> bool:
    if any(name in request.headers for name in ("forwarded", "x-forwarded-for", "x-real-ip", "via")):
        return False
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def may_read_metrics(request: Request, services: Desk) -> None:
    """Let programs on this machine, the bearer token and sessions pass. Raises Problem 401 for all others."""
    if not _from_this_machine(request):
        require_api(request, services)


router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(request: Request, services: Desk, _: Annotated[None, Depends(may_read_metrics)]) -> Response:
    """Read the numbers of the machine in Prometheus' text form; from this machine itself without login."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Reading(services, request.app.state.feed))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
