"""Test doubles for applications of this library, and for the library itself: no network, no waiting."""
