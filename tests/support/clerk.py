"""A clerk that does everything here and now, for tests that look at what was written."""

from __future__ import annotations

from aftertone.roles.clerk import Clerk, Job


class AtOnce(Clerk):
    """No thread, no waiting."""

    def write(self, kind: str, job: Job) -> None:
        """Do the job."""
        job()
