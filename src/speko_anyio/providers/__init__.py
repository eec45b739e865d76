"""Sans-IO dialects of the providers' own realtime protocols: no I/O, no clock, no async.

Each has the message-level interface of the Speko session (`speko_anyio.protocol.ClientDialect`), so whatever
drives one drives the other. Import them by module: `speko_anyio.providers.openai`, `.xai`, `.google`; and
`.bridge`, whose `Bridge` joins one of them to the client of a Speko session.
"""
