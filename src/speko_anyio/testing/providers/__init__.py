"""Doubles of OpenAI Realtime, xAI Grok Voice and Gemini Live: scripted servers that imitate them."""

from __future__ import annotations

from ._double import ProviderDouble
from ._double_session import DoubleSession, Refusal, Request
from ._google import GoogleDouble, GoogleSession
from ._hearing import tone
from ._joined import Emitted, Joined
from ._openai import OpenAIDouble, OpenAISession
from ._phone_call import PhoneCall
from ._realtime import RealtimeDoubleSession
from ._script import (
    CallTools,
    Die,
    Expire,
    Fail,
    GoAway,
    Hangup,
    Incomplete,
    Pace,
    RateLimit,
    Reply,
    ReplyStep,
    RunTool,
    Say,
    Send,
    Silent,
    Wait,
)
from ._xai import XAIDouble, XAISession

__all__ = [
    "CallTools",
    "Die",
    "DoubleSession",
    "Emitted",
    "Expire",
    "Fail",
    "GoAway",
    "GoogleDouble",
    "GoogleSession",
    "Hangup",
    "Incomplete",
    "Joined",
    "OpenAIDouble",
    "OpenAISession",
    "Pace",
    "PhoneCall",
    "ProviderDouble",
    "RateLimit",
    "RealtimeDoubleSession",
    "Refusal",
    "Reply",
    "ReplyStep",
    "Request",
    "RunTool",
    "Say",
    "Send",
    "Silent",
    "Wait",
    "XAIDouble",
    "XAISession",
    "tone",
]
