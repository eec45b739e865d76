"""The network beneath a sans-IO core: streams, proxies, TLS, and the drivers that move bytes."""
