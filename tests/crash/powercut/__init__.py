"""Power cuts, played: every legal state of the disk after a cut at any moment of an evening, recovered and judged.

Start reading at `evening` (what happens), `disk` (what a cut may leave), `oracle` (what must be there), `search` (all of it).
"""
