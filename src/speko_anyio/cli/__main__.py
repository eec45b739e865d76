"""``python -m speko_anyio.cli``: the same as `speko-anyio`."""

from .main import main

raise SystemExit(main())
