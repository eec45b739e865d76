"""Watching sessions from outside: what an observer is told, and the log that is one.

Nothing here is loaded, and no call is made, for a session that nobody watches.
"""
