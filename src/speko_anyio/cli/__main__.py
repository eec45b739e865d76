"""``python -m speko_anyio.cli``: the same as `speko-anyio`."""

from ._main import main

raise SystemExit(main())
