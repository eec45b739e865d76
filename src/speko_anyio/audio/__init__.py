"""PCM16 audio: arithmetic (`pcm`), WAV files (`wav`) and streaming sample rate conversion (`resample`).

Importing this package, or any module of it, imports neither soxr nor numpy.
"""
