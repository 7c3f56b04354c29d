"""Damaged and hostile files, a reader in a process of its own, and a judge of what it lost in silence."""
