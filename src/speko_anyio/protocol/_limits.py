"""How much a peer, or a careless caller, may make the core hold. Each limit has its reason."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Bounds on one session; the defaults suit speech and every one is checked before buffering."""

    max_message_size: int = 1024 * 1024
    """Bytes in one binary message, and in the fragments of one not yet complete. 1 MiB is 21 s of
    24 kHz PCM16 and the default of `websockets`. Breach: close code 1009."""

    max_text_size: int = 256 * 1024
    """Bytes in one text message. The largest honest one is a tool call or its result; OpenAI allows
    arguments far below this. Breach: close code 1009. A server that offers extensions reads their commands up
    to `max_message_size`, so that it can refuse one that is too long and the session goes on."""

    max_image_size: int = 4 * 1024 * 1024
    """Bytes in the file of one image: a photo of 12 megapixels as a JPEG; models scale down larger ones. A
    server that offers ``image`` reads commands of 4/3 of it, for the base64, and `max_text_size`. Breach: an
    `ErrorFrame` if the command fits in that, or else close code 1009."""

    max_fragments: int = 1024
    """Frames that one message may come in. Empty fragments cost the peer two bytes each and would
    otherwise never meet a size limit. Breach: close code 1008."""

    max_control_frames: int = 1024
    """Pings and pongs in a row with no message between them: five hours of keepalive at the usual 20 s,
    ten times the longest session. A ping costs us a reply, so a flood of them is an amplifier (compare
    CVE-2019-9512, "Ping Flood", of HTTP/2). Breach: close code 1008."""

    max_messages_per_second: int = 1000
    """Messages, control frames and fragments that a server takes from its client in the long run: five times
    speech at twice real time in messages of 10 ms. Each costs time of the loop that serves others, too.
    Breach: close code 1008. A client sets its server no such limit, since an answer may arrive much faster
    than speech."""

    max_messages_at_once: int = 20_000
    """The same for a burst, such as what a client sends after its network was gone: 200 s of speech in
    messages of 10 ms. Breach: close code 1008."""

    max_json_depth: int = 256
    """Nesting of arrays and objects in a text message; the protocol's own messages have depth 1.
    The decoder recurses, and the stack, of a thousand calls by default, belongs to the caller. A text of
    fewer than twice as many characters can't reach it, and is not searched. Breach: close code 1007."""

    max_open_calls: int = 256
    """Tool calls waiting for a result. Providers issue a handful in parallel; each one held keeps its id.
    Breach by the peer: close code 1008."""

    max_outbox: int = 16 * 1024 * 1024
    """Payload bytes queued and not yet taken with `data_to_send` or `messages_to_send`: 5 minutes of
    24 kHz PCM16. Breach by the caller: `LocalProtocolError`. Breach by replies a peer provokes and
    does not read: close code 1008."""


DEFAULT_LIMITS = Limits()
