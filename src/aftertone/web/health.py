"""How the machine is: one word for a probe, details for whoever is signed in.

Owns: ``/healthz``, ``/livez`` and the health and session parts of the API. Refuses to know: how the judgement is made
(``standing``).
"""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.responses import PlainTextResponse

from aftertone.web.gate import ApiUser, require_api
from aftertone.web.schemas import AccountOut, AlarmOut, HealthOut, RoleOut, SessionOut, rfc3339
from aftertone.web.services import Desk
from aftertone.web.standing import greeting_alarms, standing_of

probes = APIRouter(include_in_schema=False)
router = APIRouter(tags=["health"])


@probes.api_route("/healthz", methods=["GET", "HEAD"])
def healthz(services: Desk) -> PlainTextResponse:
    """Answer 200 ``ok`` while the machine takes calls, else 503 and one word why. Needs no login, tells nothing else."""
    standing = standing_of(services)
    return PlainTextResponse(standing.reason + "\n", status_code=200 if standing.taking_calls else 503)


@probes.api_route("/livez", methods=["GET", "HEAD"])
async def livez() -> PlainTextResponse:
    """Answer 200 while the desk itself runs."""
    return PlainTextResponse("ok\n")


@router.get("/health", dependencies=[Depends(require_api)])
def health(services: Desk) -> HealthOut:
    """Say how line and delivery are and which alarms are on, and which accounts are registered."""
    standing = standing_of(services)
    alarms = (*standing.alarms, *greeting_alarms(services))
    return HealthOut(
        status="alarm" if standing.status == "ok" and alarms else standing.status,
        version=services.version,
        taking_calls=standing.taking_calls,
        sip_address=standing.sip_address,
        line=RoleOut(up=standing.line_up, calls=standing.calls if standing.line_up else None),
        delivery=RoleOut(up=standing.delivery_up),
        alarms=[AlarmOut(code=alarm.code, text=alarm.text) for alarm in alarms],
        accounts=[AccountOut(name=name, registered=registered) for name, registered in standing.accounts],
        now=rfc3339(services.now_unix_ms()),
    )


@router.get("/session")
def session(services: Desk, user: ApiUser) -> SessionOut:
    """Say who is signed in, and the token that unsafe requests of a session must carry."""
    return SessionOut(
        via=user.via, csrf_token=user.csrf_token, password_set=services.catalog.password_hash() is not None
    )
