"""The socket and the signals of a server that runs."""
