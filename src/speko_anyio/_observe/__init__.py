"""Observing sessions from outside: the interface of observers, and the log, which is one.

A session without observers loads none of this and makes no calls.
"""
