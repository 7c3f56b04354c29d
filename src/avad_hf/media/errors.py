"""What is raised where a video cannot be read."""


class MediaError(ValueError):
    """A file, or what was given in its place, cannot be read as video. The message names it and says what to do."""
