"""The steps that made the database what it is: Alembic's, one module each in ``versions``, never changed once
released."""
