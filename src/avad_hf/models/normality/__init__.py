"""What detectors that are fitted to normal footage alone have in common. It is no architecture itself."""
