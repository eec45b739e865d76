"""Between a sans-IO core and the network: streams, proxies, TLS, and the drivers that move bytes."""
