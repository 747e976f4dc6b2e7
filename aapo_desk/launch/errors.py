"""The exception raised by this package."""


class LaunchError(RuntimeError):
    """Raised if a process cannot be started, reached or ended. ``str()`` is one line for the user."""
