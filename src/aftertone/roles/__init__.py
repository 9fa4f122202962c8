"""The processes of one machine: line, delivery, desk, scribe, and the supervisor that keeps them running."""
