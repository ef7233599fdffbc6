"""A client that went away before its answer was whole."""


class HungUp(Exception):
    """The client has gone."""
