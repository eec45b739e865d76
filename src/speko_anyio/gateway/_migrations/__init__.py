"""Alembic's migrations of the database, one module each in ``versions``, never changed once released."""
