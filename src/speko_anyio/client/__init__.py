"""The anyio client: minting sessions over HTTP and holding them open, on asyncio, uvloop and trio."""
