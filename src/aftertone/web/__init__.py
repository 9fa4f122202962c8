"""The desk as HTTP: the API under ``/api/v1``, the pages, the event stream and the login.

Owns: everything a browser or an API client sees. Refuses to know: where the files lie, who runs the process, how a call
is taken. The catalog, the blobs and a handful of callables are handed in (``services.DeskServices``); ``app.create_app``
puts the rooms together.
"""

from __future__ import annotations
