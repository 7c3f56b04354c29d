"""Live cameras: what is watched, what happened, and who is told."""
