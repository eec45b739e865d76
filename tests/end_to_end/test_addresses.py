"""IPv6 from the mint to the session: literal addresses keep their brackets where they have to."""

from __future__ import annotations

import socket

import anyio
import pytest

from speko_anyio import Ready, Speko
from speko_anyio.gateway import Gateway, running_gateway
from speko_anyio.gateway._session_handlers import echo
from tests.support.proxy import HTTPProxy, SOCKSProxy, running_proxy

pytestmark = pytest.mark.anyio

KEY = "sk_addresses_0123"


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
async def test_a_session_with_a_gateway_at_an_ipv6_address() -> None:
    gateway = Gateway(handlers={"echo": echo}, api_keys=[KEY])
    with anyio.fail_after(20):
        async with running_gateway(gateway, host="::1") as url, Speko(KEY, url) as speko:
            assert url.startswith("http://[::1]:")
            grant = await speko.realtime.create_session(provider="echo", model="any")
            assert grant.ws_url.startswith("ws://[::1]:")
            async with speko.realtime.open(grant) as session:
                assert isinstance(await session.receive(), Ready)


@pytest.mark.parametrize("kind", [HTTPProxy, SOCKSProxy])
async def test_through_a_proxy_the_address_is_the_proxys_to_reach(kind: type[HTTPProxy | SOCKSProxy]) -> None:
    gateway = Gateway(handlers={"echo": echo}, api_keys=[KEY], public_url="http://[::1]:9")
    with anyio.fail_after(20):
        async with running_gateway(gateway) as url, Speko(KEY, url) as speko:
            grant = await speko.realtime.create_session(provider="echo", model="any")
            port = int(url.rpartition(":")[2])
            async with running_proxy(kind({"::1": port})) as proxy:
                async with speko.realtime.open(grant, proxy=proxy.url()) as session:
                    assert isinstance(await session.receive(), Ready)
    assert proxy.targets == [("::1", 9)]
