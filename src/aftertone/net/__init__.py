"""The asyncio shells: sockets and the clock around the machines of ``aftertone.sip``.

Owns: binding, reading, writing, connections, the one timer. Refuses to know: what SIP means, and what an event leads to.
"""
