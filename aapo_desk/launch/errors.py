"""What a launch can fail with."""


class LaunchError(RuntimeError):
    """A process that cannot be started, reached or ended. ``str()`` is one line for the user."""
