"""Doubles of OpenAI Realtime, xAI Grok Voice and Gemini Live: scripted servers that imitate them."""

from __future__ import annotations

from .double import ProviderDouble
from .double_session import DoubleSession, Refusal, Request
from .google import GoogleDouble, GoogleSession
from .hearing import tone
from .joined import Emitted, Joined
from .openai import OpenAIDouble, OpenAISession
from .realtime import RealtimeDoubleSession
from .script import (
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
from .xai import XAIDouble, XAISession

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
