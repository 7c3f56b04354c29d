"""Hides faces, number plates, masked ground and speech in videos with sound."""
